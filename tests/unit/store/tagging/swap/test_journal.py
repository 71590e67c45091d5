import os

import pytest

from store.tagging.swap.journal import digest_file, list_journalled_batches, read_journal, write_entries


@pytest.fixture(params=["local", "memory", "s3"])
def journal(request, tmp_path):
    match request.param:
        case "local":
            return str(tmp_path / "run" / "journal")
        case "memory":
            return f"memory://{tmp_path.name}/journal"
    return f"{request.getfixturevalue('s3_url')}/journal"


def row_of(number: int, **others) -> dict:
    name = f"Some Artist/Some Album of Theirs/{number:02} a song of some length {number * 7919}.mp3"
    return {
        "track_id": name,
        "url": f"/music/library/{name}",
        "old_digest": os.urandom(16),
        "new_digest": os.urandom(16),
        "delta": os.urandom(80),
        "old_genres": ["Rock", "Old-Time / Historic"][: number % 3],
        "old_custom_tags": {},
        "mtime_ns": 1_700_000_000_123_456_789 + number * 987_654_321_987,
        "old_owner": None,
        "new_owner": [number, 100],
        "version": None,
        **others,
    }


def test_what_is_journalled_is_read_back(journal):
    rows = [row_of(1), row_of(2, delta=None, old_custom_tags={"GENRE_MODEL": "m"}, version="v7")]
    assert list_journalled_batches(journal) == []
    assert read_journal(journal, "000-1") == []
    write_entries(journal, "000-1", rows)
    write_entries(journal, "000-2", rows[:1])
    assert list_journalled_batches(journal) == ["000-1", "000-2"]
    assert read_journal(journal, "000-1") == rows
    assert read_journal(journal, "000") == []


def test_attempts_at_a_batch_stand_side_by_side(journal):
    rows = [row_of(1), row_of(2)]
    for row in rows:
        write_entries(journal, "1", [row])
    assert sorted(read_journal(journal, "1"), key=lambda row: row["url"]) == rows


def test_a_file_takes_less_than_300_bytes(tmp_path):
    rows = [row_of(number) for number in range(64)]
    write_entries(str(tmp_path), "1", rows)
    (part,) = tmp_path.iterdir()
    assert part.stat().st_size < 300 * len(rows)


def test_a_digest_is_of_all_bytes(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(bytes(3 << 20))
    before = digest_file(path)
    assert len(before) == 16
    with path.open("rb+") as file:
        file.seek(-1, 2)
        file.write(b"\1")
    assert digest_file(path) != before
