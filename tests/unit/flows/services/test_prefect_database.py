"""A database that the server could not use is named before the server starts."""

import os
import re
import sqlite3
import subprocess
import sys
from contextlib import closing

import pytest
from prefect.settings import PREFECT_HOME, temporary_settings

from flows.services.prefect_database import (
    MIGRATIONS,
    SCHEMA,
    check_database,
    create_database,
    inspect_database,
    known_revisions,
    sqlite_path,
)
from flows.services.prefect_server import only_serve
from flows.services.server_check import read_version
from store.errors import BadInput, ServiceUnavailable
from tests.support.prefect_schema import dump, migrate

HOLD = """
import sys
from flows.services.prefect_server import only_serve
with only_serve(4201):
    print("held", flush=True)
    sys.stdin.read()
"""
URL = "http://10.0.0.1:4200/api"


def write_database(path, revision):
    with closing(sqlite3.connect(path)) as made, made:
        made.execute("CREATE TABLE alembic_version (version_num TEXT)")
        made.execute("INSERT INTO alembic_version VALUES (?)", [revision])


def lines_of(sql):
    """Sort the lines: Prefect's migrations write the constraints of a table in any order."""
    return sorted(line.strip(" \t,") for line in sql.splitlines())


def test_a_database_that_is_new_empty_or_known_is_accepted(tmp_path):
    check_database(tmp_path / "new.db")
    (tmp_path / "empty.db").touch()
    check_database(tmp_path / "empty.db")
    write_database(tmp_path / "known.db", sorted(known_revisions())[0])
    check_database(tmp_path / "known.db")


def test_a_new_database_has_the_newest_schema_of_the_installed_prefect(tmp_path):
    create_database(tmp_path / "made.db")
    migrated = inspect_database(tmp_path / "made.db").revision
    newer = re.compile(rf"""^down_revision(?:: .+)? = ["']{migrated}["']""", re.MULTILINE)
    assert not any(newer.search(path.read_text()) for path in MIGRATIONS.glob("*.py")), (
        "run tests.support.prefect_schema"
    )
    create_database(tmp_path / "made.db")  # what exists is left as it is
    assert [path.name for path in tmp_path.iterdir()] == ["made.db"]


@pytest.mark.soak
def test_the_migrations_lead_to_the_schema_of_a_new_database(tmp_path):
    create_database(tmp_path / "made.db")
    migrate(tmp_path / "migrated.db")
    made, migrated = dump(tmp_path / "made.db"), dump(tmp_path / "migrated.db")
    assert made == SCHEMA.read_text()
    assert lines_of(made) == lines_of(migrated), "write it again: python -m tests.support.prefect_schema"


def test_an_older_prefect_makes_its_own_database(tmp_path, monkeypatch):
    monkeypatch.setattr("flows.services.prefect_database.known_revisions", lambda: {"ffffffffffff"})
    create_database(tmp_path / "none.db")
    assert not (tmp_path / "none.db").exists()


def test_a_database_of_a_newer_prefect_is_refused(tmp_path):
    write_database(tmp_path / "newer.db", "ffffffffffff")
    with pytest.raises(BadInput, match=r"newer.db: its schema has the revision ffffffffffff"):
        check_database(tmp_path / "newer.db")


def test_the_database_of_a_newer_prefect_in_the_same_home_is_not_used(tmp_path):
    write_database(tmp_path / "prefect.db", "ffffffffffff")
    with temporary_settings({PREFECT_HOME: tmp_path}):
        path = sqlite_path()
    assert path is not None
    assert (path.parent, path.exists()) == (tmp_path, False)
    check_database(path)


def test_a_locked_database_is_named(tmp_path):
    path = tmp_path / "locked.db"
    write_database(path, sorted(known_revisions())[0])
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(ServiceUnavailable, match=r"locked.db: another process keeps it locked"):
            check_database(path, lock_wait_s=0.01)


def test_what_is_no_database_is_refused(tmp_path):
    (tmp_path / "other.db").write_bytes(b"something else " * 100)
    with pytest.raises(BadInput, match="cannot be read as Prefect's database"):
        check_database(tmp_path / "other.db")


@pytest.mark.parametrize("version", ["3.8.8", "3.8.0", "3.9.1", "3.10.0.dev1"])
def test_a_server_that_is_not_older_is_accepted(version):
    assert read_version(URL, 200, f'"{version}"') == version


@pytest.mark.parametrize("version", ["3.7.9", "2.20.1", "4.0.0"])
def test_a_server_of_a_version_that_does_not_fit_is_refused(version):
    with pytest.raises(BadInput, match=f"the server runs Prefect {version}, this client"):
        read_version(URL, 200, f'"{version}"')


def test_wrong_credentials_and_other_servers_are_named():
    with pytest.raises(BadInput, match=r"refuses our credentials.*PREFECT_API_AUTH_STRING"):
        read_version(URL, 401, '{"detail": "Unauthorized"}')
    with pytest.raises(BadInput, match="responds, but not as a Prefect server"):
        read_version(URL, 200, "<html>")
    with pytest.raises(BadInput, match="responds, but not as a Prefect server"):
        read_version(URL, 200, "3")


def test_a_second_serve_of_the_same_folder_is_refused_until_the_first_ends(tmp_path):
    with temporary_settings({PREFECT_HOME: tmp_path}):
        environment = os.environ | {"PREFECT_HOME": str(tmp_path)}
        with subprocess.Popen(
            [sys.executable, "-c", HOLD],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as other:
            assert other.stdout.readline() == "held\n"
            with pytest.raises(
                BadInput, match=r"--port 4202: `serve` runs already, at http://127.0.0.1:4201"
            ):
                only_serve(4202).__enter__()
            other.stdin.close()
        with only_serve(4202):
            pass
