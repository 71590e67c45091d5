"""Checks of paths, models and runs named in settings, before anything starts.

Nothing here imports torch, Dask or Prefect, so that a mistake is reported at once.
"""

from pathlib import Path

from flows.cluster.kubernetes import check_kubernetes
from flows.cluster.settings import ClusterSettings
from flows.cluster.slurm import check_slurm
from flows.settings import (
    BuildSettings,
    CrossValidationSettings,
    NightlySettings,
    TagSettings,
    TrainModelSettings,
    UndoSettings,
)
from flows.study_runs.settings import ExperimentSettings
from store.errors import BadInput
from store.fs.files import absolute, list_names, local_path
from store.fs.local_walk import escape_name
from store.model_registry import read_card, resolve_version
from store.tags.genre_map import read_genre_map


def check_build(settings: BuildSettings) -> None:
    """Raise BadInput if the source is not there, or the cluster cannot be started."""
    check_source(settings.source)
    check_cluster(settings.cluster)


def check_training(settings: TrainModelSettings) -> None:
    """Raise BadInput if the store holds no snapshot, or the cluster cannot be started."""
    check_store(settings.store)
    check_cluster(settings.cluster)


def check_cross_validation(settings: CrossValidationSettings) -> None:
    """Raise BadInput if the store holds no snapshot, or the cluster cannot be started."""
    check_store(settings.store)
    check_cluster(settings.cluster)


def check_experiment(settings: ExperimentSettings) -> None:
    """Raise BadInput if the store holds no snapshot, or the cluster cannot be started."""
    check_store(settings.store)
    check_cluster(settings.cluster)


def check_nightly(settings: NightlySettings) -> None:
    """Raise BadInput if the source is not there, a cluster cannot be started, or musicnn cannot be used."""
    check_source(settings.build.source)
    check_cluster(settings.build.cluster)
    check_cluster(settings.train.cluster)
    if settings.train.training.model.has_musicnn:  # the training would find out after hours of building
        from preprocessing.features.musicnn import check_musicnn_mel
        from preprocessing.features.musicnn_weights import read_musicnn

        check_musicnn_mel(settings.build.spectrogram.mel)
        read_musicnn(settings.train.training.model.musicnn)


def check_tag(settings: TagSettings) -> None:
    """Raise BadInput if source, predictions, copies, model or genre map cannot be used."""
    check_cluster(settings.cluster)
    if not (settings.source or settings.apply):
        raise BadInput(
            "--source, --apply: give one of them: audio files, or the predictions.parquet of an earlier run"
        )
    if settings.source:
        check_source(settings.source)
    if settings.copy_to:
        _check_copies(settings.copy_to, settings.source)
    if not settings.apply:
        genres = read_card(resolve_version(absolute(settings.models), settings.model)).get("genres", ())
        if settings.genre_map:
            read_genre_map(settings.genre_map, tuple(genres))


def check_undo(settings: UndoSettings) -> None:
    """Raise BadInput if there is no such run, or it wrote no tags."""
    from store.tagging.run import find_run

    find_run(absolute(settings.runs), settings.run)


def check_cluster(cluster: ClusterSettings) -> None:
    """Raise BadInput if what starts SLURM jobs or Kubernetes pods is not installed."""
    if cluster.kind == "slurm":
        check_slurm()
    elif cluster.kind == "kubernetes":
        check_kubernetes(cluster)


def check_source(source: str) -> None:
    """Raise BadInput if a source on this machine is not there, or no table can hold its path."""
    path = local_path(source)
    if path is not None and not path.exists():
        raise BadInput(f"{source}: no such file or folder; check the path or URL of the source")
    if path is not None and escape_name(str(path)) != str(path):
        raise BadInput(f"{escape_name(source)}: this path is not UTF-8 and cannot be recorded; rename it")


def check_store(store: str) -> None:
    """Raise BadInput if nothing was published in a store on this machine."""
    path = local_path(store)
    if path is None or path.suffix == ".json":
        return
    if not list_names(str(path / "snapshots")):
        raise BadInput(
            f"{store}: holds no published spectrograms; run `spectrogram-one build`, or name another --store"
        )


def _check_copies(copy_to: str, source: str) -> None:
    copies, music = local_path(copy_to), local_path(source) if source else None
    if copies is None:
        raise BadInput(f"{copy_to}: copies are local files; name a folder on this machine with --copy-to")
    if copies.exists() and not copies.is_dir():
        raise BadInput(f"{copy_to}: this is a file; name a folder for the copies with --copy-to")
    if source and music is None:
        raise BadInput(f"{source}: copies are made of local files; use --write, or a folder on this machine")
    if music is not None:
        check_apart(copies, music)


def check_apart(copies: Path, source: Path) -> None:
    """Raise BadInput if copies would lie within their source, or the source within them."""
    if _is_within(copies, source):
        raise BadInput(
            f"{copies}: copies would lie within their source {source}; name a folder outside it with --copy-to"
        )
    if _is_within(source, copies):
        raise BadInput(
            f"{copies}: the source {source} lies within it; name a folder for copies alone with --copy-to"
        )


def _is_within(path: Path, folder: Path) -> bool:
    """Return whether a path lies in a folder, also if the folder is named or mounted in another way."""
    above = [it for it in (path.resolve(), *path.resolve().parents) if it.exists()]
    return path.resolve().is_relative_to(folder.resolve()) or (
        folder.exists() and any(it.samefile(folder) for it in above)
    )
