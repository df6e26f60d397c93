"""The browsable API's field for the key: where it is, and what a real Chromium does with it."""

import json
import re
from collections.abc import Callable
from typing import Any
from uuid import UUID

import pytest
from conftest import ServeShop
from django.contrib.staticfiles import finders
from django.test import Client
from framework import FRAMEWORK
from playwright.sync_api import Page, Request, expect
from rest_framework import serializers
from rest_framework.decorators import action
from rest_framework.generics import GenericAPIView
from rest_framework.renderers import AdminRenderer, BrowsableAPIRenderer, JSONRenderer
from rest_framework.response import Response
from rest_framework.views import APIView
from rest_framework.viewsets import ViewSet
from support import elsewhere

from idempotency.browsable import KeyFieldRenderer
from idempotency.drf import IdempotencyMixin
from idempotency.options import Options
from testproject.shop.models import Account, Payment
from testproject.shop.seed import ALICE

RAW_POST = "idempotency-key-raw-post"
SCRIPT = 'src="/static/idempotency/browsable.js"'


class Order(serializers.Serializer[Payment]):
    """Something to fill in."""

    card = serializers.CharField()


class Orders(GenericAPIView[Payment]):
    """A view with every form there is."""

    serializer_class = Order
    authentication_classes = FRAMEWORK["authentication_classes"]  # type: ignore[assignment]

    def get(self, request: Any) -> Response:
        """Answer all methods alike."""
        return Response({})

    post = put = patch = get


class IdempotentOrders(IdempotencyMixin, Orders):
    """The same, idempotent."""


Fields = dict[str, tuple[str, UUID]]


@pytest.fixture
def look(alice: Account, serve: Callable[[Any], None]) -> Callable[[Any], tuple[str, Fields]]:
    """Give a view's page, and of each field for a key the methods it is for, and the key in it."""

    def look_at(view: Any) -> tuple[str, Fields]:
        serve(view)
        headers = {"Authorization": f"Bearer {ALICE.token}", "Accept": "text/html"}
        page = Client().get("/work/", headers=headers).content.decode()
        fields: Fields = {}
        for tag in re.findall(r"<input[^>]*data-idempotent-methods[^>]*>", page):
            named = dict(re.findall(r'([\w-]+)="([^"]*)"', tag))
            fields[named["id"]] = (named["data-idempotent-methods"], UUID(named["value"]))
            assert f'for="{named["id"]}"' in page
        return page, fields

    return look_at


def test_every_form_of_a_method_that_honours_keys_has_the_field(look: Any) -> None:
    """Each with a key of its own, fresh in every page; PUT does not honour one, and shares."""
    page, fields = look(IdempotentOrders.as_view())

    assert {name: methods for name, (methods, _) in fields.items()} == {
        "idempotency-key-form-post": "POST",
        RAW_POST: "POST",
        "idempotency-key-raw-patch": "PATCH",
    }
    assert SCRIPT in page
    keys = {key for _, key in [*fields.values(), *look(IdempotentOrders.as_view())[1].values()]}
    assert len(keys) == 6


def test_the_field_of_a_form_is_not_part_of_its_body(look: Any) -> None:
    """A form that is sent without our script does not send a field that nobody knows."""
    page, _ = look(IdempotentOrders.as_view())

    tag = re.search(r"<input[^>]*idempotency-key-form-post[^>]*>", page)
    assert tag
    assert " name=" not in tag[0]


def test_the_views_methods_decide(look: Any) -> None:
    """Here PUT honours a key, and POST does not."""
    _, fields = look(IdempotentOrders.as_view(idempotency={"methods": ["PUT", "DELETE"]}))

    assert {name: methods for name, (methods, _) in fields.items()} == {
        "idempotency-key-form-put": "PUT",
        "idempotency-key-raw-put": "PUT",
    }


def test_put_and_patch_share_a_form(look: Any) -> None:
    """With a button each; where both honour a key, the field is for both."""
    _, fields = look(IdempotentOrders.as_view(idempotency={"methods": ["PUT", "PATCH"]}))

    assert fields["idempotency-key-raw-put"][0] == "PUT PATCH"
    assert fields["idempotency-key-form-put"][0] == "PUT"


def test_a_view_without_a_serializer_has_raw_data_only(look: Any) -> None:
    """And the field with it."""

    class View(IdempotencyMixin, APIView):
        def get(self, request: Any) -> Response:
            return Response()

        post = get

    _, fields = look(View.as_view())

    assert set(fields) == {RAW_POST}


def test_options_of_an_action_decide(look: Any) -> None:
    """A view set may compute them from the action that a form would call."""

    class Views(IdempotencyMixin, ViewSet):
        def list(self, request: Any) -> Response:
            return Response()

        @action(detail=False, methods=["post"])
        def order(self, request: Any) -> Response:
            return Response()

        def get_idempotency_options(self) -> Options:
            return Options(methods=["POST"] if self.action == "order" else [])

        @action(detail=False, methods=["post"])
        def other(self, request: Any) -> Response:
            return Response()

    assert set(look(Views.as_view({"get": "list", "post": "order"}))[1]) == {RAW_POST}
    assert set(look(Views.as_view({"get": "list", "post": "other"}))[1]) == set()


def test_a_view_that_knows_nothing_of_keys_has_no_field(look: Any) -> None:
    """Not even where the project uses our renderer for all its views."""
    page, fields = look(Orders.as_view())
    assert (fields, SCRIPT in page) == ({}, False)

    _, fields = look(Orders.as_view(renderer_classes=[KeyFieldRenderer]))
    assert fields == {}


class OwnRenderer(BrowsableAPIRenderer):
    """A project's own."""


