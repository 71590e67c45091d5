import pyarrow as pa
import pytest

from flows.commands.store_copies import export_store, import_store
from flows.commands.store_snapshots import (
    diff_snapshots,
    list_snapshots,
    remove_store_tag,
    show_snapshot,
    tag_snapshot,
)
from flows.commands.store_upkeep import sweep_store, verify_store
from store.dataset.recipe import Recipe
from store.dataset.snapshots import latest_snapshot, publish, put_catalogue
from store.errors import BadInput
from store.fs.files import join, read_bytes, write_atomic
from tests.support.small_shards import store_shard
from tests.support.snapshots import index_of

RECIPE = Recipe({"bands": 8, "hop": 512}, "abc", "uint8", {})


def add(root, shard, built, catalogue):
    shard = store_shard(root, shard, built)
    publish(
        root,
        parent=latest_snapshot(root),
        shards=[shard],
        index=index_of(shard),
        catalogue=put_catalogue(root, pa.table(catalogue)),
        recipe=RECIPE,
        settings={"source": "/music"},
    )


@pytest.fixture
def root(tmp_path):
    """Two snapshots: in the second, one track is new, one gone, one built again, one in another split."""
    root = str(tmp_path / "store")
    add(root, "one", ("a", "b", "c"), {"track_id": ["a", "b", "c"], "split": ["test", "test", None]})
    add(root, "two", ("b", "d"), {"track_id": ["a", "b", "d"], "split": ["training", "test", "test"]})
    return root


def rows(table):
    return list(zip(*(column.cells for column in table.columns), strict=True))


def test_log_lists_snapshots_and_tags_newest_first(root):
    assert tag_snapshot(root, "paper", "0", move=False) == f"paper names snapshot 0 of {root}; sweeps keep it"
    found = [(number, tags, *more) for number, tags, _, *more in rows(list_snapshots(root))]
    assert found == [("1", "", "build", "3", "2"), ("0", "paper", "build", "3", "3")]
    remove_store_tag(root, "paper")
    assert [it[1] for it in rows(list_snapshots(root))] == ["", ""]


def test_a_store_that_is_none_is_named(tmp_path):
    with pytest.raises(BadInput, match="holds no published spectrograms; run `spectrogram-one build` first"):
        list_snapshots(str(tmp_path))
    with pytest.raises(BadInput, match="holds no published spectrograms"):
        list(verify_store(str(tmp_path), "latest", 1))


def test_show_describes_a_snapshot(root):
    text = "\n".join(show_snapshot(root, "latest"))
    for line in (
        f"snapshot 1 of {root}",
        "source /music",
        "encoding uint8; bands 8, hop 512 (hash abc)",
        "3 tracks (3 ok)",
        "splits: 2 test, 1 training",
        "2 shards in 4 files",
    ):
        assert line in text


def test_diff_names_the_tracks_of_each_difference(root):
    assert list(diff_snapshots(root, "0", "latest", 20)) == [
        "1 tracks no longer listed",
        "  - c",
        "1 tracks new",
        "  + d",
        "1 tracks built again",
        "  ~ b",
        "1 tracks of another split",
        "  ~ a: test became training",
    ]
    assert list(diff_snapshots(root, "1", "1", 20)) == []
    assert list(diff_snapshots(root, "1", "0", 0))[:2] == ["1 tracks no longer listed", "    and 1 more"]


def test_verify_says_what_is_damaged_and_what_to_do(root):
    assert "every byte is as it was written" in list(verify_store(root, "latest", 2))[-1]
    url = join(root, "shards", "one", "c", "0", "0")
    content = read_bytes(url)
    write_atomic(url, b"x" + content[1:])
    lines = []
    with pytest.raises(BadInput, match=r"1 tracks need them; .* with `spectrogram-one build --repair`"):
        lines.extend(it for it in verify_store(root, "latest", 2) if lines.append(it))
    assert lines == ["shards/one/c/0/0: 1 of 3 chunks differ; tracks a"]
    write_atomic(url, content[:32] + b"x" + content[33:])  # of b, which was built again
    assert next(verify_store(root, "latest", 2)).endswith("no track of this snapshot needs it")
    (table,) = (it for it in latest_snapshot(root).index[:1])
    write_atomic(join(root, table), b"")
    with pytest.raises(BadInput, match=f"{table} among them: restore these from a backup"):
        list(verify_store(root, "latest", 2))


def test_sweep_says_what_it_removed(root):
    store_shard(root, "three", ("x",))
    assert list(sweep_store(root, 24.0, None, is_dry_run=False)) == [
        f"{root}: 0 shards and files and 0 snapshots removed; 1 unnamed ones are younger than 24 h"
    ]
    expected = [
        "shards/three",
        f"{root}: 1 shards and files and 0 snapshots would be removed; 0 unnamed ones are younger than 0 h",
    ]
    assert list(sweep_store(root, 0.0, None, is_dry_run=True)) == expected
    assert next(sweep_store(root, 0.0, None, is_dry_run=False)) == "shards/three"


def test_an_export_without_its_files_is_refused(root, tmp_path):
    with pytest.raises(BadInput, match="no snapshot 'paper'"):
        export_store(root, "paper", str(tmp_path / "tars"), 1, 0)
    with pytest.raises(BadInput, match=r"no dataset\.json there"):
        import_store(str(tmp_path / "nowhere"), str(tmp_path / "other"))
