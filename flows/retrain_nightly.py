"""Build what is new, train on it, and promote the model only if it beats the champion on the same test tracks."""

from datetime import timedelta
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BaseModel, Field

from flows.build_dataset import build_dataset
from flows.checks import check_nightly
from flows.cluster.client import open_cluster
from flows.cluster.fan_out import fan_out, in_batches
from flows.commands.model_comparison import comparison_rows, read_candidate
from flows.reporting.artifacts import show_table
from flows.reporting.progress import showing_progress
from flows.reporting.stage import in_flow_run, stage
from flows.services.mlflow_log import check_mlflow_uri
from flows.settings import NightlySettings, TrainModelSettings
from flows.train_model import (
    TRACKS_PER_INFERENCE_BATCH,
    TrainSummary,
    plan_run,
    select_training_data,
    summarise_training,
    train_model,
)
from preprocessing.mel.settings import MelSettings
from store.errors import BadInput
from store.fs.files import absolute, join
from store.model_registry import champion, promotion_history, read_cards
from store.reader import Snapshot, open_snapshot
from training.fit.labels import select_training_genres
from training.fit.run import hash_training_data
from training.fit.settings import TrainSettings
from training.inference.model_version import ModelIdentity, read_identity
from training.inference.stored_tracks import predict_stored_tracks
from training.networks.pretrained import read_pretrained
from training.selection.champion import (
    Candidate,
    PromotionDecision,
    check_forgotten_genres,
    compare_candidates,
    count_incomparable_tracks,
    decide_promotion,
    restrict_to_genres,
    shared_genres,
)
from training.selection.comparison import Comparison
from training.selection.verdicts import PromotionCriteria, apply_decision, has_decision, read_refusal_criteria


class NightlySummary(BaseModel, frozen=True):
    """What came of a night."""

    outcome: Literal["promoted", "refused", "skipped"]
    reason: str
    version: str | None = None
    champion: str | None = None
    left_out: int = Field(0, description="Test tracks of whose genres only one of the two models knows any")

    def lines(self) -> list[str]:
        """Tell it in lines for a terminal."""
        told = [f"{self.outcome}: {self.reason}"]
        if self.left_out:
            told.append(f"{self.left_out:,} test tracks cannot count: only one of the two knows their genre")
        if self.version is not None:
            told.append(f"new model: {self.version}{' (kept, not in service)' * (self.outcome == 'refused')}")
        return [*told, f"in service: {self.champion or 'none'}"]


def retrain_nightly(settings: NightlySettings) -> NightlySummary:
    """Build, train, compare with the champion on the same test tracks; promote if it is better, or say why not."""
    check_nightly(settings)
    models = settings.train.models
    reason = find_reason_to_skip(settings)
    if reason is not None:
        return show_nightly_summary(
            NightlySummary(outcome="skipped", reason=reason, champion=champion(models))
        )
    check_mlflow_uri(settings.train.mlflow_uri)
    build_dataset(settings.build)
    snapshot = open_snapshot(settings.build.store)
    incumbent = champion(models)
    alike = find_equivalent_version(snapshot, settings.train)
    nothing = None if alike is None else skip_reason(alike, incumbent, settings)
    if nothing is not None:
        return show_nightly_summary(NightlySummary(outcome="skipped", reason=nothing, champion=incumbent))
    check_champion_mel(snapshot, models, incumbent)
    if alike is None:
        trained = train_model(configure_training(settings, snapshot, incumbent))
    else:
        trained = summarise_training(alike, settings.train, trained_now=False)
    incumbent = champion(models)  # again: in hours of training a person may have chosen another
    check_champion_mel(snapshot, models, incumbent)
    verdict, left_out = compare_with_champion(trained, snapshot, incumbent, settings)
    verdict = apply_decision(models, trained.version, verdict, promotion_criteria(settings, incumbent))
    return summarise_nightly(trained.version, verdict, left_out, models)


