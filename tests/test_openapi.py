"""What drf-spectacular says of our doors, with no word from their users."""

import json
import re
import subprocess
import sys
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import pytest
from django.core.management import call_command
from django.test import Client
from django.urls import path
from drf_spectacular.drainage import GENERATOR_STATS
from drf_spectacular.extensions import OpenApiViewExtension
from drf_spectacular.generators import SchemaGenerator
from drf_spectacular.openapi import AutoSchema
from drf_spectacular.settings import patched_settings
from drf_spectacular.utils import OpenApiParameter, OpenApiResponse, extend_schema
from drf_spectacular.validation import validate_schema
from hypothesis import example, given
from hypothesis import strategies as st
from rest_framework import serializers
from rest_framework.decorators import action, api_view
from rest_framework.mixins import CreateModelMixin
from rest_framework.response import Response
from rest_framework.routers import SimpleRouter
from rest_framework.schemas.openapi import AutoSchema as FrameworksOwnSchema
from rest_framework.test import APIRequestFactory
from rest_framework.views import APIView
from rest_framework.viewsets import GenericViewSet
from support import CHECKOUT

from idempotency import http, openapi, operations
from idempotency.decorators import idempotent
from idempotency.drf import IdempotencyMixin, KeyStatusView
from idempotency.exceptions import InvalidKey
from testproject.shop.models import Account
from testproject.shop.seed import ALICE

Generator: Any = SchemaGenerator
validate: Any = validate_schema
replace: Any = openapi.IdempotencyExtension

DOOR = {
    "400": {"invalid-key", "incomplete-body", "unscoped-caller"},
    "409": {"request-in-progress", "response-not-kept"},
    "411": {"length-required"},
    "422": {"key-reused"},
    "503": {"store-unavailable", "outcome-unknown", "transaction-conflict"},
}
"""The problems of any door, by status."""


class Order(serializers.Serializer[Any]):
    """What the views of these tests take and give."""

    amount = serializers.IntegerField()


def respond(request: Any, **kwargs: Any) -> Response:
    """Answer anything."""
    return Response({"amount": 1})


def function(**options: Any) -> Any:
    """Give a function with @idempotent below @api_view."""

    def post(request: Any) -> Response:
        return respond(request)

    view = api_view(["POST", "PUT", "GET"])(idempotent(**options)(post))
    return extend_schema(request=Order, responses={200: Order, 404: Order, 403: Order})(view)


class OrderView(IdempotencyMixin, APIView):
    serializer_class = Order

    @extend_schema(responses={200: Order, 404: Order, 403: Order})
    def post(self, request: Any, **kwargs: Any) -> Response:
        return respond(request)

    put = get = post


def class_based(**options: Any) -> Any:
    """Give a class with the mixin."""
    return type("Orders", (OrderView,), {"idempotency": options}).as_view()  # type: ignore[attr-defined]


def view_set(**options: Any) -> Any:
    """Give a view set with the mixin."""

    class Orders(IdempotencyMixin, GenericViewSet[Any]):
        serializer_class = Order
        idempotency = options

        @extend_schema(responses={200: Order, 404: Order, 403: Order})
        def create(self, request: Any) -> Response:
            return respond(request)

        update = retrieve = create

    return Orders.as_view({"post": "create", "put": "update", "get": "retrieve"})


def schema(view: Any, *, warnings: bool = False) -> Any:
    """Generate the valid schema of a view at /work/; it must give no warnings unless told so."""
    return generate([path("work/", view)], warnings=warnings)


def generate(patterns: list[Any], *, warnings: bool = False) -> Any:
    """Generate the valid schema of some addresses."""
    GENERATOR_STATS.reset()
    with GENERATOR_STATS.silence():
        result = Generator(patterns=patterns).get_schema(request=None, public=True)
    assert bool(GENERATOR_STATS) is warnings
    validate(result)
    return result


def operation(view: Any, method: str = "post", **options: Any) -> Any:
    """Generate an operation of a view at /work/."""
    return schema(view, **options)["paths"]["/work/"][method]


def parameter(spec: Any, name: str = "Idempotency-Key") -> Any:
    """Find a header that an operation takes; None where it does not."""
    found = [it for it in spec.get("parameters", []) if it["name"].lower() == name.lower()]
    assert len(found) <= 1
    assert all(it["in"] == "header" for it in found)
    return found[0] if found else None


