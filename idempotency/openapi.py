"""The OpenAPI extension: drf-spectacular documents what the doors do, with no work by the user.

`apps` imports this room where drf-spectacular is installed, and that registers it. It stands around
the schema that a view has anyway, be it the framework's, a subclass, or one of ``@extend_schema``,
and adds to the operation that comes out of it. What is there already stays.
"""

import re
from abc import ABC
from collections.abc import Iterable
from copy import deepcopy
from dataclasses import dataclass
from datetime import timedelta
from inspect import cleandoc, getattr_static, isfunction
from itertools import groupby, takewhile
from typing import Any
from urllib.parse import urljoin

from drf_spectacular.drainage import warn
from drf_spectacular.extensions import OpenApiViewExtension
from drf_spectacular.openapi import AutoSchema
from drf_spectacular.plumbing import ComponentRegistry, ResolvedComponent, append_meta
from drf_spectacular.settings import spectacular_settings

from . import conf, http
from .drf import IdempotencyMixin, KeyStatusView
from .exceptions import (
    IdempotencyError,
    InvalidKey,
    KeyReused,
    MissingKey,
    RequestInProgress,
    ResponseNotKept,
    StoreUnavailable,
    TransactionConflict,
    UnknownKey,
    UnscopedCaller,
)
from .flow import NOT_KEPT, Options
from .models import IdempotencyKey

Json = dict[str, Any]

_QUOTED = r'"(?:[ !#-\[\]-~]|\\["\\]){1,255}"'
_BARE = r"[!#-+\--~](?:[ !#-+\--~]{0,253}[!#-+\--~])?"
"""What `http.idempotency_key` takes, in the dialect of JSON Schema. The parameters that a quoted
key may have are left out: they mean nothing, and would be most of the pattern."""

