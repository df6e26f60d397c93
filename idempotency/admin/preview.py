"""A stored body as people can read it: JSON indented, text as it is, anything else in hexadecimal.

Nothing is decoded beyond UTF-8, and nothing is executed: what comes out is text, to be escaped.
"""

import codecs
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

MAX_BYTES = 2**16
"""How much of a body is looked at. More is no pleasure to read, and slow to show."""

_MAX_HEX_BYTES = 2**12
_BYTES_PER_LINE = 16

_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*+"|[{}\[\],:]|[^\s{}\[\],:"]++')
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")


class Kind(StrEnum):
    """What a body seems to be."""

    EMPTY = "empty"
    JSON = "json"
    TEXT = "text"
    BINARY = "binary"


@dataclass(frozen=True, slots=True)
class Preview:
    """A body, or its beginning, to be shown with a fixed width."""

    kind: Kind
    text: str
    shown: int
    """How many bytes of the body the text stands for."""


def preview(start: bytes, size: int) -> Preview:
    """Make a body readable.

    Args:
        start: Its first `MAX_BYTES` bytes.
        size: Bytes of the whole.
    """
    if not size:
        return Preview(Kind.EMPTY, "", 0)
    text = _text(start, is_whole=len(start) == size)
    if text is None:
        return Preview(Kind.BINARY, _hexadecimal(start[:_MAX_HEX_BYTES]), min(size, _MAX_HEX_BYTES))
    if len(start) == size and _is_json(text):
        return Preview(Kind.JSON, _indented(text), size)
    return Preview(Kind.TEXT, text, len(start))


def _text(start: bytes, *, is_whole: bool) -> str | None:
    try:
        # A character that the cut went through is left out.
        text = codecs.getincrementaldecoder("utf-8")().decode(start, final=is_whole)
    except UnicodeDecodeError:
        return None
    return None if _CONTROL.search(text) else text


def _is_json(text: str) -> bool:
    """Tell whether it is an object or an array: anything else reads well as it is."""
    try:
        return isinstance(json.loads(text), dict | list)
    except (ValueError, RecursionError):
        return False


def _indented(text: str) -> str:
    """Indent JSON. Numbers stay as they are written, and names that come twice both stay."""
    depth = 0
    parts: list[str] = []
    for part, following in _pairs(_TOKEN.findall(text)):
        depth += (part in {"{", "["}) - (following in {"}", "]"})
        parts.append(": " if part == ":" else _readable(part))
        if part == "," or (part in {"{", "["}) != (following in {"}", "]"}):
            parts.append("\n" + "  " * depth)
    return "".join(parts)


def _pairs(parts: list[str]) -> Iterator[tuple[str, str]]:
    return zip(parts, [*parts[1:], ""], strict=True)


def _readable(part: str) -> str:
    """Show characters in place of escapes, except those that could not be seen."""
    if not part.startswith('"') or "\\u" not in part:
        return part
    value = json.loads(part)
    return json.dumps(value, ensure_ascii=False) if value.isprintable() else part


def _hexadecimal(data: bytes) -> str:
    """Lay bytes out as ``hexdump -C`` does."""
    lines = []
    for offset in range(0, len(data), _BYTES_PER_LINE):
        line = data[offset : offset + _BYTES_PER_LINE]
        characters = "".join(chr(byte) if 0x20 <= byte < 0x7F else "." for byte in line)
        lines.append(f"{offset:08x}  {line.hex(' '):<{3 * _BYTES_PER_LINE - 1}}  |{characters}|")
    return "\n".join(lines)
