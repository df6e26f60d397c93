"""Keys as lines of JSON, for other programs: every line is an object, whatever the values hold.

Not CSV, which spreadsheets take for formulas: keys and scopes are what callers make of them.
"""

import json
from base64 import b64encode
from collections.abc import Iterator
from typing import Any

from django.core.serializers.json import DjangoJSONEncoder
from django.http import StreamingHttpResponse

from idempotency.models import IdempotencyKeyQuerySet

_FIELDS = (
    *("id", "scope", "key", "operation", "state", "status_code", "attempts", "last_error"),
    *("created_at", "completed_at", "expires_at", "size"),
)
_CHUNK = 100
"""Rows in memory at a time: an answer is a megabyte at most, unless a setting allows for more."""


def json_lines(keys: IdempotencyKeyQuerySet, *, with_answers: bool) -> StreamingHttpResponse:
    """Send keys that are annotated with ``state`` and ``size``, as https://jsonlines.org has it.

    A body that is UTF-8 is text in ``body``, any other is in ``body_base64``.
    """
    fields = [*_FIELDS, "headers", "body"] if with_answers else _FIELDS
    response = StreamingHttpResponse(
        _lines(keys.values(*fields)), content_type="application/jsonl; charset=utf-8"
    )
    response["Content-Disposition"] = 'attachment; filename="idempotency-keys.jsonl"'
    return response


def _lines(rows: Any) -> Iterator[str]:
    for row in rows.iterator(chunk_size=_CHUNK):
        line = {name: value for name, value in row.items() if name != "body"}
        yield json.dumps(line | _body(row.get("body")), cls=DjangoJSONEncoder) + "\n"


def _body(body: bytes | None) -> dict[str, str]:
    if body is None:
        return {}
    try:
        return {"body": bytes(body).decode()}
    except UnicodeDecodeError:
        return {"body_base64": b64encode(body).decode()}
