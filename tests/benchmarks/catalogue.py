"""What a build costs the flow's process as catalogues grow: so many files, a task body that returns at once.

    python -m tests.benchmarks.catalogue [--sizes 1000 10000 100000 1000000]

All is real but the music and the decoding: the listing, Prefect, Dask and its two workers, the
records that come back, snapshots, search for copies, splits, report. Each size runs in a process
of its own, whose peak of memory is what is printed. It is the process that Prefect starts for a
run; `spectrogram-one` itself holds torch besides, some 200 MiB.
"""

import argparse
import asyncio
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from itertools import count
from pathlib import Path
from uuid import uuid4

import numpy as np
import pyarrow as pa

from preprocessing.build.settings import SpectrogramSettings
from preprocessing.build.shard_task import BuiltBatch, Track
from preprocessing.decode.settings import LimitSettings
from store.dataset.shard_objects import METADATA_FILE, OBJECT_FRAMES
from store.dataset.shards import Shard
from store.dataset.snapshots import INDEX_SCHEMA

FILES_PER_FOLDER = 1_000
FRAMES = 1_290  # of 30 s
PROGRAM = "from tests.benchmarks.catalogue import build_one; import sys; build_one(*sys.argv[1:])"


def answer_at_once(
    tracks: Sequence[Track], *, settings: SpectrogramSettings, limits: LimitSettings, root: str
) -> BuiltBatch:
    """Stand in for `build_shard`: records of real size, nothing decoded; a shard's files without their content."""
    random = np.random.default_rng(int.from_bytes(tracks[0].track_id.encode()[-8:]))
    frames_of = {track.track_id: FRAMES for track in tracks}
    shard = Shard(
        f"20260101T000000-{uuid4().hex}", dict(zip(frames_of, count(0, FRAMES), strict=False)), frames_of
    )
    put_empty_shard(Path(root, "shards", shard.name), FRAMES * len(tracks), settings.mel.bands)
    rows = [
        {
            "track_id": track.track_id,
            "status": "ok",
            "shard": shard.name,
            "start_frame": shard.starts[track.track_id],
            "frames": FRAMES,
            "decoded_s": 30.0,
            "stated_s": 30.0,
            "build_s": 0.06,
            "signature": track.signature,
            "sha256": random.bytes(32),
            "fingerprint": random.bytes(64),
        }
        for track in tracks
    ]
    worker = f"simulated/{os.getpid()}"
    return BuiltBatch(shard, pa.Table.from_pylist(rows, schema=INDEX_SCHEMA), worker, 0.06 * len(rows))


def put_empty_shard(folder: Path, frames: int, bands: int) -> None:
    """Write what the array of all shards is made from: the shape, and objects to link to."""
    for number in range(-(-frames // OBJECT_FRAMES)):
        (folder / "c" / str(number)).mkdir(parents=True)
        (folder / "c" / str(number) / "0").touch()
    (folder / METADATA_FILE).write_text(json.dumps({"shape": [frames, bands]}))


def build_one(source: str, store: str) -> None:
    """Run the flow over a folder, and print what it took as one line of JSON."""
    from prefect import get_client

    from flows import build_dataset as flow
    from flows import prefect_flows
    from flows.cluster.settings import ClusterSettings
    from flows.services.prefect_server import prefect_server

    flow.build_shard = answer_at_once  # type: ignore[assignment]
    begun = time.monotonic()
    with prefect_server():
        settings = flow.BuildSettings(source=source, store=store, cluster=ClusterSettings(workers=2))
        summary = prefect_flows.build_dataset(settings)
        seconds = time.monotonic() - begun

        async def count_task_runs() -> int:
            async with get_client() as client:
                runs = await client.read_flow_runs(limit=1)
                found = await client._client.post(
                    "/task_runs/count",
                    json={"task_runs": {}, "flow_runs": {"id": {"any_": [str(runs[0].id)]}}},
                )
                return int(found.json())

        task_runs = asyncio.run(count_task_runs())
    peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if "VmHWM" in line)
    measured = {
        "tracks": summary.tracks,
        "s": seconds,
        "peak_kib": int(peak.split()[1]),
        "task_runs": task_runs,
    }
    print(json.dumps(measured))


def main() -> None:
    """Print the curve."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", type=int, nargs="+", default=[1_000, 10_000, 100_000, 1_000_000])
    arguments = parser.parse_args()
    print(f"{'tracks':>10} {'seconds':>9} {'peak of the flow, MiB':>23} {'Prefect task runs':>19}")
    for size in arguments.sizes:
        folder = Path(tempfile.mkdtemp())
        for first in range(0, size, FILES_PER_FOLDER):
            (folder / "music" / f"{first:07d}").mkdir(parents=True)
            for number in range(first, min(first + FILES_PER_FOLDER, size)):
                (folder / "music" / f"{first:07d}" / f"{number:07d}.mp3").write_bytes(b"x")
        ran = subprocess.run(
            [sys.executable, "-c", PROGRAM, str(folder / "music"), str(folder / "store")],
            stdout=subprocess.PIPE,
            check=True,
        )
        measured = json.loads(ran.stdout.splitlines()[-1])
        assert measured["tracks"] == size
        print(
            f"{size:10,} {measured['s']:9.0f} {measured['peak_kib'] / 1024:23,.0f} {measured['task_runs']:19}",
            flush=True,
        )
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
