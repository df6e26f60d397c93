"""What people see and do: the checkout in a real Chromium, over real servers."""

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event
from typing import Any, Literal

import pytest
from axe_playwright_python.sync_playwright import Axe
from conftest import ServeShop
from django.contrib.sessions.models import Session
from django.db.transaction import atomic
from playwright.sync_api import Browser, Page
from support import DEADLINE, elsewhere, eventually, threads, waiting_for_a_lock

from idempotency.models import IdempotencyKey
from testproject.shop.models import Account, Payment
from testproject.shop.seed import ALICE

pytestmark = pytest.mark.slow

THANKS = "Thank you! Your order is on its way."


@pytest.fixture
def url(alice: Account, serve_shop: ServeShop) -> str:
    """Serve the shop to alice, and tell where."""
    return str(serve_shop("wsgi").base_url)


def log_in(page: Page) -> None:
    """Log in as alice, on a page that asks for it."""
    page.get_by_label("Username").fill(ALICE.name)
    page.get_by_label("Password").fill(ALICE.password)
    page.get_by_role("button", name="Log in").click()
    page.get_by_role("heading", name="Checkout").wait_for()


def choose_beans(page: Page, url: str) -> None:
    """Come to the checkout, and fill in the form but for the last click."""
    page.goto(f"{url}/checkout/")
    log_in(page)
    page.get_by_label("Coffee beans").check()


def pay(page: Page) -> None:
    """Click the button once."""
    page.get_by_role("button", name="Pay now").click()


def point(page: Page) -> None:
    """Move the mouse to the button."""
    box = page.get_by_role("button", name="Pay now").bounding_box()
    assert box
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)


def click(page: Page, count: int = 1) -> None:
    """Click where the mouse is, and wait for nothing but the post that this sends."""
    with page.expect_request(lambda request: request.method == "POST"):
        page.mouse.down(click_count=count)
        page.mouse.up(click_count=count)


def title(page: Page) -> str:
    """Give the page's only heading of the first level."""
    return page.get_by_role("heading", level=1).inner_text()


def key(page: Page) -> str | None:
    """Give the key in the form."""
    return page.locator("[name=idempotency_key]").get_attribute("value")


def payments() -> int:
    """Count the payments there are."""
    return elsewhere(Payment.objects.count)


@contextmanager
def slow_bank(account: Account) -> Iterator[None]:
    """Let payments from an account take as long as the block."""
    is_held, may_end = Event(), Event()

    def hold() -> None:
        with atomic():
            Account.objects.select_for_update().get(pk=account.pk)
            is_held.set()
            assert may_end.wait(DEADLINE)

    with threads() as start:
        holder = start(hold)
        assert is_held.wait(DEADLINE)
        try:
            yield
        finally:
            may_end.set()
            holder.result()


def pay_by_double_click(page: Page, account: Account) -> None:
    """Double-click while the bank is slow, and come to where that leads."""
    point(page)
    with slow_bank(account):
        click(page)  # two clicks that come before the first has posted are one to Chromium
        click(page, count=2)
        eventually(lambda: elsewhere(waiting_for_a_lock) == 2)
    page.wait_for_url("**/checkout/*/")


@pytest.mark.parametrize("server", ["wsgi", "asgi"])
def test_a_double_click_pays_once(
    page: Page, alice: Account, serve_shop: ServeShop, server: str
) -> None:
    """Chromium drops the first answer and shows the second: the receipt of the only payment."""
    choose_beans(page, str(serve_shop(server).base_url))
    sent: list[str] = []
    page.on("request", lambda request: sent.append(request.method))

    pay_by_double_click(page, alice)

    assert sent == ["POST", "POST", "GET"]
    assert (title(page), payments()) == ("Paid", 1)


def test_a_message_survives_a_double_click(page: Page, alice: Account, url: str) -> None:
    """From a session, under WSGI: on the receipt, or the page after it, and then never again."""
    choose_beans(page, url)
    pay_by_double_click(page, alice)

    def messages() -> list[str]:
        return page.get_by_role("status").all_inner_texts()

    def arrived() -> bool:
        # The receipt can be faster than the middleware of the first post, which saves the session.
        if not messages():
            page.reload()
        return messages() == [THANKS]

    eventually(arrived)
    page.reload()
    assert messages() == []


def test_going_back_and_paying_again_pays_once(
    browser: Browser, chromium: dict[str, Any], url: str
) -> None:
    """The page that was left is still there, key and all, and leads to the same receipt."""
    # Playwright switches off the cache of pages left, which people's browsers have.
    kept = {**chromium, "ignore_default_args": ["--disable-back-forward-cache"]}
    with browser.browser_type.launch(**kept) as one_with_memory:
        page = one_with_memory.new_page()
        choose_beans(page, url)
        pay(page)
        page.wait_for_url("**/checkout/*/")
        receipt = page.url

        page.evaluate("history.back()")
        page.get_by_role("heading", name="Checkout").wait_for()
        pay(page)
        page.get_by_role("heading", name="Paid").wait_for()

        assert (page.url, payments()) == (receipt, 1)


