from pathlib import Path

import pyarrow as pa
import pytest

from preprocessing.catalogue.previous_splits import read_previous_splits
from preprocessing.catalogue.settings import SplitSettings
from preprocessing.catalogue.sources import CATALOGUE_SCHEMA
from preprocessing.catalogue.splits import split_tracks
from store.dataset.recipe import Recipe
from store.dataset.snapshots import INDEX_SCHEMA, latest_snapshot, publish, put_catalogue, snapshot_url
from store.fs.files import local_path

RECIPE = Recipe({"hop": 512}, "abc", "float16", {})
AUTO = SplitSettings()


def catalogue(splits):
    rows = [
        {"track_id": it, "split": split, "genre_top": "Rock", "artist": it} for it, split in splits.items()
    ]
    return pa.Table.from_pylist(rows, schema=CATALOGUE_SCHEMA)


SOURCE = catalogue(dict.fromkeys("abcd"))


@pytest.fixture
def publish_build(tmp_path):
    """Return a function that publishes splits, and the results of some tracks."""
    root = str(tmp_path)

    def publish_build(splits, answered, mode="auto", **split):
        index = pa.Table.from_pylist([{"track_id": it, "status": "ok"} for it in answered], INDEX_SCHEMA)
        publish(
            root,
            parent=latest_snapshot(root),
            shards=[],
            index=index,
            catalogue=put_catalogue(root, catalogue(splits)),
            recipe=RECIPE,
            settings={"source": "x", "catalogue": {"split": {"mode": mode, **split}}},
        )
        return root

    return publish_build


def read(root, settings=AUTO, source=SOURCE):
    previous = read_previous_splits(root, source, settings)
    return previous and dict(
        zip(*(previous[name].to_pylist() for name in ("track_id", "split")), strict=True)
    )


def test_a_store_without_a_build_has_no_splits(tmp_path):
    assert read(str(tmp_path)) is None


def test_the_splits_of_the_last_finished_build_are_given(publish_build):
    root = publish_build({"a": "training"}, "a")
    assert read(root) == {"a": "training"}
    publish_build({"a": "training", "b": "test"}, "b")
    assert read(root) == {"a": "training", "b": "test"}


def test_splits_of_an_interrupted_build_do_not_count(publish_build):
    root = publish_build({"a": "test"}, "")
    assert read(root) is None
    publish_build({"a": "test"}, "a")
    growing = {"a": "test", "b": "test", "c": "training"}
    publish_build(growing, "b")
    publish_build(growing, "")
    assert read(root) == {"a": "test"}
    publish_build(growing, "c")
    assert read(root) == growing


def test_tracks_that_were_gone_for_a_night_come_back_to_their_splits(publish_build):
    publish_build({"a": "test", "b": "validation", "c": "test"}, "abc")
    publish_build({"a": "training", "b": None, "d": "training"}, "d")
    publish_build({"d": "training", "e": "test"}, "")  # interrupted
    root = publish_build({"d": "validation"}, "")
    assert read(root) == {"a": "training", "b": None, "c": "test", "d": "validation"}, "the newest wins"
    Path(snapshot_url(root, 1)).unlink()
    assert read(root) == {"d": "validation"}, "what came before was removed"


def test_what_was_learned_from_is_never_tested_with_though_a_mount_was_missing(publish_build, tmp_path):
    """A night without two thirds of the artists, and all of them back the night after."""
    settings = SplitSettings(mode="artist")
    names = [f"a{number:02d}" for number in range(60)]
    nights = []
    for there in (names, names[40:], names):
        table = catalogue(dict.fromkeys(there))
        split = split_tracks(table, settings, read_previous_splits(str(tmp_path), table, settings))
        nights.append(dict(zip(there, split["split"].to_pylist(), strict=True)))
        publish_build(nights[-1], there, "artist")
    assert nights[2] == nights[0]


def test_splits_from_before_all_were_assigned_again_or_otherwise_are_not_kept(publish_build):
    publish_build({"a": "test", "c": "test"}, "ac")
    publish_build({"a": "training"}, "", keep_existing=False)
    root = publish_build({"a": "training"}, "")
    assert read(root) == {"a": "training"}
    publish_build({"a": "training", "b": "test"}, "b", "official")
    publish_build({"b": "training"}, "")
    assert read(root, SplitSettings(mode="artist")) == {"b": "training"}
    publish_build({"d": "test"}, "d")
    assert read(root, SplitSettings(mode="artist")) == {"d": "test", "b": "training"}


def test_each_file_is_read_once_however_many_snapshots_name_it(publish_build, monkeypatch):
    for night in range(4):
        splits = {f"{night}{number}": "training" for number in range(5)}
        for track_id in splits:
            root = publish_build(splits, [track_id])
    read_files = []

    def counting(url):
        read_files.append(url)
        return local_path(url)

    monkeypatch.setattr("store.fs.parquet.local_path", counting)
    assert len(read(root)) == 20
    assert sum("/catalogues/" in url for url in read_files) == 4
    assert sum("/index/" in url for url in read_files) == 20


@pytest.mark.parametrize(
    ("was", "settings", "counts"),
    [
        ("auto", AUTO, True),
        ("artist", AUTO, True),
        ("auto", SplitSettings(mode="artist"), True),
        ("official", SplitSettings(mode="artist"), False),
        ("none", AUTO, False),
        ("artist", SplitSettings(mode="none"), False),
        ("artist", SplitSettings(keep_existing=False), False),
    ],
)
def test_only_splits_by_artist_are_gone_on_from(was, settings, counts, publish_build):
    root = publish_build({"a": "test"}, "a", was)
    assert read(root, settings) == ({"a": "test"} if counts else None)


def test_official_splits_are_no_splits_by_artist(publish_build):
    official = catalogue({"a": "training", "b": "validation", "c": "test"})
    root = publish_build({"a": "test"}, "a", "auto")
    assert read(root, AUTO, official) is None
    assert read(root, SplitSettings(mode="artist"), official) is None, "auto had kept the official ones"
