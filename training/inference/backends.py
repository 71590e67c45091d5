"""Ways to run a model over crops: torch on spectrograms, torch on waveforms, onnxruntime on spectrograms.

Axes: B crops, S samples, F frames, M mel bands, G genres.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from preprocessing.mel.settings import MelSettings
from training.fit.crops import repeat_to_length
from training.inference.model_version import ModelIdentity, load_model
from training.inference.onnx_export import open_session
from training.inference.torch_mel import TorchMel

# Of crops, each (F, M) in dB or (S,), the probabilities (B, G). One of fewer frames than a crop has is played again.
CropPredictor = Callable[[Sequence[NDArray[np.float32]]], NDArray[np.float64]]


def torch_mel_predictor(version_url: str, identity: ModelIdentity, device: str) -> CropPredictor:
    """Run the network on spectrograms, just as validation does."""
    model, frames = load_model(version_url, identity), identity.crop_frames
    if device != "cpu":
        model = _moved(version_url, identity, device)

    def run(mels: Sequence[NDArray[np.float32]]) -> NDArray[np.float64]:
        mel_BFM = torch.from_numpy(np.stack([repeat_to_length(mel_FM, frames) for mel_FM in mels])).to(device)
        with torch.inference_mode():
            return _chances(model(mel_BFM.float()), identity)

    return run


def torch_wave_predictor(version_url: str, identity: ModelIdentity, device: str) -> CropPredictor:
    """Run the network on waveforms. Where that is a CUDA device, in bfloat16: the spectrogram itself stays float32."""
    model, to_mel = _moved(version_url, identity, device), _device_mel(identity.mel, device)

    def run(waves: Sequence[NDArray[np.float32]]) -> NDArray[np.float64]:
        with torch.inference_mode():
            mel_BFM = _filled(to_mel(_padded(waves).to(device)), waves, identity)
            with torch.autocast("cuda", torch.bfloat16, enabled=torch.device(device).type == "cuda"):
                logits_BG = model(mel_BFM)
            return _chances(logits_BG, identity)

    return run


def onnx_mel_predictor(version_url: str, identity: ModelIdentity, onnx_url: str | None) -> CropPredictor:
    """Run an ONNX export of the network; one is made in memory, once a process, if none is named."""
    session, frames = open_session(version_url, identity, onnx_url), identity.crop_frames

    def run(mels: Sequence[NDArray[np.float32]]) -> NDArray[np.float64]:
        mel_BFM = np.stack([repeat_to_length(mel_FM, frames) for mel_FM in mels]).astype(np.float32)
        (logits_BG,) = session.run(None, {"mel": mel_BFM})
        return _chances(torch.from_numpy(logits_BG), identity)

    return run


def _chances(logits_BG: Tensor, identity: ModelIdentity) -> NDArray[np.float64]:
    logits_BG = logits_BG.double()
    probability_BG = logits_BG.softmax(dim=1) if identity.training.target == "top" else logits_BG.sigmoid()
    chances: NDArray[np.float64] = probability_BG.cpu().numpy()
    return chances


def _padded(waves: Sequence[NDArray[np.float32]]) -> Tensor:
    wave_BS = np.zeros((len(waves), max(wave_S.size for wave_S in waves)), np.float32)
    for row_S, wave_S in zip(wave_BS, waves, strict=True):
        row_S[: wave_S.size] = wave_S
    return torch.from_numpy(wave_BS)


def _filled(mel_BFM: Tensor, waves: Sequence[NDArray[np.float32]], identity: ModelIdentity) -> Tensor:
    """Fill each crop with the frames that are its own, again and again, at the precision of all other crops."""
    own_B1 = torch.tensor([[1 + (wave_S.size - identity.mel.window) // identity.mel.hop] for wave_S in waves])
    frame_BF = (torch.arange(identity.crop_frames)[None] % own_B1).to(mel_BFM.device)
    filled_BFM = mel_BFM.gather(1, frame_BF[:, :, None].expand(-1, -1, mel_BFM.shape[2]))
    return filled_BFM.half().float()


@lru_cache(maxsize=2)
def _moved(version_url: str, identity: ModelIdentity, device: str) -> torch.nn.Module:
    model = load_model.__wrapped__(version_url, identity)  # a copy of its own: the other stays on the CPU
    return model.to(device)


@lru_cache(maxsize=2)
def _device_mel(mel: MelSettings, device: str) -> TorchMel:
    return TorchMel(mel).to(device)
