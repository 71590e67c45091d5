"""Each check of `doctor`, on what is well and on what is broken."""

import socket
import sqlite3
from contextlib import closing
from datetime import UTC, datetime, timedelta

import pytest

from flows.diagnosis import network, places, prefect_state, software
from flows.security.certificates import make_certificates
from flows.security.urls import hide_password

GIB = 2**30


def levels(findings):
    return [it.level for it in findings]


def only(findings):
    (finding,) = findings
    return finding


def test_a_finding_is_one_line():
    finding = software.check_packages({}, None, {"torch"})[0]
    assert finding.line().startswith("problem  packages: torch not installed; ")
    assert len(finding.line().splitlines()) == 1


@pytest.mark.parametrize(
    ("installed", "lock", "level", "words"),
    [
        ({"a": "1", "b": "2"}, {"a": "1", "b": "2"}, "ok", "2 installed as in"),
        ({"a": "1"}, {"a": "1", "gone": "3"}, "ok", "1 installed"),
        ({"a": "1"}, {"a": "2"}, "warning", "a 1 (lock: 2)"),
        ({"b": "1"}, {"a": "2"}, "problem", "a not installed"),
        ({"a": "1"}, None, "warning", "no requirements.lock"),
    ],
)
def test_packages(installed, lock, level, words):
    finding = only(software.check_packages(installed, lock, {"a"}))
    assert finding.level == level
    assert words in finding.found


def test_this_checkout_has_its_lock_and_its_packages():
    assert {"torch", "prefect"} <= set(software.read_lock())
    assert {"torch", "prefect"} <= software.read_needed()
    assert "optuna" not in software.read_needed()


def test_a_lock_names_packages_as_they_are_spelled_anywhere(tmp_path):
    (tmp_path / "lock").write_text(
        "# made\nMy_Package==1.2+cpu  # why\nother.one==3 ; python_version > '3'\n"
    )
    assert software.read_lock(tmp_path / "lock") == {"my-package": "1.2", "other-one": "3"}


def test_decoders():
    assert levels(software.check_decoders(lambda: {"libsndfile": "1.2"})) == ["ok"]

    def fail():
        raise OSError("libsndfile.so.1: cannot open shared object file")

    assert "libsndfile.so.1" in only(software.check_decoders(fail)).found


@pytest.mark.parametrize(
    ("listed", "usable", "level"),
    [
        ([], None, "ok"),
        (["a", "b"], (2, "2.21.5"), "ok"),
        (["a", "b"], (0, None), "problem"),
        (["a", "b"], (2, None), "problem"),
        (["a", "b"], (1, "2.21.5"), "warning"),
    ],
)
def test_gpus(listed, usable, level):
    assert only(software.check_gpus(listed, lambda: usable)).level == level


def test_places(tmp_path):
    (tmp_path / "file").write_text("")
    assert levels(places.check_place("store", str(tmp_path))) == ["ok"]
    assert levels(places.check_place("store", str(tmp_path / "new/one"))) == ["ok"]
    assert not (tmp_path / "new").exists()
    assert levels(places.check_place("store", str(tmp_path / "file/one"))) == ["problem"]
    assert levels(places.check_place("store", "no-such-protocol://bucket/store")) == ["problem"]
    assert [it.name for it in tmp_path.iterdir()] == ["file"]


def test_a_place_that_cannot_be_written(tmp_path, monkeypatch):
    def refuse(url, data):
        raise PermissionError(13, "Permission denied", url)

    monkeypatch.setattr(places, "put_if_absent", refuse)
    finding = only(places.check_place("store", str(tmp_path)))
    assert finding.level == "problem"
    assert "give this user the permission" in finding.advice


def test_clock():
    assert places.check_clock("share", 3.0) == []
    assert "60 s ahead of" in only(places.check_clock("share", 60.0)).found
    assert "60 s behind" in only(places.check_clock("share", -60.0)).found


