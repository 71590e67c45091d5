from functools import cache

import numpy as np
import pytest
import safetensors.torch
import torch
from hypothesis import given
from hypothesis import strategies as st

from preprocessing.decode import decode, sandbox
from preprocessing.decode.settings import LimitSettings, WindowSettings
from preprocessing.decode.spool import DecodedWindow
from preprocessing.errors import BadAudio
from preprocessing.mel.settings import MelSettings
from preprocessing.mel.transform import log_mel
from store.errors import BadInput
from store.model_registry import publish_version
from tests.support.audio_formats import DEMO_TRACK, encode
from tests.support.held_frames import HeldFrames, locations_of
from training.fit.distributed import CPU
from training.fit.settings import TrainSettings
from training.fit.validation import predict_tracks
from training.inference.audio_files import CPU_BATCH_SIZE, MeanPredictions, iter_crops, predict_audio_files
from training.inference.model_version import ModelIdentity, load_model
from training.inference.onnx_export import relative_rounding
from training.loading.crops import Tracks
from training.networks.network import WEIGHTS_FILE, build_model
from training.networks.settings import ModelSettings

MUSIC = DEMO_TRACK.parent
SONGS = [MUSIC / "200001.mp3", MUSIC / "200002.mp3", MUSIC / "200003.mp3"]
GENRES = ("Folk", "Metal", "Rock", "Techno")
WINDOWS = WindowSettings(count=2, length_s=6.0)
BAD = BadAudio("no-permission", "this user may not read it")


@cache
def mel_of(path):
    return log_mel(decode(str(path), sample_rate_hz=22_050), MelSettings())


def model_of(folder, target="top", seed=1, **training):
    """Publish a network whose predictions differ much between tracks."""
    who = ModelIdentity(
        genres=GENRES,
        mel=MelSettings(),
        training=TrainSettings(target=target, model=ModelSettings(width=4), **training),
    )
    torch.manual_seed(seed)
    network = build_model(who.training.model, len(GENRES), who.mel.bands)
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, torch.nn.BatchNorm1d | torch.nn.BatchNorm2d):
                module.momentum = 1.0
        network.train()(torch.from_numpy(np.stack([mel_of(path)[300:469] for path in SONGS])))
        network.fc.weight *= 4
    version = publish_version(
        str(folder), {WEIGHTS_FILE: safetensors.torch.save(network.state_dict())}, who.model_dump(mode="json")
    )
    return {"version_url": f"{folder}/{version}", "identity": who}


def predict(paths, model, windows=WINDOWS, **settings):
    return predict_audio_files(paths, **model, windows=windows, limits=LimitSettings(), **settings)


def predict_logits(model, crops):
    network = load_model(model["version_url"], model["identity"])
    with torch.inference_mode():
        return network(torch.from_numpy(np.stack(crops).astype(np.float16)).float()).double()


def predict_crops(model, crops):
    logits = predict_logits(model, crops)
    is_top = model["identity"].training.target == "top"
    return (logits.softmax(dim=1) if is_top else logits.sigmoid()).numpy()


def some_crops(model):
    return [mel_of(path)[300 : 300 + model["identity"].crop_frames] for path in SONGS]


def float32_rounding(model):
    """Return by how much a probability may differ by the order of sums: at most half as much as a logit."""
    network = load_model(model["version_url"], model["identity"])
    return relative_rounding(network) * float(predict_logits(model, some_crops(model)).abs().max()) / 2


def float16_rounding(model):
    """Return by how much a probability changes if every cell of a spectrogram is rounded to the next float16.

    Two ways to compute a spectrogram agree to far less than that, so only some cells are rounded differently.
    """
    crops = [crop.astype(np.float16) for crop in some_crops(model)]
    above = [np.nextafter(crop, np.float16(np.inf)) for crop in crops]
    return float(np.abs(predict_crops(model, above) - predict_crops(model, crops)).max())


@pytest.mark.parametrize("target", ["top", "multi"])
def test_a_whole_track_is_predicted_as_for_the_calibration(tmp_path, target):
    model = model_of(tmp_path, target, validation_crops=3)
    mels = {str(path): mel_of(path).astype(np.float16) for path in SONGS}
    locations = locations_of([len(mel_FM) for mel_FM in mels.values()], list(mels))
    wanted_TG = predict_tracks(
        load_model(model["version_url"], model["identity"]),
        HeldFrames(mels),
        Tracks(tuple(mels), locations, np.zeros((3, 4), np.int8)),
        model["identity"].crop_frames,
        model["identity"].training,
        CPU,
    )
    found_TG = np.stack(predict(SONGS, model, WindowSettings(whole_track=True)))
    np.testing.assert_allclose(found_TG, wanted_TG.numpy(), rtol=0, atol=float32_rounding(model))
    assert np.ptp(found_TG, axis=0).max() > 0.1  # or the test would prove nothing