@pytest.mark.parametrize("renderer", [OwnRenderer, AdminRenderer])
def test_a_renderer_of_the_projects_own_is_left_alone(renderer: type[BrowsableAPIRenderer]) -> None:
    """Only what the framework comes with is replaced."""
    view = IdempotentOrders(renderer_classes=[JSONRenderer, renderer, BrowsableAPIRenderer])

    assert [type(it) for it in view.get_renderers()] == [JSONRenderer, renderer, KeyFieldRenderer]


def test_a_template_of_the_projects_own_is_used(look: Any, settings: Any) -> None:
    """Whoever has replaced ``rest_framework/api.html`` finds it replaced, and the field in it."""
    own = '{% extends "rest_framework/base.html" %}{% block branding %}The shop{% endblock %}'
    loaders = [
        ("django.template.loaders.locmem.Loader", {"rest_framework/api.html": own}),
        "django.template.loaders.app_directories.Loader",
    ]
    settings.TEMPLATES = [
        {**settings.TEMPLATES[0], "APP_DIRS": False, "OPTIONS": {"loaders": loaders}}
    ]

    page, fields = look(IdempotentOrders.as_view())

    assert "The shop" in page
    assert "idempotency-key-form-post" in fields
    assert SCRIPT in page


def test_the_script_is_found() -> None:
    """By Django's static files, from where the project collects it."""
    assert finders.find("idempotency/browsable.js")


# In a browser


FORM, RAW = "#post-object-form", "#post-generic-content-form"


@pytest.fixture
def address(alice: Account, serve_shop: ServeShop) -> str:
    """Serve alice's payments, and tell where."""
    return f"{serve_shop('wsgi').base_url}/api/payments/"


def visit(page: Page, address: str) -> None:
    """Open a page as alice."""
    page.set_extra_http_headers({"Authorization": f"Token {ALICE.token}"})
    page.goto(address)


def key_in(page: Page, form: str) -> str:
    """Give the key in the field of a form."""
    return page.locator(form).get_by_label("Idempotency-Key").input_value()


def submit(page: Page, form: str, *, key: str | None = None, amount: str = "12.50") -> Request:
    """Fill in a form, send it, and wait for the page that answers it."""
    if form == FORM:
        page.get_by_text("HTML form").click()
        page.locator("[name=amount]").fill(amount)
        page.locator("[name=currency]").fill("EUR")
    else:
        page.get_by_text("Raw data").click()
        order = {"amount": amount, "currency": "EUR", "card": "tok_visa"}
        page.locator(form).get_by_label("Content").fill(json.dumps(order))
    if key is not None:
        page.locator(form).get_by_label("Idempotency-Key").fill(key)
    page.locator("body").evaluate("body => body.dataset.sent = true")
    with page.expect_response(lambda response: response.request.method == "POST") as sent:
        page.locator(form).get_by_role("button", name="POST").click()
    expect(page.locator("body[data-sent]")).to_have_count(0)
    page.wait_for_function("document.readyState === 'complete'")
    return sent.value.request


def status(request: Request) -> tuple[int, bool]:
    """Give the status of a request's answer, and whether it was a replay."""
    response = request.response()
    assert response
    return response.status, "idempotent-replayed" in response.headers


@pytest.mark.parametrize("form", [FORM, RAW])
def test_a_form_sends_its_key(page: Page, address: str, form: str) -> None:
    """As the header; with the same key it is done once, and each page comes with a fresh one."""
    visit(page, address)
    first_key = key_in(page, form)

    first = submit(page, form)
    second_key = key_in(page, form)
    retry = submit(page, form, key=first_key)
    third_key = key_in(page, form)

    assert first.headers["idempotency-key"] == retry.headers["idempotency-key"] == first_key
    assert (status(first), status(retry)) == ((201, False), (201, True))
    assert elsewhere(Payment.objects.count) == 1
    assert len({first_key, second_key, third_key}) == 3
    assert "Payment List" in page.title()
    assert page.url == address


@pytest.mark.parametrize("form", [FORM, RAW])
def test_a_reused_key_is_told_in_a_page(page: Page, address: str, form: str) -> None:
    """The problem is a page like another."""
    visit(page, address)
    key = key_in(page, form)
    submit(page, form)

    assert status(submit(page, form, key=key, amount="13.00")) == (422, False)
    assert elsewhere(Payment.objects.count) == 1


@pytest.mark.parametrize("form", [FORM, RAW])
def test_an_empty_field_sends_no_key(page: Page, address: str, form: str) -> None:
    """The shop requires one, and says so."""
    visit(page, address)
    request = submit(page, form, key="")

    assert "idempotency-key" not in request.headers
    assert status(request) == (400, False)
    assert elsewhere(Payment.objects.count) == 0


@pytest.mark.parametrize("form", [FORM, RAW])
def test_the_csrf_token_goes_as_the_framework_sends_it(page: Page, address: str, form: str) -> None:
    """In its header; in the body, masked anew, it would make every form another request."""
    visit(page, address)
    request = submit(page, form)

    assert request.headers["x-csrftoken"]
    assert "csrfmiddlewaretoken" not in (request.post_data or "")


@pytest.mark.parametrize("form", [FORM, RAW])
def test_what_no_header_can_hold_is_not_sent(page: Page, address: str, form: str) -> None:
    """The browser says so, at the field."""
    visit(page, address)
    if form == RAW:
        page.get_by_text("Raw data").click()
    field = page.locator(form).get_by_label("Idempotency-Key")
    requests: list[Request] = []

    def note(request: Request) -> None:
        requests.append(request)

    page.on("request", note)

    field.fill("Schlüssel")
    page.locator(form).get_by_role("button", name="POST").click()

    expect(field).to_be_focused()
    assert field.evaluate("field => field.validity.patternMismatch")
    assert requests == []
    assert elsewhere(Payment.objects.count) == 0
