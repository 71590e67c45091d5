import pyarrow as pa
import pytest
from pydantic import ValidationError

from store.errors import BadInput
from training.fit.run import TrainingRun, read_run, run_hash, write_run
from training.fit.settings import TrainSettings
from training.networks.settings import ModelSettings

TARGETS = pa.list_(pa.int8())


def tracks(targets, splits=("training", "training", "validation", "test")):
    ids = [f"{number}" for number in range(len(targets))]
    return pa.table({"track_id": ids, "split": list(splits), "target": pa.array(targets, TARGETS)})


GOOD = tracks([[1, 0], [0, 1], [1, 0], [0, 1]])
RUN = TrainingRun(snapshot_url="somewhere", mel_fingerprint="abc", genres=("Blues", "Jazz"))


def test_what_is_written_is_read_but_for_the_test_split(tmp_path):
    write_run(str(tmp_path), RUN, GOOD)
    run, seen = read_run(str(tmp_path))
    assert run == RUN
    assert seen["track_id"].to_pylist() == ["0", "1", "2"]
    assert "test" not in seen["split"].to_pylist()


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (tracks([[1, 0], [1, 0], [1, 0], [0, 1]]), "no training track has the genre Jazz"),
        (tracks([[1, 0], [1, 1], [1, 0], [0, 1]]), "target of track 1 must be 2 values, one 1"),
        (tracks([[1, 0], [0, 1], [1], [0, 1]]), "target of track 2 must be 2 values"),
        (tracks([[1, 0], [0, 1]], ["training"] * 2), "no validation track"),
    ],
)
def test_tracks_that_do_not_fit_are_refused(tmp_path, table, message):
    write_run(str(tmp_path), RUN, table)
    with pytest.raises(BadInput, match=message):
        read_run(str(tmp_path))


def test_a_folder_without_a_run_is_refused(tmp_path):
    with pytest.raises(BadInput, match=r"run.json is missing"):
        read_run(str(tmp_path))
    (tmp_path / "run.json").write_text('{"genres": []}')
    (tmp_path / "tracks.parquet").write_bytes(b"no table")
    with pytest.raises(BadInput, match="not a training run"):
        read_run(str(tmp_path))


def test_the_hash_covers_what_decides_the_result():
    original = run_hash(RUN, GOOD)
    settings = TrainSettings(loader_threads=5, cache_folder="x", cache_gib=9)
    moved = RUN.model_copy(update={"snapshot_url": "elsewhere", "settings": settings})
    assert run_hash(moved, GOOD) == original
    assert run_hash(RUN.model_copy(update={"settings": TrainSettings(seed=1)}), GOOD) != original
    assert run_hash(RUN, tracks([[1, 0], [0, 1], [0, 1], [0, 1]])) != original


def test_musicnn_is_hashed_where_it_is_used_but_not_the_place_of_its_wheel():
    def hash_of(name, musicnn):
        settings = TrainSettings(model=ModelSettings(name=name, musicnn=musicnn))
        return run_hash(RUN.model_copy(update={"settings": settings}), GOOD)

    assert hash_of("features", "here.whl") == hash_of("features", "there.whl") != hash_of("features", "")
    assert hash_of("shallow", "here.whl") == hash_of("shallow", "")


def test_artists_are_hashed_only_where_crops_depend_on_them():
    one, two = (
        GOOD.append_column("artist_number", pa.array(its, pa.int32())) for its in ([0] * 4, [0, 1, 2, None])
    )
    assert run_hash(RUN, one) == run_hash(RUN, two)
    balanced = RUN.model_copy(update={"settings": TrainSettings(balance="artist")})
    assert run_hash(balanced, one) != run_hash(balanced, two)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"batch_size": 24}, "--batch-size 24 is not a multiple of --micro-batch-size 16"),
        ({"balance": "genre-artist", "target": "multi"}, "--balance genre-artist needs --target top"),
        ({"class_weights": True, "target": "multi"}, "--class-weights needs --target top"),
        (
            {"class_weights": True, "balance": "genre"},
            "--class-weights and --balance genre both balance genres",
        ),
        ({"cache_folder": "s3://bucket"}, "--cache-folder s3://bucket: must be a folder on a local disk"),
        ({"learning_rte": 1}, "learning_rte"),
        ({"epochs": 0}, "greater than or equal to 1"),
    ],
)
def test_impossible_settings_are_refused(settings, message):
    with pytest.raises(ValidationError, match=message):
        TrainSettings(**settings)
