"""From files to a plan: the body of a task that predicts one batch and plans the change of each file.

Axes: T predicted files, G genres.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from preprocessing.decode.local_copies import local_copies
from preprocessing.decode.settings import LimitSettings, WindowSettings
from preprocessing.decode.source import sniff_file
from preprocessing.errors import RETRYABLE_REASONS, BadAudio
from store.errors import BadInput
from store.fs.files import join, last_part, local_path
from store.fs.listing import FoundFile
from store.fs.signatures import read_signature
from store.tagging.batching import batch_name
from store.tagging.inference_cache import read_inference, write_inference
from store.tagging.predictions import PREDICTIONS_SCHEMA
from store.tagging.run import TaggingRun
from store.tagging.statistics import TaggingStatistics, count_rows
from store.tagging.swap.rehearsal import rehearse_writing
from store.tagging.swap.settings import WriteSettings
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
    """The model, how it runs, and how genres are selected and written: the same for all batches of a run."""

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
    files_per_group: int = 16  # downloaded, decoded and predicted together: bounds the memory
    retry_rejects: bool = False
    rehearsal: WriteSettings | None = None  # of a dry run: how the files would be written

    @property
    def version(self) -> str:
        """The name of the model version."""
        return last_part(self.version_url)


def plan_batch(
    files: Sequence[FoundFile], *, run: TaggingRun, inference_url: str, config: InferenceConfig
) -> TaggingStatistics:
    """Predict the files that were not predicted before, and store what to do with each as a part of the plan.

    Raises: OSError if the source or the run's folder fails; a bad file is a result, not an error.

    No audio file is written. Predictions are stored apart from the plan, so that other thresholds or
    another policy need no inference.
    """
    part = batch_name(files)
    rows = run_inference(files, join(inference_url, f"{part}.parquet"), config)
    return _store_plan(run, part, rows, config)


def reject_crashing_file(file: FoundFile, *, run: TaggingRun, config: InferenceConfig) -> TaggingStatistics:
    """Plan a file that crashed every worker that tried it, as rejected."""
    row = _rejected(_row(file), "decoder-killed", "the worker died each time it had this file and no other")
    return _store_plan(run, batch_name([file]), [row], config)


def _store_plan(
    run: TaggingRun, part: str, rows: Sequence[InferenceRow], config: InferenceConfig
) -> TaggingStatistics:
    planned = plan_rows(rows, config)
    if config.rehearsal is not None:
        planned = rehearsed_rows(planned, config.rehearsal)
    plan = pa.Table.from_pylist(planned, schema=PREDICTIONS_SCHEMA)
    run.write_part("plan", part, plan)
    return count_rows(plan)


# Inference


def run_inference(
    files: Sequence[FoundFile], inference_url: str, config: InferenceConfig
) -> list[InferenceRow]:
    """Return a row of INFERENCE_SCHEMA for each file; stored rows that still hold are not computed again."""
    stored = {row["track_id"]: row for row in read_inference(inference_url)}
    rows = {file.path: row for file in files if (row := _valid_row(stored, file, config)) is not None}
    left = [file for file in files if file.path not in rows]
    for first in range(0, len(left), config.files_per_group):
        group = left[first : first + config.files_per_group]
        rows |= {row["track_id"]: row for row in _predict_group(group, config)}
    ordered = [rows[file.path] for file in files]
    if left or len(stored) != len(files):
        write_inference(inference_url, ordered)
    return ordered


def _valid_row(
    stored: dict[str, InferenceRow], file: FoundFile, config: InferenceConfig
) -> InferenceRow | None:
    row = stored.get(file.path)
    if row is None or row["signature"] != file.signature or row["reason"] in RETRYABLE_REASONS:
        return None
    match row["status"]:
        case "not-needed":
            return row if _keep_reason(row, config) is not None else None
        case "rejected":
            return None if config.retry_rejects else row
    return row


def _predict_group(files: Sequence[FoundFile], config: InferenceConfig) -> list[InferenceRow]:
    """Read the tags of files, and predict those that the policy may change."""
    with local_copies([None if file.problem else file.url for file in files]) as paths:
        rows = [_read_file_tags(file, path, config) for file, path in zip(files, paths, strict=True)]
        chosen = [index for index, row in enumerate(rows) if "status" not in row]
        predictions = predict_audio_files(
            [path for index in chosen if (path := paths[index]) is not None],
            version_url=config.version_url,
            identity=config.identity,
            windows=config.windows,
            limits=config.limits,
            device=config.device,
            backend=config.backend,
            onnx_url=config.onnx_url,
        )
    for index, prediction in zip(chosen, predictions, strict=True):
        if isinstance(prediction, BadAudio):
            rows[index] = _rejected(rows[index], prediction.reason, prediction.detail)
        else:
            rows[index] |= {"status": "predicted", "probabilities": prediction.tolist()}
    return rows


def _read_file_tags(file: FoundFile, path: Path | BadAudio | None, config: InferenceConfig) -> InferenceRow:
    """Return a row with the file's tags; without a status if the file is to be predicted."""
    row = _row(file)
    if path is None:
        return row | {"status": "skipped", "reason": file.problem, "detail": None}
    if isinstance(path, BadAudio):
        return _rejected(row, path.reason, path.detail)
    try:
        if local_path(file.url) is not None:
            row["signature"] = read_signature(file.url)  # the file may have changed since it was listed
        tags = read_tags(path)
    except (FileNotFoundError, NotADirectoryError):
        return _rejected(row, "missing", "no such file")
    except PermissionError:
        return _rejected(row, "no-permission", "this user may not read it")
    except BadInput as why:
        try:
            sniff_file(path)
        except BadAudio as problem:
            return _rejected(row, problem.reason, problem.detail)
        return _rejected(row, "unsupported", str(why).removeprefix(f"{path}: "))
    row |= {"old_genres": tags.genres, "old_custom_tags": tags.custom_tags, "album": tags.credits.album}
    return row | {"status": "not-needed"} if _keep_reason(row, config) is not None else row


