import pyarrow as pa
import pytest

from store.errors import BadInput
from store.fs.parquet import write_table
from store.model_registry import publish_version
from training.networks.ancestry import check_data_leakage

RUN = pa.table({"track_id": ["a", "b", "c"], "split": ["training", "validation", "test"]})


@pytest.fixture
def trained(tmp_path):
    """Give a function that publishes a version which was trained on some tracks, and validated on c."""

    def trained(learned, parent=None, store=f"{tmp_path}/store", **card):
        run = f"{tmp_path}/runs/{learned}"
        splits = dict.fromkeys(learned, "training") | ({} if "c" in learned else {"c": "validation"})
        write_table(f"{run}/tracks.parquet", pa.table({"track_id": [*splits], "split": [*splits.values()]}))
        about = {"snapshot": f"{store}/snapshots/00000003.json", "run": run, "parent": parent, **card}
        return f"{tmp_path}/models/{publish_version(f'{tmp_path}/models', {}, about)}"

    return trained


def notes_on(url, tmp_path):
    return check_data_leakage(url, RUN, f"{tmp_path}/store")


def test_a_start_that_learned_from_other_tracks_is_fine(trained, tmp_path):
    assert notes_on(trained("ad", parent=trained("a", parent="https://x.org/RESNET.pth?x=1")), tmp_path) == []
    assert notes_on("resnet18.PTH", tmp_path) == notes_on("", tmp_path) == []


@pytest.mark.parametrize("learned", ["ab", "ac"])
def test_a_start_that_learned_what_is_to_judge_is_refused(trained, tmp_path, learned):
    url = trained(learned)
    with pytest.raises(BadInput, match=f"^{url} was trained on 1 of the 2 .*, such as {learned[1]}: .*fresh"):
        notes_on(url, tmp_path)


def test_what_a_forebear_learned_counts_too(trained, tmp_path):
    eldest = trained("abc")
    url = trained("a", parent=trained("ad", parent=eldest, store="elsewhere"))
    with pytest.raises(BadInput, match=f"^{url}: its ancestor {eldest} was trained on 2 of the 2 "):
        notes_on(url, tmp_path)


def test_ids_of_another_store_are_other_tracks(trained, tmp_path):
    assert notes_on(trained("abc", store=f"{tmp_path}/store2"), tmp_path) == []


def test_what_cannot_be_read_is_told_and_the_line_is_followed_further(trained, tmp_path):
    gone = trained("a", parent=trained("ad"), run=f"{tmp_path}/gone")
    (note,) = notes_on(gone, tmp_path)
    assert note.startswith(f"{gone}: what this start learned from cannot be told (FileNotFoundError")
    (tmp_path / "runs/ad/tracks.parquet").write_bytes(b"PAR1 cut")
    assert len(notes_on(gone, tmp_path)) == 2
    (note,) = notes_on(trained("a", parent=f"{tmp_path}/models/none"), tmp_path)
    assert "none: no model version" in note
    with pytest.raises(BadInput, match="its ancestor"):
        notes_on(trained("a", parent=trained("abc"), run=f"{tmp_path}/gone"), tmp_path)
