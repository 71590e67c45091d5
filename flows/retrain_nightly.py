"""Build what is new, train on it, and promote the model if it beats the champion on the same test tracks.

The run is skipped if it starts too late, if another one is active, or if nothing changed since the last.
"""

from datetime import timedelta
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BaseModel, Field

from flows.build_dataset import build_dataset
from flows.checks import check_nightly
from flows.cluster.client import open_cluster
from flows.model_stages.training import plan_run, predict_on_workers
from flows.reporting.artifacts import show_table
from flows.reporting.model_comparison import comparison_rows, read_candidate
from flows.reporting.stage import in_flow_run, stage
from flows.services.mlflow_log import check_mlflow_uri
from flows.settings import NightlySettings, TrainModelSettings
from flows.train_model import TrainSummary, select_training_data, summarise_training, train_model
from preprocessing.mel.settings import MelSettings
from store.errors import BadInput
from store.fs.files import absolute, join
from store.model_registry import champion, promotion_history, read_cards
from store.reader import Snapshot, open_snapshot
from training.fit.labels import select_training_genres
from training.fit.run import hash_training_data
from training.fit.settings import SETTINGS_WITHOUT_EFFECT, TrainSettings
from training.inference.model_version import ModelIdentity, read_identity
from training.networks.pretrained import read_pretrained
from training.networks.settings import ModelSettings
from training.selection.champion import (
    Candidate,
    compare_candidates,
    count_incomparable_tracks,
    restrict_to_genres,
    shared_genres,
)
from training.selection.comparison import Comparison
from training.selection.promotion import (
    PromotionCriteria,
    PromotionDecision,
    apply_decision,
    decide_first_promotion,
    decide_promotion,
    has_decision,
    read_refusal_criteria,
    refuse_forgotten_genres,
)


class NightlySummary(BaseModel, frozen=True):
    """The outcome of a nightly run."""

    outcome: Literal["promoted", "refused", "skipped"]
    reason: str
    version: str | None = None
    champion: str | None = None
    left_out: int = Field(0, description="Test tracks whose genres only one of the two models knows")

    def lines(self) -> list[str]:
        """Return the lines for a terminal."""
        lines = [f"{self.outcome}: {self.reason}"]
        if self.left_out:
            lines.append(
                f"{self.left_out:,} test tracks left out: only one of the two models knows their genre"
            )
        if self.version is not None:
            lines.append(
                f"new model: {self.version}{' (kept, not in service)' * (self.outcome == 'refused')}"
            )
        return [*lines, f"in service: {self.champion or 'none'}"]


def retrain_nightly(settings: NightlySettings) -> NightlySummary:
    """Build, train, compare with the champion on the same test tracks; promote the new model if it is better."""
    check_nightly(settings)
    models = settings.train.models
    reason = find_reason_to_skip(settings)
    if reason is not None:
        return summarise_skipped(reason, models)
    check_mlflow_uri(settings.train.mlflow_uri)
    build_dataset(settings.build)
    snapshot = open_snapshot(settings.build.store)
    version = find_equivalent_version(snapshot, settings.train)
    reason = None if version is None else find_reason_not_to_compare(version, champion(models), settings)
    if reason is not None:
        return summarise_skipped(reason, models)
    champion_version = champion(models)
    check_champion_mel(snapshot, models, champion_version)
    if version is None:
        trained = train_model(configure_training(settings, snapshot, champion_version))
    else:
        trained = summarise_training(version, settings.train, trained_now=False)
    champion_version = champion(models)  # again: it may have been changed during hours of training
    check_champion_mel(snapshot, models, champion_version)
    decision, left_out = compare_with_champion(trained, snapshot, champion_version, settings)
    criteria = promotion_criteria(settings, champion_version)
    decision = apply_decision(models, trained.version, decision, criteria)
    return summarise_nightly(trained.version, decision, left_out, models)


