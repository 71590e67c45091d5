"""The sqlite database of a Prefect server on this machine: where it is, whether this Prefect can use it."""

import os
import re
import sqlite3
import tempfile
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path

import prefect
from prefect.settings import get_current_settings

from store.errors import BadInput, ServiceUnavailable

LOCK_WAIT_S = 5.0  # a server writes for fractions of a second at a time
SQLITE_URL = "sqlite+aiosqlite:///"
MIGRATIONS = Path(prefect.__file__).parent / "server/database/_migrations/versions/sqlite"
REVISION = re.compile(r"""^revision(?:: str)? = ["'](\w+)["']""", re.MULTILINE)
SCHEMA_REVISION = re.compile(r"""^INSERT INTO "alembic_version" VALUES\('(\w+)'\);$""", re.MULTILINE)
SCHEMA = Path(__file__).with_name("prefect_schema.sql")  # written by `python -m tests.support.prefect_schema`


@dataclass(frozen=True)
class DatabaseState:
    """A database that exists: the revision of its schema, its size, whether another process locks it."""

    path: Path
    revision: str | None
    size_bytes: int
    is_locked: bool

    @property
    def is_known(self) -> bool:
        """Whether this version of Prefect can read it, or migrate it to what it can read."""
        return self.revision is None or self.revision in known_revisions()


def configured_url() -> str | None:
    """Return the URL of the database that the user configured for the server; None if none is."""
    database = get_current_settings().server.database
    if not database.model_fields_set & {"connection_url", "host", "name", "driver"}:
        return None
    url = database.connection_url
    return url.get_secret_value() if url else f"{database.driver}://{database.host}/{database.name}"


def own_path(home: Path | None = None) -> Path:
    """Return the file of the database that servers started here use, unless another is configured.

    Another version of Prefect may have migrated the user's own database to a state that this one cannot read.
    """
    return (home or get_current_settings().home) / f"spectrogram-one-{prefect.__version__}.db"


def sqlite_path() -> Path | None:
    """Return the file of the database in use; None if it is no sqlite file."""
    url = configured_url()
    if url is None:
        return own_path()
    return Path(url.removeprefix(SQLITE_URL).partition("?")[0]) if url.startswith(SQLITE_URL) else None


def known_revisions() -> set[str]:
    """Return the revisions of the schema that this version of Prefect knows."""
    return {
        it for path in MIGRATIONS.glob("*.py") for it in REVISION.findall(path.read_text(encoding="utf-8"))
    }


def inspect_database(path: Path, lock_wait_s: float = LOCK_WAIT_S) -> DatabaseState | None:
    """Return the state of a database, None if there is none yet. Raises: BadInput if it is not a database."""
    if not path.exists() or not path.stat().st_size:
        return None
    try:
        with closing(sqlite3.connect(path, timeout=lock_wait_s, isolation_level=None)) as database:
            return _inspect(database, path)
    except sqlite3.DatabaseError as why:
        raise BadInput(
            f"{path}: cannot be read as Prefect's database ({why}); restore a backup of it, or move it away: the "
            "server then starts with an empty one"
        ) from None


def check_database(path: Path, lock_wait_s: float = LOCK_WAIT_S) -> None:
    """Check before a server starts whether it could use a database.

    Raises: BadInput if its schema is not known; ServiceUnavailable if another process keeps it locked.
    """
    state = inspect_database(path, lock_wait_s)
    if state is None:
        return
    if not state.is_known:
        raise BadInput(f"{path}: {describe_unknown(state)}")
    if state.is_locked:
        raise ServiceUnavailable(f"{path}: {describe_locked(lock_wait_s)}")


def create_database(path: Path) -> None:
    """Create a database that does not exist yet, with the schema that Prefect's migrations lead to.

    The hundred migrations take the first start of a server seconds. The server migrates what is newer than the schema,
    and makes a database of its own where none can be made here: if its Prefect does not know the schema, another
    server was first, the disk is full or has no hard links.
    """
    if path.exists():
        return
    schema = SCHEMA.read_text(encoding="utf-8")
    if not known_revisions() & set(SCHEMA_REVISION.findall(schema)):
        return
    with suppress(OSError, sqlite3.Error), tempfile.TemporaryDirectory(dir=path.parent) as folder:
        made = Path(folder, path.name)
        with closing(sqlite3.connect(made)) as database:
            database.executescript(schema)
        os.link(made, path)


def describe_unknown(state: DatabaseState) -> str:
    """Return what is wrong with a schema of another version, and what to do."""
    return (
        f"its schema has the revision {state.revision}, which Prefect {prefect.__version__} does not know: a newer "
        "Prefect migrated it; install that version, or move the file away to start with an empty database"
    )


def describe_locked(waited_s: float = LOCK_WAIT_S) -> str:
    """Return what a lock that is not released means, and what to do."""
    return (
        f"another process keeps it locked for more than {waited_s:g} s; `fuser` of that file names the process: end "
        "it, or keep the file on a local disk, since shares do not release locks of hosts that died"
    )


def _inspect(database: sqlite3.Connection, path: Path) -> DatabaseState:
    try:
        database.execute("BEGIN IMMEDIATE")
        database.execute("ROLLBACK")
        is_locked = False
    except sqlite3.OperationalError as why:
        if "locked" not in str(why):
            raise
        is_locked = True
    try:
        row = database.execute("SELECT version_num FROM alembic_version").fetchone()
    except sqlite3.OperationalError as why:
        if "no such table" not in str(why) and "locked" not in str(why):
            raise
        row = None
    return DatabaseState(path, row[0] if row else None, path.stat().st_size, is_locked)
