"""The settings of each flow: the same model defines the form in the Prefect UI, the flags, and a TOML file."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal, Self, TypeVar
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cyclopts import Parameter
from pydantic import BaseModel, Field, field_validator, model_validator

from flows.cluster.settings import ClusterSettings, HostSettings
from flows.security.urls import Location
from preprocessing.build.settings import SpectrogramSettings
from preprocessing.catalogue.fma_archives import PUBLISHED_AT
from preprocessing.catalogue.settings import CatalogueSettings, SelectionSettings
from preprocessing.decode.settings import LimitSettings, WindowSettings
from store.fs.files import absolute
from store.tagging.swap.settings import WriteSettings
from store.tags.policy import TagPolicy
from training.evaluation.settings import CalibrationSettings
from training.fit.settings import TrainSettings
from training.inference.settings import Backend, GenreSelectionSettings
from training.networks.settings import is_state_dict_file

Settings = TypeVar("Settings", bound=BaseModel)


Flat = Parameter(name="*")  # on the command line --precision, not --genre_selection.precision


def positional(*names: str) -> Callable[[type[Settings]], type[Settings]]:
    """Allow these fields without a flag on the command line: `build FOLDER`. All others need their flag."""

    def mark(model: type[Settings]) -> type[Settings]:
        for name, field in model.model_fields.items():
            field.kw_only = name not in names
        return model

    return mark


@positional("source")
class BuildSettings(BaseModel, frozen=True, extra="forbid"):
    """The audio to build spectrograms of, how to build them, and the store."""

    source: Location = Field(
        description="Folder, zip archive or URL of the audio: FMA's layout, a folder per genre, or any"
    )
    store: Location = Field("data/store", description="Folder or URL of the spectrogram store")
    selection: Annotated[SelectionSettings, Flat] = SelectionSettings()
    catalogue: CatalogueSettings = CatalogueSettings()
    spectrogram: SpectrogramSettings = SpectrogramSettings()
    limits: LimitSettings = LimitSettings()
    tracks_per_batch: int = Field(
        64, ge=1, le=10_000, description="Most tracks of one task, which become one shard"
    )
    minutes_per_batch: float = Field(
        26.0, gt=0.0, description="Most minutes of audio of one task, except for a single longer track"
    )
    batches_per_commit: int = Field(32, ge=1, description="Batches after which a snapshot is published")
    max_reject_share: float = Field(
        0.1, ge=0.0, le=1.0, description="Stop if more than this share of the tracks cannot be decoded"
    )
    retry_rejects: bool = Field(False, description="Try tracks again that were rejected before")
    repair: bool = Field(
        False,
        description="Read every stored byte first, and build tracks again whose spectrograms are damaged or lost",
    )
    change_detection: Literal["signature", "sha256"] = Field(
        "signature",
        description="How changed files are found: by size and time (or ETag), or also by SHA-256, which "
        "reads every file again",
    )
    cluster: ClusterSettings = ClusterSettings()

    @model_validator(mode="after")
    def _has_hashes_to_compare(self) -> "BuildSettings":
        if self.change_detection == "sha256" and not self.spectrogram.excerpt.is_whole:
            raise ValueError(
                "--change-detection sha256 with an excerpt: a file is hashed only if all of it is read; "
                "use --change-detection signature, or build whole tracks"
            )
        return self


@positional()
class TrainModelSettings(BaseModel, frozen=True, extra="forbid"):
    """The spectrograms and genres to train on, how to train, the hosts, and the folder of the result."""

    store: Location = Field("data/store", description="Spectrogram store, or one snapshot file in it")
    models: Location = Field("data/models", description="Folder or URL where model versions are kept")
    genres: tuple[str, ...] = Field((), description="Genres to distinguish; empty for all that the store has")
    promote: bool = Field(True, description="Make the new model the champion")
    mlflow_uri: str = Field(
        "", description="MLflow tracking server: sqlite:///PATH or http(s)://HOST:PORT; empty for none"
    )
    training: TrainSettings = TrainSettings()
    calibration: CalibrationSettings = CalibrationSettings()
    hosts: HostSettings = HostSettings()
    cluster: ClusterSettings = ClusterSettings()


@positional("source")
class TagSettings(BaseModel, frozen=True, extra="forbid"):
    """The files to predict, the model, and what to do with its predictions."""

    source: Location = Field(
        "",
        description="Folder of audio files, with all folders in it, or one file; a path or an s3:// URL",
    )
    selection: Annotated[SelectionSettings, Flat] = SelectionSettings()
    write: bool = Field(False, description="Write genres into the files themselves")
    copy_to: Location = Field("", description="Write genres into copies of the files, in this folder")
    apply: Location = Field(
        "",
        description="predictions.parquet or predictions.csv of an earlier run, which you may have corrected: write its "
        "genres, without predicting again; files that changed since are skipped and reported",
    )
    allow_new_genres: bool = Field(
        False,
        description="With --apply: write corrected genres that neither the model nor the genre map has, too",
    )
    models: Location = Field("data/models", description="Folder or URL where model versions are kept")
    model: str = Field("champion", description="champion, latest, or the name of a model version")
    genre_selection: Annotated[GenreSelectionSettings, Flat] = GenreSelectionSettings()
    policy: Annotated[TagPolicy, Flat] = TagPolicy()
    genre_map: Location = Field(
        "", description="TOML file that maps the model's genres, and other spellings, to your names"
    )
    writing: Annotated[WriteSettings, Flat] = WriteSettings()
    windows: WindowSettings = WindowSettings()
    limits: LimitSettings = LimitSettings()
    retry_rejects: bool = Field(False, description="Try files again that could not be decoded before")
    device: Literal["cpu", "cuda"] = Field(
        "cpu",
        description="cpu: each worker predicts on one core; cuda: hosts that have the Dask resource GPU predict "
        "on it, and decode on all cores",
    )
    backend: Backend = Field(
        "torch", description="What runs the network: torch, or onnx (extra onnx, CPUs only)"
    )
    onnx: Location = Field(
        "",
        description="ONNX file of the model, written by models export; empty: each worker exports its own",
    )
    files_per_batch: int = Field(64, ge=1, le=4_096, description="Files of one task, approximately")
    runs: Location = Field(
        "data/tagging", description="Folder or URL of the runs: predictions, plans, journals, results"
    )
    cluster: ClusterSettings = ClusterSettings()

    @model_validator(mode="after")
    def _one_way_of_writing(self) -> "TagSettings":
        if self.write and self.copy_to:
            raise ValueError(
                "--write and --copy-to are both given; choose one: the files themselves, or copies"
            )
        if self.apply and (self.selection.exclude or self.selection.include):
            raise ValueError(
                "--exclude and --include do not apply to --apply: remove the rows of these files from the "
                "file of predictions"
            )
        return self

    @property
    def is_dry_run(self) -> bool:
        """Return whether no file is to be written."""
        return not (self.write or self.copy_to or self.apply)


@positional("run")
class UndoSettings(BaseModel, frozen=True, extra="forbid"):
    """The run to undo, and how."""

    run: str = Field(
        description="Name of the run, its beginning, or latest: the last run that wrote into files. An undo is a "
        "run too, and can be undone"
    )
    runs: Location = Field("data/tagging", description="Folder or URL of the runs")
    dry_run: bool = Field(False, description="Only report what would be restored")
    even_changed: bool = Field(
        False,
        description="Restore the old genres of files that were changed since, too; other changes stay",
    )
    writing: Annotated[WriteSettings, Parameter(name="*")] = WriteSettings()
    cluster: ClusterSettings = ClusterSettings()


@positional()
class CrossValidationSettings(BaseModel, frozen=True, extra="forbid"):
    """The settings to evaluate, the spectrograms, and the folds."""

    store: Location = Field("data/store", description="Spectrogram store, or one snapshot file in it")
    results: Location = Field("data/experiments", description="Folder or URL of runs and results")
    genres: tuple[str, ...] = Field((), description="Genres to distinguish; empty for all that the store has")
    folds: int = Field(5, ge=2, le=50, description="Folds that share no artist; each is the test set once")
    fold_seed: int = Field(0, ge=0, lt=2**32, description="Seed of the assignment of artists to folds")
    validation_share: float = Field(
        0.1,
        gt=0.0,
        le=0.5,
        description="Share of the tracks outside the test set by which the best epoch is chosen",
    )
    seeds: tuple[int, ...] = Field(
        (0,), min_length=1, description="Each fold is trained once per seed; --training.seed is not used"
    )
    baseline: bool = Field(
        True, description="Evaluate a support-vector machine on the same folds, for comparison"
    )
    training: TrainSettings = TrainSettings()
    hosts: HostSettings = HostSettings()
    cluster: ClusterSettings = ClusterSettings()

    @model_validator(mode="after")
    def _check(self) -> "CrossValidationSettings":
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"--seeds {self.seeds}: the same seed twice gives the same network twice")
        if self.baseline and self.training.target == "multi":
            raise ValueError(
                "the baseline predicts one genre per track: use --training.target top, or --no-baseline"
            )
        weights = self.training.pretrained.weights
        if weights and not is_state_dict_file(weights):
            raise ValueError(
                f"--training.pretrained.weights {weights}: a model version was trained on the test tracks of most "
                "folds; use a state dict of torchvision's, or random weights"
            )
        return self


@positional()
class NightlySettings(BaseModel, frozen=True, extra="forbid"):
    """The build, the training, and the criteria by which the new model replaces the champion."""

    build: BuildSettings
    train: TrainModelSettings = Field(
        TrainModelSettings(), description="Its setting promote is not used: the comparison decides"
    )
    start: Literal["champion", "scratch"] = Field(
        "champion", description="Start from the champion's weights, if there is one, or from random weights"
    )
    frozen_epochs: int = Field(
        0,
        ge=0,
        le=10_000,
        description="First epochs in which the champion's trunk is frozen; none without a champion",
    )
    margin: float = Field(
        0.01, ge=0.0, le=1.0, description="Macro F1 by which the new model must be better than the champion"
    )
    confidence: float = Field(
        0.95,
        ge=0.0,
        le=1.0,
        description="Share of the bootstrap resamples in which it must be better by the margin",
    )
    max_genre_f1_drop: float = Field(
        0.05, ge=0.0, le=1.0, description="Most F1 that it may lose on any genre that both models know"
    )
    max_delay_minutes: float = Field(
        120.0,
        gt=0.0,
        description="A run that starts later than this after its scheduled time is skipped, in minutes",
    )
    stale_after_hours: float = Field(
        24.0,
        gt=0.0,
        description="Another run that is active for longer than this is considered dead, in hours",
    )

    @model_validator(mode="after")
    def _one_store(self) -> Self:
        if absolute(self.build.store) != absolute(self.train.store):
            raise ValueError(
                f"--build.store {self.build.store} and --train.store {self.train.store} differ; "
                "the training uses the store that was built: name one store in both"
            )
        return self

    @model_validator(mode="after")
    def _fresh_weights_must_learn(self) -> Self:
        if self.frozen_epochs and self.start == "scratch":
            raise ValueError(
                f"--frozen-epochs {self.frozen_epochs} needs --start champion: a random trunk must be trained"
            )
        return self


@positional()
class DemoSettings(BaseModel, frozen=True, extra="forbid"):
    """The folder of the demo's results, and its seed."""

    folder: str = Field("data/demo", description="Folder for the store, the models and the tagged files")
    seed: int = Field(0, ge=0, description="Seed of the training")


