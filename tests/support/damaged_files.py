"""Real audio files, damaged at random: what disks, networks and editors do to them."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from tests.support.audio_formats import CODECS, encode

DAMAGE_KINDS = ("flip", "cut", "hole", "shift", "double", "noise", "header")


def real_files(folder: Path, seconds: float = 2.0) -> list[Path]:
    """Write the demo music in every format."""
    paths = []
    for suffix, (codec, rate, container) in CODECS.items():
        paths.append(folder / f"music{suffix}")
        encode(paths[-1], codec, rate, container, seconds)
    return paths


def mutations(files: list[Path], count: int, seed: int) -> Iterator[tuple[str, Path, bytes]]:
    """Draw damaged files: what was done, to which file, and the bytes."""
    random = np.random.default_rng(seed)
    whole = {path: path.read_bytes() for path in files}
    for number in range(count):
        path = files[number % len(files)]
        kind = DAMAGE_KINDS[int(random.integers(len(DAMAGE_KINDS)))]
        yield kind, path, damage(whole[path], kind, random)


def damage(whole: bytes, kind: str, random: np.random.Generator) -> bytes:
    """Damage a file's bytes in one way."""
    data = bytearray(whole)
    at = int(random.integers(len(data)))
    length = int(random.integers(1, 4_096))
    match kind:
        case "flip":  # single bits, here and there
            for place in random.integers(len(data), size=int(random.integers(1, 200))):
                data[place] ^= 1 << int(random.integers(8))
        case "cut":
            del data[at:]
        case "hole":
            data[at : at + length] = bytes(len(data[at : at + length]))
        case "shift":
            del data[at : at + length]
        case "double":
            data[at:at] = data[at : at + length]
        case "noise":
            data[at : at + length] = random.bytes(len(data[at : at + length]))
        case "header":  # which has sizes and counts
            place = int(random.integers(min(len(data), 256)))
            data[place : place + 4] = random.choice([b"\xff\xff\xff\xff", b"\0\0\0\0", b"\x7f\xff\xff\xff"])
    return bytes(data)
