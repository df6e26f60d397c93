"""What the admin shows of a key: the columns of the list, and the fields of its page.

All that clients sent, and all that was answered, is text to be escaped; nothing of it is executed.
Times are told by the database's clock, which says what has expired.
"""

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any

from django.contrib.admin import display
from django.db import models
from django.db.models import Func, Value
from django.db.models.functions import Cast
from django.template.defaultfilters import filesizeformat
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from idempotency import answers
from idempotency.exceptions import ResponseNotKept
from idempotency.models import IdempotencyKey

from . import activity
from .preview import MAX_BYTES, Kind, preview
from .wording import distance, elapsed, local, state_label

State = IdempotencyKey.State

_LONGEST = 36
"""Characters in a column: a UUID is shown whole."""

_NOTHING = "-"

_MEANINGS = {
    State.RUNNING: _("A request with this key is running now."),
    State.COMPLETED: _("A retry is given the stored answer, and nothing runs."),
    State.FAILED: _("The latest attempt was rolled back and left no answer. A retry runs again."),
    State.ABANDONED: _(
        "In progress, but nobody holds it: the worker died, and what it did was rolled back; or it "
        "is about to begin. A retry runs."
    ),
    State.EXPIRED: _("The key counts as never seen, and waits for the purge."),
}


@display(description=_("key"))
def short_key(key: Any) -> SafeString:
    """Show the key, of a long one beginning and end."""
    return _shortened(key.key)


@display(description=_("scope"))
def short_scope(key: Any) -> SafeString:
    """Show the scope likewise."""
    return _shortened(key.scope)


@display(description=_("operation"))
def short_operation(key: Any) -> SafeString:
    """Show the operation likewise."""
    return _shortened(key.operation)


@display(description=_("state"))
def state(key: Any) -> SafeString:
    """Show how the key stands."""
    return format_html(
        '<span class="idempotency-state idempotency-{}">{}</span>', key.state, state_label(key)
    )


@display(description=_("age"))
def age(key: Any) -> SafeString:
    """Show how long ago the key was first seen."""
    return _moment(key.created_at, elapsed(key.now - key.created_at, depth=1))


@display(description=_("expires"))
def expiry(key: Any) -> SafeString:
    """Show how long the key has to live."""
    return _moment(key.expires_at, distance(key.expires_at - key.now, depth=1))


@display(description=_("key"))
def whole_key(key: Any) -> SafeString:
    """Show the key as the client means it."""
    return format_html('<code class="idempotency-name">{}</code>', key.key)


@display(description=_("scope"))
def whole_scope(key: Any) -> SafeString:
    """Show whose key it is."""
    return format_html('<bdi class="idempotency-name">{}</bdi>', key.scope)


@display(description=_("state"))
def state_explained(key: Any) -> SafeString:
    """Show how the key stands, and what that means for a retry."""
    return format_html("{} {}", state(key), _MEANINGS[State(key.state)])


@display(description=_("held by"))
def holder(key: Any) -> str:
    """Show which connection holds the row, and since when."""
    found = activity.holder(key.pk)
    if found is None:
        return gettext("Nobody any more: the request has just ended.")
    facts: list[tuple[Any, Any]] = [
        (_("Server process"), found.pid),
        (_("Application"), found.application),
    ]
    if found.running_for is None:
        hint = _("PostgreSQL tells more to a database user that is granted pg_read_all_stats.")
        return _facts([*facts, (_("More"), hint)])
    facts += [
        (_("Client address"), found.client or _("on the database's own machine")),
        (_("Transaction open for"), elapsed(found.running_for)),
        (_("Connected for"), elapsed(found.connected_for or timedelta(0))),
        (_("Connection"), found.state),
        (_("Waits for"), found.waits_for),
    ]
    return _facts(facts)


@display(description=_("last error"))
def last_error(key: Any) -> str:
    """Show the class of the exception that ended the latest failed attempt."""
    return key.last_error or _NOTHING


@display(description=_("first seen"))
def first_seen(key: Any) -> str:
    """Show when the key was first seen."""
    return _date(key.created_at, key.now)


@display(description=_("completed"))
def completed(key: Any) -> str:
    """Show when the answer was saved."""
    return _date(key.completed_at, key.now)


@display(description=_("expires"))
def expires(key: Any) -> str:
    """Show when the key expires."""
    return _date(key.expires_at, key.now)


@display(description=_("fingerprint"))
def fingerprint(key: Any) -> str:
    """Show by which rules requests are compared; the value would tell nobody anything."""
    return gettext("version %(version)s") % {"version": bytes(key.fingerprint)[:1].hex()}


@display(description=_("size"))
def size(key: Any) -> str:
    """Show how many bytes the body has."""
    if key.size is None:
        return gettext("The body was too large to keep. A retry is told so, and nothing runs.")
    return filesizeformat(key.size)


@display(description=_("answer"))
def hidden_answer(_key: Any) -> str:
    """Say why no answer is shown."""
    return gettext("Hidden. It takes the permission “Can view stored answers”.")


@display(description=_("headers"))
def headers(key: Any) -> str:
    """Show the headers in their order; or what somebody has put there in place of them."""
    stored = _read(key, Cast("headers", models.TextField()))
    try:
        pairs = answers.load(stored or "[]")
    except ResponseNotKept:
        return format_html("<code>{}</code>", stored)
    return _table(pairs) if pairs else _NOTHING


@display(description=_("body"))
def body(key: Any) -> str:
    """Show the body as text, whatever it is; only the beginning of a large one is read."""
    if key.size is None:
        return _NOTHING
    beginning = Func(
        "body", Value(1), Value(MAX_BYTES), function="substr", output_field=models.BinaryField()
    )
    shown = preview(bytes(_read(key, beginning) or b""), key.size)
    if shown.kind == Kind.EMPTY:
        return gettext("Empty")
    text = format_html(
        '<pre class="idempotency-body idempotency-{}" tabindex="0">{}</pre>', shown.kind, shown.text
    )
    if shown.shown == key.size:
        return text
    note = gettext("The first %(shown)s of %(size)s:")
    note %= {"shown": filesizeformat(shown.shown), "size": filesizeformat(key.size)}
    return format_html("<p>{}</p>{}", note, text)


def _read(key: IdempotencyKey, what: Any) -> Any:
    """Read from a row what was left there, and from where the row came."""
    keys = IdempotencyKey.objects.primary()
    return keys.filter(pk=key.pk).values_list(what, flat=True).first()


def _shortened(text: str) -> SafeString:
    if len(text) <= _LONGEST:
        return format_html("<bdi>{}</bdi>", text)
    short = f"{text[: _LONGEST - 9]}…{text[-8:]}"
    return format_html('<bdi title="{}">{}</bdi>', text, short)


def _moment(when: datetime, text: str) -> SafeString:
    return format_html(
        '<time datetime="{}" title="{}">{}</time>', when.isoformat(), local(when), text
    )


def _date(when: datetime | None, now: datetime) -> str:
    if when is None:
        return _NOTHING
    exact, away = local(when), distance(when - now)
    return format_html('<time datetime="{}">{}</time> ({})', when.isoformat(), exact, away)


def _facts(facts: Iterable[tuple[Any, Any]]) -> SafeString:
    return _table((name, _NOTHING if fact in {None, ""} else fact) for name, fact in facts)


def _table(pairs: Iterable[tuple[Any, Any]]) -> SafeString:
    rows = format_html_join("", '<tr><th scope="row">{}</th><td>{}</td></tr>', pairs)
    return format_html('<table class="idempotency-facts"><tbody>{}</tbody></table>', rows)
