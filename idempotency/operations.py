"""What OpenAPI says of an operation that takes keys, and of the status of a key.

Plain dictionaries, by OpenAPI 3.0; whoever generates a schema registers its components.
"""

import re
from collections.abc import Callable, Iterable
from copy import deepcopy
from dataclasses import dataclass
from itertools import groupby
from typing import Any
from urllib.parse import urljoin
from uuid import NAMESPACE_URL, uuid5

from . import answers, conf, http, problems
from .exceptions import (
    IdempotencyError,
    IncompleteBody,
    InvalidKey,
    KeyReused,
    LengthRequired,
    MissingKey,
    OutcomeUnknown,
    RequestInProgress,
    ResponseNotKept,
    StoreUnavailable,
    TooManyKeys,
    TransactionConflict,
    UnknownKey,
    UnscopedCaller,
)
from .models import IdempotencyKey
from .options import NOT_KEPT, Options

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

_STATUS: Json = {"type": "string", "enum": list(IdempotencyKey.Status.values)}

_HEADERS: dict[str, Json] = {
    answers.REPLAYED_HEADER: {
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


@dataclass(frozen=True, slots=True)
class Operation:
    """An OpenAPI operation that is being completed."""

    spec: Json
    method: str
    path: str
    component: Callable[[str, Json], Json]
    """Registers a component schema by its name, and gives the reference to it."""

    def take_key(self, options: Options) -> None:
        """Add what a door with these options takes and answers; what is there already stays."""
        self._normalize()
        self._add_parameters(options)
        self._add_replays(options)
        self._add_problems(_problems(options))

    def tell_key_state(self) -> None:
        """Add the answers of the status resource, unless there is another description of 200."""
        self._normalize()
        response = self.spec["responses"].setdefault("200", {})
        if not response.get("content"):
            # An enum in place would take part in how drf-spectacular names those of the project.
            status = self.component("IdempotencyKeyStatus", _STATUS)
            state = self.component("IdempotencyKeyState", _key_state(status))
            response["description"] = "How the request with the key stands."
            response["content"] = {"application/json": {"schema": state}}
        self._add_problems([UnscopedCaller, UnknownKey, StoreUnavailable, OutcomeUnknown])

    def _normalize(self) -> None:
        # In an operation written by hand, statuses may be numbers.
        self.spec["responses"] = {str(code): it for code, it in self.spec["responses"].items()}

    def _add_parameters(self, options: Options) -> None:
        """Add the headers that clients may send, unless the view's own schema has them."""
        parameters = self.spec.setdefault("parameters", [])
        present = {str(it.get("name")).lower() for it in parameters if it.get("in") == "header"}
        ours = [_key_parameter(options, f"{self.method} {self.path}")]
        if conf.settings.MAX_WAIT:
            ours.append(_wait_parameter(options))
        parameters += [it for it in ours if it["name"].lower() not in present]

    def _add_replays(self, options: Options) -> None:
        """Tell of which answers a retry may get the stored one."""
        names = [answers.REPLAYED_HEADER]
        if conf.settings.MAX_WAIT:
            names.append("Preference-Applied")
        for code, response in self.spec["responses"].items():
            is_kept = not code.startswith("5") and code not in map(str, NOT_KEPT)
            if (is_kept or options.store) and "$ref" not in response:
                _add_headers(response, names)

    def _add_problems(self, kinds: Iterable[type[IdempotencyError]]) -> None:
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
        self.spec["responses"] = dict(sorted(responses.items()))

    def _add_to_response(self, response: Json, errors: list[IdempotencyError]) -> None:
        ours = " ".join(f"{error.title}." for error in errors)
        theirs = response.get("description")
        response["description"] = f"{theirs}\n\n{ours}" if theirs else ours
        _add_headers(response, ["Link"])
        if any(error.retry_after for error in errors):
            _add_headers(response, ["Retry-After"])
        if conf.settings.MAX_WAIT and any(isinstance(it, RequestInProgress) for it in errors):
            _add_headers(response, ["Preference-Applied"])
        media = response.setdefault("content", {}).setdefault(problems.CONTENT_TYPE, {})
        problem, other = self.component("IdempotencyProblem", _PROBLEM), media.get("schema")
        media["schema"] = {"anyOf": [other, problem]} if other else problem
        if "example" in media:  # it would exclude examples
            media["examples"] = {"example": {"value": media.pop("example")}}
        examples = media.setdefault("examples", {})
        examples.update({error.slug: _example(error, self.path) for error in errors})


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


def _problems(options: Options) -> list[type[IdempotencyError]]:
    always: list[type[IdempotencyError]] = [
        InvalidKey,
        IncompleteBody,
        LengthRequired,
        UnscopedCaller,
        RequestInProgress,
        ResponseNotKept,
        KeyReused,
    ]
    always += [StoreUnavailable, OutcomeUnknown, TransactionConflict]
    if conf.settings.MAX_KEYS_PER_SCOPE is not None:
        always.append(TooManyKeys)
    return [MissingKey, *always] if options.required else always


def _key_parameter(options: Options, name: str) -> Json:
    # One for each operation: pages that try them out send it, and a key stands for one request.
    key = str(uuid5(NAMESPACE_URL, name))
    examples = {"quoted": {"value": f'"{key}"'}}
    form = "A key is 1 to 255 printable ASCII characters in double quotes"
    if not conf.settings.STRICT:
        examples["bare"] = {"value": key}
        form += "; the quotes may be left out where it has no quotes or commas in it"
    return {
        "name": http.KEY_HEADER,
        "in": "header",
        "required": options.required and not options.form,  # a form has a field for it
        "description": (
            "Makes the request safe to retry: send a fresh unique value, such as a UUID, with "
            f"every new operation, and the same value again with every retry of it.\n\n{form}. "
            f"It expires {conf.in_words(options.life())} after it was first sent, or later where "
            "its response came late, and then counts as never seen. "
            f"[More about keys]({problems.policy_address()})"
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
            f"running, at most {most:g}. The default is {min(options.wait or 0, most):g}. "
            "(RFC 7240)"
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
    address = urljoin("https://api.example.com", f"{problems.policy_address()}#{error.slug}")
    instance = re.sub(r"{.*?}", "1", path)
    return {
        "summary": error.title,
        "value": problems.document(error, address, instance),
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
        "status_code": {"type": "integer", "nullable": True},
        "attempts": {"type": "integer", "minimum": 1},
        "first_seen": {"type": "string", "format": "date-time"},
        "expires": {"type": "string", "format": "date-time"},
    }
    return {"type": "object", "properties": properties, "required": list(properties)}
