import pyarrow as pa
import pytest
import safetensors.torch
from pydantic import ValidationError

from flows.model_stages.training import create_run_folder
from flows.settings import CrossValidationSettings
from flows.train_model import resolve_start
from store.errors import BadInput
from store.fs.files import join
from store.fs.parquet import write_table
from store.model_registry import publish_version
from store.reader import open_snapshot
from tests.support.toy_training import MEL, SETTINGS, publish_toy_artists
from training.fit.labels import select_labelled_tracks
from training.networks.network import build_model
from training.networks.settings import PretrainedSettings

GENRES = ("high", "low")


def starting_from(weights):
    return SETTINGS.model_copy(update={"pretrained": PretrainedSettings(weights=weights)})


def test_a_run_is_not_laid_out_from_a_version_that_learned_its_test_tracks(tmp_path):
    root = str(tmp_path)
    snapshot = open_snapshot(publish_toy_artists(join(root, "store")))
    tracks = select_labelled_tracks(snapshot.tracks, "top", GENRES)
    run = join(root, "runs", "before")
    card = {
        "genres": GENRES,
        "mel": MEL.model_dump(),
        "training": SETTINGS.model_dump(mode="json"),
        "snapshot": snapshot.url,
        "run": run,
    }
    network = build_model(SETTINGS.model, len(GENRES), MEL.bands)
    files = {"weights.safetensors": safetensors.torch.save(network.state_dict())}
    training = starting_from(join(root, publish_version(root, files, card)))
    write_table(join(run, "tracks.parquet"), tracks)
    create_run_folder(snapshot, GENRES, tracks, training, root)
    other = tracks.set_column(
        tracks.schema.get_field_index("split"), "split", pa.array(["training"] * len(tracks))
    )
    write_table(join(run, "tracks.parquet"), other)
    with pytest.raises(BadInput, match="was trained on 8 of the 8 validation and test tracks of this run"):
        create_run_folder(snapshot, GENRES, tracks, training, root)


def test_folds_start_from_no_version(tmp_path):
    for weights in ("champion", "latest", f"{tmp_path}/20260101T000000-abcdef"):
        with pytest.raises(ValidationError, match=f"{weights}: a model version was trained on the test"):
            CrossValidationSettings(training=starting_from(weights))
    for weights in ("", "resnet18.pth", "https://example.org/ResNet.SAFETENSORS?download=true"):
        assert CrossValidationSettings(training=starting_from(weights)).training.pretrained.weights == weights


def test_a_file_is_known_by_its_suffix_whatever_its_case(tmp_path):
    for weights in ("", "resnet18.PTH", "x.Safetensors", "y.pt"):
        assert resolve_start(starting_from(weights), str(tmp_path)).pretrained.weights == weights
    version = publish_version(str(tmp_path), {}, {})
    assert resolve_start(starting_from("latest"), str(tmp_path)).pretrained.weights == f"{tmp_path}/{version}"
