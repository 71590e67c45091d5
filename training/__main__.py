"""The program that torchrun starts in each process: `python -m torch.distributed.run ... -m training RUN_FOLDER`.

Writes one line of JSON an event to stdout, in a single write, so that lines of several processes
do not mix. Events: start, step, epoch, heartbeat, notice, done, and error, whose kind names a class of
store/errors.py and whose message is for the operator; every rank with an error reports it, with its
rank, and exits with 3: the first one counts.
"""

import errno
import json
import os
import signal
import sys
from contextlib import suppress
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

from preprocessing.child_processes import die_with_parent
from store.errors import BadInput, SpectrogramOneError, TrainingStopped, first_line
from store.reader import open_snapshot
from training.fit.distributed import RankContext
from training.fit.loop import train
from training.fit.run import read_run

EXIT_REPORTED = 3
EXIT_TERMINATED = 128 + signal.SIGTERM
# Errors that a restart cannot fix, unlike a lost process or a broken connection.
PERMANENT_ERRNOS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM)


def main(arguments: list[str]) -> int:
    """Train the run in the given folder, as one of torchrun's processes."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(EXIT_TERMINATED))
    if "TORCHELASTIC_RUN_ID" in os.environ:
        die_with_parent(signal.SIGKILL)  # a rank without its agent would train on unnoticed
    rank = int(os.environ.get("RANK", "0"))
    try:
        if len(arguments) != 1:
            raise BadInput(f"python -m training RUN_FOLDER: found {len(arguments)} arguments")
        _train_folder(arguments[0], rank)
    except (SpectrogramOneError, OSError, MemoryError, RuntimeError) as error:
        reported = _to_report(error)
        if reported is None:
            raise
        kind = type(reported).__name__
        _write_line({"event": "error", "rank": rank, "kind": kind, "message": str(reported)})
        return EXIT_REPORTED
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()
    return 0


def _train_folder(folder: str, rank: int) -> None:
    run, tracks = read_run(folder)
    snapshot = open_snapshot(run.snapshot_url)
    rank_context = _init_distributed(rank, timedelta(seconds=run.settings.stall_timeout_s))
    train(folder, run, tracks, snapshot, rank_context, _write_line if rank == 0 else _discard)


def _init_distributed(rank: int, timeout: timedelta) -> RankContext:
    """Join the process group. The environment is read here, since torchrun passes its arguments in it."""
    world_size = int(os.environ.get("WORLD_SIZE", "1"))
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    local_world = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    torch.set_num_threads(max(1, len(os.sched_getaffinity(0)) // local_world))
    device = torch.device("cpu")
    if torch.cuda.is_available():
        if local_world > torch.cuda.device_count():
            raise BadInput(f"{local_world} processes, but {torch.cuda.device_count()} GPUs on this host")
        device = torch.device("cuda", local_rank)
        torch.cuda.set_device(device)
        torch.backends.cudnn.deterministic = True
    if world_size > 1:
        dist.init_process_group("gloo" if device.type == "cpu" else "nccl", timeout=timeout)
    return RankContext(rank, world_size, device)


def _to_report(error: Exception) -> BadInput | TrainingStopped | None:
    """Return the error to report to the operator; None where a restart may help, or for a bug."""
    match error:
        case BadInput() | TrainingStopped():
            return error
        case torch.OutOfMemoryError():
            return BadInput(
                f"the GPU's memory is full ({first_line(error)}); lower training.micro_batch_size, or model.width"
            )
        case MemoryError():
            return BadInput(f"this host's memory is full ({first_line(error)}); lower training.batch_size")
        case RuntimeError() if "DefaultCPUAllocator" in str(error):
            return BadInput(
                f"this host's memory is full ({first_line(error)}); lower training.micro_batch_size, or model.width"
            )
        case OSError() if error.errno in PERMANENT_ERRNOS:
            return TrainingStopped(
                f"{error}; correct that, then run the same command again to resume from the last checkpoint"
            )
        case _:
            return None


def _write_line(event: dict[str, Any]) -> None:
    # The reader may be gone: training continues without it.
    with suppress(BrokenPipeError):
        os.write(1, json.dumps(event).encode() + b"\n")


def _discard(event: dict[str, Any]) -> None:
    pass


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