@pytest.mark.parametrize("target", ["top", "multi"])
def test_a_track_is_the_mean_over_crops_that_cover_its_windows(tmp_path, target):
    model, song = model_of(tmp_path, target), tmp_path / "song.flac"
    encode(song, "flac", 44_100, "flac", seconds=20)
    (found_G,) = predict([song], model)
    mel_FM, crop, window = mel_of(song), model["identity"].crop_frames, MelSettings().count_frames(6.0)
    starts = [round(len(mel_FM) / 2 * (half + 0.5) - window / 2) for half in (0, 1)]
    crops = [mel_FM[at : at + crop] for start in starts for at in (start, start + window - crop)]
    np.testing.assert_allclose(
        found_G, predict_crops(model, crops).mean(axis=0), rtol=0, atol=float16_rounding(model)
    )


def test_a_prediction_does_not_depend_on_the_other_files(tmp_path):
    model = model_of(tmp_path)
    together = predict([*SONGS, *SONGS[:2]], model)
    alone = [predict([path], model)[0] for path in SONGS]
    np.testing.assert_allclose(together, [*alone, *alone[:2]], rtol=0, atol=float32_rounding(model))


def test_a_bad_file_has_its_reason_in_its_row(tmp_path):
    model = model_of(tmp_path)
    (tmp_path / "page.mp3").write_bytes(b"<html>" * 100)
    for device in ({}, {"mel_on_device": True}):
        page, song, refused, missing = predict(
            [tmp_path / "page.mp3", SONGS[0], BAD, tmp_path / "gone.mp3"], model, **device
        )
        assert song.shape == (4,)
        assert song.sum() == pytest.approx(1)
        assert refused is BAD
        assert (page.reason, missing.reason) == ("not-audio", "missing")
    assert predict([], model) == []
    assert predict([BAD], model) == [BAD]


def test_a_disk_that_fails_is_an_error(tmp_path, monkeypatch):
    class FullDisk(sandbox.Sandbox):
        def decode_windows(self, *_, **__):
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(sandbox, "Sandbox", FullDisk)
    model, limits = model_of(tmp_path), LimitSettings(timeout_s=7)  # limits of its own: a new sandbox
    with pytest.raises(OSError, match="No space left"):
        predict_audio_files(SONGS, **model, windows=WINDOWS, limits=limits)
    monkeypatch.undo()
    assert len(predict(SONGS, model)) == 3


@given(frames=st.integers(1, 3_000), crop_frames=st.integers(1, 400))
def test_crops_cover_every_frame_of_a_window(frames, crop_frames):
    seen, read = np.zeros(frames, bool), []

    def note(first, count):
        seen[first : first + count] = True
        read.append(count)
        return np.zeros((count, 1), np.float32)

    list(iter_crops([DecodedWindow(0, frames, note)], crop_frames, lambda length: -(-length // crop_frames)))
    assert seen.all()
    assert set(read) == {min(crop_frames, frames)}
    assert len(read) == -(-frames // crop_frames)


@given(counts=st.lists(st.integers(1, 50), min_size=1, max_size=12))
def test_crops_are_predicted_in_bounded_batches_and_each_once(counts):
    groups = []

    def network(crops):
        groups.append(len(crops))
        return np.stack(crops).astype(np.float64)

    means = MeanPredictions(network, len(counts), CPU_BATCH_SIZE)
    for row, count in enumerate(counts):
        means.add(row, (np.array([row, number], np.float32) for number in range(count)))
    means.predict_pending()
    for row, count in enumerate(counts):
        np.testing.assert_allclose(means.mean_of(row), [row, (count - 1) / 2])
    assert sum(groups) == sum(counts)
    assert all(group == CPU_BATCH_SIZE for group in groups[:-1])


def test_the_number_of_torch_threads_is_restored(tmp_path):
    torch.set_num_threads(2)
    predict(SONGS[:1], model_of(tmp_path))
    assert torch.get_num_threads() == 2


@pytest.mark.parametrize("whole_track", [False, True])
def test_a_spectrogram_computed_on_the_device_gives_the_same_predictions(tmp_path, whole_track):
    """As on a GPU host, on the only device that every machine has."""
    model = model_of(tmp_path)
    encode(tmp_path / "short.wav", "pcm_s16le", 22_050, "wav", seconds=2.5)  # shorter than a crop: repeated
    paths, windows = (
        [*SONGS, tmp_path / "short.wav"],
        WindowSettings(count=2, length_s=6.0, whole_track=whole_track),
    )
    np.testing.assert_allclose(
        predict(paths, model, windows, mel_on_device=True),
        predict(paths, model, windows),
        rtol=0,
        atol=float16_rounding(model),
    )


def test_onnxruntime_gives_the_same_predictions(tmp_path):
    model = model_of(tmp_path, "multi")
    found, wanted = predict(SONGS, model, backend="onnx"), predict(SONGS, model)
    np.testing.assert_allclose(found, wanted, rtol=0, atol=float32_rounding(model))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"device": "abacus"}, "device abacus: torch cannot use it here .*; use device cpu"),
        (
            {"backend": "onnx", "mel_on_device": True},
            "backend onnx .*: it takes spectrograms from the decoder, on device cpu",
        ),
    ],
)
def test_what_cannot_be_used_is_refused(tmp_path, settings, message):
    with pytest.raises(BadInput, match=message):
        predict(SONGS, model_of(tmp_path), **settings)
