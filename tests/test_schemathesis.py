"""The shop's API does what its schema says: Schemathesis tries, on a real server."""

import os
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Any

import httpx
import pytest
import schemathesis
from conftest import ServeShop
from django.db import connection

from testproject.shop.models import Account, Payment
from testproject.shop.seed import ALICE

pytestmark = pytest.mark.slow

STATUSES = {
    "tok_visa": 201,
    "tok_binary": 201,
    "tok_declined": 402,
    "tok_returns_402": 402,
    "tok_returns_400": 400,
    "tok_returns_500": 500,
    "tok_error": 500,
}
"""What the cards answer; tok_slow is like tok_visa, and 3 s are long."""

TOKEN = f"Token {ALICE.token}"


@pytest.fixture
def client(serve_shop: ServeShop, alice: Account) -> httpx.Client:
    """The served shop, where alice has a payment, and money for many more."""
    Account.objects.update(balance=10**9)
    with connection.cursor() as cursor:
        cursor.execute("SELECT nextval('shop_payment_id_seq')")  # so that 1 is free, and stays so
    Payment.objects.create(pk=1, account=alice, amount=1, currency="EUR", card="tok_visa")
    return serve_shop("wsgi")


def test_schemathesis_finds_no_answer_that_is_not_documented(
    client: httpx.Client, tmp_path: Path
) -> None:
    """Whatever it sends as alice, and without her: no 500, and only what the schema has."""
    # Valid data may be refused: keys can be used already, accounts empty, payments given back.
    command = [sys.executable, "-m", "schemathesis.cli", "run", f"{client.base_url}/api/schema/"]
    command += ["--header", f"Authorization: {TOKEN}", "--exclude-checks=positive_data_acceptance"]
    command += ["--phases=examples,coverage,fuzzing", "--max-examples=15"]
    command += ["--generation-deterministic", "--continue-on-failure", "--no-color"]
    hooks = {"SCHEMATHESIS_HOOKS": "schemathesis_hooks", "PYTHONPATH": str(Path(__file__).parent)}

    run = subprocess.run(
        command, env=os.environ | hooks, cwd=tmp_path, text=True, capture_output=True, check=False
    )

    assert run.returncode == 0, run.stdout + run.stderr
    assert "5 selected / 5 total" in run.stdout
    assert Payment.objects.count() > 1, "Nothing that it sent was a payment."


@pytest.mark.parametrize("card", STATUSES)
def test_every_card_answers_as_documented(client: httpx.Client, card: str) -> None:
    """The first time, and replayed or run again; and so does the state of its key."""
    schema: Any = schemathesis.openapi.from_url(f"{client.base_url}/api/schema/")
    payments, keys = schema["/api/payments/"]["POST"], schema["/api/keys/{key}/"]["GET"]
    body = {"amount": "12.50", "currency": "EUR", "card": card}
    key = str(uuid.uuid4())
    headers = {"Authorization": TOKEN, "Idempotency-Key": key}

    for _ in range(2):
        response = client.post("/api/payments/", json=body, headers=headers)
        assert response.status_code == STATUSES[card]
        documented = payments.definition.raw["responses"][str(response.status_code)]
        assert response.headers["Content-Type"].partition(";")[0] in documented["content"]
        payments.validate_response(response)

    response = client.get(f"/api/keys/{key}/", headers=headers)
    assert response.status_code == 200
    keys.validate_response(response)