def problems(spec: Any) -> dict[str, set[str]]:
    """Give the problems that an operation documents, by status."""
    found = {}
    for code, response in spec["responses"].items():
        media = response.get("content", {}).get("application/problem+json", {})
        if examples := media.get("examples"):
            found[code] = set(examples)
    return found


KINDS = {"function": function, "class": class_based, "viewset": view_set}


@pytest.fixture(params=KINDS)
def make(request: pytest.FixtureRequest) -> Callable[..., Any]:
    """Make a view of each kind."""
    return KINDS[request.param]


# The header


@pytest.mark.parametrize("required", [True, False])
def test_the_key_is_a_header_as_required_as_the_view_says(
    make: Callable[..., Any], required: bool
) -> None:
    """With every kind of door; missing-key is a problem only where the key is required."""
    spec = operation(make(required=required))

    assert parameter(spec)["required"] is required
    assert parameter(spec, "Prefer")["required"] is False
    missing = {"missing-key"} if required else set()
    assert problems(spec) == DOOR | {"400": DOOR["400"] | missing}


@pytest.mark.parametrize("method", ["get", "put"])
def test_methods_that_take_no_key_are_left_alone(make: Callable[..., Any], method: str) -> None:
    """As if the view were undecorated."""
    spec = operation(make(required=True), method)

    assert parameter(spec) is None
    assert problems(spec) == {}
    assert "headers" not in spec["responses"]["200"]


def test_the_methods_are_those_of_the_view_or_of_the_setting(
    make: Callable[..., Any], settings: Any
) -> None:
    """And they are looked up when the schema is generated."""
    chosen = make(methods=["PUT"])
    assert parameter(operation(chosen, "put"))
    assert parameter(operation(chosen, "post")) is None

    settings.IDEMPOTENCY = {"METHODS": ["PUT"]}
    assert parameter(operation(make(), "put"))
    assert parameter(operation(make(), "post")) is None


def test_actions_have_options_of_their_own() -> None:
    """@action(idempotency=...) is documented in place of the class's."""

    class Orders(IdempotencyMixin, CreateModelMixin, GenericViewSet[Any]):
        serializer_class = Order
        idempotency = {"required": True}  # noqa: RUF012  # as users write it

        @action(detail=False, methods=["post"], idempotency={"ttl": timedelta(minutes=90)})
        def later(self, request: Any) -> Response:
            return respond(request)

        @action(detail=False, methods=["post"], idempotency={"methods": []})
        def never(self, request: Any) -> Response:
            return respond(request)

    router = SimpleRouter()
    router.register("orders", Orders, basename="order")
    paths = generate(router.urls)["paths"]

    assert parameter(paths["/orders/"]["post"])["required"] is True
    later = parameter(paths["/orders/later/"]["post"])
    assert later["required"] is False
    assert "expires 90 minutes after" in later["description"]
    assert parameter(paths["/orders/never/"]["post"]) is None


@pytest.mark.parametrize(
    ("ttl", "words"),
    [
        (timedelta(hours=24), "24 hours"),
        (timedelta(days=7), "168 hours"),
        (timedelta(hours=36), "36 hours"),
        (timedelta(seconds=61), "61 seconds"),
        (timedelta(milliseconds=1500), "1.5 seconds"),
    ],
)
def test_the_key_says_when_it_expires(settings: Any, ttl: timedelta, words: str) -> None:
    """In words, by the view's ttl= or the setting, with a link to the policy page."""
    settings.IDEMPOTENCY = {"TTL": ttl}

    for view in (class_based(), class_based(ttl=ttl)):
        description = parameter(operation(view))["description"]
        assert f"expires {words} after" in description
        assert "(/idempotency/policy/)" in description


def test_the_wait_says_how_long(settings: Any) -> None:
    """At most, and without the header; where nobody may wait it is not there at all."""
    settings.IDEMPOTENCY = {"MAX_WAIT": 2.5}
    prefer = parameter(operation(class_based(wait=1)), "Prefer")
    assert "at most 2.5. The default is 1." in prefer["description"]

    settings.IDEMPOTENCY = {"MAX_WAIT": 0}
    spec = operation(class_based())
    assert parameter(spec, "Prefer") is None
    assert "Preference-Applied" not in json.dumps(spec)


