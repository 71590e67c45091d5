"""Where a run stands, kept in its folder so that it can go on as if it had never stopped.

Two files take turns, so the one before the last is there if the last is damaged. Each begins
with one line of JSON: its number, the run's run_hash, and the digest of what follows.
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
    """How far an epoch is: steps made, the sums of what they measured (over all ranks), and what they took."""

    steps: int = 0
    loss: float = 0.0
    grad_norm: float = 0.0
    seconds: float = 0.0
    data_wait_s: float = 0.0


@dataclass(frozen=True)
class Checkpoint:
    """All that a run needs to go on. Random state is no part: seeds make it anew.

    `epoch` counts whole epochs, `part` is what was done of the next; `number` counts checkpoints.
    """

    number: int
    epoch: int
    part: EpochProgress
    model: dict[str, Tensor]
    optimizer: dict[str, Any]
    best_epoch: int
    best_weights: dict[str, Tensor]
    history: list[dict[str, float]]


def write_checkpoint(folder: str, checkpoint: Checkpoint, run_hash: str) -> None:
    """Keep a checkpoint in place of the one before the last."""
    buffer = io.BytesIO()
    torch.save({**vars(checkpoint), "part": asdict(checkpoint.part)}, buffer)
    body = buffer.getvalue()
    head = {"number": checkpoint.number, "run": run_hash, "sha256": hashlib.sha256(body).hexdigest()}
    write_atomic(join(folder, NAMES[checkpoint.number % 2]), json.dumps(head).encode() + b"\n" + body)


def read_checkpoint(folder: str, run_hash: str) -> tuple[Checkpoint | None, list[str]]:
    """Read the newest whole checkpoint, if there is any, and name those that are damaged.

    Raises: BadInput if it is of another run, or if there are checkpoints but none is whole.
    """
    found, damaged = [], []
    for name in NAMES:
        try:
            data = read_bytes(join(folder, name))
        except FileNotFoundError:
            continue
        head = _head_of_whole(data)
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
    return Checkpoint(**{**content, "part": EpochProgress(**content["part"])}), damaged


def _head_of_whole(data: bytes) -> dict[str, Any] | None:
    """Read the first line, or give None if what follows is not what was written."""
    line, _, body = data.partition(b"\n")
    try:
        head: Any = json.loads(line)
    except ValueError:
        return None
    return head if isinstance(head, dict) and head.get("sha256") == hashlib.sha256(body).hexdigest() else None