@pytest.mark.parametrize(("gib", "level"), [(0.5, "problem"), (5, "warning"), (50, "ok")])
def test_space(gib, level, tmp_path):
    assert only(places.check_space("disk", tmp_path, int(gib * GIB))).level == level


@pytest.mark.parametrize(("ms", "level"), [(2.0, "ok"), (100.0, "warning"), (1_000.0, "problem")])
def test_fsync(ms, level, tmp_path):
    assert only(places.check_fsync("fsync", tmp_path, ms)).level == level
    assert places.measure_fsync_ms(tmp_path) > 0
    assert not list(tmp_path.iterdir())


def test_a_port_that_is_taken():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert levels(network.check_port(port, is_ours=False)) == ["problem"]
        assert levels(network.check_port(port, is_ours=True)) == ["ok"]


@pytest.mark.parametrize(
    ("environment", "level"),
    [
        ({}, "ok"),
        ({"HTTP_PROXY": "http://proxy:3128"}, "warning"),
        ({"HTTP_PROXY": "http://proxy:3128", "NO_PROXY": "prefect.lan"}, "ok"),
        ({"https_proxy": "http://proxy:3128", "no_proxy": "localhost, .lan"}, "ok"),
        ({"ALL_PROXY": "http://proxy:3128", "no_proxy": "*"}, "ok"),
    ],
)
def test_proxies(environment, level):
    servers = {"Prefect": "http://prefect.lan:4200/api", "MLflow": "http://127.0.0.1:5000"}
    assert only(network.check_proxies(environment, servers)).level == level


def test_certificates(tmp_path):
    assert levels(network.check_certificates(tmp_path)) == ["problem"]
    make_certificates(tmp_path, ["node-1"], 100)
    now = datetime.now(UTC)
    assert levels(network.check_certificates(tmp_path)) == ["ok", "ok"]
    assert levels(network.check_certificates(tmp_path, now + timedelta(days=80))) == ["ok", "warning"]
    assert levels(network.check_certificates(tmp_path, now + timedelta(days=101))) == ["ok", "problem"]


def test_exposure():
    assert network.check_exposure({}) == []
    assert levels(network.check_exposure({"PREFECT_SERVER_API_HOST": "0.0.0.0"})) == ["problem"]
    safe = {"PREFECT_SERVER_API_HOST": "0.0.0.0", "PREFECT_SERVER_API_AUTH_STRING": "a:b"}
    assert network.check_exposure(safe) == []


@pytest.fixture
def database(tmp_path, monkeypatch):
    """Return the path at which Prefect's database is looked for."""
    path = tmp_path / "prefect.db"
    monkeypatch.setattr(prefect_state, "sqlite_path", lambda: path)
    monkeypatch.setattr("flows.services.prefect_database.LOCK_WAIT_S", 0.01)
    return path


def write_database(path, revision):
    with closing(sqlite3.connect(path)) as made, made:
        made.execute("CREATE TABLE alembic_version (version_num TEXT)")
        made.execute("INSERT INTO alembic_version VALUES (?)", [revision])


def test_a_database(database):
    assert "does not exist yet" in only(prefect_state.check_prefect_database()).found
    write_database(database, "a3b9c7d2e5f1")
    assert levels(prefect_state.check_prefect_database()) == ["ok"]


def test_a_database_of_another_version(database):
    write_database(database, "fffffffffff")
    finding = only(prefect_state.check_prefect_database())
    assert finding.level == "problem"
    assert "a newer Prefect migrated it" in finding.found


def test_what_is_no_database(database):
    database.write_bytes(b"something else " * 100)
    finding = only(prefect_state.check_prefect_database())
    assert "cannot be read as Prefect's database" in finding.found


def test_a_password_is_not_shown():
    shown = hide_password("postgresql+asyncpg://prefect:secret@db.lan/prefect")
    assert shown == "postgresql+asyncpg://db.lan/prefect"


def test_no_server_is_no_problem():
    assert levels(prefect_state.check_prefect_server(None)) == ["ok"]
