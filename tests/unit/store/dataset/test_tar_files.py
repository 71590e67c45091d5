"""A snapshot as tar files: what any program can read, and a store again."""

import io
import json
import tarfile

import numpy as np
import pyarrow as pa
import pytest

from store.dataset.tar_files import export_tars, import_tars
from store.dataset.verification import verify
from store.errors import BadInput
from store.fs.files import join, list_names, read_bytes, write_atomic
from store.reader import open_snapshot
from tests.unit.store.dataset.test_snapshots import BANDS, add

CATALOGUE = {"track_id": ["Rock/a.b.mp3", "b", "c", "d"], "split": ["training", "training", "test", None]}


def make_store(root, encoding="float16"):
    """Four tracks, one of which was not built."""
    random = np.random.default_rng(0)
    mels = {
        it: random.uniform(-100, 40, (5 + at, BANDS)).astype(np.float32)
        for at, it in enumerate(CATALOGUE["track_id"][:3])
    }
    add(root, mels, None, encoding, catalogue=pa.table(CATALOGUE))
    return open_snapshot(root)


def export(snapshot, folder, tar_bytes=1 << 20):
    return export_tars(snapshot, folder, tar_bytes=tar_bytes, seed=0)


@pytest.mark.parametrize("encoding", ["float16", "float32", "uint8"])
def test_what_was_exported_and_imported_is_the_same_store(tmp_path, encoding):
    before = make_store(str(tmp_path / "one"), encoding)
    export(before, str(tmp_path / "tars"))
    import_tars(str(tmp_path / "tars"), str(tmp_path / "other"))
    after = open_snapshot(str(tmp_path / "other"))
    assert after.file.recipe == before.file.recipe
    assert after.catalogue.equals(before.catalogue)
    for track_id in before.track_ids:
        np.testing.assert_array_equal(after.mel(track_id), before.mel(track_id))
    moved = {"shard", "start_frame"}
    kept = [name for name in before.tracks.column_names if name not in moved]
    assert after.tracks.select(kept).equals(before.tracks.select(kept))
    assert verify(after).damages == ()


def test_any_program_reads_the_tar_files(tmp_path):
    snapshot = make_store(str(tmp_path / "store"), "uint8")
    folder = tmp_path / "tars"
    assert export(snapshot, str(folder)).tars == {"test-000000.tar": 1, "training-000000.tar": 2}
    head = json.loads((folder / "dataset.json").read_text())
    with tarfile.open(folder / "training-000000.tar") as tar:
        names = tar.getnames()
        assert [name.partition(".")[2] for name in names] == ["npy", "json"] * 2, "a key has no dot"
        for name in names[::2]:
            stored_FM = np.load(io.BytesIO(tar.extractfile(name).read()))
            labels = json.loads(tar.extractfile(name.replace("npy", "json")).read())
            mel_FM = stored_FM * np.float32(head["scale_factor"]) + np.float32(head["add_offset"])
            np.testing.assert_allclose(mel_FM, snapshot.mel(labels["track_id"]), rtol=1e-6, atol=1e-4)
            assert labels["split"] == "training"


def test_tar_files_are_split_by_size_and_the_same_each_time(tmp_path):
    snapshot = make_store(str(tmp_path / "store"))
    first = export(snapshot, str(tmp_path / "a"), tar_bytes=1)
    assert first.tars == {"test-000000.tar": 1, "training-000000.tar": 1, "training-000001.tar": 1}
    export(snapshot, str(tmp_path / "b"), tar_bytes=1)
    for name in list_names(str(tmp_path / "a")):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_an_object_store_has_the_same_tar_files(tmp_path, s3_url):
    snapshot = make_store(str(tmp_path / "store"))
    export(snapshot, str(tmp_path / "tars"))
    export(snapshot, f"{s3_url}/tars")
    for name in list_names(str(tmp_path / "tars")):
        assert read_bytes(f"{s3_url}/tars/{name}") == (tmp_path / "tars" / name).read_bytes()
    import_tars(f"{s3_url}/tars", str(tmp_path / "other"))
    assert open_snapshot(str(tmp_path / "other")).track_ids == snapshot.track_ids


def cut(content):
    return content[: len(content) // 4]  # what follows may be padding


def flip(content):
    at = content.index(b"NUMPY") + 130
    return content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("training-000000.tar", cut, r"training-000000.tar: (this tar file is damaged|\d tracks, 2 were)"),
        ("training-000000.tar", flip, "the spectrogram of track .* is damaged"),
        ("training-000000.tar", None, "training-000000.tar: missing"),
        ("dataset.json", None, "no dataset.json there, which an export writes last"),
        ("dataset.json", cut, "not of an export"),
    ],
)
def test_a_damaged_export_is_refused_and_publishes_nothing(tmp_path, name, change, message):
    folder, root = str(tmp_path / "tars"), str(tmp_path / "other")
    export(make_store(str(tmp_path / "store")), folder)
    if change is None:
        (tmp_path / "tars" / name).unlink()
    else:
        write_atomic(join(folder, name), change(read_bytes(join(folder, name))))
    with pytest.raises(BadInput, match=message):
        import_tars(folder, root)
    assert list_names(join(root, "snapshots")) == []


def test_neither_an_export_nor_a_store_is_overwritten(tmp_path):
    snapshot = make_store(str(tmp_path / "store"))
    export(snapshot, str(tmp_path / "tars"))
    with pytest.raises(BadInput, match="holds an export already"):
        export(snapshot, str(tmp_path / "tars"))
    with pytest.raises(BadInput, match="holds a snapshot already; import into a new store"):
        import_tars(str(tmp_path / "tars"), str(tmp_path / "store"))