def find_reason_to_skip(settings: NightlySettings) -> str | None:
    """Return why this scheduled run should not start now; None if it should, or was not scheduled."""
    if not in_flow_run():
        return None
    from flows.services.run_guards import late_start_reason, overlap_reason

    lateness = late_start_reason(timedelta(minutes=settings.max_delay_minutes))
    return lateness or overlap_reason(timedelta(hours=settings.stale_after_hours))


def promotion_criteria(settings: NightlySettings, champion_version: str | None) -> PromotionCriteria:
    """Return the criteria of this run's promotion decision."""
    return PromotionCriteria(
        champion_version, settings.margin, settings.confidence, settings.max_genre_f1_drop
    )


def find_equivalent_version(snapshot: Snapshot, settings: TrainModelSettings) -> str | None:
    """Find a version trained on the same data with the same settings that was compared, or promoted by hand.

    Pretrained weights may differ: otherwise each new champion would be a reason to train again.
    """
    genres, tracks = select_training_data(snapshot, settings)
    data = hash_training_data(plan_run(snapshot, genres, tracks, settings.training), tracks)
    training = _settings_that_matter(settings.training.model_dump(mode="json"))
    calibration = settings.calibration.model_dump(mode="json")
    promoted = {move.version for move in promotion_history(settings.models)}
    for version, card in reversed(list(read_cards(settings.models))):
        is_same = (
            card is not None
            and card.get("data") == data
            and _settings_that_matter(card["settings"]["training"]) == training
            and card["settings"]["calibration"] == calibration
        )
        if is_same and (version in promoted or has_decision(settings.models, version)):
            return str(version)
    return None


def _settings_that_matter(training: dict[str, Any]) -> dict[str, Any]:
    model = training["model"]
    has_musicnn = ModelSettings.model_validate(model).has_musicnn
    return {
        name: value
        for name, value in training.items()
        if name not in ("pretrained", *SETTINGS_WITHOUT_EFFECT)
    } | {"model": {**model, "musicnn": has_musicnn}}  # wherever its wheel lies


def find_reason_not_to_compare(
    version: str, champion_version: str | None, settings: NightlySettings
) -> str | None:
    """Return why an equivalent version need not be compared; None if champion or criteria changed since."""
    text = f"nothing changed: {version} was trained on the same tracks with the same settings"
    models = settings.train.models
    if version == champion_version:
        return f"{text}, and is in service"
    if any(move.version == version for move in promotion_history(models)):
        return f"{text}, and is no longer in service; to promote it again, `spectrogram-one models promote {version}`"
    if read_refusal_criteria(models, version) == promotion_criteria(settings, champion_version):
        return f"{text}, and was refused against the same champion by the same criteria"
    return None


def check_champion_mel(snapshot: Snapshot, models: str, champion_version: str | None) -> None:
    """Raise BadInput if the champion was trained on other mel settings than the store has."""
    if champion_version is None:
        return
    mel = read_identity(join(models, champion_version)).mel
    if mel.settings_hash != snapshot.mel_fingerprint:
        raise BadInput(
            f"{snapshot.url}: mel settings {snapshot.mel_fingerprint}; the champion {champion_version} was trained "
            f"on {mel.settings_hash}, so the two cannot be compared: build a store with its settings, or name "
            "another models folder (--train.models)"
        )


def configure_training(
    settings: NightlySettings, snapshot: Snapshot, champion_version: str | None
) -> TrainModelSettings:
    """Return the settings of the training: on this snapshot, not promoted, from the champion's weights if asked.

    Raises: BadInput if the champion's weights do not fit.
    """
    training = settings.train.training
    parent_url = find_parent(settings, champion_version)
    if parent_url is not None:
        training = warm_start(training, parent_url, settings.frozen_epochs)
        genres = select_training_genres(snapshot.tracks, training.target, settings.train.genres)
        mel = MelSettings.model_validate(snapshot.mel_settings)
        try:
            read_pretrained(parent_url, training.model, genres, training.target, mel)
        except BadInput as why:
            raise BadInput(f"{why}; or start with random weights: --start scratch") from None
    changes = {"store": snapshot.url, "promote": False, "training": training}
    return settings.train.model_copy(update=changes)


