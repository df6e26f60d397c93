"""The admin: who may see what, how a key stands, and that no page reads the whole table."""

import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from threading import Event
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Permission, User
from django.db import connection, transaction
from django.db.models.functions import Now
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone
from support import backend_pid, threads
from test_claims import abandon, claim, row, succeed

from idempotency import claims, exceptions, purges
from idempotency.admin import activity, changelist, display, evicting, wording
from idempotency.admin.dashboard import Dashboard
from idempotency.answers import Answer
from idempotency.digests import digest
from idempotency.models import IdempotencyKey, OutcomeCount, Purge
from idempotency.signals import Outcome

LIST = "/admin/idempotency/idempotencykey/"
EVICT = f"{LIST}evict/"
JSON = (("Content-Type", "application/json"),)
VIEW = "view_idempotencykey"
DELETE = "delete_idempotencykey"
ANSWER = "view_answer"
SECRET = Answer(201, (("X-Secret", "of-header"),), b'{"secret": "of-body"}')

Login = Callable[..., Client]


@pytest.fixture
def login(committed: None) -> Login:
    """Give clients of staff members who have the permissions that are named, and no others."""

    def login_with(*permissions: str) -> Client:
        user = User.objects.create_user("-".join(["staff", *permissions]), is_staff=True)
        user.user_permissions.set(Permission.objects.filter(codename__in=permissions))
        client = Client()
        client.force_login(user)
        return client

    return login_with


@pytest.fixture
def clerk(login: Login) -> Client:
    """A member of staff who may do all there is to be done."""
    return login(VIEW, DELETE, ANSWER)


def page_of(of: claims.Claim) -> str:
    """Give the address of a key's page."""
    return f"{LIST}{of.id}/change/"


def fail(mine: claims.Claim, error: str = "ValueError") -> None:
    """Make an attempt that fails."""
    claims.fail(abandon(mine), error)


def expire(mine: claims.Claim) -> None:
    """Let time pass until the key has expired."""
    IdempotencyKey.objects.filter(pk=mine.id).update(
        created_at=Now() - timedelta(days=3), expires_at=Now() - timedelta(hours=2)
    )


@contextmanager
def running(mine: claims.Claim) -> Iterator[int]:
    """Hold a key on another connection; give the process id of its server process."""
    is_held, may_end = Event(), Event()

    def hold() -> None:
        with claims.attempt(mine):
            pids.append(backend_pid())
            is_held.set()
            assert may_end.wait(60)
            claims.roll_back()

    pids: list[int] = []
    with threads() as start:
        held = start(hold)
        try:
            assert is_held.wait(60)
            yield pids[0]
        finally:
            may_end.set()
            held.result()


def states(response: Any) -> dict[str, str]:
    """Give the states in a list, as they are written, by key."""
    result_list = response.context["cl"].result_list
    return {key.key: wording.state_label(key) for key in result_list}


def text(response: Any) -> str:
    """Give a page without tags and needless space."""
    assert response.status_code == 200
    return " ".join(re.sub(r"<[^>]+>", " ", response.content.decode()).split())


def evict(client: Client, *keys: claims.Claim) -> Any:
    """Ask to evict keys, and say yes."""
    asked = client.get(EVICT, {"key": [str(key.id) for key in keys]})
    seen = re.findall(r'name="seen" value="([^"]+)"', asked.content.decode())
    assert len(seen) == len(keys)
    return client.post(EVICT, {"seen": seen}, follow=True)


def act(client: Client, action: str, *keys: claims.Claim, **values: Any) -> Any:
    """Choose an action for ticked keys."""
    ids = [str(key.id) for key in keys]
    return client.post(LIST, {"action": action, "_selected_action": ids, **values})


def exported(response: Any) -> list[dict[str, Any]]:
    """Read an export."""
    lines = b"".join(response.streaming_content).decode().splitlines()
    return [json.loads(line) for line in lines]


# Who may do what.


@pytest.mark.usefixtures("committed")
def test_strangers_are_sent_to_the_login() -> None:
    """From every page."""
    for address in (LIST, EVICT, page_of(claim())):
        assert Client().get(address).status_code == 302


