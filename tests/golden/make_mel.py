"""Make mel.npz: log-mel spectrograms of real music, computed by librosa. Run it again for another librosa.

python -m tests.golden.make_mel
"""

from pathlib import Path

import librosa
import numpy as np

TRACKS = ("200001", "200020", "200040")
FOLDER = Path(__file__).parent
START_S, SECONDS = 5.0, 2.0


def main() -> None:
    """Store librosa's log-mel spectrogram of two seconds of each track, and the wave it was computed from."""
    arrays = {"librosa_version": np.array(librosa.__version__)}
    for name in TRACKS:
        path = FOLDER.parent / "data" / "demo_music" / "fma_small" / "200" / f"{name}.mp3"
        wave_S, _ = librosa.load(path, offset=START_S, duration=SECONDS)
        power_MF = librosa.feature.melspectrogram(y=wave_S, center=False)
        arrays[f"{name}_wave"] = wave_S
        arrays[f"{name}_mel"] = librosa.power_to_db(power_MF, top_db=None).T.astype(np.float32)
    np.savez_compressed(FOLDER / "mel.npz", **arrays)


if __name__ == "__main__":
    main()
