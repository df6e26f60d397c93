"""The fault harness finds nothing wrong, and finds what is wrong on purpose."""

import itertools
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from django.conf import settings

from benchmarks.faults import records
from benchmarks.faults.checker import Checker
from benchmarks.faults.ledger import Attempt, Ledger
from benchmarks.faults.rounds import Round
from benchmarks.faults.rounds import settings as settings_in_turn
from benchmarks.faults.setting import ISOLATIONS, Setting
from benchmarks.faults.world import World, world
from idempotency.digests import digest

pytestmark = pytest.mark.slow


_AMOUNTS = itertools.count(1)
"""So that no two rounds share a key."""


@pytest.fixture(scope="module")
def made() -> Iterator[World]:
    """Make one PostgreSQL for all tests of this module."""
    with world() as made:
        yield made


@pytest.fixture(scope="module")
def shop(made: World) -> Iterator[dict[str, str]]:
    """Serve one unbroken shop at all its doors for all tests of this module."""
    with made.shop() as urls:
        yield urls


def injected(
    made: World, urls: dict[str, str], faults: int, *names: str, setting: Setting | None = None
) -> Round:
    """Run one round of faults."""
    one = Round(1, names, faults, time.monotonic() + 90, setting or Setting())
    one.run(made, urls, _AMOUNTS)
    return one


def test_the_promise_holds_under_faults(made: World, shop: dict[str, str]) -> None:
    """Every payment is made once, whatever is killed, cut or restarted, and several at once."""
    names = ("kill", "terminate", "cut", "crash", "deadlock", "clock", "orphan", "disk-full")
    one = injected(made, shop, 30, *names)

    assert one.breaches == []
    assert one.record.acknowledged > 0
    assert one.record.together > 0


@pytest.mark.parametrize("isolation", ISOLATIONS[1:])
def test_what_cannot_be_serialized_is_told_so(
    made: World, shop: dict[str, str], isolation: str
) -> None:
    """A rival changes what the view has read: 503 with Retry-After, and the retry pays once."""
    one = injected(made, shop, 8, "overtake", setting=Setting(isolation))

    assert one.breaches == []
    assert one.record.answers["503 transaction-conflict"] > 0
    assert one.record.acknowledged > 0


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_a_promoted_standby_keeps_the_promise(made: World, shop: dict[str, str], mode: str) -> None:
    """What it has of a payment, it has whole; a synchronous one has all that was acknowledged."""
    one = injected(made, shop, 2, f"failover-{mode}", setting=Setting(standby=mode))

    assert one.breaches == []
    assert one.record.injected == {f"failover-{mode}": 2}
    assert one.record.acknowledged > 0
    assert mode == "async" or one.record.forgotten == 0


def test_half_a_request_is_not_taken_for_it(made: World, shop: dict[str, str]) -> None:
    """The client is cut off in its upload, or does not wait: whatever it sends, and to whom."""
    one = injected(made, shop, 60, "upload-fin", "upload-rst", "hang-up")

    assert one.breaches == []
    assert min(one.record.injected[name] for name in ("upload-fin", "upload-rst", "hang-up")) > 0
    assert one.record.answers["400 incomplete-body"] > 0
    assert one.record.acknowledged > 0


def test_a_replay_tells_only_what_the_standby_has(made: World, shop: dict[str, str]) -> None:
    """A COMMIT whose wait for a standby was ended is not acknowledged before one has it."""
    one = injected(made, shop, 1, "failover-parted", setting=Setting(standby="sync"))

    assert one.breaches == []
    assert one.record.injected == {"failover-parted": 1}
    assert one.record.acknowledged > 0


@pytest.mark.skipif(shutil.which("pgbouncer") is None, reason="there is no pgbouncer")
def test_the_promise_holds_through_pgbouncer(made: World, shop: dict[str, str]) -> None:
    """In transaction mode, also where PgBouncer itself is killed."""
    names = ("kill", "terminate", "cut", "bouncer-kill", "bouncer-restart")
    one = injected(made, shop, 20, *names, setting=Setting(is_pooled=True))

    assert one.breaches == []
    assert one.record.acknowledged > 0


@pytest.mark.parametrize(
    ("broken", "fault", "number", "kinds", "standby"),
    [
        ("lock", "delay", 12, "duplicate", "none"),
        ("save", "kill", 20, "duplicate", "none"),
        ("scope", "delay", 4, "loss", "none"),
        ("fsync", "delay delay crash", 40, "loss", "none"),
        ("clock", "clock", 60, "duplicate", "none"),
        ("whole", "upload-fin", 30, "half", "none"),
        ("confirm", "failover-parted", 3, "loss difference", "sync"),
    ],
)
def test_a_promise_broken_on_purpose_is_noticed(  # noqa: PLR0913  # what the table says
    made: World, *, broken: str, fault: str, number: int, kinds: str, standby: str
) -> None:
    """And the key's story is told, request by request."""
    setting = Setting(standby=standby)
    with made.shop(broken, kinds=["threads"]) as urls:
        one = injected(made, urls, number, *fault.split(), setting=setting)

    found = [breach for breach in one.breaches if breach.kind in kinds.split()]
    assert found
    assert len(str(found[0]).splitlines()) == len(found[0].story) + 1 > 1
    assert {it.kind for it in found} <= {*one.record.breaches}


def empty(made: World) -> None:
    """Take away what the rounds of other tests have left, and their standby."""
    made.set_up(Setting())
    with made.server.connect() as session:
        session.execute("TRUNCATE shop_payment, idempotency_key CASCADE")
        session.execute("UPDATE shop_account SET balance = 1e9")


