"""The settings of a catalogue: the kind of source, and the splits."""

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from preprocessing.catalogue.file_rules import FileRules


class SplitSettings(BaseModel):
    """How the tracks are split into training, validation and test."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    mode: Literal["auto", "official", "artist", "none"] = Field(
        default="auto",
        description="official: as the catalogue says; artist: no artist in two splits, each genre in all; "
        "none: no splits; auto: official if the catalogue has all three, else artist if it has genres, "
        "else none",
    )
    validation_share: float = Field(
        default=0.1, ge=0, lt=1, description="Share of each genre's tracks for validation (mode artist)"
    )
    test_share: float = Field(
        default=0.1, ge=0, lt=1, description="Share of each genre's tracks for the test (mode artist)"
    )
    seed: int = Field(default=0, ge=0, description="Seed of the random assignment (mode artist)")
    keep_existing: bool = Field(
        default=True,
        description="Tracks stay in the split that the store has them in, and only new tracks are assigned, "
        "so that test scores stay comparable; off: all tracks are assigned again, which is needed for other "
        "shares or another seed to have an effect (mode artist)",
    )

    @model_validator(mode="after")
    def _leaves_some_for_training(self) -> Self:
        if self.validation_share + self.test_share >= 1:
            raise ValueError(
                f"--validation-share {self.validation_share} and --test-share {self.test_share} "
                "leave nothing for training; wanted a sum below 1"
            )
        return self


class SelectionSettings(BaseModel):
    """Which files of the source are left out; known junk, such as recycle bins, always is."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    exclude: tuple[str, ...] = Field(
        default=(),
        description="Leave out files and folders that match this glob, for example '*.wav'; "
        "give it several times for several globs",
    )
    include: tuple[str, ...] = Field(
        default=(),
        description="Take files and folders that match this glob though another rule leaves them out, "
        "for example '#recycle'",
    )

    @field_validator("exclude", "include")
    @classmethod
    def _are_globs(cls, globs: tuple[str, ...]) -> tuple[str, ...]:
        for glob in globs:
            if not glob.strip("/") or "//" in glob or glob.startswith("../"):
                raise ValueError(f"{glob!r} is no glob of names or of paths from the source")
        return globs

    def rules(self) -> FileRules:
        """Return the rules, compiled."""
        return FileRules(self.exclude, self.include)


class CatalogueSettings(BaseModel):
    """What kind of source it is, and how its tracks are split."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["auto", "fma", "folder-per-genre", "flat"] = Field(
        default="auto",
        description="fma: fma_metadata and fma_* as published, .zip or unpacked; folder-per-genre: GENRE/file; "
        "flat: any folder of audio, no genres; auto: fma if there is a tracks.csv, folder-per-genre if all "
        "audio is one folder down and most of these folders are named like a common genre, else flat",
    )
    subset: Literal["small", "medium", "large", "full"] | None = Field(
        default=None,
        description="Which of FMA's folders or archives fma_* to read; empty for the largest there is",
    )
    verify_checksums: bool = Field(
        default=False, description="Compare each file with the checksums that FMA publishes beside its audio"
    )
    split: SplitSettings = Field(default=SplitSettings(), description="Training, validation and test")
