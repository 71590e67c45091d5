import pyarrow as pa
import pytest

from preprocessing.catalogue import CATALOGUE_SCHEMA
from preprocessing.former_splits import read_former_splits
from preprocessing.splits import SplitSettings
from store.dataset import INDEX_SCHEMA, Recipe, latest_snapshot, publish, put_catalogue

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
    """Give a function that publishes splits, and answers of some tracks."""
    root = str(tmp_path)

    def publish_build(splits, answered, mode="auto"):
        index = pa.Table.from_pylist([{"track_id": it, "status": "ok"} for it in answered], INDEX_SCHEMA)
        publish(
            root,
            parent=latest_snapshot(root),
            shards=[],
            index=index,
            catalogue=put_catalogue(root, catalogue(splits)),
            recipe=RECIPE,
            settings={"source": "x", "catalogue": {"split": {"mode": mode}}},
        )
        return root

    return publish_build


def read(root, settings=AUTO, source=SOURCE):
    former = read_former_splits(root, source, settings)
    return former and dict(zip(*(former[name].to_pylist() for name in ("track_id", "split")), strict=True))


def test_a_store_without_a_build_has_no_splits(tmp_path):
    assert read(str(tmp_path)) is None


def test_the_splits_of_the_last_finished_build_are_given(publish_build):
    root = publish_build({"a": "training"}, "a")
    assert read(root) == {"a": "training"}
    publish_build({"a": "training", "b": "test"}, "b")
    assert read(root) == {"a": "training", "b": "test"}


def test_what_an_interrupted_build_dealt_does_not_count(publish_build):
    root = publish_build({"a": "test"}, "")
    assert read(root) is None
    publish_build({"a": "test"}, "a")
    growing = {"a": "test", "b": "test", "c": "training"}
    publish_build(growing, "b")
    publish_build(growing, "")
    assert read(root) == {"a": "test"}
    publish_build(growing, "c")
    assert read(root) == growing


@pytest.mark.parametrize(
    ("was", "settings", "counts"),
    [
        ("auto", AUTO, True),
        ("artist", AUTO, True),
        ("auto", SplitSettings(mode="artist"), True),
        ("official", SplitSettings(mode="artist"), False),
        ("none", AUTO, False),
        ("artist", SplitSettings(mode="none"), False),
        ("artist", SplitSettings(keep=False), False),
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
