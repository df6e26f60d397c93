"""What can go wrong on the wire: each error with its HTTP status and its problem type.

The docstring of a class is the message the client reads, so the prose exists once. Raise one with
a sentence to put it behind that message: ``InvalidKey("It is longer than 255 characters.")``.
"""

from typing import ClassVar

from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _

from .signals import Outcome

_SEND_ANEW = _(
    "What you sent now has not been processed. Open the page with the form anew, and send it again."
)
_SEND_AGAIN = _(
    "What you sent now has not been processed. Reload this page; should your browser ask whether "
    "to send the form again, agree: it will not be done twice."
)
_LATER = _("Please try again in a moment")


class IdempotencyError(Exception):
    """The request could not be answered idempotently."""

    status: ClassVar[int]
    """HTTP status code of the answer."""

    slug: ClassVar[str]
    """Last part of the problem's ``type`` URI (RFC 9457, section 3.1.1)."""

    title: ClassVar[str]
    """Summary that does not change from occurrence to occurrence."""

    heading: ClassVar[str | Promise]
    """What the page for people says happened. They sent a form, and know nothing of keys."""

    advice: ClassVar[str | Promise]
    """What the page says they can do."""

    needs_new_form: ClassVar[bool] = False
    """Whether it takes a form with a fresh key to go on: the page then links to it."""

    retry_after: int | None = None
    """Whole seconds for ``Retry-After``; None where sending the same request again cannot help."""

    outcome: ClassVar[Outcome] = Outcome.REFUSED
    """What is counted of it."""

    @property
    def detail(self) -> str:
        """What happened and what the client must do, in plain text."""
        return " ".join([*(self.__doc__ or self.title).split(), *self.args])


class MissingKey(IdempotencyError):
    """This operation needs an Idempotency-Key header.

    Send a fresh unique value, such as a UUID, with every new operation, and the same value again
    with every retry of it.
    """

    status = 400
    slug = "missing-key"
    title = "Idempotency-Key is missing"
    heading = _("This form cannot be sent")
    advice = _SEND_ANEW
    needs_new_form = True


class InvalidKey(IdempotencyError):
    """The Idempotency-Key of this request cannot be used.

    Send exactly one key of 1 to 255 printable ASCII characters, best as a quoted string.
    """

    status = 400
    slug = "invalid-key"
    title = "Idempotency-Key is invalid"
    heading = _("This form cannot be sent")
    advice = _SEND_ANEW
    needs_new_form = True


class IncompleteBody(IdempotencyError):
    """The body of this request is shorter than its Content-Length: its end has not arrived.

    Nothing was processed. Send the whole request again, with the same key.
    """

    status = 400
    slug = "incomplete-body"
    title = "The body is incomplete"
    heading = _("What you sent has not arrived completely")
    advice = _SEND_AGAIN


class LengthRequired(IdempotencyError):
    """The body of this request was sent in chunks, and this server cannot tell where it ends.

    Nothing was processed. Send it again with a Content-Length, with the same key.
    """

    status = 411
    slug = "length-required"
    title = "Content-Length is required"
    heading = _("This form cannot be sent")
    advice = _SEND_ANEW
    needs_new_form = True


class UnscopedCaller(IdempotencyError):
    """This operation keeps idempotency keys per caller, and the caller is anonymous.

    Authenticate, then send the request again with the same key.
    """

    status = 400
    slug = "unscoped-caller"
    title = "Idempotency-Key needs a known caller"
    heading = _("We cannot tell who you are")
    advice = _(
        "What you sent now has not been processed. Log in, or allow this site to set cookies. Then "
        "open the page with the form anew, and send it again."
    )
    needs_new_form = True


class UnknownKey(IdempotencyError):
    """The caller has no such idempotency key: it was never sent, or it has expired.

    A request with it would be processed as new.
    """

    status = 404
    slug = "unknown-key"
    title = "Idempotency-Key is unknown"
    heading = _("Nothing is known of this request")
    advice = _("It never came here, or too long ago.")


