"""What is kept of a round in which a promise was broken, to find out why."""

import json
import shutil
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import mkdtemp

from psycopg.sql import SQL, Identifier

from .ledger import Ledger
from .server import Server

_TABLES = ("idempotency_key", "shop_payment", "shop_account")


@dataclass(slots=True)
class Strike:
    """One fault, and whose request it struck."""

    began: float
    """Seconds since the epoch."""
    fault: str
    step: str
    """Or the door, where the request was cut on its way."""
    moment: str = ""
    """Or how much of it was sent."""
    worker: int = 0
    """Its process id."""
    row: str = ""
    """Primary key of the row that the request has asked for last."""
    took: float = 0
    """Seconds."""
    outcome: str = ""
    """Empty where it was injected, and nothing else came in between."""


def keep(ledger: Ledger, server: Server, strikes: Iterable[Strike], stories: str) -> Path:
    """Copy all that there is to a new folder, and give that."""
    folder = Path(mkdtemp(prefix="faults-"))
    shutil.copy(ledger.path, folder)
    shutil.copy(server.log, folder)
    lines = [json.dumps(asdict(strike)) for strike in strikes]
    (folder / "strikes.jsonl").write_text("\n".join(lines))
    (folder / "stories").write_text(stories)
    with server.connect() as session:
        for table in _TABLES:
            query = SQL("SELECT to_jsonb(one)::text FROM {} AS one").format(Identifier(table))
            rows = [str(row) for (row,) in session.execute(query)]
            (folder / f"{table}.jsonl").write_text("\n".join(rows))
    return folder