def test_staff_needs_the_permission_to_view(login: Login) -> None:
    """Other permissions are no substitute."""
    mine = claim()
    succeed(mine)
    client = login(DELETE, ANSWER)

    for address in (LIST, EVICT, page_of(mine)):
        assert client.get(address).status_code == 403


def test_nobody_adds_changes_or_deletes(committed: None) -> None:
    """Not even a superuser, in the ways that Django has for it."""
    mine = claim()
    succeed(mine)
    client = Client()
    client.force_login(User.objects.create_superuser("root"))

    assert client.get(f"{LIST}add/").status_code == 403
    assert client.post(page_of(mine), {"scope": "other"}).status_code == 403
    assert client.post(f"{LIST}{mine.id}/delete/", {"post": "yes"}).status_code == 403
    act(client, "delete_selected", mine)
    assert row(mine).status == "completed"


def test_evicting_needs_a_permission_of_its_own(login: Login) -> None:
    """Whoever may only view is neither offered it, nor can do it."""
    mine = claim()
    succeed(mine)
    client = login(VIEW, ANSWER)

    assert "Evict" not in text(client.get(LIST))
    assert "Evict" not in text(client.get(page_of(mine)))
    assert client.get(EVICT, {"key": str(mine.id)}).status_code == 403
    assert client.post(EVICT, {"seen": [evicting.version(row(mine))]}).status_code == 403
    assert act(client, "evict", mine).status_code == 302
    assert row(mine)


def test_answers_are_hidden_without_a_permission_of_their_own(login: Login) -> None:
    """Headers and body are not even read; status and size are told."""
    mine = claim()
    succeed(mine, SECRET)
    client = login(VIEW, DELETE)

    with CaptureQueriesContext(connection) as queries:
        shown = client.get(page_of(mine)).content.decode()

    assert "of-header" not in shown
    assert "of-body" not in shown
    assert "Can view stored answers" in shown
    assert "21\xa0bytes" in shown
    for query in queries:
        assert '"headers"' not in query["sql"]
        assert '"body"' not in query["sql"].replace('LENGTH("idempotency_key"."body")', "")


def test_answers_are_shown_with_the_permission(login: Login) -> None:
    """To somebody who may not evict, too."""
    mine = claim()
    succeed(mine, SECRET)

    shown = text(login(VIEW, ANSWER).get(page_of(mine)))

    assert "X-Secret of-header" in shown
    assert "{ &quot;secret&quot;: &quot;of-body&quot; }" in shown


def test_answers_are_exported_with_the_permission_only(login: Login) -> None:
    """Not by asking for the action that is not offered."""
    mine = claim()
    succeed(mine, SECRET)

    client = login(VIEW, DELETE)
    assert "with their answers" not in text(client.get(LIST))
    assert act(client, "export_with_answers", mine).status_code == 302
    (line,) = exported(act(client, "export", mine))
    assert "of-" not in json.dumps(line)

    (line,) = exported(act(login(VIEW, ANSWER), "export_with_answers", mine))
    assert line["headers"] == [["X-Secret", "of-header"]]
    assert line["body"] == '{"secret": "of-body"}'


@pytest.mark.parametrize(
    "lookup", ["body__contains=x", "headers__icontains=x", "scope=x", "fingerprint__startswith=x"]
)
def test_nothing_is_looked_up_by_address(login: Login, lookup: str) -> None:
    """It would read the whole table, and tell by the number of results what an answer holds."""
    assert login(VIEW).get(f"{LIST}?{lookup}").status_code == 400


# How a key stands.


def test_the_list_tells_all_states(clerk: Client) -> None:
    """By row, lock and clock; and each can be filtered for."""
    done, failed, lost, old, busy = (
        claim(name) for name in ("done", "failed", "abandoned", "old", "busy")
    )
    succeed(done)
    fail(failed)
    fail(failed)
    abandon(lost)
    succeed(old)
    expire(old)

    with running(busy):
        listed = states(clerk.get(LIST))
        filtered = {
            state: states(clerk.get(LIST, {"state": state})) for state in IdempotencyKey.State
        }

    assert listed == {
        "done": "completed 201",
        "failed": "failed 2 times",
        "abandoned": "abandoned",
        "old": "expired",
        "busy": "running now",
    }
    assert {state: list(keys) for state, keys in filtered.items()} == {
        "completed": ["done"],
        "failed": ["failed"],
        "abandoned": ["abandoned"],
        "expired": ["old"],
        "running": ["busy"],
    }