@positional("subset")
class FmaSettings(BaseModel, frozen=True, extra="forbid"):
    """The part of the Free Music Archive's dataset to download, and what to do with it."""

    subset: Literal["small", "medium", "large", "full"] = Field(
        description="small: 8,000 excerpts of 30 s in 8 genres, 7 GiB; medium: 25,000 in 16, 22 GiB; large: "
        "106,574 in 161, 93 GiB; full: the same tracks whole, 879 GiB"
    )
    folder: str = Field("data/fma", description="Folder for the archives, which are not unpacked")
    mirror: Location = Field(PUBLISHED_AT, description="URL of the folder that holds the archives")
    then_train: bool = Field(
        False, description="Build the spectrograms, train a model on them and evaluate it, after the download"
    )
    store: Location = Field("data/store", description="Folder or URL of the spectrogram store")
    models: Location = Field("data/models", description="Folder or URL where model versions are kept")


class ScheduleSettings(BaseModel, frozen=True, extra="forbid"):
    """When retrain-nightly runs by itself, once its schedule is switched on."""

    at: str = Field("03:00", pattern=r"^([01]\d|2[0-3]):[0-5]\d$", description="Time of day, as HH:MM")
    timezone: str = Field("UTC", description="Name of the time zone, such as Europe/Berlin")

    @field_validator("timezone")
    @classmethod
    def _is_known(cls, name: str) -> str:
        try:
            ZoneInfo(name)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            raise ValueError(f"{name!r}: no such time zone; name one as Europe/Berlin or UTC") from None
        return name

    @property
    def cron(self) -> str:
        """The schedule in cron's form: every day at that time of that zone."""
        hour, minute = self.at.split(":")
        return f"{int(minute)} {int(hour)} * * *"


