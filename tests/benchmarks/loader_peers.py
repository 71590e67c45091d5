"""Other libraries that read crops, each with the same tracks, put together as its own documentation does.

They stream samples in order, so a sample is a whole track, of which several crops are taken and mixed in a buffer.
"""

import importlib.util
import random
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from numpy.typing import NDArray

MIXED = 1_000  # crops in the buffer that mixes them
FILE_BYTES, TRACKS_PER_FILE = 1 << 24, 100
GENRES = 16

Sample = tuple[NDArray[Any], int]  # a spectrogram and its genre
Epoch = Callable[[], Iterable[Any]]  # an epoch of batches


@dataclass(frozen=True)
class Shape:
    """What all peers read."""

    crop_frames: int
    crops_per_track: int
    batch_size: int

    def crops(self, tracks: Iterable[Sample]) -> Iterator[Sample]:
        """Yield some crops of each track."""
        for mel_FM, genre in tracks:
            for _ in range(self.crops_per_track):
                start = random.randrange(len(mel_FM) - self.crop_frames + 1)
                yield mel_FM[start : start + self.crop_frames], genre


class MixedCrops(torch.utils.data.IterableDataset[Sample]):
    """The crops of a data set of tracks, mixed in a buffer."""

    def __init__(self, tracks: Iterable[dict[str, Any]], shape: Shape) -> None:
        self.tracks, self.shape = tracks, shape

    def __iter__(self) -> Iterator[Sample]:
        buffer: list[Sample] = []
        for crop in self.shape.crops((sample["mel"], int(sample["genre"])) for sample in self.tracks):
            if len(buffer) < MIXED:
                buffer.append(crop)
            else:
                at = random.randrange(MIXED)
                buffer[at], crop = crop, buffer[at]
                yield crop
        yield from buffer


def webdataset(folder: Path, tracks: list[NDArray[Any]], shape: Shape) -> Epoch:
    """Tar files of tracks."""
    import webdataset

    folder.mkdir()
    with webdataset.ShardWriter(f"{folder}/%06d.tar", maxcount=TRACKS_PER_FILE, verbose=0) as sink:
        for number, mel_FM in enumerate(tracks):
            sink.write({"__key__": f"{number:08d}", "mel.npy": mel_FM, "cls": number % GENRES})
    urls = sorted(map(str, folder.glob("*.tar")))

    def epoch() -> Iterable[Any]:
        dataset = webdataset.WebDataset(urls, shardshuffle=len(urls)).decode().to_tuple("mel.npy", "cls")
        return dataset.compose(shape.crops).shuffle(MIXED).batched(shape.batch_size)

    return epoch


def mosaicml_streaming(folder: Path, tracks: list[NDArray[Any]], shape: Shape) -> Epoch:
    """MDS files of tracks."""
    if importlib.util.find_spec("torchvision") is None:
        sys.meta_path.append(
            _EmptyTorchvision()
        )  # its image data sets import that, which has no CPU wheel here
    import streaming

    columns = {"mel": f"ndarray:{tracks[0].dtype.name}", "genre": "int"}
    with streaming.MDSWriter(out=str(folder), columns=columns, size_limit=FILE_BYTES) as sink:
        for number, mel_FM in enumerate(tracks):
            sink.write({"mel": mel_FM, "genre": number % GENRES})
    dataset = streaming.StreamingDataset(
        local=str(folder), shuffle=True, batch_size=shape.batch_size, num_canonical_nodes=1
    )
    return lambda: torch.utils.data.DataLoader(MixedCrops(dataset, shape), shape.batch_size)


def litdata(folder: Path, tracks: list[NDArray[Any]], shape: Shape) -> Epoch:
    """Chunks of tracks."""
    import litdata
    from litdata.streaming.cache import Cache

    folder.mkdir()
    cache = Cache(str(folder), chunk_bytes=FILE_BYTES)
    for number, mel_FM in enumerate(tracks):
        cache[number] = {"mel": mel_FM, "genre": number % GENRES}
    cache.done()
    cache.merge(1)
    dataset = litdata.StreamingDataset(str(folder), shuffle=True)
    return lambda: torch.utils.data.DataLoader(MixedCrops(dataset, shape), shape.batch_size)


STREAMING: dict[str, tuple[str, Callable[[Path, list[NDArray[Any]], Shape], Epoch]]] = {
    "webdataset": ("webdataset", webdataset),
    "mosaicml-streaming": ("streaming", mosaicml_streaming),
    "litdata": ("litdata", litdata),
}


class _EmptyTorchvision:
    """Finds a torchvision in which every name is an empty class."""

    def find_spec(self, name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        wanted = name.split(".")[0] == "torchvision"
        return ModuleSpec(name, self, is_package=True) if wanted else None  # type: ignore[arg-type]

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return _EmptyModule(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        pass


class _EmptyModule(ModuleType):
    def __getattr__(self, name: str) -> type:
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (), {})


warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