def understood(header: str) -> bool:
    """Tell whether we take a value of the header."""
    request = APIRequestFactory().post("/", headers={"Idempotency-Key": header})
    try:
        return http.idempotency_key(request) is not None
    except InvalidKey:
        return False


def documented(header: str) -> bool:
    """Tell whether the schema has a value of the header."""
    validator = jsonschema.Draft4Validator(operations.key_schema())
    return bool(validator.is_valid(header))


LATIN = st.text(st.characters(max_codepoint=0xFF, exclude_characters="\n"), max_size=8)
QUOTED = st.lists(st.sampled_from(["a", " ", ",", ";", r"\"", r"\\", "\\", '"', "~", "\x7f"]))
EDGES = ["", "a", " ", '""', '"a"', '"', '"\\"', "a,b", 'a"b', "a" * 255, "a" * 256]
EDGES += [f'"{character * number}"' for character in ["a", r"\""] for number in (255, 256)]
EDGES += ["\N{LATIN SMALL LETTER E WITH ACUTE}", '"a" ', '"a"x', "'a'", "a b"]


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("header", EDGES)
def test_the_schema_of_the_key_has_the_edges_of_what_is_taken(
    settings: Any, header: str, strict: bool
) -> None:
    """Its length is counted on the wire: quotes and escapes do not make a key longer."""
    settings.IDEMPOTENCY = {"STRICT": strict}

    # The field of a header has no space around it (RFC 9110, section 5.5).
    assert documented(header) == (understood(header) and header == header.strip())


@pytest.mark.parametrize("strict", [False, True])
def test_the_schema_of_the_key_is_what_is_taken(settings: Any, strict: bool) -> None:
    """No more and no less, but for parameters of a quoted key, which mean nothing."""
    settings.IDEMPOTENCY = {"STRICT": strict}

    @given(
        LATIN | st.builds("".join, QUOTED) | st.builds('"{}"'.format, st.builds("".join, QUOTED))
    )
    @example('"a";b=1')
    def check(header: str) -> None:
        has_parameters = re.match(r'"(?:[^"\\]|\\.)*"[ ]*;', header)
        if header == header.strip() and not has_parameters:
            assert documented(header) == understood(header)
        elif documented(header):
            assert understood(header)

    check()


@pytest.mark.parametrize("strict", [False, True])
def test_examples_of_the_key_are_taken(settings: Any, strict: bool) -> None:
    """And the quoted one comes first, as the draft has it."""
    settings.IDEMPOTENCY = {"STRICT": strict}

    examples = parameter(operation(class_based()))["examples"]

    values = [example["value"] for example in examples.values()]
    assert all(understood(value) and documented(value) for value in values)
    assert values[0].startswith('"')
    assert len(values) == (1 if strict else 2)


# The answers


def test_problems_are_what_the_client_reads(alice: Account, client: Client) -> None:
    """An example is the very document that the shop answers, but for the host."""
    spec = Generator().get_schema(public=True)["paths"]["/api/payments/"]["post"]
    examples = spec["responses"]["400"]["content"]["application/problem+json"]["examples"]
    token = {"Authorization": f"Token {ALICE.token}"}

    for slug, key in {"missing-key": {}, "invalid-key": {"Idempotency-Key": '"'}}.items():
        document = client.post("/api/payments/", headers=token | key).json()
        assert document["type"].endswith(f"#{slug}")
        document["type"] = document["type"].replace("http://testserver", "https://api.example.com")
        assert examples[slug] == {"summary": document["title"], "value": document}


def test_examples_are_of_the_shared_component(make: Callable[..., Any]) -> None:
    """Which has the members of RFC 9457."""
    result = schema(make(required=True))
    component = result["components"]["schemas"]["IdempotencyProblem"]
    assert set(component["properties"]) == {"type", "title", "status", "detail", "instance"}

    for code in DOOR:
        response = result["paths"]["/work/"]["post"]["responses"][code]
        media = response["content"]["application/problem+json"]
        assert media["schema"] == {"$ref": "#/components/schemas/IdempotencyProblem"}
        for it in media["examples"].values():
            jsonschema.validate(it["value"], component)
            assert f"{it['summary']}." in response["description"]