def test_an_expired_key_that_runs_is_running(clerk: Client) -> None:
    """The lock counts for more than the clock."""
    mine = claim(ttl=timedelta(milliseconds=1))

    with running(mine):
        assert states(clerk.get(LIST)) == {mine.key: "running now"}
        assert "Server process" in text(clerk.get(page_of(mine)))


def test_a_key_that_failed_once_and_was_answered_then_is_completed(clerk: Client) -> None:
    """Its page still has the last error."""
    mine = claim("mine")
    fail(mine, "TimeoutError")
    succeed(mine)

    assert states(clerk.get(LIST)) == {"mine": "completed 201"}
    assert states(clerk.get(LIST, {"state": "failed"})) == {}
    assert "TimeoutError" in text(clerk.get(page_of(mine)))


def test_what_was_answered_meanwhile_is_not_called_abandoned(committed: None) -> None:
    """A row is read before its lock; one that seems to be nobody's is read again."""
    mine = claim()
    with running(mine):
        keys = IdempotencyKey.objects.with_state()
        stale = keys.get(pk=mine.id)
        stale.state = IdempotencyKey.State.ABANDONED  # as it seems when the lock has just gone
    succeed(mine)

    (settled,) = changelist.settled(keys, [stale])

    assert settled.state == IdempotencyKey.State.COMPLETED


def test_filters_by_answer_and_operation(clerk: Client) -> None:
    """Alone and together."""
    for key, code, operation in (
        ("a", 201, "POST pay/"),
        ("b", 402, "POST pay/"),
        ("c", 402, "POST ship/"),
    ):
        succeed(claim(key, operation=operation), Answer(code, (), b""))

    def found(**filters: str) -> set[str]:
        return set(states(clerk.get(LIST, filters)))

    assert found(status_code="4") == {"b", "c"}
    assert found(operation="POST pay/") == {"a", "b"}
    assert found(status_code="4", operation="POST pay/") == {"b"}
    assert found(status_code="nonsense") == {"a", "b", "c"}
    assert found(state="nonsense") == set()
    assert "POST ship/" in text(clerk.get(LIST))


def test_the_page_of_a_running_key_tells_who_holds_it(clerk: Client) -> None:
    """Process, application and for how long; afterwards nobody does."""
    mine = claim()

    with running(mine) as pid:
        shown = text(clerk.get(page_of(mine)))
        held = activity.holder(mine.id)

    assert f"Server process {pid}" in shown
    assert f"Application {connection.settings_dict['OPTIONS']['application_name']}" in shown
    assert "Connection idle in transaction" in shown
    assert held is not None
    assert held.state == "idle in transaction"
    assert held.waits_for == "Client: ClientRead"
    assert held.running_for is not None
    assert held.connected_for is not None
    assert timedelta(0) < held.running_for <= held.connected_for
    assert "held by" not in text(clerk.get(page_of(mine))).lower()
    assert activity.holder(mine.id) is None


def test_the_holder_is_told_as_far_as_postgresql_tells(committed: None) -> None:
    """A database user without the right to see others' statistics still sees the process."""
    mine = claim()

    with running(mine) as pid, transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("CREATE ROLE idempotency_stranger")  # goes with the rollback
        cursor.execute("GRANT SELECT ON idempotency_key TO idempotency_stranger")
        cursor.execute("SET LOCAL ROLE idempotency_stranger")
        held = activity.holder(mine.id)
        shown = display.holder(IdempotencyKey(pk=mine.id))
        count = activity.running()
        transaction.set_rollback(True)

    assert held == activity.Holder(
        pid, connection.settings_dict["OPTIONS"]["application_name"], None, None, "", None, None
    )
    assert "pg_read_all_stats" in shown
    assert count == activity.Running(1, None)