def _row(file: FoundFile) -> InferenceRow:
    return {"track_id": file.path, "url": file.url, "signature": file.signature, "reason": None}


def _rejected(row: InferenceRow, reason: str, detail: str) -> InferenceRow:
    return row | {"status": "rejected", "reason": reason, "detail": detail}


def _keep_reason(row: InferenceRow, config: InferenceConfig) -> tuple[str, str] | None:
    return keep_reason(row["old_genres"] or (), config.policy, config.genre_map)


# Planning


def plan_rows(rows: Sequence[InferenceRow], config: InferenceConfig) -> list[InferenceRow]:
    """Return what to do with each file: rows of PREDICTIONS_SCHEMA for rows of INFERENCE_SCHEMA."""
    selections = iter(_select([row for row in rows if _needs_genres(row, config)], config))
    return [
        _plan_row(row, next(selections) if _needs_genres(row, config) else None, config)
        | {"model_version": config.version}
        for row in rows
    ]


def rehearsed_rows(rows: Sequence[InferenceRow], settings: WriteSettings) -> list[InferenceRow]:
    """Return the rows of a plan, with the files that writing would skip as skipped; they keep their genres."""
    changes = [row for row in rows if row["status"] == "change"]
    problems = iter(rehearse_writing(changes, settings))
    return [
        row | {"status": "skipped", "reason": problem[0], "detail": problem[1]}
        if row["status"] == "change" and (problem := next(problems)) is not None
        else row
        for row in rows
    ]


def _needs_genres(row: InferenceRow, config: InferenceConfig) -> bool:
    return row["status"] == "predicted" and _keep_reason(row, config) is None


def _select(rows: Sequence[InferenceRow], config: InferenceConfig) -> list[GenreSelection]:
    if not rows:
        return []
    raw_TG = np.array([row["probabilities"] for row in rows], np.float64)
    return select_genres(raw_TG, [_album_key(row) for row in rows], config.identity, config.selection_rules)


def _album_key(row: InferenceRow) -> str | None:
    """Return the album with its folder: there are many "Greatest Hits"."""
    return f"{row['track_id'].rpartition('/')[0]}\0{row['album']}" if row["album"] else None


def _plan_row(row: InferenceRow, selection: GenreSelection | None, config: InferenceConfig) -> InferenceRow:
    plan = {name: row.get(name) for name in ("track_id", "url", "signature", "status", "reason", "detail")}
    plan["old_genres"] = row.get("old_genres")
    if selection is None:
        if row["status"] in ("rejected", "skipped"):
            return plan
        reason, detail = _keep_reason(row, config) or ("", "")
        return plan | {"status": "kept", "reason": reason, "detail": detail}
    plan |= {
        "predicted_genres": selection.genres,
        "confidence": selection.confidence,
        "probabilities": selection.probability_G.tolist(),
        "reason": selection.reason,
        "detail": selection.detail,
    }
    if selection.status == "unsure":
        return plan | {"status": "unsure"}
    genres = new_genres(row["old_genres"], selection.genres, config.policy, config.genre_map)
    if genres is None:
        reason, detail = unchanged_reason(
            row["old_genres"], selection.genres, config.policy, config.genre_map
        )
        return plan | {"status": "kept", "reason": reason, "detail": detail}
    custom_tags = custom_tags_to_write(
        selection.confidence, config.version, row["old_custom_tags"] or {}, config.policy
    )
    return plan | {"status": "change", "genres": genres, "custom_tags": custom_tags}
