"""The archives of the Free Music Archive's dataset, as their publisher describes them.

Source: https://github.com/mdeff/fma
"""

from dataclasses import dataclass

PUBLISHED_AT = "https://os.unil.cloud.switch.ch/fma/"
METADATA, METADATA_SHA1 = "fma_metadata.zip", "f0df49ffe5f2a6008d7dc83c6915b31835dfe733"
CLIP_HOURS = 30 / 3600


@dataclass(frozen=True)
class FmaArchive:
    """The audio of one subset: its SHA-1, tracks, and hours of audio."""

    name: str
    sha1: str
    tracks: int
    hours: float


ARCHIVES = {
    "small": FmaArchive(
        "fma_small.zip", "ade154f733639d52e35e32f5593efe5be76c6d70", 8_000, 8_000 * CLIP_HOURS
    ),
    "medium": FmaArchive(
        "fma_medium.zip", "c67b69ea232021025fca9231fc1c7c1a063ab50b", 25_000, 25_000 * CLIP_HOURS
    ),
    "large": FmaArchive(
        "fma_large.zip", "497109f4dd721066b5ce5e5f250ec604dc78939e", 106_574, 106_574 * CLIP_HOURS
    ),
    "full": FmaArchive("fma_full.zip", "0f0ace23fbe9ba30ecb7e95f763e435ea802b8ab", 106_574, 343 * 24.0),
}
