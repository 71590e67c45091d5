"""Files to a plan: the body of a task that listens to one batch and says what is to become of each file.

Axes: T files that were heard, G genres.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from preprocessing.decode.container import sniff_format
from preprocessing.decode.decoders import read_head
from preprocessing.decode.download import local_copies
from preprocessing.decode.settings import LimitSettings, WindowSettings
from preprocessing.errors import BadAudio, Reason
from store.errors import BadInput
from store.fs.files import join, local_path
from store.fs.listing import FoundFile
from store.fs.parquet import read_table, write_table
from store.fs.signatures import read_signature
from store.tagging.batching import batch_name
from store.tagging.predictions import INFERENCE_SCHEMA, PREDICTIONS_SCHEMA, table_rows
from store.tagging.run import TaggingRun
from store.tagging.statistics import TaggingStatistics, count_rows
from store.tags.genre_map import GenreMap
from store.tags.policy import TagPolicy, custom_tags_to_write, keep_reason, new_genres, unchanged_reason
from store.tags.write import read_tags
from training.inference.audio_files import hear_files
from training.inference.genre_selection import Answer, Answers, answer
from training.inference.model_version import ModelIdentity
from training.inference.settings import Engine

MAY_BE_MENDED = ("missing", "no-permission")  # rejects that say nothing of the file itself

Row = dict[str, Any]


@dataclass(frozen=True)
class Listener:
    """Who listens, how, and what is made of what is heard: the same for all batches of a run."""

    version_url: str
    identity: ModelIdentity
    answers: Answers
    policy: TagPolicy
    genre_map: GenreMap
    windows: WindowSettings
    limits: LimitSettings
    device: str = "cpu"
    engine: Engine = "torch"
    onnx_url: str | None = None
    files_at_once: int = 16  # fetched, decoded and heard together: memory does not grow with the batch
    retry_rejects: bool = False

    @property
    def version(self) -> str:
        """Name the model version."""
        return self.version_url.rstrip("/").rsplit("/", 1)[-1]


def plan_batch(
    files: Sequence[FoundFile], *, run: TaggingRun, inference_url: str, listener: Listener
) -> TaggingStatistics:
    """Listen to what was not heard before, and keep what is to become of each file as a part of the plan.

    Raises: OSError if the source or the run's folder fails; a bad file is an answer, not an error.

    Nothing is written into audio files. What was heard is kept apart from what is made of it,
    so that other thresholds or another policy cost no listening.
    """
    part = batch_name(files)
    return _keep_plan(
        run, part, hear_batch(files, join(inference_url, f"{part}.parquet"), listener), listener
    )


def plan_without(file: FoundFile, *, run: TaggingRun, listener: Listener) -> TaggingStatistics:
    """Give the answer for a file that ends whichever worker takes it up."""
    row = _rejected(
        _row(file), "decoder-killed", "the worker died each time it had this file and nothing else"
    )
    return _keep_plan(run, batch_name([file]), [row], listener)


def _keep_plan(run: TaggingRun, part: str, hearings: Sequence[Row], listener: Listener) -> TaggingStatistics:
    plan = pa.Table.from_pylist(plan_rows(hearings, listener), schema=PREDICTIONS_SCHEMA)
    run.write_part("plan", part, plan)
    return count_rows(plan)


# Listening


def hear_batch(files: Sequence[FoundFile], inference_url: str, listener: Listener) -> list[Row]:
    """Give a row of INFERENCE_SCHEMA for each file; what was heard before and is still true is not heard again."""
    known = _known(inference_url)
    still = {file.path: row for file in files if (row := _still_true(known, file, listener)) is not None}
    left = [file for file in files if file.path not in still]
    for first in range(0, len(left), listener.files_at_once):
        group = left[first : first + listener.files_at_once]
        still |= {row["track_id"]: row for row in _listen(group, listener)}
    rows = [still[file.path] for file in files]
    if left or len(known) != len(files):
        write_table(inference_url, pa.Table.from_pylist(rows, schema=INFERENCE_SCHEMA))
    return rows


def _known(inference_url: str) -> dict[str, Row]:
    try:
        return {row["track_id"]: row for row in table_rows(read_table(inference_url))}
    except FileNotFoundError:
        return {}


def _still_true(known: dict[str, Row], file: FoundFile, listener: Listener) -> Row | None:
    row = known.get(file.path)
    if row is None or row["signature"] != file.signature or row["reason"] in MAY_BE_MENDED:
        return None
    match row["status"]:
        case "not-needed":
            return row if _left_alone(row, listener) is not None else None
        case "rejected":
            return None if listener.retry_rejects else row
    return row


def _listen(files: Sequence[FoundFile], listener: Listener) -> list[Row]:
    """Look at files, and listen to those that are not to be left alone."""
    with local_copies([None if file.problem else file.url for file in files]) as paths:
        rows = [_look_at(file, path, listener) for file, path in zip(files, paths, strict=True)]
        chosen = [place for place, row in enumerate(rows) if "status" not in row]
        heard = hear_files(
            [path for place in chosen if (path := paths[place]) is not None],
            version_url=listener.version_url,
            identity=listener.identity,
            windows=listener.windows,
            limits=listener.limits,
            device=listener.device,
            engine=listener.engine,
            onnx_url=listener.onnx_url,
        )
    for place, said in zip(chosen, heard, strict=True):
        if isinstance(said, BadAudio):
            rows[place] = _rejected(rows[place], said.reason, said.detail)
        else:
            rows[place] |= {"status": "predicted", "probabilities": said.tolist()}
    return rows


def _look_at(file: FoundFile, path: Path | BadAudio | None, listener: Listener) -> Row:
    """Read the tags; give a row without a status if the file is to be listened to."""
    row = _row(file)
    if path is None:
        return row | {"status": "skipped", "reason": file.problem, "detail": None}
    if isinstance(path, BadAudio):
        return _rejected(row, path.reason, path.detail)
    try:
        if local_path(file.url) is not None:
            row["signature"] = read_signature(file.url)  # what is read now may be newer than the listing
        tags = read_tags(path)
    except (FileNotFoundError, NotADirectoryError):
        return _rejected(row, "missing", "no such file")
    except PermissionError:
        return _rejected(row, "no-permission", "this user may not read it")
    except BadInput as why:
        return _rejected(row, _worse(path) or "unsupported", str(why).removeprefix(f"{path}: "))
    row |= {"old_genres": tags.genres, "old_custom_tags": tags.custom_tags, "album": tags.credits.album}
    return row | {"status": "not-needed"} if _left_alone(row, listener) is not None else row


def _worse(path: Path) -> Reason | None:
    """Name what is wrong with a file whose tags cannot be read, if that is worse than its tags."""
    try:
        head, size_bytes = read_head(path)
    except BadAudio as why:
        return why.reason
    if size_bytes == 0:
        return "empty"
    return "not-audio" if sniff_format(head) is None else None


def _row(file: FoundFile) -> Row:
    return {"track_id": file.path, "url": file.url, "signature": file.signature, "reason": None}


def _rejected(row: Row, reason: str, detail: str) -> Row:
    return row | {"status": "rejected", "reason": reason, "detail": detail}


def _left_alone(row: Row, listener: Listener) -> tuple[str, str] | None:
    return keep_reason(row["old_genres"] or (), listener.policy, listener.genre_map)


# Deciding


def plan_rows(hearings: Sequence[Row], listener: Listener) -> list[Row]:
    """Say what is to become of each file: rows of PREDICTIONS_SCHEMA for rows of INFERENCE_SCHEMA."""
    said = iter(_answers([row for row in hearings if _is_asked(row, listener)], listener))
    return [
        _planned(row, next(said) if _is_asked(row, listener) else None, listener)
        | {"model_version": listener.version}
        for row in hearings
    ]


def _is_asked(row: Row, listener: Listener) -> bool:
    return row["status"] == "predicted" and _left_alone(row, listener) is None


def _answers(heard: Sequence[Row], listener: Listener) -> list[Answer]:
    if not heard:
        return []
    raw_TG = np.array([row["probabilities"] for row in heard], np.float64)
    return answer(raw_TG, [_album_of(row) for row in heard], listener.identity, listener.answers)


def _album_of(row: Row) -> str | None:
    """Name an album by its folder too: there are many "Greatest Hits"."""
    return f"{row['track_id'].rpartition('/')[0]}\0{row['album']}" if row["album"] else None


def _planned(row: Row, said: Answer | None, listener: Listener) -> Row:
    plan = {name: row.get(name) for name in ("track_id", "url", "signature", "status", "reason", "detail")}
    plan["old_genres"] = row.get("old_genres")
    if said is None:
        if row["status"] in ("rejected", "skipped"):
            return plan
        reason, detail = _left_alone(row, listener) or ("", "")
        return plan | {"status": "kept", "reason": reason, "detail": detail}
    plan |= {
        "predicted_genres": said.told,
        "confidence": said.confidence,
        "probabilities": said.chance_G.tolist(),
        "reason": said.reason,
        "detail": said.detail,
    }
    if said.status == "unsure":
        return plan | {"status": "unsure"}
    genres = new_genres(row["old_genres"], said.told, listener.policy, listener.genre_map)
    if genres is None:
        reason, detail = unchanged_reason(row["old_genres"], said.told, listener.policy, listener.genre_map)
        return plan | {"status": "kept", "reason": reason, "detail": detail}
    custom_tags = custom_tags_to_write(
        said.confidence, listener.version, row["old_custom_tags"] or {}, listener.policy
    )
    return plan | {"status": "change", "genres": genres, "custom_tags": custom_tags}