def find_reason_to_skip(settings: NightlySettings) -> str | None:
    """Return why this scheduled run should not begin now; None if it should, or nothing scheduled it."""
    if not in_flow_run():
        return None
    from flows.services.run_guards import late_start_reason, overlap_reason

    lateness = late_start_reason(timedelta(minutes=settings.max_delay_minutes))
    return lateness or overlap_reason(timedelta(hours=settings.stale_after_hours))


def promotion_criteria(settings: NightlySettings, incumbent: str | None) -> PromotionCriteria:
    """Say what a verdict of this night depends on."""
    return PromotionCriteria(incumbent, settings.margin, settings.confidence, settings.max_genre_f1_drop)


def find_equivalent_version(snapshot: Snapshot, wish: TrainModelSettings) -> str | None:
    """Name a version that learned the same in the same way, and was judged or in service; None if there is none.

    Where it began does not count: else each champion would be reason enough to train again.
    """
    genres, tracks = select_training_data(snapshot, wish)
    data = hash_training_data(plan_run(snapshot, genres, tracks, wish.training), tracks)
    training = _but_start(wish.training.model_dump(mode="json"))
    decided = (None, wish.calibration.model_dump(mode="json"))  # older versions do not tell
    promoted = {move.version for move in promotion_history(wish.models)}
    for version, card in reversed(list(read_cards(wish.models))):
        is_same = (
            card is not None
            and card.get("data") == data
            and _but_start(card.get("training", {})) == training
            and card.get("settings", {}).get("calibration") in decided
        )
        if is_same and (version in promoted or has_decision(wish.models, version)):
            return str(version)
    return None


def skip_reason(alike: str, incumbent: str | None, settings: NightlySettings) -> str | None:
    """Say why a version that learned the same need not be judged; None if it must be, since the terms changed."""
    told = (
        f"nothing changed: {alike} was trained on the same tracks with the same settings, wherever it began"
    )
    models = settings.train.models
    if alike == incumbent:
        return f"{told}, and is in service"
    if any(move.version == alike for move in promotion_history(models)):
        return (
            f"{told}, and is no longer in service; to have it back, `spectrogram-one models promote {alike}`"
        )
    if read_refusal_criteria(models, alike) == promotion_criteria(settings, incumbent):
        return f"{told}, and was refused against the same champion by the same bounds"
    return None


def _but_start(training: dict[str, Any]) -> dict[str, Any]:
    return {
        name: value
        for name, value in training.items()
        if name not in ("pretrained", "cache_gib", "stall_timeout_s")
    }


def check_champion_mel(snapshot: Snapshot, models: str, incumbent: str | None) -> None:
    """Raises: BadInput if the champion cannot listen to what is stored: before a night of training, not after."""
    if incumbent is None:
        return
    mel = read_identity(join(models, incumbent)).mel
    if mel.settings_hash != snapshot.mel_fingerprint:
        raise BadInput(
            f"{snapshot.url}: mel settings {snapshot.mel_fingerprint}; the champion {incumbent} was trained on "
            f"{mel.settings_hash}, so the two cannot be compared: build a store with its settings, or name "
            "another models folder"
        )


def configure_training(
    settings: NightlySettings, snapshot: Snapshot, incumbent: str | None
) -> TrainModelSettings:
    """Say what to train: on this very snapshot, not to be promoted, and where to begin.

    Raises: BadInput if the champion's weights do not fit.
    """
    training = settings.train.training
    if settings.start == "champion" and incumbent is not None:
        parent_url = absolute(join(settings.train.models, incumbent))
        training = warm_start(training, parent_url, settings.frozen_epochs)
        genres = select_training_genres(snapshot.tracks, training.target, settings.train.genres)
        mel = MelSettings.model_validate(snapshot.mel_settings)
        try:
            read_pretrained(parent_url, training.model, genres, training.target, mel)
        except BadInput as why:
            raise BadInput(f"{why}; or begin with random weights: `--start scratch`") from None
    changed = {"store": snapshot.url, "promote": False, "training": training}
    return settings.train.model_copy(update=changed)


