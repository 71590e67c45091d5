"""What tests need to publish spectrograms that they made up."""

from collections.abc import Mapping

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from preprocessing.mel.settings import MelSettings
from store.dataset.recipe import Encoding, Recipe
from store.dataset.shards import Shard, write_shard
from store.dataset.snapshots import INDEX_SCHEMA, latest_snapshot, publish, put_catalogue
from store.reader import Snapshot, open_snapshot


def publish_mels(
    root: str,
    mels: Mapping[str, NDArray[np.float32]],
    catalogue: pa.Table,
    mel: MelSettings,
    encoding: Encoding = "float16",
) -> Snapshot:
    """Publish spectrograms, by track_id, as one shard of a new store."""
    shard = write_mels(root, mels, mel, encoding)
    publish(
        root,
        parent=None,
        shards=[shard],
        index=index_of(shard),
        catalogue=put_catalogue(root, catalogue),
        recipe=Recipe(mel.model_dump(), mel.settings_hash, encoding, {}),
        settings={},
    )
    return open_snapshot(root)


def write_mels(
    root: str, mels: Mapping[str, NDArray[np.float32]], mel: MelSettings, encoding: Encoding
) -> Shard:
    """Write spectrograms, by track_id, as a shard that no snapshot names yet."""
    blocks = ((it, [mel_FM]) for it, mel_FM in mels.items())
    return write_shard(root, blocks, bands=mel.bands, encoding=encoding, attributes={})


def index_of(shard: Shard) -> pa.Table:
    """Return a row for each track of a shard, as a build would."""
    rows = [
        {
            "track_id": it,
            "status": "ok",
            "shard": shard.name,
            "start_frame": start,
            "frames": shard.frames[it],
        }
        for it, start in shard.starts.items()
    ]
    return pa.Table.from_pylist(rows, schema=INDEX_SCHEMA)


def add_mels(
    root: str, mels: Mapping[str, NDArray[np.float32]], mel: MelSettings, encoding: Encoding = "float16"
) -> None:
    """Publish one more shard on top of the latest snapshot, with its catalogue."""
    shard = write_mels(root, mels, mel, encoding)
    parent = latest_snapshot(root)
    assert parent is not None
    publish(
        root,
        parent=parent,
        shards=[shard],
        index=index_of(shard),
        catalogue=parent.catalogue,
        recipe=parent.recipe,
        settings={},
    )
