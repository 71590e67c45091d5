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
from preprocessing.errors import RETRYABLE_REASONS, BadAudio, Reason
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
from training.inference.audio_files import predict_audio_files
from training.inference.genre_selection import GenreSelection, SelectionRules, select_genres
from training.inference.model_version import ModelIdentity
from training.inference.settings import Backend

InferenceRow = dict[str, Any]


@dataclass(frozen=True)
class InferenceConfig:
    """Who listens, how, and what is made of what is heard: the same for all batches of a run."""

    version_url: str
    identity: ModelIdentity
    selection_rules: SelectionRules
    policy: TagPolicy
    genre_map: GenreMap
    windows: WindowSettings
    limits: LimitSettings
    device: str = "cpu"
    backend: Backend = "torch"
    onnx_url: str | None = None
    files_per_group: int = 16  # fetched, decoded and heard together: memory does not grow with the batch
    retry_rejects: bool = False

    @property
    def version(self) -> str:
        """Name the model version."""
        return self.version_url.rstrip("/").rsplit("/", 1)[-1]


def plan_batch(
    files: Sequence[FoundFile], *, run: TaggingRun, inference_url: str, config: InferenceConfig
) -> TaggingStatistics:
    """Listen to what was not heard before, and keep what is to become of each file as a part of the plan.

    Raises: OSError if the source or the run's folder fails; a bad file is an answer, not an error.

    Nothing is written into audio files. What was heard is kept apart from what is made of it,
    so that other thresholds or another policy cost no listening.
    """
    part = batch_name(files)
    return _keep_plan(run, part, run_inference(files, join(inference_url, f"{part}.parquet"), config), config)


def reject_crashing_file(file: FoundFile, *, run: TaggingRun, config: InferenceConfig) -> TaggingStatistics:
    """Give the answer for a file that ends whichever worker takes it up."""
    row = _rejected(
        _row(file), "decoder-killed", "the worker died each time it had this file and nothing else"
    )
    return _keep_plan(run, batch_name([file]), [row], config)


def _keep_plan(
    run: TaggingRun, part: str, hearings: Sequence[InferenceRow], config: InferenceConfig
) -> TaggingStatistics:
    plan = pa.Table.from_pylist(plan_rows(hearings, config), schema=PREDICTIONS_SCHEMA)
    run.write_part("plan", part, plan)
    return count_rows(plan)


# Listening


def run_inference(
    files: Sequence[FoundFile], inference_url: str, config: InferenceConfig
) -> list[InferenceRow]:
    """Give a row of INFERENCE_SCHEMA for each file; what was heard before and is still true is not heard again."""
    known = _known(inference_url)
    still = {file.path: row for file in files if (row := _still_true(known, file, config)) is not None}
    left = [file for file in files if file.path not in still]
    for first in range(0, len(left), config.files_per_group):
        group = left[first : first + config.files_per_group]
        still |= {row["track_id"]: row for row in _listen(group, config)}
    rows = [still[file.path] for file in files]
    if left or len(known) != len(files):
        write_table(inference_url, pa.Table.from_pylist(rows, schema=INFERENCE_SCHEMA))
    return rows


def _known(inference_url: str) -> dict[str, InferenceRow]:
    try:
        return {row["track_id"]: row for row in table_rows(read_table(inference_url))}
    except FileNotFoundError:
        return {}


def _still_true(
    known: dict[str, InferenceRow], file: FoundFile, config: InferenceConfig
) -> InferenceRow | None:
    row = known.get(file.path)
    if row is None or row["signature"] != file.signature or row["reason"] in RETRYABLE_REASONS:
        return None
    match row["status"]:
        case "not-needed":
            return row if _left_alone(row, config) is not None else None
        case "rejected":
            return None if config.retry_rejects else row
    return row


