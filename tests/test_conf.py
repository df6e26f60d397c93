"""The settings: late, typed, and refused where they cannot be right."""

from datetime import timedelta
from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured
from test_http import tenant_of_header

from idempotency import conf

WRONG: list[tuple[str, Any]] = [
    ("METHODS", "POST"),
    ("METHODS", ["post"]),
    ("METHODS", ["POST", "GET"]),
    ("METHODS", [1]),
    ("TTL", 3600),
    ("TTL", timedelta(0)),
    ("TTL", timedelta.max),
    ("MAX_WAIT", 3601),
    ("MAX_WAIT", "5"),
    ("MAX_WAIT", -1),
    ("MAX_WAIT", True),
    ("MAX_WAIT", float("nan")),
    ("MAX_BODY_BYTES", 1.5),
    ("MAX_BODY_BYTES", -1),
    ("MAX_KEYS_PER_SCOPE", 0),
    ("MAX_KEYS_PER_SCOPE", -1),
    ("MAX_KEYS_PER_SCOPE", 1.5),
    ("MAX_KEYS_PER_SCOPE", True),
    ("MAX_KEYS_PER_SCOPE", "1"),
    ("STRICT", 1),
    ("TENANT", 1),
    ("TENANT", "no.such.resolver"),
    ("TENANT", "nodots"),
]
RIGHT: list[tuple[str, Any]] = [
    ("METHODS", []),
    ("METHODS", frozenset({"PUT"})),
    ("TTL", timedelta(days=7)),
    ("MAX_WAIT", 0),
    ("MAX_BODY_BYTES", 0),
    ("MAX_KEYS_PER_SCOPE", 1),
    ("MAX_KEYS_PER_SCOPE", None),
    ("STRICT", True),
    ("TENANT", "test_http.tenant_of_header"),
    ("TENANT", tenant_of_header),
    ("TENANT", None),
]


def test_defaults(settings: Any) -> None:
    """A project without the setting gets what the draft and the field expect."""
    del settings.IDEMPOTENCY

    assert conf.settings.METHODS == ("POST", "PATCH")
    assert timedelta(hours=24) == conf.settings.TTL
    assert conf.settings.STRICT is False
    assert list(conf.problems()) == []


@pytest.mark.parametrize(
    ("name", "value"), RIGHT, ids=lambda value: getattr(value, "__name__", str(value))
)
def test_a_right_value_is_used_at_once(settings: Any, name: str, value: Any) -> None:
    """Settings are read when they are used, so overriding them works."""
    settings.IDEMPOTENCY = {name: value}

    assert getattr(conf.settings, name) == value
    assert list(conf.problems()) == []


@pytest.mark.parametrize(("name", "value"), WRONG, ids=str)
def test_a_wrong_value_is_refused_with_a_sentence(settings: Any, name: str, value: Any) -> None:
    """By the check at start, and again where it would be used."""
    settings.IDEMPOTENCY = {name: value}

    (sentence,) = conf.problems()
    assert sentence.startswith(f"IDEMPOTENCY['{name}'] must be ")
    assert sentence.endswith(f", not {value!r}.")
    with pytest.raises(ImproperlyConfigured, match="must be"):
        getattr(conf.settings, name)


def test_an_unknown_setting_is_named(settings: Any) -> None:
    """A misspelt setting would silently be the default."""
    settings.IDEMPOTENCY = {"TLL": timedelta(hours=1)}

    (sentence,) = conf.problems()
    assert sentence.startswith("IDEMPOTENCY['TLL'] is unknown. Known are ")
    assert "TTL" in sentence


def test_the_setting_must_be_a_dict(settings: Any) -> None:
    """Anything else is refused as a whole."""
    settings.IDEMPOTENCY = ["TTL"]

    assert list(conf.problems()) == ["IDEMPOTENCY must be a dict, not ['TTL']."]
    with pytest.raises(ImproperlyConfigured):
        conf.settings.TTL  # noqa: B018  # reading it is the point


def test_resolvers_can_be_dotted_paths() -> None:
    """As everywhere in Django's settings."""
    assert conf.resolver("test_http.tenant_of_header") is tenant_of_header
    assert conf.resolver(tenant_of_header) is tenant_of_header
