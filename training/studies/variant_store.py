"""Stores of variants of spectrograms, computed from the audio of tracks: the body of a Dask task.

Axes: F frames, M bands.
"""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from preprocessing.decode import decode
from preprocessing.errors import BadAudio
from store.dataset.recipe import Recipe
from store.dataset.shards import Shard, write_shard
from store.dataset.snapshots import INDEX_SCHEMA, latest_snapshot, publish, put_catalogue
from store.errors import BadInput
from store.fs.files import join
from training.studies.variants import Variant


def build_variants(
    tracks: Sequence[tuple[str, str]], *, variants: Sequence[Variant], root: str
) -> list[Shard]:
    """Decode tracks once, each an id and the URL of its audio, and write a shard of each variant below `root`.

    Raises: BadInput if a track cannot be decoded (any more), OSError if it cannot be read now.
    """
    mels: dict[str, dict[str, NDArray[np.float32]]] = {variant.name: {} for variant in variants}
    for track_id, url in tracks:
        try:
            wave_S = decode(url, sample_rate_hz=variants[0].mel.sample_rate_hz)
            for variant in variants:
                mels[variant.name][track_id] = variant.compute(wave_S)
        except BadAudio as why:
            raise BadInput(
                f"{url}: {why}; this study computes spectrograms from the audio of all its tracks: put it back"
            ) from None
    return [
        write_shard(
            store_url(root, variant),
            ((track_id, [mel_FM]) for track_id, mel_FM in mels[variant.name].items()),
            bands=variant.mel.bands,
            encoding="float32",
            attributes={},
        )
        for variant in variants
    ]


def store_url(root: str, variant: Variant) -> str:
    """Return the store of a variant."""
    return join(root, "stores", variant.name)


def is_published(root: str, variant: Variant) -> bool:
    """Return whether the store of a variant is complete."""
    return latest_snapshot(store_url(root, variant)) is not None


def publish_variant(root: str, variant: Variant, shards: Sequence[Shard], catalogue: pa.Table) -> None:
    """Publish the store of a variant. Its mel settings have the bands, frames and rate, whatever the scale."""
    store = store_url(root, variant)
    rows = [
        {
            "track_id": track_id,
            "status": "ok",
            "shard": shard.name,
            "start_frame": start,
            "frames": shard.frames[track_id],
        }
        for shard in shards
        for track_id, start in shard.starts.items()
    ]
    publish(
        store,
        parent=None,
        shards=shards,
        index=pa.Table.from_pylist(rows, schema=INDEX_SCHEMA),
        catalogue=put_catalogue(store, catalogue),
        recipe=Recipe(variant.mel.model_dump(), variant.mel.settings_hash, "float32", {}),
        settings={"variant": variant.name},
    )
