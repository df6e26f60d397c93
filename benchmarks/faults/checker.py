"""Compares what clients were told with what is in the database."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Final

import psycopg

from .clients import PATIENCE, is_definite
from .ledger import DEFINITE, Attempt, Ledger

BALANCE: Final = Decimal(10**9)
"""What every account has in the beginning."""

KINDS = ("loss", "duplicate", "difference", "refusal", "unusable", "unasked", "balance")
"""What can be wrong: an acknowledged payment is not there, or is there twice; two answers for one
key differ; a good payment was refused; a key had no answer in time; nobody asked for a payment;
a balance that is not what the payments have left."""


@dataclass(frozen=True, slots=True)
class Breach:
    """A broken promise."""

    kind: str
    fault: str
    sentence: str
    story: tuple[Attempt, ...] = ()

    def __str__(self) -> str:
        lines = [f"{self.kind}: {self.sentence}"]
        for attempt in self.story:
            at = datetime.fromtimestamp(attempt.sent, UTC).strftime("%H:%M:%S.%f")
            came = attempt.error or f"{attempt.status}{' replayed' * attempt.replayed}"
            lines.append(
                f"  {at} sender {attempt.sender}, after {attempt.took:.3f} s: {came}"
                f" {attempt.digest[:8]}"
            )
        return "\n".join(lines)


def check(ledger: Ledger, database: psycopg.Connection[tuple[object, ...]]) -> list[Breach]:
    """Give all broken promises, once every client has ended."""
    asked = ledger.payments()
    rows = database.execute(
        "SELECT token, (amount * 100)::bigint FROM shop_payment AS payment"
        " JOIN shop_account AS account ON account.id = payment.account_id"
    )
    made: Counter[tuple[object, ...]] = Counter(rows)
    breaches = [breach for attempts in asked.values() for breach in _of_key(attempts, made)]
    breaches += [
        Breach("unasked", "", f"{payment} was made, and nobody asked for it.")
        for payment in made.keys() - asked.keys()
    ]
    return breaches + list(_balances(database))


def _of_key(attempts: list[Attempt], made: Counter[tuple[object, ...]]) -> Iterator[Breach]:
    first = attempts[0]
    name = f"key {first.key} of {first.account}"
    effects = made[first.payment]

    def breach(kind: str, sentence: str) -> Breach:
        return Breach(kind, first.fault, f"{name} {sentence}", tuple(attempts))

    answers = [attempt for attempt in attempts if attempt.status == DEFINITE]
    if answers and not effects:
        yield breach("loss", "was acknowledged, and no payment was made.")
    if effects > 1:
        yield breach("duplicate", f"made {effects} payments.")
    if len({attempt.digest for attempt in answers}) > 1:
        yield breach("difference", "was given different answers.")
    for attempt in attempts:
        if is_definite(attempt.status) and attempt.status != DEFINITE:
            yield breach("refusal", f"was answered {attempt.status}.")
    answered = {attempt.sender for attempt in attempts if is_definite(attempt.status)}
    if {attempt.sender for attempt in attempts} - answered:
        yield breach("unusable", f"had no answer within {PATIENCE:g} s.")


def _balances(database: psycopg.Connection[tuple[object, ...]]) -> Iterator[Breach]:
    rows = database.execute(
        "SELECT token, balance, %s - coalesce(sum(amount), 0) FROM shop_account AS account"
        " LEFT JOIN shop_payment ON account_id = account.id GROUP BY account.id",
        (BALANCE,),
    )
    for token, balance, expected in rows:
        if balance != expected:
            yield Breach("balance", "", f"{token} has {balance}, and should have {expected}.")
