"""Backends that run a model on crops: torch on spectrograms or waveforms, onnxruntime on spectrograms.

Axes: B crops, S samples, F frames, M mel bands, G genres.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from preprocessing.mel.settings import MelSettings
from training.inference.model_version import ModelIdentity, load_model
from training.inference.onnx_export import open_session
from training.loading.crops import repeat_to_length

# From crops, each (F, M) in dB or (S,), to probabilities (B, G). A shorter crop is repeated to full length.
CropPredictor = Callable[[Sequence[NDArray[np.float32]]], NDArray[np.float64]]


def torch_mel_predictor(version_url: str, identity: ModelIdentity, device: str) -> CropPredictor:
    """Return a predictor on spectrograms, computed as in validation."""
    model, frames = load_model(version_url, identity), identity.crop_frames
    if device != "cpu":
        model = _load_on_device(version_url, identity, device)

    def run(mels: Sequence[NDArray[np.float32]]) -> NDArray[np.float64]:
        mel_BFM = torch.from_numpy(np.stack([repeat_to_length(mel_FM, frames) for mel_FM in mels])).to(device)
        with torch.inference_mode():
            return _probabilities(model(mel_BFM.float()), identity)

    return run


def torch_wave_predictor(version_url: str, identity: ModelIdentity, device: str) -> CropPredictor:
    """Return a predictor on waveforms. On a CUDA device the network runs in bfloat16, the spectrogram in float32."""
    model, to_mel = _load_on_device(version_url, identity, device), _mel_on_device(identity.mel, device)

    def run(waves: Sequence[NDArray[np.float32]]) -> NDArray[np.float64]:
        with torch.inference_mode():
            mel_BFM = _repeat_own_frames(to_mel(_pad(waves).to(device)), waves, identity)
            with torch.autocast("cuda", torch.bfloat16, enabled=torch.device(device).type == "cuda"):
                logits_BG = model(mel_BFM)
            return _probabilities(logits_BG, identity)

    return run


def onnx_mel_predictor(version_url: str, identity: ModelIdentity, onnx_url: str | None) -> CropPredictor:
    """Return a predictor with an ONNX export; without a file, the model is exported in memory, once a process."""
    session, frames = open_session(version_url, identity, onnx_url), identity.crop_frames

    def run(mels: Sequence[NDArray[np.float32]]) -> NDArray[np.float64]:
        mel_BFM = np.stack([repeat_to_length(mel_FM, frames) for mel_FM in mels]).astype(np.float32)
        (logits_BG,) = session.run(None, {"mel": mel_BFM})
        return _probabilities(torch.from_numpy(logits_BG), identity)

    return run


def _probabilities(logits_BG: Tensor, identity: ModelIdentity) -> NDArray[np.float64]:
    logits_BG = logits_BG.double()
    probability_BG = logits_BG.softmax(dim=1) if identity.training.target == "top" else logits_BG.sigmoid()
    return np.asarray(probability_BG.cpu().numpy())


def _pad(waves: Sequence[NDArray[np.float32]]) -> Tensor:
    wave_BS = np.zeros((len(waves), max(wave_S.size for wave_S in waves)), np.float32)
    for row_S, wave_S in zip(wave_BS, waves, strict=True):
        row_S[: wave_S.size] = wave_S
    return torch.from_numpy(wave_BS)


def _repeat_own_frames(
    mel_BFM: Tensor, waves: Sequence[NDArray[np.float32]], identity: ModelIdentity
) -> Tensor:
    """Repeat each crop's own frames to full length, rounded to float16 as stored spectrograms are."""
    own_B1 = torch.tensor([[1 + (wave_S.size - identity.mel.window) // identity.mel.hop] for wave_S in waves])
    frame_BF = (torch.arange(identity.crop_frames)[None] % own_B1).to(mel_BFM.device)
    filled_BFM = mel_BFM.gather(1, frame_BF[:, :, None].expand(-1, -1, mel_BFM.shape[2]))
    return filled_BFM.half().float()


@lru_cache(maxsize=2)
def _load_on_device(version_url: str, identity: ModelIdentity, device: str) -> nn.Module:
    model = load_model.__wrapped__(version_url, identity)  # another copy: the cached one stays on the CPU
    return model.to(device)


@lru_cache(maxsize=2)
def _mel_on_device(mel: MelSettings, device: str) -> nn.Module:
    from training.inference.torch_mel import (
        TorchMel,  # torchaudio costs a second, and most runs need none of it
    )

    return TorchMel(mel).to(device)
