"""The admin in a real Chromium: light and dark, on a desk and on a phone."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from conftest import ServeShop
from django.utils import timezone
from playwright.sync_api import Browser, Page, Route
from support import elsewhere
from test_admin import EVICT, JSON, LIST, fail, page_of, running
from test_claims import abandon, claim, succeed

from idempotency import claims
from idempotency.admin.dashboard import SERIES
from idempotency.answers import Answer
from idempotency.models import IdempotencyKey, OutcomeCount
from idempotency.signals import Outcome
from testproject.shop.models import Account
from testproject.shop.seed import CLERK

pytestmark = pytest.mark.slow

DESK, PHONE = {"width": 1280, "height": 900}, {"width": 360, "height": 740}
STRICT = "default-src 'self'"

OURS: Any = {"include": [["#content"]], "exclude": [["#toolbar"]]}
"""All but Django's search box, whose label is an icon only."""


@pytest.fixture
def url(alice: Account, serve_shop: ServeShop) -> str:
    """Serve the shop with its clerk, and tell where."""
    return str(serve_shop("wsgi").base_url)


@contextmanager
def clerk(browser: Browser, url: str, **look: Any) -> Iterator[Page]:
    """Give a page on which the clerk has logged in."""
    with browser.new_context(base_url=url, **look) as context:
        page = context.new_page()
        page.goto("/admin/")
        page.get_by_label("Username").fill(CLERK.name)
        page.get_by_label("Password").fill(CLERK.password)
        page.get_by_role("button", name="Log in").click()
        page.get_by_role("heading", name="Site administration").wait_for()
        yield page


@contextmanager
def strict_policy(page: Page) -> Iterator[None]:
    """Let a page allow nothing inline, and find nothing to complain about."""
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("dialog", lambda dialog: complaints.append(dialog.message))
    page.route("**/*", strictly)
    yield
    assert complaints == []


def strictly(route: Route) -> None:
    """Answer with a policy that allows nothing inline."""
    response = route.fetch(max_redirects=0)
    headers = {**response.headers, "content-security-policy": STRICT}
    route.fulfill(response=response, headers=headers)


def some_of_everything() -> dict[str, claims.Claim]:
    """Make a key of each kind, and a day's traffic."""
    names = ("json", "binary", "text", "failed", "lost", "old", "busy")
    keys = {name: claim(name) for name in names}
    succeed(keys["json"], Answer(201, JSON, b'{"id": 42, "card": {"last4": "4242"}}'))
    succeed(keys["binary"], Answer(200, JSON, bytes(range(256)) * 30))
    succeed(keys["text"], Answer(404, JSON, b"Not here. " * 200))
    fail(keys["failed"])
    abandon(keys["lost"])
    succeed(keys["old"])
    IdempotencyKey.objects.filter(key="old").update(
        created_at=timezone.now() - timedelta(days=9), expires_at=timezone.now() - timedelta(days=8)
    )
    hour = timezone.now().replace(minute=0, second=0, microsecond=0)
    OutcomeCount.objects.bulk_create(
        OutcomeCount(hour=hour - timedelta(hours=ago), outcome=outcome, count=10 + ago)
        for ago in range(24)
        for outcome in Outcome
    )
    return keys


def all_pages(keys: dict[str, claims.Claim]) -> list[str]:
    """Give the addresses of the list, of each key, and of the confirmation for some."""
    some = "&".join(f"key={keys[name].id}" for name in ("json", "failed", "busy"))
    return [LIST, *map(page_of, keys.values()), f"{EVICT}?{some}"]


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("size", [DESK, PHONE], ids=["desk", "phone"])
def test_every_page_can_be_read_by_everybody(
    browser: Browser, url: str, theme: str, size: dict[str, int]
) -> None:
    """With enough contrast, with names, and within the screen's width."""
    keys = elsewhere(some_of_everything)

    with running(keys["busy"]), clerk(browser, url, color_scheme=theme, viewport=size) as page:
        for address in all_pages(keys):
            page.goto(address)
            found = Axe().run(page, context=OURS)
            assert found.violations_count == 0, f"{address}\n{found.generate_report()}"
            width = page.evaluate("document.documentElement.scrollWidth")
            assert width <= size["width"], address


def test_no_page_needs_anything_inline(browser: Browser, url: str) -> None:
    """A policy that forbids inline styles and scripts may stay, and breaks nothing."""
    keys = elsewhere(some_of_everything)

    with running(keys["busy"]), clerk(browser, url) as page, strict_policy(page):
        for address in all_pages(keys):
            page.goto(address)
        page.goto(LIST)
        page.get_by_text("Figures by the hour").click()
        assert page.get_by_role("columnheader", name="mismatches").is_visible()
        assert page.locator("rect").count() == 24 * len(SERIES)


def test_nothing_that_was_stored_runs(browser: Browser, url: str) -> None:
    """A hostile answer, header, key and scope are shown: no script, no image, no dialog."""
    script = "<script>alert(1)</script><img src=x onerror=alert(2)>"
    hostile = claim(script, scope=f"user:{script}")
    answer = Answer(200, (("Content-Type", "text/html"), ("X-A", script)), script.encode())
    elsewhere(succeed, hostile, answer)

    with clerk(browser, url) as page, strict_policy(page):
        for address in (LIST, page_of(hostile), f"{EVICT}?key={hostile.id}"):
            page.goto(address)
            assert page.locator("#content").get_by_text("alert(1)").first.is_visible()
            assert page.locator("#content img[src=x]").count() == 0


def test_a_key_is_evicted_with_three_clicks_and_a_yes(browser: Browser, url: str) -> None:
    """From the list; who says no comes back to it."""
    elsewhere(succeed, claim("mine"))
    elsewhere(succeed, claim("other"))

    with clerk(browser, url) as page:
        page.goto(LIST)
        for answer in (page.get_by_role("link", name="No"), page.get_by_role("button", name="Yes")):
            page.get_by_role("row", name="mine").get_by_role("checkbox").check()
            page.get_by_role("combobox").select_option("Evict selected keys")
            page.get_by_role("button", name="Go").click()
            page.get_by_text("a payment is taken twice").wait_for()
            answer.click()
            page.get_by_role("heading", name="Select idempotency key to view").wait_for()
        assert page.get_by_text("Evicted: mine of user:1").is_visible()

    assert elsewhere(lambda: [key.key for key in IdempotencyKey.objects.all()]) == ["other"]
