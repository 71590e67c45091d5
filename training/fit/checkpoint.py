"""The checkpoints of a run, from which it resumes as if it had not stopped.

Two files alternate, so that the checkpoint before the last is there if the last is damaged. Each begins
with one line of JSON: its number, the hash of the run, and the SHA-256 of what follows.
"""

import hashlib
import io
import json
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from store.errors import BadInput
from store.fs.files import join, read_bytes, write_atomic

NAMES = ("checkpoint-a.pt", "checkpoint-b.pt")


@dataclass(frozen=True)
class EpochProgress:
    """The steps made of an epoch, the sums of their losses and gradient norms over all ranks, and their times."""

    steps: int = 0
    loss: float = 0.0
    grad_norm: float = 0.0
    seconds: float = 0.0
    data_wait_s: float = 0.0


@dataclass(frozen=True)
class Checkpoint:
    """All that a run needs to resume; random numbers are drawn again from the seeds.

    `epoch` counts whole epochs, `epoch_progress` is of the next one; `number` counts checkpoints.
    """

    number: int
    epoch: int
    epoch_progress: EpochProgress
    model: dict[str, Tensor]
    optimizer: dict[str, Any]
    best_epoch: int
    best_weights: dict[str, Tensor]
    history: list[dict[str, float]]


def write_checkpoint(folder: str, checkpoint: Checkpoint, run_hash: str) -> None:
    """Write a checkpoint in place of the one before the last."""
    buffer = io.BytesIO()
    torch.save({**vars(checkpoint), "epoch_progress": asdict(checkpoint.epoch_progress)}, buffer)
    body = buffer.getvalue()
    head = {"number": checkpoint.number, "run": run_hash, "sha256": hashlib.sha256(body).hexdigest()}
    write_atomic(join(folder, NAMES[checkpoint.number % 2]), json.dumps(head).encode() + b"\n" + body)


def read_checkpoint(folder: str, run_hash: str) -> tuple[Checkpoint | None, list[str]]:
    """Return the newest intact checkpoint, if there is one, and the names of damaged ones.

    Raises: BadInput if it is of another run, or if all checkpoints are damaged.
    """
    found, damaged = [], []
    for name in NAMES:
        try:
            data = read_bytes(join(folder, name))
        except FileNotFoundError:
            continue
        head = _read_intact_head(data)
        if head is None:
            damaged.append(name)
        else:
            found.append((head, data))
    if damaged and not found:
        raise BadInput(
            f"{folder}: {' and '.join(damaged)} cut short or damaged; delete to train from the start"
        )
    if not found:
        return None, []
    head, data = max(found, key=lambda pair: pair[0]["number"])
    if head["run"] != run_hash:
        raise BadInput(
            f"{folder}: its checkpoint is of run {head['run']}, but settings or tracks now make it run "
            f"{run_hash}; put them back, or train in another folder"
        )
    body = io.BytesIO(data.partition(b"\n")[2])
    content = torch.load(body, map_location="cpu", weights_only=True)
    return Checkpoint(**{**content, "epoch_progress": EpochProgress(**content["epoch_progress"])}), damaged


def _read_intact_head(data: bytes) -> dict[str, Any] | None:
    """Return the parsed first line, or None if its checksum does not fit what follows."""
    line, _, body = data.partition(b"\n")
    try:
        head: Any = json.loads(line)
    except ValueError:
        return None
    return head if isinstance(head, dict) and head.get("sha256") == hashlib.sha256(body).hexdigest() else None
