"""What is fuzzed: each target takes its seeds, and notices where the app reads something wrong."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support import CHECKOUT

from benchmarks.fuzz import targets
from idempotency import fingerprints, http

SEEDS = [(name, seed) for name, (_, seeds) in targets.TARGETS.items() for seed in seeds]


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forget what other tests have seen."""
    for name in ("_json", "_urlencoded", "_multipart", "_query", "_asgi"):
        monkeypatch.setattr(targets, name, targets.Pairing())


@pytest.mark.parametrize(("name", "seed"), SEEDS)
def test_a_target_takes_its_seeds(name: str, seed: bytes) -> None:
    """There is no difference in them, nor in any piece of them."""
    target, _ = targets.TARGETS[name]

    for end in range(len(seed) + 1):
        target(seed[:end])


def loses(old: str, new: str) -> Callable[[str], bytes]:
    """Give a canonical text that does not tell two characters apart."""
    return lambda text: text.replace(old, new).encode(errors="surrogatepass")


DOUBLES = json.JSONDecoder(
    object_pairs_hook=fingerprints._object,
    parse_float=lambda text: fingerprints._number(repr(float(text))),
    parse_int=fingerprints._number,
)

WRONG: dict[str, tuple[Any, str, Any, list[bytes]]] = {
    "key": (http, "_MAX_LENGTH", 254, [b"k" * 255]),
    "json": (fingerprints, "_JSON", DOUBLES, [b"0.1", b"0.1000000000000000055"]),
    "forms": (fingerprints, "_text", loses("b", "a"), [b"\x00a=1", b"\x00b=1"]),
    "query": (fingerprints, "_query", lambda request: request.META["QUERY_STRING"], [b"\xc3\xa4"]),
    "request": (http, "_MAX_LENGTH", 256, [b"k" * 256 + b"\napplication/json"]),
}
"""A room, what is put in place of something in it, and inputs that show the difference."""


@pytest.mark.parametrize("name", WRONG)
def test_a_target_notices_what_is_wrong(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Break the app on purpose, and it turns red; mend it, and it is green."""
    target, seeds = targets.TARGETS[name]
    room, part, wrong, inputs = WRONG[name]

    def run() -> None:
        for data in [*seeds, *inputs]:
            target(data)

    run()
    monkeypatch.setattr(room, part, wrong)
    with pytest.raises(targets.Difference):
        run()


@pytest.mark.slow
def test_an_input_can_be_given_again(tmp_path: Path) -> None:
    """Without the engine, which is for Linux only."""
    path = tmp_path / "fuzz-key.input"
    path.write_bytes(b'"a"')

    command = [sys.executable, "-m", "benchmarks.fuzz", "--only", "key", "--reproduce", str(path)]
    result = subprocess.run(
        command,
        cwd=CHECKOUT,
        env=os.environ | {"DATABASE_URL": "dbname=none"},
        capture_output=True,
        check=False,
    )

    assert (result.returncode, result.stderr) == (0, b"")
