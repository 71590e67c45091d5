"""One audio file to one log-mel spectrogram, block by block onto a spool: memory does not grow with the track."""

import hashlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from preprocessing.decode.decoders import WaveBlocks, decode_blocks
from preprocessing.decode.settings import ExcerptSettings
from preprocessing.decode.silence import SilenceFilter
from preprocessing.decode.source import read_head
from preprocessing.decode.spool import SpooledMel
from preprocessing.errors import BadAudio
from preprocessing.mel.fingerprint import Fingerprinter
from preprocessing.mel.settings import MelSettings
from preprocessing.mel.transform import log_mel_blocks


def spool_mel(
    path: Path,
    spool: BinaryIO,
    *,
    mel: MelSettings,
    excerpt: ExcerptSettings,
    max_duration_s: float,
) -> SpooledMel:
    """Append the log-mel spectrogram of an audio file to a spool, as raw float32.

    Raises: BadAudio if the file cannot be used; OSError if it cannot be read now, or the spool cannot
        be written.

    Of long digital silence only the start and the end are written.
    """
    decoded = decode_blocks(
        partial(_append, spool=spool, mel=mel),
        path,
        sample_rate_hz=mel.sample_rate_hz,
        start_s=excerpt.start_s,
        duration_s=excerpt.duration_s,
        max_duration_s=max_duration_s,
    )
    start_byte, frames, dropped_frames, fingerprint = decoded.result
    spool.flush()
    return SpooledMel(
        start_byte=start_byte,
        frames=frames,
        bands=mel.bands,
        decoded_s=decoded.decoded_s,
        stated_s=decoded.stated_s,
        silence_s=dropped_frames * mel.hop / mel.sample_rate_hz,
        is_truncated=decoded.is_truncated,
        sha256=_hash_file(path, "sha256") if excerpt.is_whole else None,
        fingerprint=fingerprint.hex(),
    )


def verify_sha1(path: Path, expected: str) -> None:
    """Raise BadAudio if the file's SHA-1 differs, or there is no file that can be read."""
    read_head(path)
    found = _hash_file(path, "sha1")
    if found != expected:
        raise BadAudio("checksum", f"its SHA-1 is {found}; its publisher states {expected}: fetch it again")


def _append(waves: WaveBlocks, *, spool: BinaryIO, mel: MelSettings) -> tuple[int, int, int, bytes]:
    """Return the first byte of the spectrogram, its number of frames, that of frames left out, its fingerprint."""
    start_byte, frames, fingerprinter, silence = spool.tell(), 0, Fingerprinter(), SilenceFilter(mel)

    def fingerprinted() -> Iterator[NDArray[np.float32]]:
        for mel_FM in log_mel_blocks(waves, mel):
            fingerprinter.add(mel_FM)
            yield mel_FM

    for mel_FM in silence.filter(fingerprinted()):
        spool.write(np.ascontiguousarray(mel_FM).data)
        frames += len(mel_FM)
    return start_byte, frames, silence.dropped_frames, fingerprinter.digest()


def _hash_file(path: Path, algorithm: str) -> str:
    """Return a hash as hexadecimal digits. That of store.fs would import fsspec into every decoding process."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()
