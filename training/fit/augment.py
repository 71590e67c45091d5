"""Random changes to a batch of crops that keep its genres, made on the batch's own device.

Axes: B crops, F frames, M mel bands, G genres, K knots of a curve. Random numbers are from torch's global generator.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from training.fit.audio_transforms import FrequencyMasking, TimeMasking
from training.fit.settings import AugmentSettings

TONE_KNOTS = 6  # over all bands: a tone control, not a new timbre


def augment(mel_BFM: Tensor, target_BG: Tensor, settings: AugmentSettings) -> tuple[Tensor, Tensor]:
    """Vary loudness and tone, blend neighbours, and mask stripes of frequency and of time.

    Source: SpecAugment (Park et al., 2019); mixup (Zhang et al., 2018).

    Tracks of one artist share a studio and a mastering: a random tone keeps the network from
    recognising the artist by them.
    """
    if settings.gain_db:
        mel_BFM = mel_BFM + _gain(mel_BFM, settings.gain_db)
    if settings.tone_db:
        mel_BFM = mel_BFM + _tone_curve(mel_BFM, settings.tone_db)
    if settings.mixup:
        mel_BFM, target_BG = _mixup(mel_BFM, target_BG, settings.mixup)
    return _mask(mel_BFM, settings), target_BG


def _gain(mel_BFM: Tensor, bound_db: float) -> Tensor:
    """Return one uniform random gain for each crop. Shapes: (B, 1, 1)."""
    return (torch.rand(len(mel_BFM), 1, 1, device=mel_BFM.device) * 2 - 1) * bound_db


def _tone_curve(mel_BFM: Tensor, std_db: float) -> Tensor:
    """Return a random curve over the bands for each crop, linear between its knots. Shapes: (B, 1, M)."""
    knots_B1K = std_db * torch.randn(len(mel_BFM), 1, TONE_KNOTS, device=mel_BFM.device)
    return F.interpolate(knots_B1K, size=mel_BFM.shape[2], mode="linear", align_corners=True)


def _mixup(mel_BFM: Tensor, target_BG: Tensor, alpha: float) -> tuple[Tensor, Tensor]:
    """Blend each crop with its neighbour: the order of a batch is random already."""
    alpha_B = torch.full((len(mel_BFM),), alpha, device=mel_BFM.device)
    # Validating the arguments would read them back from the device: a wait in every step.
    share_B = torch.distributions.Beta(alpha_B, alpha_B, validate_args=False).sample()
    mixed_BFM = torch.lerp(mel_BFM.roll(1, 0), mel_BFM, share_B[:, None, None])
    return mixed_BFM, torch.lerp(target_BG.roll(1, 0), target_BG, share_B[:, None])


def _mask(mel_BFM: Tensor, settings: AugmentSettings) -> Tensor:
    """Set stripes of each crop to the batch's mean level."""
    _, frames, bands = mel_BFM.shape
    mask_frames = TimeMasking(int(settings.mask_frames_share * frames), iid_masks=True)
    mask_bands = FrequencyMasking(int(settings.mask_bands_share * bands), iid_masks=True)
    mean_db = mel_BFM.mean()
    mel_BMF = mel_BFM.transpose(1, 2)
    for _ in range(settings.masks):
        mel_BMF = mask_frames(mask_bands(mel_BMF, mean_db), mean_db)
    return mel_BMF.transpose(1, 2)