def test_a_key_that_is_not_held_any_more_says_so(committed: None) -> None:
    """The request may end between the look at the row and the look at its holder."""
    mine = claim()
    succeed(mine)

    assert "just ended" in display.holder(row(mine))


def test_a_page_tells_all_of_a_key(clerk: Client) -> None:
    """Its history in times, attempts and errors; of the fingerprint only the version."""
    mine = claim("mine", scope="tenant:a/user:1", fingerprints=(b"\x01" + b"\xab" * 32,))
    fail(mine, "TimeoutError")
    succeed(mine)

    response = clerk.get(page_of(mine))
    shown = text(response)

    assert "tenant:a/user:1" in shown
    assert "Attempts: 2" in shown
    assert "Last error: TimeoutError" in shown
    assert "Fingerprint: version 01" in shown
    assert b"abab" not in response.content
    assert re.search(r"Expires: .* \(in 59 minutes\)", shown)
    assert re.search(r"Completed: .* \(\d+ seconds? ago\)", shown)


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (Answer(204, (), b""), "Body: Empty"),
        (Answer(200, JSON, b"\x00\xff"), "00000000 00 ff"),
        (Answer(200, JSON, None), "too large to keep"),
        (Answer(200, JSON, b"x" * 2**17), "The first 64.0 KB of 128.0 KB"),
    ],
)
def test_every_body_can_be_shown(clerk: Client, answer: Answer, told: str) -> None:
    """Empty, binary, not kept, large."""
    mine = claim()
    succeed(mine, answer)

    assert told in text(clerk.get(page_of(mine)))


def test_what_clients_send_is_text(clerk: Client) -> None:
    """A hostile key, scope, header and body are shown, and none is a tag."""
    hostile = "<script>alert(1)</script>"
    mine = claim(hostile, scope=f"user:{hostile}", operation=f"POST {hostile}")
    headers = (("Content-Type", "text/html"), (f"X-{hostile}", f'"{hostile}'))
    succeed(mine, Answer(200, headers, f"<h1>{hostile}</h1>".encode()))

    confirmation = clerk.get(EVICT, {"key": str(mine.id)})
    for response in (clerk.get(LIST), clerk.get(page_of(mine)), confirmation):
        content = response.content.decode()
        assert hostile not in content
        assert "&lt;script&gt;alert(1)&lt;/script&gt;" in content
    for response in (evict(clerk, mine), clerk.get("/admin/")):
        assert hostile not in response.content.decode()
        assert "&lt;script&gt;" in response.content.decode()


# The list, in bounds.


def keys_of(response: Any) -> list[str]:
    """Give the keys of a page in their order."""
    return [key.key for key in response.context["cl"].result_list]


def test_older_keys_are_reached_window_by_window(
    clerk: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Newest first, none left out, none shown twice; and back to the first."""
    monkeypatch.setattr(changelist, "WINDOW", 5)
    names = [f"key-{number:02}" for number in range(12)]
    for name in names:
        succeed(claim(name))

    found, address = [], LIST
    while address:
        response = clerk.get(address)
        found.append(keys_of(response))
        older = response.context["cl"].older_url
        address = f"{LIST}{older}" if older else ""

    assert [len(window) for window in found] == [5, 5, 2]
    assert [name for window in found for name in window] == names[::-1]
    assert 'href="?">The newest keys' in response.content.decode()
    assert clerk.get(f"{LIST}?before=nonsense").status_code == 302
    assert clerk.get(f"{LIST}?before=2000-99-01T00:00").status_code == 302
    assert keys_of(clerk.get(f"{LIST}?before=2000-01-01T00:00")) == []


def test_a_window_of_failed_or_expired_keys_is_one_of_its_own(
    clerk: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are found however many newer ones there are."""
    monkeypatch.setattr(changelist, "WINDOW", 3)
    failed, old = claim("failed"), claim("old")
    fail(failed)
    succeed(old)
    expire(old)
    for _ in range(5):
        succeed(claim())

    assert keys_of(clerk.get(LIST, {"state": "failed"})) == ["failed"]
    assert keys_of(clerk.get(LIST, {"state": "expired"})) == ["old"]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("key-1", ["a", "b"]),
        ("a key-1", ["a"]),
        ("a:key-1", ["a"]),
        ("tenant:x/user:1 with:colons and spaces", ["tenant:x/user:1"]),
        ("tenant:x/user:1:with:colons and spaces", ["tenant:x/user:1"]),
        ("tenant:x/user:1", ["tenant:x/user:1"]),
        (str(digest("b", "key-1")), ["b"]),
        ("key", []),
        ("a:key-2", []),
        ("\0", ["a", "b", "tenant:x/user:1"]),
    ],
)
def test_search(clerk: Client, text: str, found: list[str]) -> None:
    """By key, by scope and key, by scope or by id; a text that is none of them finds nothing."""
    succeed(claim("key-1", scope="a"))
    succeed(claim("key-1", scope="b"))
    succeed(claim("with:colons and spaces", scope="tenant:x/user:1"))

    response = clerk.get(LIST, {"q": text})

    assert sorted(key.scope for key in response.context["cl"].result_list) == found


