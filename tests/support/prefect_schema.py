"""The schema of a new sqlite database of Prefect's server, as the migrations of the installed Prefect make it.

python -m tests.support.prefect_schema      # after another version of Prefect was put into requirements.lock
"""

import os
import sqlite3
import subprocess
import sys
import tempfile
from contextlib import closing
from pathlib import Path

from flows.services.prefect_database import SCHEMA, SQLITE_URL


def migrate(path: Path) -> None:
    """Have Prefect create a database by all its migrations."""
    subprocess.run(
        [sys.executable, "-m", "prefect", "server", "database", "upgrade", "--yes"],
        env=os.environ
        | {
            "PREFECT_HOME": str(path.parent),
            "PREFECT_SERVER_DATABASE_CONNECTION_URL": f"{SQLITE_URL}{path}",
        },
        check=True,
        capture_output=True,
    )


def dump(path: Path) -> str:
    """Return the statements that create a database again; it is in WAL mode, as Prefect creates it."""
    with closing(sqlite3.connect(path)) as database:
        return "\n".join(["PRAGMA journal_mode = WAL;", *database.iterdump(), ""])


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        migrate(Path(folder, "prefect.db"))
        SCHEMA.write_text(dump(Path(folder, "prefect.db")), encoding="utf-8")
