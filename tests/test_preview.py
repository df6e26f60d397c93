"""Stored bodies as people can read them."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from idempotency.admin.preview import MAX_BYTES, Kind, Preview, preview

DELETE_AND_C1 = "".join(map(chr, range(0x7F, 0xA0)))
"""Control characters that JSON may hold unescaped: a body with one is shown as bytes."""

STRINGS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters=DELETE_AND_C1))
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | STRINGS,
    lambda inner: st.lists(inner) | st.dictionaries(STRINGS, inner),
)


def whole(body: bytes) -> Preview:
    """Preview a body that is short enough to be seen whole."""
    return preview(body, len(body))


def test_json_is_indented() -> None:
    """An object and an array in it, a line for each value; empty ones stay on theirs."""
    shown = whole(b'{"a":[1,{"b":null}],"c":{},"d":[]}')

    assert shown.kind == Kind.JSON
    assert shown.text == (
        '{\n  "a": [\n    1,\n    {\n      "b": null\n    }\n  ],\n  "c": {},\n  "d": []\n}'
    )


@pytest.mark.parametrize(
    ("written", "line"),
    [
        (b'{"a": 1.10}', '  "a": 1.10'),
        (b'{"a": 12345678901234567890.123456789e5}', '  "a": 12345678901234567890.123456789e5'),
        (b'{"a": "x, y: {}[] \\"z\\\\"}', '  "a": "x, y: {}[] \\"z\\\\"'),
        (b'{"a": "Jos\\u00e9"}', '  "a": "José"'),
        (b'{"a": "\\u202e \\ud800 \\u0000"}', '  "a": "\\u202e \\ud800 \\u0000"'),
        (b'{"\\u0061": "\\u0022"}', '  "a": "\\""'),
    ],
)
def test_json_says_what_was_written(written: bytes, line: str) -> None:
    """Numbers to the digit; escapes are resolved only where the character can be seen."""
    assert whole(written).text.splitlines()[1] == line


def test_names_that_come_twice_both_stay() -> None:
    """A parser would have hidden one."""
    assert whole(b'{"a":1,"a":2}').text == '{\n  "a": 1,\n  "a": 2\n}'


@given(JSON.filter(lambda value: isinstance(value, dict | list)), st.booleans())
def test_indented_json_is_the_same_json(value: Any, ensure_ascii: bool) -> None:
    """Whatever it holds, and however it was escaped."""
    shown = whole(json.dumps(value, ensure_ascii=ensure_ascii).encode())

    assert json.loads(shown.text) == value


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"", Kind.EMPTY),
        (b"<h1>Hello</h1>", Kind.TEXT),
        ("Grüße\r\n\tvon uns".encode(), Kind.TEXT),
        (b"12", Kind.TEXT),
        (b'{"a": }', Kind.TEXT),
        (b"[" * 5000, Kind.TEXT),
        (b"text\x00", Kind.BINARY),
        (b"\x1b[31mred", Kind.BINARY),
        (b"caf\xe9", Kind.BINARY),
        (b"\x80\x04\x95cos\nsystem\n.", Kind.BINARY),
    ],
)
def test_what_a_body_seems_to_be(body: bytes, kind: Kind) -> None:
    """Its bytes tell; nobody believes its headers."""
    assert whole(body).kind == kind


def test_bytes_are_laid_out_in_lines_of_sixteen() -> None:
    """Offset, hexadecimal, and what is printable."""
    shown = whole(b"\x89PNG\r\n\x1a\n" + b"0123456789")

    assert shown.text == (
        "00000000  89 50 4e 47 0d 0a 1a 0a 30 31 32 33 34 35 36 37  |.PNG....01234567|\n"
        "00000010  38 39                                            |89|"
    )


def test_only_the_beginning_of_a_large_body_is_shown() -> None:
    """It says how much; a character that the cut went through is left out."""
    letters = b"x" * (MAX_BYTES - 1) + "ü".encode()

    assert preview(letters[:MAX_BYTES], len(letters)) == Preview(
        Kind.TEXT, "x" * (MAX_BYTES - 1), MAX_BYTES
    )
    assert preview(b"\x00" * MAX_BYTES, 10**9).shown == 4096
    assert preview(b"[" + b"1," * (MAX_BYTES // 2 - 1) + b"1", 10**6).kind == Kind.TEXT