def test_going_back_to_a_page_that_is_gone_is_another_visit(page: Page, url: str) -> None:
    """The browser asks for it anew, and fills in what was typed; but the key is fresh."""
    choose_beans(page, url)
    before = key(page)
    pay(page)
    page.wait_for_url("**/checkout/*/")

    page.go_back()

    assert page.get_by_label("Coffee beans").is_checked()
    assert key(page) != before


def test_another_visit_is_another_purchase(page: Page, url: str) -> None:
    """No cache hands out the old key."""
    choose_beans(page, url)
    for _ in range(2):
        page.get_by_label("Coffee beans").check()
        pay(page)
        page.get_by_role("link", name="Buy something else").click()
        page.wait_for_url("**/checkout/")

    assert payments() == 2


def test_a_page_that_has_paid_cannot_buy_more(page: Page, url: str) -> None:
    """The refusal says so, and leads to a fresh form."""
    choose_beans(page, url)
    used = key(page)
    pay(page)
    page.get_by_role("link", name="Buy something else").click()
    page.get_by_label("Gooseneck kettle").check()
    page.locator("[name=idempotency_key]").evaluate("(field, key) => field.value = key", used)

    pay(page)
    assert title(page) == "This form was sent before, with other content"
    assert payments() == 1

    page.get_by_role("link", name="Open the form anew").click()
    page.get_by_label("Gooseneck kettle").check()
    pay(page)
    page.wait_for_url("**/checkout/*/")
    assert payments() == 2


def test_an_error_can_be_reloaded_and_corrected(page: Page, url: str) -> None:
    """The page is the same after reloading, fresh key and all."""
    choose_beans(page, url)
    page.get_by_label("Quantity").fill("99")
    pay(page)
    page.get_by_text("Choose a number from 1 to 20.").wait_for()
    fresh = key(page)

    page.reload()
    assert key(page) == fresh
    page.get_by_label("Quantity").fill("2")
    pay(page)
    page.wait_for_url("**/checkout/*/")

    assert payments() == 1
    assert page.get_by_text("49.00 €", exact=True).is_visible()


def test_after_a_declined_card_another_pays(page: Page, url: str) -> None:
    """The form comes back as it was filled in, with what the bank said."""
    choose_beans(page, url)
    page.get_by_label("0002").check()
    pay(page)
    assert "Your bank has declined the card." in page.get_by_role("alert").inner_text()
    assert payments() == 0

    page.get_by_label("4242").check()
    pay(page)
    page.wait_for_url("**/checkout/*/")
    assert payments() == 1


def test_who_is_told_to_wait_finds_the_receipt(page: Page, url: str, alice: Account) -> None:
    """The page for a request in progress asks to be reloaded, and that is enough."""
    choose_beans(page, url)
    page.set_extra_http_headers({"Prefer": "wait=0"})

    point(page)
    with slow_bank(alice):
        click(page)
        eventually(lambda: elsewhere(waiting_for_a_lock) == 1)  # it is the one that pays
        click(page)
        page.get_by_role("heading", name="Still working on it").wait_for()
    eventually(lambda: payments() == 1)
    page.reload()
    page.wait_for_url("**/checkout/*/")

    assert (title(page), payments()) == ("Paid", 1)


def test_a_lost_session_asks_for_the_login(page: Page, url: str) -> None:
    """What was posted then has done nothing, and the form is filled in anew."""
    choose_beans(page, url)
    elsewhere(Session.objects.all().delete)

    pay(page)
    log_in(page)
    assert (payments(), elsewhere(IdempotencyKey.objects.count)) == (0, 0)
    page.get_by_label("Coffee beans").check()
    pay(page)
    page.wait_for_url("**/checkout/*/")

    assert payments() == 1


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_pages_are_accessible(page: Page, url: str, scheme: Literal["light", "dark"]) -> None:
    """By the rules that axe can check, contrast among them; and they fit a small phone."""
    page.emulate_media(color_scheme=scheme)
    page.set_viewport_size({"width": 320, "height": 640})

    def check(heading: str) -> None:
        assert title(page) == heading
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        results = Axe().run(page)
        assert not results.violations_count, results.generate_report()

    page.goto(f"{url}/checkout/")
    check("Log in")
    log_in(page)
    check("Checkout")
    page.get_by_label("Quantity").fill("99")
    pay(page)
    check("Checkout")
    page.get_by_label("Coffee beans").check()
    page.get_by_label("Quantity").fill("1")
    page.get_by_label("0002").check()
    pay(page)
    check("Checkout")
    page.get_by_label("4242").check()
    pay(page)
    check("Paid")
    page.go_back()  # to a page that cannot be asked for anew, since it answered a post
    page.get_by_label("3155").check()
    pay(page)
    check("This form was sent before, with other content")
    page.goto(f"{url}/idempotency/policy/")
    check("Idempotency keys")
