"""The settings of each flow: the same model is the form in the Prefect UI, the flags, and a TOML file."""

from collections.abc import Callable
from typing import Annotated, Literal, Self, TypeVar

from cyclopts import Parameter
from pydantic import BaseModel, Field, model_validator

from flows.cluster.settings import ClusterSettings, HostSettings
from preprocessing.build.settings import SpectrogramSettings
from preprocessing.catalogue.settings import CatalogueSettings
from preprocessing.decode.settings import LimitSettings, WindowSettings
from store.fs.files import absolute
from store.tagging.settings import WriteSettings
from store.tags.policy import TagPolicy
from training.evaluation.settings import CalibrationSettings
from training.fit.settings import TrainSettings
from training.inference.settings import Backend, GenreSelectionSettings
from training.networks.settings import is_state_dict_file

Settings = TypeVar("Settings", bound=BaseModel)


def positional(*names: str) -> Callable[[type[Settings]], type[Settings]]:
    """Let the command line take these fields without a flag too: `build FOLDER`; all others need one."""

    def mark(model: type[Settings]) -> type[Settings]:
        for name, field in model.model_fields.items():
            field.kw_only = name not in names
        return model

    return mark


@positional("source")
class BuildSettings(BaseModel, frozen=True, extra="forbid"):
    """What to build spectrograms of, how, and where to."""

    source: str = Field(
        description="Folder, zip archive or URL of the audio: FMA's layout, a folder per genre, or any"
    )
    store: str = Field("data/store", description="Folder or URL of the spectrogram store")
    catalogue: CatalogueSettings = CatalogueSettings()
    spectrogram: SpectrogramSettings = SpectrogramSettings()
    limits: LimitSettings = LimitSettings()
    tracks_per_batch: int = Field(
        64, ge=1, le=10_000, description="Most tracks that one task builds into a shard"
    )
    minutes_per_batch: float = Field(
        26.0, gt=0.0, description="Most minutes of audio in a task, but for a track that is longer by itself"
    )
    batches_per_commit: int = Field(32, ge=1, description="Batches after which a snapshot is published")
    max_reject_share: float = Field(
        0.1, ge=0.0, le=1.0, description="Stop if a greater share of the tracks than this cannot be decoded"
    )
    retry_rejects: bool = Field(False, description="Try tracks again that were rejected before")
    change_detection: Literal["signature", "sha256"] = Field(
        "signature",
        description="What tells that a file changed since it was built: its size and time (or ETag), or, "
        "reading every file again, its SHA-256 too",
    )
    cluster: ClusterSettings = ClusterSettings()

    @model_validator(mode="after")
    def _has_hashes_to_compare(self) -> "BuildSettings":
        if self.change_detection == "sha256" and not self.spectrogram.excerpt.is_whole:
            raise ValueError(
                "change_detection sha256 with an excerpt: files are hashed only where all of them is read; "
                "use change_detection signature, or build whole tracks"
            )
        return self


@positional()
class TrainModelSettings(BaseModel, frozen=True, extra="forbid"):
    """What to learn from which spectrograms, how, where, and what to do with the result."""

    store: str = Field("data/store", description="Spectrogram store, or one snapshot file in it")
    models: str = Field("data/models", description="Folder or URL where model versions are kept")
    genres: tuple[str, ...] = Field((), description="Genres to tell apart; empty for all that the store has")
    promote: bool = Field(True, description="Put the new model into service")
    mlflow_uri: str = Field(
        "", description="MLflow to log to: sqlite:///PATH or http(s)://HOST:PORT; empty for none"
    )
    training: TrainSettings = TrainSettings()
    calibration: CalibrationSettings = CalibrationSettings()
    hosts: HostSettings = HostSettings()
    cluster: ClusterSettings = ClusterSettings()


Flat = Parameter(name="*")  # on the command line --precision, not --genre_selection.precision


@positional("source")
class TagSettings(BaseModel, frozen=True, extra="forbid"):
    """What to listen to, with which model, and what to do with what it says."""

    source: str = Field(
        "",
        description="Folder or s3:// URL of audio files to listen to; folders in it are looked through, too",
    )
    write: bool = Field(False, description="Write genres into the files themselves")
    copy_to: str = Field("", description="Write genres into copies of the files, in this folder")
    apply: str = Field(
        "",
        description="predictions.parquet of an earlier run: write what it says, without listening again; files "
        "that changed since are skipped and named",
    )
    models: str = Field("data/models", description="Folder or URL where model versions are kept")
    model: str = Field("champion", description="champion, latest, or the name of a model version")
    genre_selection: Annotated[GenreSelectionSettings, Flat] = GenreSelectionSettings()
    policy: Annotated[TagPolicy, Flat] = TagPolicy()
    genre_map: str = Field(
        "", description="TOML file that maps the model's genres, and other spellings, to the names you use"
    )
    writing: Annotated[WriteSettings, Flat] = WriteSettings()
    windows: WindowSettings = WindowSettings()
    limits: LimitSettings = LimitSettings()
    retry_rejects: bool = Field(False, description="Listen again to files that could not be decoded before")
    device: Literal["cpu", "cuda"] = Field(
        "cpu",
        description="cpu: each worker listens on one core; cuda: hosts that have the Dask resource GPU listen, "
        "decoding on their cores",
    )
    backend: Backend = Field(
        "torch", description="What runs the network: torch, or onnx (extra onnx, CPUs only)"
    )
    onnx: str = Field(
        "", description="ONNX file of the model, as models export makes it; empty: each worker makes its own"
    )
    files_per_batch: int = Field(64, ge=1, le=4_096, description="About how many files one task takes")
    runs: str = Field(
        "data/tagging", description="Folder or URL where runs are kept: what was heard, done, was"
    )
    cluster: ClusterSettings = ClusterSettings()

    @model_validator(mode="after")
    def _one_way_of_writing(self) -> "TagSettings":
        if self.write and self.copy_to:
            raise ValueError("both write and copy_to are given; choose one: the files themselves, or copies")
        return self

    @property
    def is_dry_run(self) -> bool:
        """Say whether no file is to be written."""
        return not (self.write or self.copy_to or self.apply)


