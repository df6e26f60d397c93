"""Fuzz what clients send, and print what was tried: ``python -m benchmarks.fuzz --help``."""

import argparse
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks import tables

from .targets import TARGETS

_COMMAND = (
    "import atheris\n"
    "with atheris.instrument_imports(include=['idempotency', 'http_sf']):\n"
    "    from benchmarks.fuzz import engine\n"
    "engine.fuzz()\n"
)
"""What the child runs: code is instrumented when it is imported, so Atheris comes first."""

_PATIENCE = 10
"""Seconds that one input may take."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one target."""

    executions: int
    coverage: int
    """Edges of instrumented code that were reached."""
    corpus: int
    """Inputs that each reached something the others do not."""
    report: str
    """What libFuzzer and Python had to say."""
    finding: bytes | None
    """The input that something is wrong with."""


def main() -> None:
    """Fuzz target after target; exit with 1 and the input where something is wrong."""
    arguments = _arguments()
    if arguments.reproduce:
        (name,) = arguments.only
        TARGETS[name][0](arguments.reproduce.read_bytes())
        return
    if not find_spec("atheris"):
        sys.exit("Fuzzing needs atheris, which is for Linux: python -m pip install -e '.[fuzz]'")
    outcomes = {
        name: _fuzz(name, arguments.seconds, arguments.seed) for name in arguments.only or TARGETS
    }
    tables.show(
        f"Inputs tried, {arguments.seconds} s each, seed {arguments.seed}",
        ("target", "executions", "edges reached", "corpus", "findings"),
        [
            (name, one.executions, one.coverage, one.corpus, int(one.finding is not None))
            for name, one in outcomes.items()
        ],
    )
    found = {name: one for name, one in outcomes.items() if one.finding is not None}
    for name, one in found.items():
        _tell(name, one)
    sys.exit(1 if found else 0)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m benchmarks.fuzz", description=__doc__)
    parser.add_argument("--seconds", type=tables.at_least(1), default=60, help="a target: 60")
    parser.add_argument("--seed", type=tables.at_least(1), default=1, help="of all chance: 1")
    parser.add_argument("--only", nargs="+", choices=TARGETS, help="these targets: all")
    parser.add_argument(
        "--reproduce", type=Path, metavar="FILE", help="give this input to the target of --only"
    )
    arguments = parser.parse_args()
    if arguments.reproduce and len(arguments.only or ()) != 1:
        parser.error("--reproduce needs --only with one target")
    return arguments


def _fuzz(name: str, seconds: int, seed: int) -> Outcome:
    with TemporaryDirectory() as folder:
        corpus = Path(folder, "corpus")
        corpus.mkdir()
        for number, start in enumerate(TARGETS[name][1]):
            (corpus / str(number)).write_bytes(start)
        command = [sys.executable, "-c", _COMMAND, name, f"-max_total_time={seconds}"]
        command += [f"-seed={seed}", f"-timeout={_PATIENCE}", "-print_final_stats=1"]
        command += [f"-artifact_prefix={folder}/found-", str(corpus)]
        # It uses no database, so none is started for it.
        environment = os.environ | {"DATABASE_URL": "dbname=none"}
        child = subprocess.run(  # noqa: S603  # our own command
            command, env=environment, capture_output=True, check=False
        )
        report = (child.stdout + child.stderr).decode(errors="replace")
        artifacts = sorted(Path(folder).glob("found-*"))
        if child.returncode and not artifacts:
            raise ChildProcessError(report)
        return Outcome(
            executions=_last(r"stat::number_of_executed_units: *(\d+)", report),
            coverage=_last(r"\bcov: (\d+)", report),
            corpus=_last(r"\bcorp: (\d+)", report),
            report=report,
            finding=artifacts[0].read_bytes() if artifacts else None,
        )


def _last(pattern: str, text: str) -> int:
    return int((re.findall(pattern, text) or [0])[-1])


def _tell(name: str, outcome: Outcome) -> None:
    finding = outcome.finding or b""
    path = Path(f"fuzz-{name}.input")
    path.write_bytes(finding)
    lines = (it for it in outcome.report.splitlines() if not it.startswith(("INFO:", "#")))
    story = "\n".join(lines).strip()
    tables.console.print(f"\n{name}: {finding!r}\n{story[:4000]}")
    again = f"python -m benchmarks.fuzz --only {name} --reproduce {path}"
    tables.console.print(f"\nAgain: {again}", style="bold")


if __name__ == "__main__":
    main()