def headers(spec: Any, code: str) -> set[str]:
    """Give the headers of a documented response."""
    return set(spec["responses"][code].get("headers", ()))


def test_answers_that_are_kept_may_be_replays(make: Callable[..., Any]) -> None:
    """Successes and kept errors say so; a 403 is never kept."""
    spec = operation(make())
    replay = {"Idempotent-Replayed", "Preference-Applied"}

    assert headers(spec, "200") == headers(spec, "404") == replay
    assert headers(spec, "403") == set()


def test_with_store_any_answer_may_be_a_replay() -> None:
    """The view's own predicate decides."""
    spec = operation(class_based(store=lambda response: True))

    assert "Idempotent-Replayed" in headers(spec, "403")


def test_problems_have_the_headers_they_come_with(make: Callable[..., Any]) -> None:
    """Retry-After where it has sense, and never Idempotent-Replayed."""
    spec = operation(make())

    assert headers(spec, "400") == headers(spec, "422") == {"Link"}
    assert headers(spec, "409") == {"Link", "Retry-After", "Preference-Applied"}
    assert headers(spec, "503") == {"Link", "Retry-After"}


# Beside what users say themselves


def extended(**kwargs: Any) -> Any:
    """Give a class whose method has an @extend_schema."""

    class Orders(OrderView):
        @extend_schema(**kwargs)
        def post(self, request: Any, **_kwargs: Any) -> Response:
            return respond(request)

    return Orders.as_view()


def test_what_the_user_says_of_a_status_stays() -> None:
    """Ours comes beside it: another media type, another paragraph, other headers."""
    header = OpenApiParameter("X-Reason", str, OpenApiParameter.HEADER, response=[400])
    responses = {200: Order, 400: OpenApiResponse(Order, "The order makes no sense.")}

    response = operation(extended(responses=responses, parameters=[header]))["responses"]["400"]

    assert set(response["content"]) == {"application/json", "application/problem+json"}
    assert response["content"]["application/json"]["schema"]["$ref"].endswith("/Order")
    assert response["description"].startswith("The order makes no sense.\n\nIdempotency-Key is")
    assert set(response["headers"]) == {"X-Reason", "Link"}


def test_a_problem_of_the_users_own_stays() -> None:
    """The answer is one or the other."""
    responses = {
        200: Order,
        (422, "application/problem+json"): OpenApiResponse(Order, "The order is stale."),
    }

    response = operation(extended(responses=responses))["responses"]["422"]

    media = response["content"]["application/problem+json"]
    ours = {"$ref": "#/components/schemas/IdempotencyProblem"}
    assert media["schema"] == {"anyOf": [{"$ref": "#/components/schemas/Order"}, ours]}
    assert set(media["examples"]) == {"key-reused"}


def test_an_example_of_the_users_own_stays() -> None:
    """As one of several, for OpenAPI has either one or several."""
    content = {"application/problem+json": {"schema": {"type": "object"}, "example": {"a": 1}}}
    raw = {"operationId": "pay", "responses": {422: {"description": "", "content": content}}}

    response = operation(extended(operation=raw))["responses"]["422"]

    media = response["content"]["application/problem+json"]
    assert set(media["examples"]) == {"example", "key-reused"}
    assert media["examples"]["example"] == {"value": {"a": 1}}
    assert "example" not in media


@pytest.mark.parametrize("code", ["4XX", "default"])
def test_what_the_user_says_of_all_errors_holds_for_ours(code: str) -> None:
    """A status of its own would take it away, so it is repeated there."""
    responses = operation(extended(responses={200: Order, code: Order}))["responses"]

    for own in (code, "400", "409", "422"):
        assert responses[own]["content"]["application/json"]["schema"]["$ref"].endswith("/Order")
    assert "application/problem+json" not in responses[code]["content"]
    assert "Idempotent-Replayed" in responses[code]["headers"]


def test_a_reference_of_the_users_own_is_left_alone() -> None:
    """Nothing may stand beside one."""
    reference = {"$ref": "#/components/responses/Refused"}
    raw = {"operationId": "pay", "responses": {"422": reference, "200": {"description": ""}}}
    refused = {"responses": {"Refused": {"description": "No."}}}

    with patched_settings({"APPEND_COMPONENTS": refused}):
        spec = operation(extended(operation=raw))

    assert spec["responses"]["422"] == reference
    assert parameter(spec)
    assert problems(spec).keys() == {"400", "409", "411", "503"}


