"""Changes to a batch of crops that leave its genres alone, made on the batch's own device.

Axes: B crops, F frames, M mel bands, G genres, K knots of a curve. All randomness is torch's global one.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from training.fit.audio_transforms import FrequencyMasking, TimeMasking
from training.fit.settings import AugmentSettings

TONE_KNOTS = 6  # over all bands: a tone control, not a new timbre


def augment(mel_BFM: Tensor, target_BG: Tensor, settings: AugmentSettings) -> tuple[Tensor, Tensor]:
    """Vary loudness and tone, blend neighbours, and hide stripes of frequency and of time.

    Source: SpecAugment (Park et al., 2019); mixup (Zhang et al., 2018).

    Songs of one artist share a studio and a mastering: a random tone keeps the network from
    knowing the artist by them.
    """
    if settings.gain_db:
        mel_BFM = mel_BFM + _uniform(mel_BFM, settings.gain_db)
    if settings.tone_db:
        mel_BFM = mel_BFM + _bend(mel_BFM, settings.tone_db)
    if settings.mixup:
        mel_BFM, target_BG = _mixup(mel_BFM, target_BG, settings.mixup)
    return _hide_stripes(mel_BFM, settings), target_BG


def _uniform(mel_BFM: Tensor, bound: float) -> Tensor:
    """Shapes: (B, 1, 1), one value a crop."""
    return (torch.rand(len(mel_BFM), 1, 1, device=mel_BFM.device) * 2 - 1) * bound


def _bend(mel_BFM: Tensor, std_db: float) -> Tensor:
    """Draw a curve over the bands for each crop, straight between its knots. Shapes: (B, 1, M)."""
    knots_B1K = std_db * torch.randn(len(mel_BFM), 1, TONE_KNOTS, device=mel_BFM.device)
    return F.interpolate(knots_B1K, size=mel_BFM.shape[2], mode="linear", align_corners=True)


def _mixup(mel_BFM: Tensor, target_BG: Tensor, alpha: float) -> tuple[Tensor, Tensor]:
    """Blend each crop with its neighbour: the order of a batch is random as it is."""
    both = torch.full((len(mel_BFM),), alpha, device=mel_BFM.device)
    # Checked arguments would be read back from the device: a wait in every step.
    own_B = torch.distributions.Beta(both, both, validate_args=False).sample()
    mixed_BFM = torch.lerp(mel_BFM.roll(1, 0), mel_BFM, own_B[:, None, None])
    return mixed_BFM, torch.lerp(target_BG.roll(1, 0), target_BG, own_B[:, None])


def _hide_stripes(mel_BFM: Tensor, settings: AugmentSettings) -> Tensor:
    """Put the batch's mean level into stripes of each crop."""
    _, frames, bands = mel_BFM.shape
    hide_frames = TimeMasking(int(settings.mask_frames_share * frames), iid_masks=True)
    hide_bands = FrequencyMasking(int(settings.mask_bands_share * bands), iid_masks=True)
    mean_db = mel_BFM.mean()
    mel_BMF = mel_BFM.transpose(1, 2)
    for _ in range(settings.masks):
        mel_BMF = hide_frames(hide_bands(mel_BMF, mean_db), mean_db)
    return mel_BMF.transpose(1, 2)
