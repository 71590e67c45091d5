import pyarrow as pa
import pytest

from store.errors import BadInput
from store.fs.parquet import write_table
from store.model_registry import publish_version
from training.networks.ancestry import check_data_leakage

RUN = pa.table({"track_id": ["a", "b", "c"], "split": ["training", "validation", "test"]})


@pytest.fixture
def trained(tmp_path):
    """Return a function that publishes a version that was trained on some tracks, and validated on c."""

    def trained(track_ids, parent=None, store=f"{tmp_path}/store", **card):
        run = f"{tmp_path}/runs/{track_ids}"
        splits = dict.fromkeys(track_ids, "training") | ({} if "c" in track_ids else {"c": "validation"})
        write_table(f"{run}/tracks.parquet", pa.table({"track_id": [*splits], "split": [*splits.values()]}))
        about = {"snapshot": f"{store}/snapshots/00000003.json", "run": run, "parent": parent, **card}
        return f"{tmp_path}/models/{publish_version(f'{tmp_path}/models', {}, about)}"

    return trained


def unchecked(url, tmp_path):
    return check_data_leakage(url, RUN, f"{tmp_path}/store")


def test_weights_trained_on_other_tracks_are_accepted(trained, tmp_path):
    assert (
        unchecked(trained("ad", parent=trained("a", parent="https://x.org/RESNET.pth?x=1")), tmp_path) == []
    )
    assert unchecked("resnet18.PTH", tmp_path) == unchecked("", tmp_path) == []


@pytest.mark.parametrize("track_ids", ["ab", "ac"])
def test_weights_trained_on_held_out_tracks_are_refused(trained, tmp_path, track_ids):
    url = trained(track_ids)
    with pytest.raises(
        BadInput, match=f"^{url} was trained on 1 of the 2 .*, such as {track_ids[1]}: .*random weights"
    ):
        unchecked(url, tmp_path)


def test_training_tracks_of_ancestors_count_too(trained, tmp_path):
    eldest = trained("abc")
    url = trained("a", parent=trained("ad", parent=eldest, store="elsewhere"))
    with pytest.raises(BadInput, match=f"^{url}: its ancestor {eldest} was trained on 2 of the 2 "):
        unchecked(url, tmp_path)


def test_ids_of_another_store_are_other_tracks(trained, tmp_path):
    assert unchecked(trained("abc", store=f"{tmp_path}/store2"), tmp_path) == []


def test_what_cannot_be_read_is_reported_and_further_ancestors_are_checked(trained, tmp_path):
    gone = trained("a", parent=trained("ad"), run=f"{tmp_path}/gone")
    (message,) = unchecked(gone, tmp_path)
    assert message.startswith(f"{gone}: its training tracks cannot be read (FileNotFoundError")
    (tmp_path / "runs/ad/tracks.parquet").write_bytes(b"PAR1 cut")
    assert len(unchecked(gone, tmp_path)) == 2
    (message,) = unchecked(trained("a", parent=f"{tmp_path}/models/none"), tmp_path)
    assert "none: no model version" in message
    with pytest.raises(BadInput, match="its ancestor"):
        unchecked(trained("a", parent=trained("abc"), run=f"{tmp_path}/gone"), tmp_path)