def test_a_parameter_of_the_users_own_stays() -> None:
    """However it is written, for names of headers have no case."""
    own = OpenApiParameter("idempotency-key", str, OpenApiParameter.HEADER, description="Mine.")

    spec = operation(extended(responses=Order, parameters=[own]))

    assert parameter(spec)["description"] == "Mine."
    assert problems(spec) == DOOR


def test_what_the_user_hides_stays_hidden() -> None:
    """An excluded operation is none."""
    assert schema(extended(exclude=True))["paths"].keys() == {"/work/"}
    assert "post" not in schema(extended(exclude=True))["paths"]["/work/"]


class Shouting(AutoSchema):
    """A project's own schema class."""

    def get_summary(self) -> str:
        return "LOUD"

    def get_operation(self, *args: Any, **kwargs: Any) -> Any:
        spec = super().get_operation(*args, **kwargs)
        if spec:
            spec["x-mine"] = True
        return spec


def with_schema_class() -> Any:
    """Give a class with a schema of the project's own."""
    return type("Orders", (OrderView,), {"schema": Shouting()}).as_view()  # type: ignore[attr-defined]


def with_both() -> Any:
    """Give a class with a schema of the project's own, extended on the class."""
    view = type("Orders", (OrderView,), {"schema": Shouting()})
    return extend_schema(tags=["tagged"])(view).as_view()  # type: ignore[attr-defined]


def with_view_extension() -> Any:
    """Give a class for which the project has a view extension."""

    class Orders(IdempotencyMixin, APIView):
        serializer_class = Order

        def post(self, request: Any) -> Response:
            return respond(request)

    class Fixed(OpenApiViewExtension):  # type: ignore[no-untyped-call]
        target_class = Orders
        priority = 1

        def view_replacement(self) -> Any:
            return type("Orders", (self.target,), {"schema": Shouting()})

    return Orders.as_view()


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forget the extensions of a test."""
    monkeypatch.setattr(OpenApiViewExtension, "_registry", [*OpenApiViewExtension._registry])


@pytest.mark.usefixtures("registry")
@pytest.mark.parametrize("make_view", [with_schema_class, with_both, with_view_extension])
def test_a_schema_of_the_projects_own_is_asked(make_view: Callable[[], Any]) -> None:
    """Whether it is on the class, extended, or of another extension: ours comes on top."""
    spec = operation(make_view())

    assert spec["summary"] == "LOUD"
    assert spec["x-mine"] is True
    assert problems(spec) == DOOR


def test_a_schema_can_be_generated_again(make: Callable[..., Any]) -> None:
    """With the same outcome, also while another thread has put our class in the view's place."""
    view = make(required=True)
    first = schema(view)
    assert schema(view) == first

    view.cls = replace(view).view_replacement()
    assert schema(view) == first


def test_a_wrong_schema_class_is_drf_spectaculars_business() -> None:
    """It says what to do about it."""

    class Orders(IdempotencyMixin, APIView):
        schema = FrameworksOwnSchema()

        def post(self, request: Any) -> Response:
            return respond(request)

    with pytest.raises(AssertionError, match="DEFAULT_SCHEMA_CLASS"):
        schema(Orders.as_view())


def test_options_that_need_a_real_request_are_a_warning() -> None:
    """The operation is there, without a key."""

    class Orders(OrderView):
        def get_idempotency_options(self) -> Any:
            return self.request.headers["X-Missing"]

    assert parameter(operation(Orders.as_view(), warnings=True)) is None


def test_names_of_operations_are_as_without_us(make: Callable[..., Any]) -> None:
    """drf-spectacular makes them of what all classes have in common, if there is more than one."""
    assert operation(make())["operationId"] == "work_create"
    assert operation(make())["tags"] == ["work"]


def test_other_views_are_left_alone() -> None:
    """They are not even replaced."""

    class Orders(APIView):
        serializer_class = Order
        post = OrderView.post

    post: Any = respond
    plain = extend_schema(request=Order, responses=Order)(api_view(["POST"])(post))

    for view in (Orders.as_view(), plain):
        assert OpenApiViewExtension.get_match(view) is None
        assert parameter(operation(view)) is None


