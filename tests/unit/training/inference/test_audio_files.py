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
from tests.support.formats import DEMO_TRACK, encode
from training.fit.crops import Tracks
from training.fit.distributed import CPU
from training.fit.settings import TrainSettings
from training.fit.validation import predict_tracks
from training.inference.audio_files import CPU_BATCH_SIZE, _Means, iter_crops, predict_audio_files
from training.inference.model_version import ModelIdentity, load_model
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
    """Publish a network that says very different things of different music."""
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


def heard(paths, model, windows=WINDOWS, **settings):
    return predict_audio_files(paths, **model, windows=windows, limits=LimitSettings(), **settings)


def chances(model, crops):
    network = load_model(model["version_url"], model["identity"])
    target = model["identity"].training.target
    mel_BFM = torch.from_numpy(np.stack(crops).astype(np.float16)).float()
    with torch.inference_mode():
        logits = network(mel_BFM).double()
    return (logits.softmax(dim=1) if target == "top" else logits.sigmoid()).numpy()


@pytest.mark.parametrize("target", ["top", "multi"])
def test_a_whole_track_is_heard_as_the_decision_was_fitted(tmp_path, target):
    model = model_of(tmp_path, target, validation_crops=3)
    mels = {str(path): mel_of(path) for path in SONGS}
    frames_T = np.array([len(mel_FM) for mel_FM in mels.values()])
    wanted_TG = predict_tracks(
        load_model(model["version_url"], model["identity"]),
        lambda track_id, start, frames: mels[track_id][start : start + frames],
        Tracks(tuple(mels), frames_T, np.zeros((3, 4), np.float32)),
        model["identity"].crop_frames,
        model["identity"].training,
        CPU,
    )
    found_TG = np.stack(heard(SONGS, model, WindowSettings(whole_track=True)))
    np.testing.assert_allclose(found_TG, wanted_TG.numpy(), atol=1e-6)
    assert np.ptp(found_TG, axis=0).max() > 0.1  # or the test would prove nothing


@pytest.mark.parametrize("target", ["top", "multi"])
def test_a_track_is_the_mean_over_crops_that_cover_its_windows(tmp_path, target):
    model, song = model_of(tmp_path, target), tmp_path / "song.flac"
    encode(song, "flac", 44_100, "flac", seconds=20)
    (found_G,) = heard([song], model)
    mel_FM, crop, window = mel_of(song), model["identity"].crop_frames, MelSettings().count_frames(6.0)
    starts = [round(len(mel_FM) / 2 * (half + 0.5) - window / 2) for half in (0, 1)]
    crops = [mel_FM[at : at + crop] for start in starts for at in (start, start + window - crop)]
    np.testing.assert_allclose(found_G, chances(model, crops).mean(axis=0), atol=1e-3)


def test_what_is_heard_in_a_file_does_not_depend_on_the_others(tmp_path):
    model = model_of(tmp_path)
    together = heard([*SONGS, *SONGS[:2]], model)
    alone = [heard([path], model)[0] for path in SONGS]
    np.testing.assert_allclose(together, [*alone, *alone[:2]], atol=1e-6)


def test_a_bad_file_is_an_answer_in_its_place(tmp_path):
    model = model_of(tmp_path)
    (tmp_path / "page.mp3").write_bytes(b"<html>" * 100)
    for device in ({}, {"mel_on_device": True}):
        page, song, refused, missing = heard(
            [tmp_path / "page.mp3", SONGS[0], BAD, tmp_path / "gone.mp3"], model, **device
        )
        assert song.shape == (4,)
        assert song.sum() == pytest.approx(1)
        assert refused is BAD
        assert (page.reason, missing.reason) == ("not-audio", "missing")
    assert heard([], model) == []
    assert heard([BAD], model) == [BAD]


def test_a_disk_that_fails_is_no_answer(tmp_path, monkeypatch):
    class FullDisk(sandbox.Sandbox):
        def decode_windows(self, *_, **__):
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(sandbox, "Sandbox", FullDisk)
    model, limits = model_of(tmp_path), LimitSettings(timeout_s=7)  # limits of its own: a new sandbox
    with pytest.raises(OSError, match="No space left"):
        predict_audio_files(SONGS, **model, windows=WINDOWS, limits=limits)
    monkeypatch.undo()
    assert len(heard(SONGS, model)) == 3


@given(frames=st.integers(1, 3_000), crop_frames=st.integers(1, 400))
def test_crops_leave_no_frame_of_a_window_unheard(frames, crop_frames):
    seen, read = np.zeros(frames, bool), []

    def note(first, count):
        seen[first : first + count] = True
        read.append(count)
        return np.zeros((count, 1), np.float32)

    list(iter_crops([DecodedWindow(0, frames, note)], crop_frames, None))
    assert seen.all()
    assert set(read) == {min(crop_frames, frames)}
    assert len(read) == -(-frames // crop_frames)


@given(counts=st.lists(st.integers(1, 50), min_size=1, max_size=12))
def test_crops_are_heard_in_bounded_groups_and_each_once(counts):
    groups = []

    def network(crops):
        groups.append(len(crops))
        return np.stack(crops).astype(np.float64)

    means = _Means(network, len(counts), CPU_BATCH_SIZE)
    for row, count in enumerate(counts):
        means.add(row, (np.array([row, number], np.float32) for number in range(count)))
    means.finish()
    for row, count in enumerate(counts):
        np.testing.assert_allclose(means.of(row), [row, (count - 1) / 2])
    assert sum(groups) == sum(counts)
    assert all(group == CPU_BATCH_SIZE for group in groups[:-1])


def test_torch_has_its_threads_back(tmp_path):
    torch.set_num_threads(2)
    heard(SONGS[:1], model_of(tmp_path))
    assert torch.get_num_threads() == 2


@pytest.mark.parametrize("whole_track", [False, True])
def test_a_spectrogram_made_on_the_device_says_the_same(tmp_path, whole_track):
    """The way of a GPU host, on the only device that is everywhere."""
    model = model_of(tmp_path)
    encode(tmp_path / "short.wav", "pcm_s16le", 22_050, "wav", seconds=2.5)  # less than a crop: played again
    paths, windows = (
        [*SONGS, tmp_path / "short.wav"],
        WindowSettings(count=2, length_s=6.0, whole_track=whole_track),
    )
    np.testing.assert_allclose(
        heard(paths, model, windows, mel_on_device=True), heard(paths, model, windows), atol=1e-3
    )


def test_onnxruntime_says_the_same(tmp_path):
    model = model_of(tmp_path, "multi")
    found, wanted = heard(SONGS, model, backend="onnx"), heard(SONGS, model)
    np.testing.assert_allclose(found, wanted, atol=1e-4)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"device": "abacus"}, "device abacus: torch cannot use it here .*; take device cpu"),
        ({"backend": "onnx", "mel_on_device": True}, "backend onnx listens to spectrograms on device cpu"),
    ],
)
def test_what_cannot_be_used_is_refused(tmp_path, settings, message):
    with pytest.raises(BadInput, match=message):
        heard(SONGS, model_of(tmp_path), **settings)