class KeyReused(IdempotencyError):
    """This Idempotency-Key was first sent with another request.

    Repeat that request exactly, or use a fresh key for a new operation.
    """

    status = 422
    slug = "key-reused"
    title = "Idempotency-Key is already used"
    heading = _("This form was sent before, with other content")
    advice = _(
        "What you sent now has not been processed. See what became of the first one. To send "
        "something else, open the page with the form anew."
    )
    needs_new_form = True
    outcome = Outcome.KEY_REUSED


class RequestInProgress(IdempotencyError):
    """A request with this Idempotency-Key is being processed.

    Send the same request again later: it will get the answer of the first one.
    """

    status = 409
    slug = "request-in-progress"
    title = "A request is outstanding for this Idempotency-Key"
    heading = _("Still working on it")
    advice = _(
        "What you sent is being processed. Reload this page in a moment to see the outcome. Should "
        "your browser ask whether to send the form again, agree: it will not be done twice."
    )
    retry_after = 1
    outcome = Outcome.IN_PROGRESS


class ResponseNotKept(IdempotencyError):
    """The request with this Idempotency-Key was completed, but its response was not kept.

    It will not run again. Look at the resource itself for the outcome.
    """

    status = 409
    slug = "response-not-kept"
    title = "The response was not kept"
    heading = _("This has been done already")
    advice = _("The page that answered it cannot be shown again. It will not be done twice.")
    outcome = Outcome.RESPONSE_NOT_KEPT


class TooManyKeys(IdempotencyError):
    """The caller has as many idempotency keys as one may have at a time. Nothing was processed.

    Send the same request again later, with the same key: some will have expired. Use one key for
    all retries of an operation.
    """

    status = 429
    slug = "too-many-keys"
    title = "There are too many idempotency keys"
    heading = _("You have sent very much in a short time")
    advice = _(
        "What you sent now has not been processed. Reload this page later; should your browser ask "
        "whether to send the form again, agree: it will not be done twice."
    )
    retry_after = 1
    outcome = Outcome.TOO_MANY_KEYS

    _MOST = 3600
    """Seconds. Whoever looks after the site may evict keys, or allow for more of them."""

    def __init__(self, seconds: int = 1) -> None:
        """Take the time until the first of the caller's keys expires."""
        super().__init__()
        self.retry_after = max(1, min(seconds, self._MOST))


class StoreUnavailable(IdempotencyError):
    """The idempotency keys cannot be reached at the moment, so the request was not processed.

    Send the same request again later, with the same key.
    """

    status = 503
    slug = "store-unavailable"
    title = "Idempotency keys are unavailable"
    heading = _LATER
    advice = _SEND_AGAIN
    retry_after = 1
    outcome = Outcome.UNAVAILABLE


class OutcomeUnknown(IdempotencyError):
    """The request may have been processed, but the database has not confirmed it.

    Send the same request again, with the same key: it will not be processed twice.
    """

    status = 503
    slug = "outcome-unknown"
    title = "The outcome is not confirmed"
    heading = _LATER
    advice = _(
        "What you sent may have been processed. Reload this page in a moment to see the outcome. "
        "Should your browser ask whether to send the form again, agree: it will not be done twice."
    )
    retry_after = 1
    outcome = Outcome.OUTCOME_UNKNOWN


class TransactionConflict(IdempotencyError):
    """The request collided with another one in the database and was rolled back completely.

    Send the same request again, with the same key.
    """

    status = 503
    slug = "transaction-conflict"
    title = "The transaction was rolled back"
    heading = _LATER
    advice = _SEND_AGAIN
    retry_after = 1
    outcome = Outcome.TRANSACTION_CONFLICT


class AfterCommitError(RuntimeError):
    """The view's work was committed, and then a hook of ``transaction.on_commit()`` failed.

    Its cause is the hook's own exception, or that of a connection lost at that moment. That one is
    not raised further, because Django or the project might turn it into a 4xx response, which would
    say that nothing was done. The client gets a 500 response, and a retry the stored one.
    """
