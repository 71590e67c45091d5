"""The settings of a study, which are the flags of `experiment` and the form in the Prefect UI."""

from typing import Literal, Self

from pydantic import BaseModel, Field, model_validator

from flows.cluster.settings import ClusterSettings
from flows.security.urls import Location
from flows.settings import positional
from training.fit.settings import TrainSettings
from training.metadata_priors.settings import Source
from training.networks.settings import is_state_dict_file
from training.studies.settings import SplitKind

StudyName = Literal[
    "genres", "repeats", "models", "balance", "spectrograms", "tune", "inside", "metadata", "audit"
]


@positional("study")
class ExperimentSettings(BaseModel, frozen=True, extra="forbid"):
    """The study, the spectrograms, and what is varied."""

    study: StudyName = Field(
        description="genres: which genres can be told apart; repeats: how much results vary with seeds and splits; "
        "models: shallow to deep, transferred, and without networks; balance: how even the genres are, and what "
        "balancing helps; spectrograms: scales, bands, excerpts and storage; tune: the best settings; inside: what a "
        "network responds to, and a map of the catalogue; metadata: what album, artist and title add; audit: which "
        "labels are wrong"
    )
    store: Location = Field("data/store", description="Spectrogram store, or one snapshot file in it")
    results: Location = Field("data/experiments", description="Folder or URL of the studies, one folder each")
    quick: bool = Field(
        False, description="Few folds, seeds and epochs: to see what a study gives, not what is true"
    )
    genres: tuple[str, ...] = Field(
        (), description="Genres to use; empty for all that have enough tracks and artists"
    )
    tracks_per_genre: int = Field(
        0,
        ge=0,
        description="Most tracks of each genre, drawn by artist; 0 for all, or the study's own choice",
    )
    sets: tuple[str, ...] = Field(
        (), description="Sets of genres, each with commas, such as Rock,Pop,Jazz (genres)"
    )
    set_sizes: tuple[int, ...] = Field(
        (2, 3, 5, 8), description="Sizes of sets: 2 for all pairs; of the others the largest genres (genres)"
    )
    within: str = Field("", description="Top genre whose sub-genres are used in place of top genres (genres)")
    models: tuple[str, ...] = Field(
        (),
        description="Models: svm, logistic, boosting, the same with -librosa, features, networks such as shallow, "
        "blocks-3 or resnet18; empty for the study's own choice",
    )
    splits: tuple[SplitKind, ...] = Field(
        (),
        description="official: the store's; artist: folds that share no artist; random: folds that do, on purpose, "
        "to show leakage; empty for the study's own choice",
    )
    folds: int = Field(5, ge=2, le=50, description="Folds of the splits artist and random")
    split_seeds: tuple[int, ...] = Field(
        (), description="Seeds of the assignment to folds; empty for the study's own choice"
    )
    seeds: tuple[int, ...] = Field(
        (), description="Seeds of the models; empty for the study's own choice; --training.seed is not used"
    )
    validation_share: float = Field(
        0.1,
        gt=0.0,
        le=0.5,
        description="Share of the tracks outside the test set by which the best epoch is chosen",
    )
    trials: int = Field(30, ge=2, le=10_000, description="Settings to try (tune)")
    swap_share: float = Field(
        0.05,
        gt=0.0,
        lt=0.5,
        description="Share of the labels that a check swaps on purpose, in memory (audit)",
    )
    sources: tuple[Source, ...] = Field(
        ("album", "artist", "title"),
        min_length=1,
        description="What is known of a track beside its sound (metadata)",
    )
    only: str = Field("", description="Repeat this run of results.csv alone, by its name in the column run")
    training: TrainSettings = TrainSettings()
    cluster: ClusterSettings = ClusterSettings()

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.training.target == "multi":
            raise ValueError("--training.target multi: studies compare models of one genre per track")
        weights = self.training.pretrained.weights
        if weights and not is_state_dict_file(weights):
            raise ValueError(
                f"--training.pretrained.weights {weights}: a model version was trained on the test tracks of most "
                "folds; use a state dict of torchvision's, or random weights"
            )
        for name in ("seeds", "split_seeds", "models", "splits", "genres", "set_sizes", "sources"):
            values = getattr(self, name)
            if len(set(values)) < len(values):
                raise ValueError(f"--{name.replace('_', '-')}: {values} has the same value twice")
        if any(size < 2 for size in self.set_sizes):
            raise ValueError(f"--set-sizes {self.set_sizes}: a set needs two genres or more")
        return self