@positional()
class ServeSettings(BaseModel, frozen=True, extra="forbid"):
    """The Prefect server of serve."""

    port: int = Field(4200, ge=1, le=65_535, description="Port of the Prefect server, if one is started here")
    host: str = Field(
        "127.0.0.1",
        description="Address it is bound to; one that others reach needs PREFECT_SERVER_API_AUTH_STRING",
    )
    nightly: ScheduleSettings = ScheduleSettings()


@positional()
class RegisterSettings(BaseModel, frozen=True, extra="forbid"):
    """The work pool whose workers run the flows."""

    pool: str = Field(
        "spectrogram-one", min_length=1, description="Name of the process work pool; made if needed"
    )
    notify: str = Field(
        "",
        pattern=r"^$|^[^/]+/[^/]+$",
        description="Block that failed runs are reported to, as KIND/NAME: slack-webhook/operators",
    )
    folder: Path = Field(
        Path(),
        description="Folder of the workers' hosts that data/store and other relative paths of a run start at",
    )
    nightly: ScheduleSettings = ScheduleSettings()


@positional()
class PruneSettings(BaseModel, frozen=True, extra="forbid"):
    """What is removed from the Prefect server's database."""

    keep_days: float = Field(30.0, gt=0.05, description="Keep runs that ended, and events, of the last days")
    batch_size: int = Field(200, ge=1, le=10_000, description="Rows that are removed in one transaction")
    compact: bool = Field(
        False,
        description="Give the space of a sqlite database back to the disk; the server must not be running",
    )