_PROBLEM: Json = {
    "type": "object",
    "description": "What is wrong, and what the client must do (RFC 9457).",
    "properties": {
        "type": {"type": "string", "format": "uri"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "instance": {"type": "string", "format": "uri-reference"},
    },
    "required": ["type", "title", "status", "detail", "instance"],
}

_HEADERS: dict[str, Json] = {
    http.REPLAYED_HEADER: {
        "description": "On a retry only: this is the stored answer of the first request.",
        "schema": {"type": "string", "enum": ["true"]},
    },
    "Preference-Applied": {
        "description": "On answers to `Prefer: wait=N`, except the first request's own.",
        "schema": {"type": "string", "pattern": "^wait=[0-9]+$"},
    },
    "Retry-After": {
        "description": "Seconds after which the same request may be sent again.",
        "schema": {"type": "integer", "minimum": 1},
    },
    "Link": {
        "description": 'The page that describes the problem, with `rel="describedby"`.',
        "schema": {"type": "string"},
    },
}


class IdempotentView(ABC):  # noqa: B024  # its subclasses are virtual
    """What this room documents: classes with the mixin, ``@idempotent`` below ``@api_view``, and
    the status of a key."""

    @classmethod
    def __subclasshook__(cls, view: type) -> bool:
        methods = getattr(view, "http_method_names", ())
        return issubclass(view, (IdempotencyMixin, KeyStatusView)) or any(
            _function_options(view, method) for method in methods
        )


class IdempotencyExtension(OpenApiViewExtension):  # type: ignore[no-untyped-call]
    """Puts `IdempotentSchema` around the schema of our views."""

    target_class = IdempotentView
    match_subclasses = True
    priority = 1000
    """Only the first extension that knows a view is asked. This one asks the next in its turn."""

    def view_replacement(self) -> Any:
        """Give the view's class, or what another extension has for it, with our schema.

        The same for all its methods and paths: drf-spectacular counts the classes it meets.
        """
        target = self._replaced_by_another()
        if isinstance(getattr_static(target, "schema"), _Around):
            return target  # another thread has put it in the view's place, for a moment
        if "_with_idempotency" not in vars(target):
            target._with_idempotency = _subclass(target)  # noqa: SLF001  # goes when the class goes
        return target._with_idempotency  # noqa: SLF001

    def _replaced_by_another(self) -> Any:
        others = [extension for extension in self._registry if extension is not type(self)]
        for extension in sorted(others, key=lambda other: other.priority, reverse=True):
            if extension._matches(self.target):  # noqa: SLF001  # as get_match() does
                return extension(self.target_callback).view_replacement()
        return self.target


def _subclass(target: Any) -> Any:
    body = {name: getattr(target, name) for name in ("__doc__", "__module__", "__qualname__")}
    if issubclass(target, KeyStatusView):
        # Without one, drf-spectacular would say that it misses it.
        body["serializer_class"] = getattr(target, "serializer_class", None)
    body["schema"] = _Around(getattr_static(target, "schema"))
    return type(target)(target.__name__, (target,), body)


class _Around:
    """The attribute ``schema`` of a view's class, in place of another one."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner

    def __get__(self, view: Any, owner: type) -> Any:
        schema = self.inner.__get__(view, owner)
        if view is None or not isinstance(schema, AutoSchema):
            return schema  # with a foreign one, drf-spectacular says what is wrong
        return IdempotentSchema(schema, view)

    def __set__(self, view: Any, schema: Any) -> None:
        self.inner.__set__(view, schema)


class IdempotentSchema(AutoSchema):
    """Asks the schema that a view has anyway, and completes the operations it gives."""

    def __init__(self, wrapped: AutoSchema, view: Any) -> None:
        super().__init__()
        self.wrapped = wrapped
        self.view = view

    def get_operation(
        self, path: str, path_regex: str, path_prefix: str, method: str, registry: ComponentRegistry
    ) -> Json | None:
        """Give the operation of the wrapped schema, with ours in it."""
        operation = self.wrapped.get_operation(path, path_regex, path_prefix, method, registry)
        if operation:
            _Operation(operation, path, registry).complete(self.view, method)
        return operation


@dataclass(frozen=True, slots=True)
class _Operation:
    """An OpenAPI operation that is being completed."""

    spec: Json
    path: str
    registry: ComponentRegistry

    def complete(self, view: Any, method: str) -> None:
        """Add what the view's door does with requests of the method."""
        self.spec["responses"] = {str(code): it for code, it in self.spec["responses"].items()}
        if isinstance(view, KeyStatusView):
            self.add_key_state()
            self.add_problems([UnscopedCaller, UnknownKey])
        elif options := _options(view, method):
            self.add_parameters(options)
            self.add_replays(options)
            self.add_problems(_problems(options))
        self.spec["responses"] = dict(sorted(self.spec["responses"].items()))
        if self.spec.get("description") == cleandoc(IdempotencyMixin.__doc__ or ""):
            del self.spec["description"]
            if description := _description(type(view)):
                self.spec["description"] = description

    def add_parameters(self, options: Options) -> None:
        """Add the headers that clients may send, unless the view's own schema has them."""
        parameters = self.spec.setdefault("parameters", [])
        present = {str(it.get("name")).lower() for it in parameters if it.get("in") == "header"}
        ours = [_key_parameter(options)]
        if conf.settings.MAX_WAIT:
            ours.append(_wait_parameter(options))
        parameters += [it for it in ours if it["name"].lower() not in present]

    def add_replays(self, options: Options) -> None:
        """Tell of which answers a retry may get the stored one."""
        names = [http.REPLAYED_HEADER]
        if conf.settings.MAX_WAIT:
            names.append("Preference-Applied")
        for code, response in self.spec["responses"].items():
            is_kept = not code.startswith("5") and code not in map(str, NOT_KEPT)
            if (is_kept or options.store) and "$ref" not in response:
                _add_headers(response, names)

    def add_problems(self, kinds: Iterable[type[IdempotencyError]]) -> None:
        """Add what can go wrong, beside what the view's own schema has for the same statuses."""
        responses = self.spec["responses"]
        errors = sorted((kind() for kind in kinds), key=lambda error: error.status)
        for status, group in groupby(errors, key=lambda error: error.status):
            code = str(status)
            # What the view's schema says of all such codes, or of all others, is true of this one.
            wider = responses.get(f"{code[0]}XX") or responses.get("default") or {}
            response = responses.setdefault(code, deepcopy(wider))
            if "$ref" not in response:
                self._add_to_response(response, list(group))

    def _add_to_response(self, response: Json, errors: list[IdempotencyError]) -> None:
        ours = " ".join(f"{error.title}." for error in errors)
        theirs = response.get("description")
        response["description"] = f"{theirs}\n\n{ours}" if theirs else ours
        _add_headers(response, ["Link"])
        if any(error.retry_after for error in errors):
            _add_headers(response, ["Retry-After"])
        if conf.settings.MAX_WAIT and any(isinstance(it, RequestInProgress) for it in errors):
            _add_headers(response, ["Preference-Applied"])
        media = response.setdefault("content", {}).setdefault(http.PROBLEM_TYPE, {})
        problem, other = self._component("IdempotencyProblem", _PROBLEM), media.get("schema")
        media["schema"] = {"anyOf": [other, problem]} if other else problem
        if "example" in media:  # it would exclude examples
            media["examples"] = {"example": {"value": media.pop("example")}}
        examples = media.setdefault("examples", {})
        examples.update({error.slug: _example(error, self.path) for error in errors})

    def add_key_state(self) -> None:
        """Add the answer of `KeyStatusView`, unless a view of the project's describes its own."""
        response = self.spec["responses"].setdefault("200", {})
        if not response.get("content"):
            # An enum in place would take part in how drf-spectacular names those of the project.
            status = {"type": "string", "enum": list(IdempotencyKey.Status.values)}
            reference = self._component("IdempotencyKeyStatus", status)
            state = self._component("IdempotencyKeyState", _key_state(reference))
            response["description"] = "How the request with the key stands."
            response["content"] = {"application/json": {"schema": state}}

    def _component(self, name: str, schema: Json) -> Json:
        component = ResolvedComponent(  # type: ignore[no-untyped-call]
            name, ResolvedComponent.SCHEMA, deepcopy(schema), object=name
        )
        self.registry.register_on_missing(component)
        reference: Json = component.ref
        return reference


def key_schema() -> Json:
    """Give the JSON Schema of the header ``Idempotency-Key``, as it is on the wire."""
    if conf.settings.STRICT:
        pattern, shortest = _QUOTED, len('"a"')
    else:
        pattern, shortest = f"(?:{_QUOTED}|{_BARE})", len("a")
    longest = len('""') + 255 * len(r"\"")
    return {
        "type": "string",
        "pattern": f"^{pattern}$",
        "minLength": shortest,
        "maxLength": longest,
    }


def _options(view: Any, method: str) -> Options | None:
    """Give what the view asks of its door; None where the method may have no key."""
    if isinstance(view, IdempotencyMixin):
        try:
            options: Options | None = view.get_idempotency_options()
        except Exception as error:
            warn(f"get_idempotency_options() must do with a mocked request, and raised {error!r}.")
            return None
    else:
        options = _function_options(type(view), method)
    return options if options and options.honour(method) else None


def _function_options(view: type, method: str) -> Options | None:
    """Find the options of ``@idempotent`` below ``@api_view``, which keeps the function in a cell
    of each method and nowhere else."""
    handler = getattr(view, method.lower(), None)
    cells = getattr(handler, "__closure__", None) or ()
    functions = (cell.cell_contents for cell in cells if isfunction(cell.cell_contents))
    marked = (vars(function).get("idempotency_options") for function in functions)
    return next(filter(None, marked), None)


def _problems(options: Options) -> list[type[IdempotencyError]]:
    always = [InvalidKey, UnscopedCaller, RequestInProgress, ResponseNotKept, KeyReused]
    always += [StoreUnavailable, TransactionConflict]
    return [MissingKey, *always] if options.required else always


def _key_parameter(options: Options) -> Json:
    key = "8e03978e-40d5-43dd-bc93-6894a57f9324"
    examples = {"quoted": {"value": f'"{key}"'}}
    form = "A key is 1 to 255 printable ASCII characters in double quotes"
    if not conf.settings.STRICT:
        examples["bare"] = {"value": key}
        form += "; the quotes may be left out where it has no quotes or commas in it"
    return {
        "name": http.KEY_HEADER,
        "in": "header",
        "required": options.required,
        "description": (
            "Makes the request safe to retry: send a fresh unique value, such as a UUID, with "
            f"every new operation, and the same value again with every retry of it.\n\n{form}. "
            f"It expires {_duration(options.life())} after it was first sent, and then counts as "
            f"never seen. [More about keys]({http.policy_address()})"
        ),
        "schema": key_schema(),
        "examples": examples,
    }


def _wait_parameter(options: Options) -> Json:
    most = conf.settings.MAX_WAIT
    return {
        "name": "Prefer",
        "in": "header",
        "required": False,
        "description": (
            "`wait=N` waits up to N seconds for the answer of a first request that is still "
            f"running, at most {most:g}. The default is {min(options.wait, most):g}. (RFC 7240)"
        ),
        "schema": {"type": "string"},
        "examples": {"wait": {"value": "wait=5"}},
    }


def _add_headers(response: Json, names: Iterable[str]) -> None:
    headers = response.setdefault("headers", {})
    present = {name.lower() for name in headers}
    headers.update(
        {name: deepcopy(_HEADERS[name]) for name in names if name.lower() not in present}
    )


def _example(error: IdempotencyError, path: str) -> Json:
    address = urljoin("https://api.example.com", f"{http.policy_address()}#{error.slug}")
    instance = re.sub(r"{.*?}", "1", path)
    return {
        "summary": error.title,
        "value": http.problem_document(error, address, instance),
    }


def _key_state(status: Json) -> Json:
    properties = {
        "key": {"type": "string"},
        "status": status,
        "running": {
            "type": "boolean",
            "description": "Where an attempt ended without an answer, neither this nor completed: "
            "the same request may be sent again.",
        },
        "status_code": append_meta({"type": "integer"}, {"nullable": True}),
        "attempts": {"type": "integer", "minimum": 1},
        "first_seen": {"type": "string", "format": "date-time"},
        "expires": {"type": "string", "format": "date-time"},
    }
    return {"type": "object", "properties": properties, "required": list(properties)}


def _description(view: type) -> str:
    """Give a view's or its bases' docstring as drf-spectacular does, but never the mixin's."""
    excluded = spectacular_settings.GET_LIB_DOC_EXCLUDES()
    ours = takewhile(lambda base: base not in excluded, view.__mro__)
    documented = (base.__doc__ for base in ours if base.__doc__ and base is not IdempotencyMixin)
    return cleandoc(next(documented, ""))


def _duration(span: timedelta) -> str:
    """Give a span in words: ``1 day``, ``36 hours``, ``90 seconds``."""
    seconds = span.total_seconds()
    units = (("day", 86400), ("hour", 3600), ("minute", 60), ("second", 1))
    unit, size = next((unit for unit in units if seconds % unit[1] == 0), units[-1])
    number = seconds / size
    return f"{number:g} {unit}{'' if number == 1 else 's'}"