def test_the_order_is_the_one_that_has_an_index(clerk: Client) -> None:
    """Whatever an address asks for."""
    for name in "bac":
        succeed(claim(name))

    assert keys_of(clerk.get(LIST, {"o": "1"})) == ["c", "a", "b"]
    assert keys_of(clerk.get(LIST, {"o": "-1.3"})) == ["c", "a", "b"]


def fill(count: int) -> None:
    """Write many completed keys of few scopes."""
    rows = (
        IdempotencyKey(
            scope=f"user:{number % 50}",
            key=f"key-{number}",
            operation="POST pay/",
            fingerprint=b"1" * 33,
            expires_at=timezone.now() + timedelta(hours=1, seconds=number),
            status="completed",
            status_code=201,
            completed_at=timezone.now(),
            headers=[],
            last_error="ValueError" if number % 100 == 0 else "",
        )
        for number in range(1, count + 1)
    )
    IdempotencyKey.objects.bulk_create(rows, batch_size=5000)
    with connection.cursor() as cursor:
        cursor.execute("VACUUM ANALYZE idempotency_key")


ADDRESSES = (
    "",
    "?p=2",
    "?state=running",
    "?state=expired",
    "?state=completed",
    "?state=failed",
    "?state=abandoned",
    "?status_code=5",
    "?operation=POST+ship/",
    "?q=key-7",
    "?q=user:7+key-7",
    "?q=user:7",
    "?q=user:7&state=failed",
    "?q=user:7&status_code=5",
    "?q=nonsense",
    "?before=2000-01-01T00:00:00%2B00:00",
)


