"""The log-mel spectrogram of preprocessing.mel.transform in torch, for any device.

Axes: B crops, S samples, F frames, M mel bands.
"""

from torch import Tensor, nn

from preprocessing.mel.settings import MelSettings
from preprocessing.mel.transform import FLOOR_POWER
from training.fit.audio_transforms import MelSpectrogram


class TorchMel(nn.Module):
    """Waveforms to dB as `preprocessing.mel.log_mel` defines it, by torchaudio's transform."""

    def __init__(self, settings: MelSettings) -> None:
        super().__init__()
        self.power = MelSpectrogram(
            sample_rate=settings.sample_rate_hz,
            n_fft=settings.window,
            hop_length=settings.hop,
            f_min=settings.low_hz,
            f_max=settings.top_hz,
            n_mels=settings.bands,
            power=2.0,
            center=False,
            norm="slaney",
            mel_scale="slaney",
        )

    def forward(self, wave_BS: Tensor) -> Tensor:
        """Shapes: (B, S) -> (B, F, M) with F = 1 + (S - window) // hop. Units: dB, never below -100."""
        power_BMF: Tensor = self.power(wave_BS)
        return 10 * power_BMF.clamp(min=FLOOR_POWER).log10().transpose(1, 2)