def find_parent(settings: NightlySettings, champion_version: str | None) -> str | None:
    """Return the URL of the version whose network the training starts from; None where either has no network."""
    if settings.start != "champion" or champion_version is None:
        return None
    parent_url = absolute(join(settings.train.models, champion_version))
    is_trained = settings.train.training.model.name != "features"
    return parent_url if is_trained and read_identity(parent_url).has_network else None


def warm_start(training: TrainSettings, parent_url: str, frozen_epochs: int = 0) -> TrainSettings:
    """Start a training from the weights of a model version, with its trunk frozen for some epochs."""
    settings = training.model_dump()
    pretrained = {**settings["pretrained"], "weights": parent_url}
    if frozen_epochs:
        pretrained["frozen_epochs"] = frozen_epochs
    return TrainSettings.model_validate({**settings, "pretrained": pretrained})


def compare_with_champion(
    trained: TrainSummary, snapshot: Snapshot, champion_version: str | None, settings: NightlySettings
) -> tuple[PromotionDecision, int]:
    """Compare the new model with the champion; return the decision and the number of test tracks left out.

    A model that forgot a genre is refused, however good it is at the others. Without a champion, a
    model that is correct more often than a random guess is promoted.
    """
    if champion_version is None:
        return decide_first_promotion(trained.test_correct, trained.test_tracks, trained.chance), 0
    challenger = read_candidate(trained.url)
    champion_url = absolute(join(settings.train.models, champion_version))
    identity = read_identity(champion_url)
    left_out = count_incomparable_tracks(snapshot.tracks, identity, challenger.identity)
    refusal = refuse_forgotten_genres(identity, challenger.identity)
    if refusal is not None:
        return refusal, left_out
    tracks = select_comparable_tracks(challenger, identity)
    predictions = predict_with_champion(tracks, champion_url, identity, snapshot.url, settings.train)
    comparison = compare_candidates(
        Candidate(identity, predictions, challenger.truth_genres), challenger, margin=settings.margin
    )
    show_comparison(comparison, champion_version, trained.version)
    decision = decide_promotion(
        comparison, confidence=settings.confidence, max_genre_f1_drop=settings.max_genre_f1_drop
    )
    return decision, left_out


def select_comparable_tracks(challenger: Candidate, identity: ModelIdentity) -> pa.Table:
    """Select the test tracks of the genres that both models know."""
    shared = shared_genres(identity, challenger.identity)
    track_ids = restrict_to_genres(challenger, shared)["track_id"].combine_chunks()
    predictions = challenger.predictions
    return predictions.filter(pc.is_in(predictions["track_id"], track_ids)).drop_columns("probabilities")


@stage
def predict_with_champion(
    rows: pa.Table,
    version_url: str,
    identity: ModelIdentity,
    snapshot_url: str,
    settings: TrainModelSettings,
) -> pa.Table:
    """Predict test tracks of the new snapshot with the champion."""
    with open_cluster(settings.cluster) as cluster:
        return predict_on_workers(
            cluster, rows, absolute(snapshot_url), version_url, identity, "Predicting with the champion"
        )


def summarise_skipped(reason: str, models: str) -> NightlySummary:
    """Summarise a run that was skipped."""
    return show_nightly_summary(NightlySummary(outcome="skipped", reason=reason, champion=champion(models)))


def summarise_nightly(
    version: str, decision: PromotionDecision, left_out: int, models: str
) -> NightlySummary:
    """Summarise a run that trained or compared a model."""
    return show_nightly_summary(
        NightlySummary(
            outcome="promoted" if decision.is_better else "refused",
            reason=decision.reason,
            version=version,
            champion=champion(models),
            left_out=left_out,
        )
    )


def show_nightly_summary(summary: NightlySummary) -> NightlySummary:
    """Put the summary on the page of the run in the Prefect UI, whatever the outcome."""
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
    text = f"{other} against {one} on {comparison.tracks:,} test tracks by {comparison.artists:,} artists"
    show_table("nightly-comparison", comparison_rows(comparison, one, other), text)
