"""``python manage.py demo``: serve the shop, and show what idempotency keys do for it."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal
from importlib.util import find_spec
from typing import IO, Any, Final, cast
from uuid import uuid4

from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import OperationalError

from testproject.shop.demonstration.server import Server, ServerFailed, serve
from testproject.shop.seed import ALICE, BOB, CLERK, seed

OPENING: Final = """\
The shop is open at {url}. Alice and Bob send it payments, each
with an Idempotency-Key; "replayed" means the header Idempotent-Replayed: true.

"""

INVITATION: Final = """
The shop stays open at {url}

  POST /payments/            takes a payment
  POST /async/payments/      takes a payment in an async view
  POST /api/payments/        takes a payment with Django REST framework
  GET  /payments/<id>/       shows a payment
  GET  /api/docs/            documents the API, and tries it
  GET  /checkout/            sells coffee to people: try a double click
  GET  /idempotency/policy/  tells clients what keys do here
  GET  /admin/               shows the clerk what became of the keys

  Alice: name {alice.name}, password {alice.password}, bearer token {alice.token}
  Bob:   name {bob.name}, password {bob.password}, bearer token {bob.token}
  Clerk: name {clerk.name}, password {clerk.password}

Pay as Alice. Run it twice: the second time, you get the first answer again.

curl -i {url}/payments/ \\
  -H 'Authorization: Bearer {alice.token}' \\
  -H 'Idempotency-Key: "{key}"' \\
  -H 'Content-Type: application/json' \\
  -d '{{"amount": "12.50", "currency": "EUR", "card": "tok_visa"}}'

Ctrl-C closes the shop.
"""


class Command(BaseCommand):
    """Plays the scenes of `testproject.shop.demonstration` on a server of its own."""

    help = "Serve the shop, and show what idempotency keys do for it."

    def add_arguments(self, parser: CommandParser) -> None:
        """Declare the options."""
        parser.add_argument(
            "--once", action="store_true", help="stop after the show; exit code 1 if it went wrong"
        )
        parser.add_argument("--port", type=int, default=8000, help="8000, or 0 for a free one")
        parser.add_argument("--workers", type=int, default=4, help="gunicorn's processes: 4")

    def handle(self, *_args: Any, **options: Any) -> None:
        """Serve and show; then stop or stay open."""
        _refuse_missing_packages()
        self.stdout.ending = ""  # rich ends its lines itself
        try:
            with _sigterm_is_ctrl_c():
                _prepare()
                with serve(options["port"], options["workers"]) as server:
                    self._run(server, options)
        except (ServerFailed, OperationalError) as error:
            raise CommandError(str(error)) from error
        except KeyboardInterrupt:
            raise CommandError("Interrupted before the end.", returncode=130) from None

    def _run(self, server: Server, options: dict[str, Any]) -> None:
        if options["port"] not in {0, server.port}:
            self.stdout.write(f"Port {options['port']} is taken. This is another one:\n")
        self.stdout.write(OPENING.format(url=server.url))
        problem = self._show(server, options)
        if options["once"]:
            if problem:
                raise CommandError(problem)
            return
        if problem:
            self.stderr.write(problem)
        self._stay_open(server)

    def _show(self, server: Server, options: dict[str, Any]) -> str:
        """Play the scenes; say what went wrong, if anything."""
        from testproject.shop.demonstration import printing, scenes  # noqa: PLC0415

        console = printing.make_console(
            cast("IO[str]", self.stdout),
            no_color=options["no_color"],
            force_color=options["force_color"],
        )
        shown = printing.show(scenes.play(server), console)
        wrong = sum(not scene.is_right for scene in shown)
        if wrong:
            return f"{wrong} of {len(shown)} promises were broken."
        self.stdout.write(f"\nAll {len(shown)} promises were kept.\n")
        return ""

    def _stay_open(self, server: Server) -> None:
        invitation = INVITATION.format(
            url=server.url, alice=ALICE, bob=BOB, clerk=CLERK, key=uuid4()
        )
        self.stdout.write(invitation)
        self.stdout.flush()
        try:
            server.wait_for_end()
        except KeyboardInterrupt:
            self.stdout.write("\nThe shop is closing. Thank you for paying once.\n")


def _refuse_missing_packages() -> None:
    missing = [name for name in ("gunicorn", "httpx", "rich") if find_spec(name) is None]
    if missing:
        raise CommandError(
            f"The demo needs {', '.join(missing)}. Run: python -m pip install -e '.[demo]'"
        )


def _prepare() -> None:
    """Create tables and customers, and see to it that the customers can pay."""
    call_command("migrate", verbosity=0, interactive=False)
    for account in seed():
        if account.balance < 500:
            account.balance = Decimal("1000.00")
            account.save()


@contextmanager
def _sigterm_is_ctrl_c() -> Iterator[None]:
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