def attempt(status: int, *, came: float, digest: str = "a", took: float = 0) -> Attempt:
    """Return the request of one payment that was not made."""
    return Attempt("payer-0", "payment-1-7", "view", 7, 0, came - took, took, status, digest=digest)


@pytest.mark.parametrize(
    ("answers", "losses", "found"),
    [
        ([attempt(201, came=1)], [], ["loss"]),
        ([attempt(201, came=1)], [2.0], ["forgotten"]),
        ([attempt(201, came=3, took=2)], [2.0], ["forgotten"]),
        ([attempt(201, came=3)], [2.0], ["loss"]),
        ([attempt(201, came=1), attempt(201, came=3, digest="b")], [2.0], ["loss"]),
        (
            [attempt(201, came=1), attempt(201, came=1.5, digest="b")],
            [2.0],
            ["difference", "forgotten"],
        ),
    ],
    ids=["never", "before it", "under way", "after it", "and again", "otherwise before"],
)
def test_an_asynchronous_standby_excuses_only_what_came_before_it(
    made: World,
    tmp_path: Path,
    answers: Sequence[Attempt],
    losses: list[float],
    found: list[str],
) -> None:
    """A loss counts apart where a standby took over after the answer, and is a breach elsewhere."""
    empty(made)
    ledger = Ledger(tmp_path / "ledger")
    for answer in answers:
        ledger.write(answer)
    with made.server.connect() as session:
        checker = Checker(ledger, session, losses)
        breaches = checker.check()

    forgotten = ["forgotten"] * len(checker.forgotten)
    assert [breach.kind for breach in breaches] + forgotten == found


PAY = (
    "INSERT INTO shop_payment (account_id, amount, currency, card, refunded, created_at) SELECT id,"
    " 0.07, 'EUR', '', false, now() FROM shop_account WHERE token = 'payer-0' RETURNING id"
)


@pytest.mark.parametrize(("losses", "found"), [([], {"foreign"}), ([2.0], set())])
def test_an_answer_of_another_payment_is_a_breach(
    made: World, tmp_path: Path, losses: list[float], found: set[str]
) -> None:
    """It may be another user's; but the number of one that was lost is given again."""
    empty(made)
    ledger = Ledger(tmp_path / "ledger")
    with made.server.connect() as session, session.transaction(force_rollback=True):
        (number,) = session.execute(PAY).fetchone() or (None,)
        ledger.write(replace(attempt(201, came=1), paid=int(str(number))))
        own = Checker(ledger, session, losses).check()
        ledger.write(replace(attempt(201, came=1), paid=int(str(number)) + 1))
        foreign = Checker(ledger, session, losses).check()

    assert {breach.kind for breach in foreign} - {breach.kind for breach in own} == found


def test_half_of_a_payment_is_torn(made: World, tmp_path: Path) -> None:
    """A payment without its answer is a breach, and so is an answer without its payment."""
    empty(made)
    ledger = Ledger(tmp_path / "ledger")
    ledger.write(attempt(201, came=1))
    with made.server.connect() as session:
        with session.transaction(force_rollback=True):
            session.execute(PAY)
            payment_alone = Checker(ledger, session).check()
        with session.transaction(force_rollback=True):
            (user,) = session.execute(
                "SELECT user_id FROM shop_account WHERE token = 'payer-0'"
            ).fetchone() or (None,)
            scope, key = f"user:{user}", attempt(201, came=1).key
            session.execute(
                "INSERT INTO idempotency_key (id, created_at, expires_at, completed_at, attempts,"
                " status, scope, key, operation, fingerprint, last_error, status_code, headers,"
                " body, trace) VALUES (%s, now(), now() + '1 day', now(), 1, 'completed', %s, %s,"
                " '', sha256(''), '', 201, '[]', '', '')",
                (digest(scope, key), scope, key),
            )
            answer_alone = Checker(ledger, session, losses=[2.0]).check()

    assert "torn" in {breach.kind for breach in payment_alone}
    assert "torn" in {breach.kind for breach in answer_alone}


def test_settings_take_turns() -> None:
    """Each isolation level meets no standby, each kind that a fault needs, and PgBouncer."""
    found = settings_in_turn(["kill", "failover-sync", "failover-async"], is_pooled=True)

    assert len(found) == len(set(found)) == 3 * 3 * 2
    assert settings_in_turn(["kill"], isolations=["serializable"]) == [Setting("serializable")]
    assert settings_in_turn(["bouncer-kill"]) == []
    assert {it.standby for it in settings_in_turn(["failover-parted"])} == {"sync"}
    assert {it.isolation for it in settings_in_turn(["overtake"])} == {*ISOLATIONS[1:]}


def test_rounds_are_kept_and_counted(tmp_path: Path) -> None:
    """The command counts a file's rounds, and runs nothing where there are enough faults in it."""
    file = tmp_path / "rounds.jsonl"
    record = records.Record(
        1,
        "read committed",
        {"kill": 100},
        {"kill": {"requests": 7, "duplicate": 1}},
        {"kill": [0.1]},
    )
    records.append(file, record)
    command = [sys.executable, "-m", "benchmarks.faults", "--resume", str(file)]
    run = subprocess.run(command, cwd=settings.CHECKOUT, capture_output=True, text=True, check=True)

    assert records.read(file) == [record]
    assert "| kill  |      100 |        7 |          1 |      0 |    100 |    100 |" in run.stdout
    records.append(file, records.Record(2, "read committed", breaches=["loss"], stories=["lost"]))
    told = subprocess.run(
        command, cwd=settings.CHECKOUT, capture_output=True, text=True, check=False
    )
    assert (told.returncode, "lost" in told.stdout) == (1, True)