@positional("run")
class UndoSettings(BaseModel, frozen=True, extra="forbid"):
    """Which run to undo, and how far to go."""

    run: str = Field(
        description="Name of the run, the beginning of it, or latest: the last run that wrote into files. An "
        "undo is such a run too, and can be undone"
    )
    runs: str = Field("data/tagging", description="Folder or URL where runs are kept")
    dry_run: bool = Field(False, description="Only say what would be put back")
    even_changed: bool = Field(
        False,
        description="Put the old genres back into files that others changed since, too; what else changed stays",
    )
    writing: Annotated[WriteSettings, Parameter(name="*")] = WriteSettings()
    cluster: ClusterSettings = ClusterSettings()


@positional()
class CrossValidationSettings(BaseModel, frozen=True, extra="forbid"):
    """Which settings to judge, on which spectrograms, by how many folds."""

    store: str = Field("data/store", description="Spectrogram store, or one snapshot file in it")
    results: str = Field("data/experiments", description="Folder or URL where runs and results are kept")
    genres: tuple[str, ...] = Field((), description="Genres to tell apart; empty for all that the store has")
    folds: int = Field(5, ge=2, le=50, description="Parts that share no artist; each is the test once")
    fold_seed: int = Field(0, ge=0, lt=2**32, description="Seed by which artists are dealt to the folds")
    validation_share: float = Field(
        0.1,
        gt=0.0,
        le=0.5,
        description="Part of the tracks outside a fold's test by which its epoch is chosen",
    )
    seeds: tuple[int, ...] = Field(
        (0,), min_length=1, description="Each fold is trained once for each; training.seed plays no part"
    )
    baseline: bool = Field(True, description="Judge a support-vector machine on the same folds, to compare")
    training: TrainSettings = TrainSettings()
    hosts: HostSettings = HostSettings()
    cluster: ClusterSettings = ClusterSettings()

    @model_validator(mode="after")
    def _check(self) -> "CrossValidationSettings":
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds {self.seeds}: the same seed twice gives the same network twice")
        if self.baseline and self.training.target == "multi":
            raise ValueError("the baseline tells one genre a track: take target top, or no baseline")
        weights = self.training.pretrained.weights
        if weights and not is_state_dict_file(weights):
            raise ValueError(
                f"training.pretrained.weights {weights}: a model version has learned from the test tracks of most "
                "folds; take a state dict of torchvision's, or fresh weights"
            )
        return self


@positional()
class NightlySettings(BaseModel, frozen=True, extra="forbid"):
    """What to build and train, and when the result may replace the champion."""

    build: BuildSettings
    train: TrainModelSettings = Field(
        TrainModelSettings(), description="Whether to promote is not asked here: the comparison decides"
    )
    start: Literal["champion", "scratch"] = Field(
        "champion", description="Begin with the champion's weights, if there is one, or with random ones"
    )
    frozen_epochs: int = Field(
        0,
        ge=0,
        le=10_000,
        description="Epochs at the beginning in which the champion's trunk stays as it was; "
        "without a champion to begin with, none",
    )
    margin: float = Field(
        0.01, ge=0.0, le=1.0, description="Macro F1 by which a new model must be better than the champion"
    )
    confidence: float = Field(
        0.95, ge=0.0, le=1.0, description="Share of the resamples in which it must be better by the margin"
    )
    max_genre_f1_drop: float = Field(
        0.05, ge=0.0, le=1.0, description="Most F1 that it may lose on any one genre that both know"
    )
    max_delay_minutes: float = Field(
        120.0, gt=0.0, description="A run that starts later than this after its time skips itself, in minutes"
    )
    stale_after_hours: float = Field(
        24.0, gt=0.0, description="Another run that works for longer than this is taken for dead, in hours"
    )

    @model_validator(mode="after")
    def _one_store(self) -> Self:
        if absolute(self.build.store) != absolute(self.train.store):
            raise ValueError(
                f"build.store {self.build.store} and train.store {self.train.store} differ; "
                "what is built at night is what is trained on: name one store in both"
            )
        return self

    @model_validator(mode="after")
    def _fresh_weights_must_learn(self) -> Self:
        if self.frozen_epochs and self.start == "scratch":
            raise ValueError(
                f"frozen_epochs {self.frozen_epochs} needs --start champion: a fresh trunk must learn"
            )
        return self


@positional()
class DemoSettings(BaseModel, frozen=True, extra="forbid"):
    """Where the demo leaves what it makes."""

    folder: str = Field("data/demo", description="Folder for the store, the models and the tagged files")
    seed: int = Field(0, ge=0, description="Seed of the training")


@positional()
class ServeSettings(BaseModel, frozen=True, extra="forbid"):
    """How the Prefect UI is offered."""

    port: int = Field(4200, ge=1, le=65_535, description="Port of the Prefect server, if one is started here")
