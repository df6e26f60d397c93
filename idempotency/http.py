"""The wire: who asks, with which key, for what, and how long they would wait. No database."""

import re
from typing import Any
from urllib.parse import quote

from django.http import HttpRequest

from . import conf, forms
from .exceptions import InvalidKey, UnscopedCaller

KEY_HEADER = "Idempotency-Key"

_MAX_LENGTH = 255

_OCTET = "%[89ab][0-9a-f]"
_UTF_8 = (
    r"(?:%[0-7][0-9a-f]"
    rf"|%(?:c[2-9a-f]|d[0-9a-f]){_OCTET}"
    rf"|%(?:e0%[ab][0-9a-f]|e[1-9a-cef]{_OCTET}|ed%[89][0-9a-f]){_OCTET}"
    rf"|%(?:f0%[9ab][0-9a-f]|f[1-3]{_OCTET}|f4%8[0-9a-f]){_OCTET}{_OCTET})"
)
"""A character with its bytes escaped: RFC 3629, section 4."""

_STRING = r'"(?:[ !#-\[\]-~]|\\["\\])*+"'
_BARE_ITEM = (
    rf"(?:{_STRING}"
    r"|-?[0-9]{1,15}|-?[0-9]{1,12}\.[0-9]{1,3}"  # integer, decimal
    r"|[A-Za-z*][A-Za-z0-9!#$%&'*+.^_`|~:/-]*+"  # token
    r"|:(?:(?:[A-Za-z0-9+/]{4})*[A-Za-z0-9+/]{2,4}={0,2})?:"  # byte sequence
    r"|\?[01]|@-?[0-9]{1,15}"  # boolean, date
    rf'|%"(?:[ !#$&-~]|{_UTF_8})*+")'  # display string
)
_QUOTED_KEY = re.compile(rf"({_STRING})(?:; *[a-z*][a-z0-9_.*-]*+(?:={_BARE_ITEM})?)*")
"""An Item of type String with parameters: RFC 9651, sections 3.3 and 3.3.3."""

_BARE_KEY = re.compile(r"[ !#-+\--~]+")
"""What clients send who never read the draft. A comma would be a list, or two headers joined."""

_WAIT = re.compile(r'(?:^|,)\s*wait\s*=\s*"?([0-9]{1,9})"?\s*(?:[,;]|$)', re.IGNORECASE)
"""The preference of RFC 7240, section 4.3."""


def idempotency_key(request: HttpRequest, *, form: bool = False) -> str | None:
    """Give the request's key without quotes and escapes; None where it has none.

    The draft's quoted string (section 2.1) and the bare value name the same key.

    Args:
        form: Look into the field of a posted form, too. Both forms name a key there whatever
            the setting ``STRICT``, for a field is no header.

    Raises:
        InvalidKey: It is not exactly one key of 1 to 255 printable ASCII characters.
    """
    header = request.headers.get(KEY_HEADER)
    keys = [] if header is None else [_key(header, strict=conf.settings.STRICT)]
    if form:
        named = [_key(value) for value in forms.keys(request)]
        if len(named) > 1:
            raise InvalidKey("The form has more than one.")
        keys += named
    if len(set(keys)) > 1:
        raise InvalidKey("The header and the form have different ones.")
    return keys[0] if keys else None


def has_key(request: HttpRequest, *, form: bool = False) -> bool:
    """Tell whether a request says anything about a key, be it valid or not."""
    return KEY_HEADER in request.headers or (form and bool(forms.keys(request)))


def _key(value: str, *, strict: bool = False) -> str:
    value = value.strip(" \t")
    if quoted := _QUOTED_KEY.fullmatch(value):
        key = re.sub(r"\\(.)", r"\1", quoted[1][1:-1])
    elif strict:
        raise InvalidKey("This server accepts the quoted form only.")
    elif _BARE_KEY.fullmatch(value):
        key = value
    else:
        raise InvalidKey
    if not 1 <= len(key) <= _MAX_LENGTH:
        raise InvalidKey
    return key


def scope(
    request: HttpRequest, caller: conf.Resolver | None = None, tenant: conf.Resolver | None = None
) -> str:
    """Give whose key it is: ``user:<pk>`` or what ``caller`` says, behind the tenant if any.

    Raises:
        UnscopedCaller: Nobody can tell. A scope that anonymous callers share would hand one of
            them the answer of another.
    """
    name = _asked(caller, request) if caller else user_scope(request)
    if tenant:
        owner = _asked(tenant, request)
        name = f"tenant:{quote(owner, safe='')}/{name}" if owner and name else None
    return checked_scope(name)


def checked_scope(name: str | None) -> str:
    """Return a scope as it is stored.

    Raises:
        UnscopedCaller: There is none, or it is longer than 255 characters or not printable.
    """
    if not name or len(name) > _MAX_LENGTH or not name.isprintable():
        raise UnscopedCaller
    return name


def _asked(resolver: conf.Resolver, request: HttpRequest) -> str | None:
    name = resolver(request)
    if name is not None and not isinstance(name, str):
        raise TypeError(f"{resolver!r} must name a caller or a tenant with text, not {name!r}.")
    return name


def user_scope(request: HttpRequest) -> str | None:
    """Give ``user:<pk>`` of the authenticated user: stable, unlike a token or a session.

    Users of another model than ``AUTH_USER_MODEL`` go by that model's name, as both may have the
    same primary key. One that has none stands for anybody who got in, so for nobody.
    """
    user = getattr(request, "user", None)
    if user is None or not user.is_authenticated:
        return None
    pk = getattr(user, "pk", None)
    return None if pk is None else f"{_kind(user)}:{pk}"


def _kind(user: Any) -> str:
    models = [base._meta.label_lower for base in user.__class__.__mro__ if hasattr(base, "_meta")]  # noqa: SLF001  # documented by Django
    is_other = models and conf.of_project("AUTH_USER_MODEL", "").lower() not in models
    return str(models[0]) if is_other else "user"


def operation(request: HttpRequest) -> str:
    """Give method and route, which unlike the path has few values: ``POST payments/<int:pk>/``."""
    match = request.resolver_match
    route = match.route if match else "(no route)"
    return f"{request.method} {route}"[:_MAX_LENGTH]


def preferred_wait(request: HttpRequest) -> int | None:
    """Give the seconds of ``Prefer: wait=N``; None where the client has no such preference."""
    found = _WAIT.search(request.headers.get("Prefer", ""))
    return int(found[1]) if found else None
