"""The download of FMA: from a folder of small archives that is served on loopback."""

import hashlib
import shutil
from pathlib import Path

import pytest

from flows import fetch_fma as module
from flows.fetch_fma import estimate_cost, fetch_fma
from flows.settings import BuildSettings, FmaSettings, TrainModelSettings
from preprocessing.catalogue.fma_archives import ARCHIVES, METADATA, FmaArchive
from store.errors import BadInput
from training.fit.settings import TrainSettings
from training.networks.settings import ModelSettings

MUSIC = Path("tests/data/demo_music")


@pytest.fixture
def mirror(http_url, tmp_path, monkeypatch):
    """Serve archives of the bundled music as if they were FMA's."""
    served = tmp_path / "served"
    for folder in ("fma_metadata", "fma_small"):
        shutil.make_archive(str(served / folder), "zip", MUSIC, folder)
    sha1 = {path.name: hashlib.sha1(path.read_bytes()).hexdigest() for path in served.iterdir()}
    monkeypatch.setattr(module, "METADATA_SHA1", sha1[METADATA])
    monkeypatch.setitem(ARCHIVES, "small", FmaArchive("fma_small.zip", sha1["fma_small.zip"], 51, 0.4))
    return http_url


def test_archives_are_fetched_once_and_built_in_place(mirror, tmp_path, capsys):
    settings = FmaSettings(subset="small", folder=f"{tmp_path}/fma", mirror=mirror)
    here, following = fetch_fma(settings)
    assert here.endswith(
        "fma_metadata.zip and fma_small.zip are here, with the SHA-1 that their publisher states"
    )
    assert following.startswith(f"next: spectrogram-one build {tmp_path}/fma")
    assert "download: 0.0 GiB into" in capsys.readouterr().err
    shutil.rmtree(tmp_path / "served")
    assert fetch_fma(settings) == [here, following], "nothing is asked of the server again"


def test_a_disk_that_is_too_small_is_refused_before_the_download(mirror, tmp_path, monkeypatch):
    monkeypatch.setattr(
        shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(1 << 40, 1 << 40, 1 << 10)
    )
    settings = FmaSettings(subset="small", folder=f"{tmp_path}/fma", mirror=mirror)
    with pytest.raises(BadInput, match=r"0\.0 GiB are needed, 0\.0 GiB are free; make space, choose another"):
        fetch_fma(settings)
    assert not (tmp_path / "fma").exists()


def test_a_folder_that_is_not_local_is_refused():
    with pytest.raises(BadInput, match="s3://bucket/fma: not a folder of this machine"):
        fetch_fma(FmaSettings(subset="small", folder="s3://bucket/fma"))


def test_the_cost_grows_with_the_audio(tmp_path):
    build, train = BuildSettings(source="x"), TrainModelSettings()
    small, full = (estimate_cost(ARCHIVES[name], build, train) for name in ("small", "full"))
    hours = 343 * 24.0
    assert full.store_bytes == pytest.approx(hours * 3600 * 22_050 / 512 * 128 * 2, rel=1e-6)
    assert full.build_hours > 10 * small.build_hours > 0, "123 times the audio"
    assert full.train_hours > 2 * small.train_hours > 0, "13 times the tracks"
    assert "GiB for spectrograms" in small.line()


def test_the_choice_of_a_model_is_part_of_the_cost(monkeypatch):
    monkeypatch.setattr(module, "measure_crops_per_s", lambda *_, **__: 100.0)
    monkeypatch.setattr(module, "measure_build_speed", lambda *_, **__: 100.0)
    build, auto = BuildSettings(source="x"), TrainModelSettings()
    network = TrainModelSettings(training=TrainSettings(model=ModelSettings(name="short-chunk-resnet")))
    costs = [estimate_cost(ARCHIVES["small"], build, train).train_hours for train in (auto, network)]
    assert costs[0] / costs[1] == pytest.approx(1 + 0.4 * 2 / 3), (
        "two thirds of the tracks, 0.4 of the epochs"
    )