def scans(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Give the parts of a plan that read the table of keys."""
    if plan.get("Relation Name") == "idempotency_key":
        yield plan
    for part in plan.get("Plans", ()):
        yield from scans(part)


@pytest.mark.slow
def test_no_page_reads_the_whole_table(clerk: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every query of every list goes through an index, and reads no more rows than a window has."""
    monkeypatch.setattr(changelist, "WINDOW", 200)
    fill(6_000)
    key = IdempotencyKey.objects.get(key="key-7")
    addresses = [*(LIST + address for address in ADDRESSES), f"{LIST}{key.pk}/change/"]

    with CaptureQueriesContext(connection) as queries:
        for address in addresses:
            assert clerk.get(address).status_code == 200, address

    reading = [query["sql"] for query in queries if 'FROM "idempotency_key"' in query["sql"]]
    assert len(reading) > 2 * len(addresses)
    for sql in reading:
        with connection.cursor() as cursor:
            cursor.execute(f"EXPLAIN (ANALYZE, FORMAT JSON) {sql}")
            (((plan,),),) = cursor.fetchall()
        for scan in scans(plan["Plan"]):
            rows = scan["Actual Rows"] + scan.get("Rows Removed by Filter", 0)
            assert scan["Node Type"] != "Seq Scan", sql
            assert rows * scan["Actual Loops"] <= 2 * 201, sql


def test_nothing_is_counted_without_a_limit(clerk: Client) -> None:
    """An exact number of millions would take seconds."""
    succeed(claim())

    with CaptureQueriesContext(connection) as queries:
        for address in ADDRESSES:
            clerk.get(LIST + address)

    counts = [query["sql"] for query in queries if "COUNT(*)" in query["sql"]]
    assert counts
    assert all("LIMIT" in sql for sql in counts)


def test_the_number_of_queries_does_not_depend_on_the_number_of_keys(clerk: Client) -> None:
    """Nor on how many of them are in progress."""

    def count(address: str) -> int:
        with CaptureQueriesContext(connection) as queries:
            assert clerk.get(address).status_code == 200
        return len(queries)

    abandon(claim())
    few = [count(LIST), count(f"{LIST}?state=failed")]
    for _ in range(20):
        abandon(claim())
        succeed(claim())

    assert [count(LIST), count(f"{LIST}?state=failed")] == few
    assert few[0] <= 20


class KeysHaveAReplica:
    """Reads of the app's tables go to a database that is not there."""

    def db_for_read(self, model: Any, **hints: Any) -> str | None:
        """Send them away."""
        return "replica" if model._meta.app_label == "idempotency" else None


def test_all_is_read_where_it_is_written(clerk: Client, settings: Any) -> None:
    """A replica has no locks, and is behind."""
    settings.DATABASE_ROUTERS = [KeysHaveAReplica()]
    mine = claim("mine")
    succeed(mine, SECRET)

    for address in (LIST, f"{LIST}?state=completed", f"{LIST}?q=mine", page_of(mine)):
        assert "mine" in text(clerk.get(address))
    (line,) = exported(act(clerk, "export_with_answers", mine))
    assert line["key"] == "mine"
    assert "Evicted: mine" in text(evict(clerk, mine))

    settings.DATABASE_ROUTERS = []
    succeed(mine)
    settings.DATABASE_ROUTERS = [KeysHaveAReplica()]
    assert len(IdempotencyKey.objects.filter(key="mine").evict()) == 1


# Eviction.


def test_an_evicted_key_is_forgotten(clerk: Client) -> None:
    """The next request with it runs, and the history tells who did it."""
    mine = claim("k" * 255, scope="s" * 255)
    succeed(mine)

    asked = text(clerk.get(EVICT, {"key": str(mine.id)}))
    assert "done twice: a payment is taken twice" in asked
    assert row(mine)

    assert "Evicted:" in text(evict(clerk, mine))
    assert not IdempotencyKey.objects.exists()
    entry = LogEntry.objects.get()
    assert entry.is_deletion()
    assert entry.object_id == str(mine.id)
    assert mine.key in entry.change_message
    assert mine.scope in entry.change_message
    assert succeed(mine).number == 1
    assert mine.scope in text(clerk.get(f"{LIST}{mine.id}/history/"))


def test_a_running_key_is_not_evicted(clerk: Client) -> None:
    """Nobody waits for it, and the others of the same request are."""
    busy, done = claim("busy"), claim("done")
    succeed(done)

    with running(busy):
        shown = text(evict(clerk, busy, done))

    assert "Not evicted, because a request is running: busy of user:1" in shown
    assert "Evicted: done of user:1" in shown
    assert [key.key for key in IdempotencyKey.objects.all()] == ["busy"]
    assert LogEntry.objects.count() == 1


def test_a_key_that_has_changed_is_not_evicted(clerk: Client) -> None:
    """What was shown as failed may have been answered since: evicting that would be dangerous."""
    mine = claim("mine")
    fail(mine)
    asked = clerk.get(EVICT, {"key": str(mine.id)}).content.decode()
    succeed(mine)

    seen = re.findall(r'name="seen" value="([^"]+)"', asked)
    shown = text(clerk.post(EVICT, {"seen": seen}, follow=True))

    assert "something has happened since you looked: mine of user:1" in shown
    assert row(mine).status == "completed"


@pytest.mark.parametrize("seen", [[], ["nonsense"], ["' OR 1"], [f"{claim().id} 1 2"]])
def test_nonsense_evicts_nothing(clerk: Client, seen: list[str]) -> None:
    """And is no error."""
    succeed(claim())

    assert clerk.post(EVICT, {"seen": seen}).status_code == 302
    assert clerk.get(EVICT, {"key": seen}, follow=True).status_code == 200
    assert IdempotencyKey.objects.count() == 1


def test_ticked_keys_are_asked_about(clerk: Client) -> None:
    """Also one that has left the filtered list since it was ticked."""
    mine, other = claim("mine"), claim("other")
    succeed(mine)
    succeed(other)

    asked = act_filtered(clerk, "evict", mine)

    assert "mine" in asked
    assert "other" not in asked
    assert IdempotencyKey.objects.count() == 2


def act_filtered(client: Client, action: str, mine: claims.Claim) -> str:
    """Choose an action in a list that does not have the key any more."""
    data = {"action": action, "_selected_action": [str(mine.id)]}
    return text(client.post(f"{LIST}?state=failed", data))


def test_all_of_a_long_list_cannot_be_evicted_at_once(clerk: Client) -> None:
    """Nobody could read what was going to happen."""
    mine = claim()
    succeed(mine)

    response = act(clerk, "evict", mine, select_across="1")

    assert response.status_code == 302
    assert "Nothing was done" in text(clerk.get(LIST))
    assert row(mine)


# Export.


def test_an_export_has_a_line_for_each_key(clerk: Client) -> None:
    """Whatever the values hold: text stays text, other bytes are in base64."""
    formula, binary = claim('=HYPERLINK("http://x")'), claim("binary")
    succeed(formula, Answer(200, (), "Grüße\n".encode()))
    succeed(binary, Answer(200, (), b"\x00\xff"))
    lost = claim("lost")
    abandon(lost)

    response = act(clerk, "export_with_answers", formula, binary, lost)

    assert response["Content-Disposition"] == 'attachment; filename="idempotency-keys.jsonl"'
    lines = {line["key"]: line for line in exported(response)}
    assert set(lines) == {formula.key, "binary", "lost"}
    assert lines[formula.key]["body"] == "Grüße\n"
    assert lines["binary"]["body_base64"] == "AP8="
    assert lines["lost"]["state"] == "abandoned"
    assert "body" not in lines["lost"]


def test_all_of_a_filtered_list_can_be_exported(clerk: Client) -> None:
    """As many as its pages have."""
    mine, other = claim("mine"), claim("other")
    fail(mine)
    succeed(other)

    data = {"action": "export", "_selected_action": [str(mine.id)], "select_across": "1"}
    lines = exported(clerk.post(f"{LIST}?state=failed", data))

    assert [line["key"] for line in lines] == ["mine"]


# The dashboard.


def test_the_dashboard_counts_by_state(clerk: Client) -> None:
    """In the newest window, and links each to its filter."""
    succeed(claim())
    succeed(claim())
    fail(claim())

    response = clerk.get(LIST)

    assert "completed 2 failed 1" in text(response)
    assert f'href="{LIST}?state=failed"' in response.content.decode()


def test_the_dashboard_is_on_the_first_page_only(clerk: Client) -> None:
    """Other pages do not pay for it."""
    assert "idempotency-dashboard" in clerk.get(LIST).content.decode()
    for address in ("?state=failed", "?q=x", "?before=2030-01-01T00:00"):
        assert "idempotency-dashboard" not in clerk.get(LIST + address).content.decode()


@pytest.mark.usefixtures("committed")
def test_the_dashboard_tells_the_oldest_running_request() -> None:
    """However many keys there are, from the locks alone."""
    assert (Dashboard(5).running.count, Dashboard(5).oldest) == (0, None)

    with running(claim()), running(claim()):
        dashboard = Dashboard(5)
        assert dashboard.running.count == 2
        assert re.fullmatch(r"\d+ seconds?", dashboard.oldest or "")


@pytest.mark.usefixtures("committed")
def test_a_request_that_waits_for_another_does_not_count_as_running() -> None:
    """It has done nothing yet."""
    mine = claim()

    def wait() -> None:
        with pytest.raises(exceptions.RequestInProgress), claims.attempt(mine, wait=0.5):
            raise AssertionError("The key is held.")

    with running(mine), threads() as start:
        waiting = start(wait)
        counts = set()
        while not waiting.done():
            counts.add(activity.running().count)
        waiting.result()

    assert counts == {1}


@pytest.mark.usefixtures("committed")
def test_the_number_of_keys_is_exact_or_postgresqls_estimate() -> None:
    """Nobody counts millions; and a table without statistics is known by what was looked at."""
    with connection.cursor() as cursor:
        cursor.execute("TRUNCATE idempotency_key")  # forgets the statistics
    for _ in range(3):
        succeed(claim())

    assert Dashboard(4).rows == "3"
    assert Dashboard(3).rows == "more than 2"

    with connection.cursor() as cursor:
        cursor.execute("ANALYZE idempotency_key")

    assert Dashboard(3).rows == "about 3"


@pytest.mark.usefixtures("committed")
def test_expired_keys_are_counted_up_to_a_limit() -> None:
    """A purge that never ran may have left millions."""
    for _ in range(4):
        mine = claim()
        succeed(mine)
        expire(mine)

    assert Dashboard(4).expired == "4"
    assert Dashboard(3).expired == "more than 3"


def test_the_dashboard_tells_the_latest_purge(clerk: Client) -> None:
    """And warns when it is overdue."""
    assert "Latest purge none so far" in text(clerk.get(LIST))
    assert "overdue" not in text(clerk.get(LIST))

    Purge.objects.create(started_at=Now() - timedelta(hours=3), rows=12345)
    mine = claim()
    succeed(mine)
    IdempotencyKey.objects.filter(pk=mine.id).update(
        created_at=Now() - timedelta(days=9), expires_at=Now() - purges.OVERDUE - timedelta(hours=1)
    )

    shown = text(clerk.get(LIST))
    assert "Latest purge 3 hours ago removed: 12,345, has not ended" in shown
    assert "The purge is overdue: a key that expired 2 days, 1 hour ago is still there." in shown


def test_the_picture_has_a_column_for_each_hour(clerk: Client) -> None:
    """With the outcomes stacked, the highest as high as the picture; and the same as a table."""
    hour = timezone.now().replace(minute=0, second=0, microsecond=0)
    OutcomeCount.objects.bulk_create(
        OutcomeCount(hour=hour - timedelta(hours=ago), outcome=outcome, count=count)
        for ago, outcome, count in (
            (0, Outcome.EXECUTED, 1000),
            (0, Outcome.REPLAYED, 250),
            (1, Outcome.IN_PROGRESS, 5),
            (1, Outcome.RESPONSE_NOT_KEPT, 5),
            (24, Outcome.EXECUTED, 9999),
        )
    )

    response = clerk.get(LIST)
    dashboard = Dashboard(5)

    assert len(dashboard.hours) == 24
    *_, before, now = dashboard.hours
    assert [(bar.series, bar.y, bar.height) for bar in now.bars] == [
        ("executed", "20.00", "80.00"),
        ("replayed", "0.00", "20.00"),
    ]
    assert [(bar.series, bar.y, bar.height) for bar in before.bars] == [
        ("conflict", "99.20", "0.80")
    ]
    shown = text(response)
    assert "at most 1,250 an hour" in shown
    assert "first requests 1,000 replays 250 conflicts (409) 10" in shown
    assert re.search(r" 1000 250 0 0 0 0 ", shown)
    content = response.content.decode()
    assert content.count("<rect") == 3
    assert "style=" not in content[content.index("<figure") : content.index("</figure>")]


def test_every_outcome_is_in_the_picture() -> None:
    """Once."""
    from idempotency.admin.dashboard import SERIES

    outcomes = [outcome for _label, outcomes in SERIES.values() for outcome in outcomes]
    assert sorted(outcomes) == sorted(Outcome)


def test_the_admin_has_addresses_of_its_own_site(clerk: Client) -> None:
    """They are found by name, so that a site of another name has its own."""
    assert reverse("admin:idempotency_idempotencykey_evict") == EVICT
