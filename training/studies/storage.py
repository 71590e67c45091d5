"""What is lost, and what it costs, when a spectrogram is stored as a picture or as numbers of few bits.

Axes: F frames, M mel bands, H and W pixels.
"""

import io
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from store.dataset.shards import decode_db, encode_db

StorageFormat = Literal["float32", "float16", "uint8", "png-grey", "png-colour"]
FORMATS: tuple[StorageFormat, ...] = ("float32", "float16", "uint8", "png-grey", "png-colour")
PICTURE_RANGE_DB = 80.0  # below the loudest cell, as librosa's top_db: what lies below is black
FIGURE_INCHES, FIGURE_DPI = (6.4, 4.8), 100  # matplotlib's defaults: 640 x 480 pixels
COLOURS = "viridis"


@dataclass(frozen=True)
class StorageCost:
    """The error of a format against float32, its size, and its speed.

    `read_s` and `write_s` are of one hour of audio, in memory: no disk takes part.
    """

    rms_db: float
    max_db: float
    clipped_share: float
    bytes_per_hour: float
    write_s: float
    read_s: float


def encode_mel(mel_FM: NDArray[np.float32], form: StorageFormat) -> bytes:
    """Return the bytes of a spectrogram in a format. Units: dB."""
    match form:
        case "png-grey":
            return _grey_png(mel_FM)
        case "png-colour":
            return _figure_png(mel_FM)
        case _:
            return encode_db(mel_FM, form).tobytes()


def decode_mel(data: bytes, shape: tuple[int, int], form: StorageFormat) -> NDArray[np.float32]:
    """Return a spectrogram from its bytes.

    Units: dB; of a picture, dB below its loudest cell, which is 0: a picture does not contain the level.
    """
    match form:
        case "png-grey":
            return _levels(_read_png(data, "L").astype(np.float32)[::-1].T)
        case "png-colour":
            return _resize(_levels(_colour_index(_read_png(data, "RGB")).astype(np.float32)[::-1].T), shape)
        case _:
            return decode_db(np.frombuffer(data, np.dtype(form)).reshape(shape))


def round_trip(mel_FM: NDArray[np.float32], form: StorageFormat) -> NDArray[np.float32]:
    """Return a spectrogram as it is read back from a format. Shapes: (F, M) -> (F, M)."""
    if form == "float32":
        return mel_FM
    return decode_mel(encode_mel(mel_FM, form), mel_FM.shape, form)


def measure_storage(
    mels: Sequence[NDArray[np.float32]], form: StorageFormat, frames_per_s: float
) -> StorageCost:
    """Write and read spectrograms in a format, and compare them with what they were.

    The level of a picture is put back before: what remains is its own error.
    """
    write_s = read_s = 0.0
    size, errors, clipped = 0, [], []
    for mel_FM in mels:
        started = time.perf_counter()
        data = encode_mel(mel_FM, form)
        written = time.perf_counter()
        read_FM = decode_mel(data, mel_FM.shape, form)
        write_s, read_s = write_s + written - started, read_s + time.perf_counter() - written
        size += len(data)
        if form.startswith("png"):
            read_FM = read_FM + mel_FM.max()
            clipped.append((mel_FM < mel_FM.max() - PICTURE_RANGE_DB).mean())
        errors.append((read_FM - mel_FM).ravel())
    error = np.concatenate(errors).astype(np.float64)
    hours = sum(map(len, mels)) / frames_per_s / 3600
    return StorageCost(
        rms_db=float(np.sqrt((error**2).mean())),
        max_db=float(np.abs(error).max()),
        clipped_share=float(np.mean(clipped)) if clipped else 0.0,
        bytes_per_hour=size / hours,
        write_s=write_s / hours,
        read_s=read_s / hours,
    )


def _grey_png(mel_FM: NDArray[np.float32]) -> bytes:
    """Return a grey picture: time across, frequency up, a cell a pixel, 256 levels over PICTURE_RANGE_DB."""
    from PIL import Image

    share_FM = np.clip(1 + (mel_FM - mel_FM.max()) / PICTURE_RANGE_DB, 0, 1)
    sink = io.BytesIO()
    Image.fromarray(np.rint(255 * share_FM).astype(np.uint8).T[::-1]).save(sink, "png")
    return sink.getvalue()


def _figure_png(mel_FM: NDArray[np.float32]) -> bytes:
    """Return what matplotlib saves of a spectrogram: its own size in pixels, coloured, and nothing around it."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=FIGURE_INCHES)
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    top = float(mel_FM.max())
    axes.imshow(mel_FM.T, origin="lower", aspect="auto", cmap=COLOURS, vmin=top - PICTURE_RANGE_DB, vmax=top)
    sink = io.BytesIO()
    figure.savefig(sink, format="png", dpi=FIGURE_DPI)
    return sink.getvalue()


def _read_png(data: bytes, mode: str) -> NDArray[np.uint8]:
    from PIL import Image

    return np.asarray(Image.open(io.BytesIO(data)).convert(mode))


def _colour_index(pixel_HWC: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Return of each pixel the index of the colour of the map that is nearest to it. Shapes: (H, W, 3) -> (H, W)."""
    distinct, index = np.unique(pixel_HWC.reshape(-1, 3), axis=0, return_inverse=True)
    _, nearest = _colours().query(distinct)
    return np.asarray(nearest[index.ravel()].reshape(pixel_HWC.shape[:2]))


@lru_cache(maxsize=1)
def _colours() -> Any:
    import matplotlib
    from scipy.spatial import cKDTree

    return cKDTree(matplotlib.colormaps[COLOURS](np.arange(256), bytes=True)[:, :3].astype(float))


def _levels(grey_FM: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return dB below the loudest from levels of 0 to 255."""
    return np.asarray((grey_FM / 255 - 1) * PICTURE_RANGE_DB, np.float32)


def _resize(values_HW: NDArray[np.float32], shape: tuple[int, int]) -> NDArray[np.float32]:
    """Resize by linear interpolation."""
    from PIL import Image

    image = Image.fromarray(values_HW).resize((shape[1], shape[0]), Image.Resampling.BILINEAR)
    return np.asarray(image, np.float32)