def _listen(files: Sequence[FoundFile], config: InferenceConfig) -> list[InferenceRow]:
    """Look at files, and listen to those that are not to be left alone."""
    with local_copies([None if file.problem else file.url for file in files]) as paths:
        rows = [_look_at(file, path, config) for file, path in zip(files, paths, strict=True)]
        chosen = [place for place, row in enumerate(rows) if "status" not in row]
        heard = predict_audio_files(
            [path for place in chosen if (path := paths[place]) is not None],
            version_url=config.version_url,
            identity=config.identity,
            windows=config.windows,
            limits=config.limits,
            device=config.device,
            backend=config.backend,
            onnx_url=config.onnx_url,
        )
    for place, said in zip(chosen, heard, strict=True):
        if isinstance(said, BadAudio):
            rows[place] = _rejected(rows[place], said.reason, said.detail)
        else:
            rows[place] |= {"status": "predicted", "probabilities": said.tolist()}
    return rows


def _look_at(file: FoundFile, path: Path | BadAudio | None, config: InferenceConfig) -> InferenceRow:
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
    return row | {"status": "not-needed"} if _left_alone(row, config) is not None else row


def _worse(path: Path) -> Reason | None:
    """Name what is wrong with a file whose tags cannot be read, if that is worse than its tags."""
    try:
        head, size_bytes = read_head(path)
    except BadAudio as why:
        return why.reason
    if size_bytes == 0:
        return "empty"
    return "not-audio" if sniff_format(head) is None else None


def _row(file: FoundFile) -> InferenceRow:
    return {"track_id": file.path, "url": file.url, "signature": file.signature, "reason": None}


def _rejected(row: InferenceRow, reason: str, detail: str) -> InferenceRow:
    return row | {"status": "rejected", "reason": reason, "detail": detail}


def _left_alone(row: InferenceRow, config: InferenceConfig) -> tuple[str, str] | None:
    return keep_reason(row["old_genres"] or (), config.policy, config.genre_map)


# Deciding


def plan_rows(hearings: Sequence[InferenceRow], config: InferenceConfig) -> list[InferenceRow]:
    """Say what is to become of each file: rows of PREDICTIONS_SCHEMA for rows of INFERENCE_SCHEMA."""
    said = iter(_answers([row for row in hearings if _is_asked(row, config)], config))
    return [
        _planned(row, next(said) if _is_asked(row, config) else None, config)
        | {"model_version": config.version}
        for row in hearings
    ]


def _is_asked(row: InferenceRow, config: InferenceConfig) -> bool:
    return row["status"] == "predicted" and _left_alone(row, config) is None


def _answers(heard: Sequence[InferenceRow], config: InferenceConfig) -> list[GenreSelection]:
    if not heard:
        return []
    raw_TG = np.array([row["probabilities"] for row in heard], np.float64)
    return select_genres(raw_TG, [_album_of(row) for row in heard], config.identity, config.selection_rules)


def _album_of(row: InferenceRow) -> str | None:
    """Name an album by its folder too: there are many "Greatest Hits"."""
    return f"{row['track_id'].rpartition('/')[0]}\0{row['album']}" if row["album"] else None


def _planned(row: InferenceRow, said: GenreSelection | None, config: InferenceConfig) -> InferenceRow:
    plan = {name: row.get(name) for name in ("track_id", "url", "signature", "status", "reason", "detail")}
    plan["old_genres"] = row.get("old_genres")
    if said is None:
        if row["status"] in ("rejected", "skipped"):
            return plan
        reason, detail = _left_alone(row, config) or ("", "")
        return plan | {"status": "kept", "reason": reason, "detail": detail}
    plan |= {
        "predicted_genres": said.genres,
        "confidence": said.confidence,
        "probabilities": said.probability_G.tolist(),
        "reason": said.reason,
        "detail": said.detail,
    }
    if said.status == "unsure":
        return plan | {"status": "unsure"}
    genres = new_genres(row["old_genres"], said.genres, config.policy, config.genre_map)
    if genres is None:
        reason, detail = unchanged_reason(row["old_genres"], said.genres, config.policy, config.genre_map)
        return plan | {"status": "kept", "reason": reason, "detail": detail}
    custom_tags = custom_tags_to_write(
        said.confidence, config.version, row["old_custom_tags"] or {}, config.policy
    )
    return plan | {"status": "change", "genres": genres, "custom_tags": custom_tags}
