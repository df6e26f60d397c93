"""The browsable API's field for the key: where it is, and where it is not."""

import re
from collections.abc import Callable
from typing import Any
from uuid import UUID

import pytest
from conftest import FRAMEWORK
from django.contrib.staticfiles import finders
from django.test import Client
from rest_framework import serializers
from rest_framework.decorators import action
from rest_framework.generics import GenericAPIView
from rest_framework.renderers import AdminRenderer, BrowsableAPIRenderer, JSONRenderer
from rest_framework.response import Response
from rest_framework.views import APIView
from rest_framework.viewsets import ViewSet

from idempotency.browsable import KeyFieldRenderer
from idempotency.drf import IdempotencyMixin
from idempotency.flow import Options
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

        create = list

    assert set(look(Views.as_view({"get": "list", "post": "order"}))[1]) == {RAW_POST}
    assert set(look(Views.as_view({"get": "list", "post": "create"}))[1]) == set()


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
