"""Compares what clients were told with what is in the database."""

from bisect import bisect
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Final
from uuid import UUID

import psycopg

from .clients import PATIENCE
from .ledger import DEFINITE, Attempt, Ledger

BALANCE: Final = Decimal(10**9)
"""What every account has in the beginning."""

KINDS = (
    "loss",
    "duplicate",
    "difference",
    "foreign",
    "torn",
    "half",
    "refusal",
    "unusable",
    "silent",
    "unasked",
    "balance",
)
"""What can be wrong: an acknowledged payment is not there, or is there twice; two answers for one
key differ; an answer is of another payment; the payment is there and the answer is not, or
the other way round; a part of a request was taken for the whole; a good payment was refused; a key
had no answer in time; a 409 or 503 that does not say when to try again; a payment that was not
asked for; a balance that is not what the payments have left."""

Payment = tuple[str, int]


@dataclass(frozen=True, slots=True)
class Breach:
    """A broken promise."""

    kind: str
    sentence: str
    story: tuple[Attempt, ...] = ()

    def __str__(self) -> str:
        lines = [f"{self.kind}: {self.sentence}"]
        for attempt in self.story:
            at = datetime.fromtimestamp(attempt.sent, UTC).strftime("%H:%M:%S.%f")
            came = attempt.error or f"{attempt.answer}{' replayed' * attempt.replayed}"
            door = ", ".join(filter(None, (attempt.door, attempt.part)))
            lines.append(
                f"  {at} sender {attempt.sender}, {door}, after {attempt.took:.3f} s:"
                f" {came} {attempt.digest[:8]}"
            )
        return "\n".join(lines)


@dataclass
class Checker:
    """What is known once every client has ended."""

    ledger: Ledger
    database: psycopg.Connection[tuple[object, ...]]
    losses: Sequence[float] = ()
    """When an asynchronous standby took over, in order: what was acknowledged before can be gone,
    but only the payment together with its answer."""

    def __post_init__(self) -> None:
        self.forgotten: list[Payment] = []
        """What was acknowledged, and lost with the primary of an asynchronous standby."""

    def check(self) -> list[Breach]:
        """Return all broken promises."""
        asked = self.ledger.payments()
        made = self._payments()
        answered = Counter(self.rows(only_completed=True).values())
        breaches = [
            breach
            for payment, attempts in asked.items()
            for breach in self._of_key(attempts, made[payment], answered[payment])
        ]
        breaches += [
            Breach("unasked", f"{payment} was made, and not asked for.")
            for payment in made.keys() - asked.keys()
        ]
        return breaches + list(self._balances())

    def rows(self, *, only_completed: bool = False) -> dict[UUID, Payment]:
        """Return the payment that each row of the app's own table is for."""
        rows = self.database.execute(
            "SELECT idempotency_key.id, token, split_part(key, '-', 3)::bigint FROM idempotency_key"
            " JOIN shop_account ON scope = 'user:' || user_id"
            " WHERE status = 'completed' OR NOT %s",
            (only_completed,),
        )
        return {UUID(str(row)): (str(token), int(str(amount))) for row, token, amount in rows}

    def _of_key(self, attempts: list[Attempt], made: set[int], kept: int) -> Iterator[Breach]:
        first, effects = attempts[0], len(made)
        name = f"key {first.key} of {first.account}"
        answers = [attempt for attempt in attempts if attempt.status == DEFINITE]
        is_gone = bool(answers) and not effects
        last_loss = max(self.losses, default=0)
        # An answer can be under way, and its COMMIT with the primary that is lost.
        if is_gone and not kept and max(a.sent for a in answers) < last_loss:
            self.forgotten.append(first.payment)
            is_gone = False
        told = {
            (bisect(self.losses, attempt.came), attempt.digest)
            for attempt in answers
            if bisect(self.losses, attempt.sent) == bisect(self.losses, attempt.came)
        }
        # The number of one that was lost may be given again.
        others = {a.paid for a in answers if a.sent > last_loss} - made
        found = {
            "loss": is_gone and "was acknowledged, and no payment was made",
            "duplicate": effects > 1 and f"made {effects} payments",
            "difference": len(told) > len({age for age, _ in told}) and "was answered differently",
            "foreign": made and others and f"was answered with the payments {others}, not {made}",
            "torn": bool(effects) != bool(kept) and f"has {effects} payments and {kept} answers",
            **_wrong_answers(attempts),
        }
        for kind, sentence in found.items():
            if sentence:
                yield Breach(kind, f"{name} {sentence}.", tuple(attempts))

    def _payments(self) -> defaultdict[Payment, set[int]]:
        """Return the primary keys of what was made for each payment."""
        rows = self.database.execute(
            "SELECT token, (amount * 100)::bigint, payment.id FROM shop_payment AS payment"
            " JOIN shop_account AS account ON account.id = payment.account_id"
        )
        found = defaultdict(set)
        for token, amount, number in rows:
            found[str(token), int(str(amount))].add(int(str(number)))
        return found

    def _balances(self) -> Iterator[Breach]:
        rows = self.database.execute(
            "SELECT token, balance, %s - coalesce(sum(amount), 0) FROM shop_account AS account"
            " LEFT JOIN shop_payment ON account_id = account.id GROUP BY account.id",
            (BALANCE,),
        )
        for token, balance, expected in rows:
            if balance != expected:
                yield Breach("balance", f"{token} has {balance}, and should have {expected}.")


def _wrong_answers(attempts: list[Attempt]) -> dict[str, str]:
    definite = [attempt for attempt in attempts if attempt.is_definite]
    refused = {attempt.answer for attempt in definite if attempt.status != DEFINITE}
    silent = {a.answer for a in attempts if a.status in {409, 503} and not a.retry_after}
    unanswered = {attempt.sender for attempt in attempts} - {a.sender for a in definite}
    half = [attempt.part for attempt in attempts if attempt.part and attempt.status == DEFINITE]
    return {
        "half": f"was acknowledged after a part: {', '.join(half)}" if half else "",
        "refusal": f"was answered {', '.join(refused)}" if refused else "",
        "silent": f"was answered {', '.join(silent)} without Retry-After" if silent else "",
        "unusable": f"had no answer within {PATIENCE:g} s" if unanswered else "",
    }
