"""A backup is restored byte for byte, while a server writes; nothing damaged is restored, nothing overwritten."""

import shutil
import sqlite3
from contextlib import closing

import pytest

from flows.recovery import backup, restore
from flows.recovery.manifest import MANIFEST_FILE
from store.errors import BadInput
from store.model_registry import champion, promote

DATABASE = "spectrogram-one-3.db"


@pytest.fixture
def workplace(tmp_path, monkeypatch):
    """Return a folder with a champion, a journal and a database that another connection has open."""
    for name, content in {
        "models/20261128T000000-aaaa/model.json": b"{}",
        "models/20261128T000000-aaaa/weights.safetensors": b"w" * 3_000_000,
        "models/.0123456789abcdef0123456789abcdef.part": b"half",
        "tagging/run/journal/part-0.parquet": b"journal",
    }.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    promote(str(tmp_path / "models"), "20261128T000000-aaaa")
    database = tmp_path / DATABASE
    monkeypatch.setattr(backup, "sqlite_path", lambda: database)
    monkeypatch.setattr(backup, "configured_url", lambda: None)
    monkeypatch.setattr(restore, "configured_url", lambda: None)
    monkeypatch.setattr(restore, "own_path", lambda: tmp_path / "restored" / "any.db")
    with closing(sqlite3.connect(database)) as server:
        server.execute("PRAGMA journal_mode=WAL")
        server.execute("CREATE TABLE flow_run (name TEXT)")
        server.execute("INSERT INTO flow_run VALUES ('one')")
        server.commit()
        server.execute("INSERT INTO flow_run VALUES ('not committed')")
        yield tmp_path


def back_up(folder):
    return backup.make_backup(str(folder / "backup"), str(folder / "models"), str(folder / "tagging"))


def restore_into(folder, target="restored"):
    return restore.restore_backup(
        str(folder / "backup"), str(folder / target / "models"), str(folder / target / "tagging")
    )


def content(folder):
    return {str(it.relative_to(folder)): it.read_bytes() for it in folder.rglob("*") if it.is_file()}


def test_what_was_backed_up_is_restored(workplace):
    (line,) = back_up(workplace)
    assert "3 files of models, 1 files of tagging, 1 files of prefect" in line
    lines = restore_into(workplace)
    assert "5 files restored, 0 were there" in lines[0]
    before = content(workplace / "models")
    del before[".0123456789abcdef0123456789abcdef.part"]
    assert content(workplace / "restored/models") == before
    assert content(workplace / "restored/tagging") == content(workplace / "tagging")
    assert champion(str(workplace / "restored/models")) == "20261128T000000-aaaa"
    with closing(sqlite3.connect(workplace / "restored" / DATABASE)) as database:
        assert database.execute("SELECT name FROM flow_run").fetchall() == [("one",)]


def test_a_database_is_restored_where_the_server_is_configured_to_look(workplace, monkeypatch):
    back_up(workplace)
    monkeypatch.setattr(restore, "sqlite_path", lambda: workplace / "elsewhere/prefect.db")
    monkeypatch.setattr(restore, "configured_url", lambda: "sqlite+aiosqlite:///elsewhere/prefect.db")
    restore_into(workplace)
    assert (workplace / "elsewhere/prefect.db").exists()


def test_a_restore_that_was_interrupted_is_completed(workplace):
    back_up(workplace)
    restore_into(workplace)
    (workplace / "restored/tagging/run/journal/part-0.parquet").unlink()
    assert "1 files restored, 4 were there" in restore_into(workplace)[0]


def test_nothing_is_overwritten(workplace):
    back_up(workplace)
    other = workplace / "restored/models/champion.json"
    other.parent.mkdir(parents=True)
    other.write_text("another")
    with pytest.raises(BadInput, match=r"champion.json: exist with other content, and are not overwritten"):
        restore_into(workplace)
    assert content(workplace / "restored") == {"models/champion.json": b"another"}


def test_a_damaged_or_incomplete_backup_is_refused_before_anything_is_written(workplace):
    back_up(workplace)
    weights = workplace / "backup/models/20261128T000000-aaaa/weights.safetensors"
    weights.write_bytes(b"v" + weights.read_bytes()[1:])
    with pytest.raises(BadInput, match=r"weights.safetensors: other bytes than were backed up"):
        restore_into(workplace)
    weights.unlink()
    with pytest.raises(BadInput, match=r"weights.safetensors: missing; nothing was restored"):
        restore_into(workplace)
    (workplace / "backup" / MANIFEST_FILE).unlink()
    with pytest.raises(BadInput, match="not a complete backup"):
        restore_into(workplace)
    assert not (workplace / "restored").exists()


def test_a_list_that_names_files_outside_is_refused(workplace):
    back_up(workplace)
    path = workplace / "backup" / MANIFEST_FILE
    path.write_text(path.read_text().replace("tagging/run/", "tagging/../../run/"))
    with pytest.raises(BadInput, match="its list was changed"):
        restore_into(workplace)


def test_a_backup_is_not_overwritten_and_one_of_nothing_is_refused(workplace, monkeypatch):
    back_up(workplace)
    with pytest.raises(BadInput, match="is a backup already"):
        back_up(workplace)
    shutil.rmtree(workplace / "models")
    shutil.rmtree(workplace / "tagging")
    monkeypatch.setattr(backup, "sqlite_path", lambda: None)
    with pytest.raises(BadInput, match="nothing to back up"):
        backup.make_backup(str(workplace / "second"), str(workplace / "models"), str(workplace / "tagging"))