def test_the_mixins_docstring_is_not_published() -> None:
    """It is for programmers; a view's own, or that of its other bases, is for clients."""

    class Documented(GenericViewSet[Any]):
        """Orders of the shop."""

        serializer_class = Order

        def create(self, request: Any) -> Response:
            return respond(request)

    described = type("Orders", (IdempotencyMixin, Documented), {})
    silent = type("Silent", (IdempotencyMixin, CreateModelMixin, GenericViewSet), {})
    silent.serializer_class = Order  # type: ignore[attr-defined]

    assert operation(described.as_view({"post": "create"}))["description"] == "Orders of the shop."  # type: ignore[attr-defined]
    assert "description" not in operation(silent.as_view({"post": "create"}))  # type: ignore[attr-defined]


# The status of a key


def test_the_status_of_a_key_is_described() -> None:
    """The fields, and 404 for keys that are not there."""
    result = generate([path("keys/<path:key>/", KeyStatusView.as_view())])
    spec = result["paths"]["/keys/{key}/"]["get"]

    reference = spec["responses"]["200"]["content"]["application/json"]["schema"]
    assert reference == {"$ref": "#/components/schemas/IdempotencyKeyState"}
    schemas = result["components"]["schemas"]
    assert schemas["IdempotencyKeyStatus"]["enum"] == ["in_progress", "completed"]
    assert schemas["IdempotencyKeyState"]["properties"]["status_code"]["nullable"] is True
    assert problems(spec) == {
        "400": {"unscoped-caller"},
        "404": {"unknown-key"},
        "503": {"store-unavailable", "outcome-unknown"},
    }
    assert "404 alike" in spec["description"]


def test_the_status_of_a_key_in_openapi_3_1() -> None:
    """Which has another word for null."""
    with patched_settings({"OAS_VERSION": "3.1.0"}):
        result = generate([path("keys/<path:key>/", KeyStatusView.as_view())])

    state = result["components"]["schemas"]["IdempotencyKeyState"]
    assert state["properties"]["status_code"]["type"] == ["integer", "null"]


def test_a_status_view_of_the_projects_own_may_describe_its_own() -> None:
    """What it says of 200 stays."""

    @extend_schema(responses={200: Order})
    class Mine(KeyStatusView):
        pass

    result = generate([path("keys/<path:key>/", Mine.as_view())])

    spec = result["paths"]["/keys/{key}/"]["get"]
    assert spec["responses"]["200"]["content"]["application/json"]["schema"]["$ref"].endswith(
        "Order"
    )
    assert "404" in spec["responses"]


# The shop, and projects without drf-spectacular


def test_the_shops_schema_is_valid_without_a_warning(capsys: pytest.CaptureFixture[str]) -> None:
    """`manage.py spectacular` has nothing to say."""
    call_command("spectacular", "--validate", "--fail-on-warn")

    assert "Idempotency-Key" in capsys.readouterr().out


@pytest.mark.usefixtures("committed")
def test_the_docs_page_needs_no_network(client: Client) -> None:
    """The page, its scripts and the schema come from the shop itself."""
    page = client.get("/api/docs/").content.decode()
    sources = re.findall(r'(?:src|href)="([^"]+)"', page)
    assert sources
    assert all(source.startswith("/static/") for source in sources)

    for address in (*sources, "/api/schema/"):
        response = client.get(address)
        assert response.status_code == 200, address
        response.close()


BARE = """
import sys, django
from django.conf import settings
settings.configure(
    INSTALLED_APPS=["django.contrib.auth", "django.contrib.contenttypes", "idempotency"],
    DATABASES={"default": {"ENGINE": "django.db.backends.postgresql"}},
)
django.setup()
print(sorted({"idempotency.openapi", "drf_spectacular", "rest_framework"} & set(sys.modules)))
"""


def test_nothing_is_imported_where_it_is_not_installed() -> None:
    """A project without drf-spectacular, or without the framework, needs neither."""
    run = [sys.executable, "-c", BARE]

    assert subprocess.check_output(run, cwd=CHECKOUT, text=True) == "[]\n"