def warm_start(training: TrainSettings, parent_url: str, frozen_epochs: int = 0) -> TrainSettings:
    """Let a training begin with the weights of a model version, its trunk frozen for some epochs."""
    wish = training.model_dump()
    start = {**wish["pretrained"], "weights": parent_url}
    if frozen_epochs:
        start["frozen_epochs"] = frozen_epochs
    return TrainSettings.model_validate({**wish, "pretrained": start})


def compare_with_champion(
    trained: TrainSummary, snapshot: Snapshot, incumbent: str | None, settings: NightlySettings
) -> tuple[PromotionDecision, int]:
    """Compare the new model with the champion; count the test tracks that cannot count.

    A model that forgot a genre is refused, however good it is at the others. Without a champion, a
    model that is right more often than by chance is better than none.
    """
    if incumbent is None:
        told = (
            f"{trained.test_correct} of {trained.test_tracks} test tracks right, chance {trained.chance:.1%}"
        )
        return PromotionDecision(trained.accuracy > trained.chance, f"no champion yet; {told}"), 0
    challenger = read_candidate(trained.url)
    old = read_identity(join(settings.train.models, incumbent))
    left_out = count_incomparable_tracks(snapshot.tracks, old, challenger.identity)
    forgetting = check_forgotten_genres(old, challenger.identity)
    if forgetting is not None:
        return forgetting, left_out
    shared = shared_genres(old, challenger.identity)
    counting = restrict_to_genres(challenger, shared)["track_id"]
    asked = challenger.predictions.filter(
        pc.is_in(challenger.predictions["track_id"], counting.combine_chunks())
    )
    url = absolute(join(settings.train.models, incumbent))
    heard = predict_with_champion(asked.drop_columns("probabilities"), url, old, snapshot.url, settings.train)
    comparison = compare_candidates(
        Candidate(old, heard, challenger.truth_genres), challenger, margin=settings.margin
    )
    show_comparison(comparison, incumbent, trained.version)
    verdict = decide_promotion(
        comparison, confidence=settings.confidence, max_genre_f1_drop=settings.max_genre_f1_drop
    )
    return verdict, left_out


@stage
def predict_with_champion(
    rows: pa.Table, version_url: str, identity: ModelIdentity, snapshot_url: str, wish: TrainModelSettings
) -> pa.Table:
    """Let the champion listen to the test tracks of the new snapshot."""
    with (
        open_cluster(wish.cluster) as cluster,
        showing_progress("Scoring the champion", len(rows), "tracks") as advance,
    ):
        heard = []
        for batch, table in fan_out(
            cluster,
            predict_stored_tracks,
            in_batches(rows.to_pylist(), TRACKS_PER_INFERENCE_BATCH),
            snapshot_url=absolute(snapshot_url),
            folder_url=version_url,
            identity=identity,
        ):
            heard.append(table)
            advance(len(batch), "")
    return pa.concat_tables(heard)


def summarise_nightly(version: str, verdict: PromotionDecision, left_out: int, models: str) -> NightlySummary:
    """Tell what came of the night."""
    return show_nightly_summary(
        NightlySummary(
            outcome="promoted" if verdict.is_better else "refused",
            reason=verdict.reason,
            version=version,
            champion=champion(models),
            left_out=left_out,
        )
    )


def show_nightly_summary(summary: NightlySummary) -> NightlySummary:
    """Put the summary on the page of the run in the Prefect UI, whatever came of the night."""
    row = {
        "outcome": summary.outcome,
        "new model": summary.version or "none",
        "in service": summary.champion or "none",
        "test tracks left out": f"{summary.left_out:,}",
        "reason": summary.reason,
    }
    show_table("nightly-result", [row], f"{summary.outcome}: {summary.reason}")
    return summary


def show_comparison(comparison: Comparison, one: str, other: str) -> None:
    """Put the scores of both models on the page of the run."""
    told = f"{other} against {one} on {comparison.tracks:,} test tracks by {comparison.artists:,} artists"
    show_table("nightly-comparison", comparison_rows(comparison, one, other), told)
