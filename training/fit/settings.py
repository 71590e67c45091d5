"""How a network is trained."""

from typing import Literal

from pydantic import BaseModel, Field, model_validator

from training.loading.settings import Balance, Reading
from training.networks.settings import ModelSettings, PretrainedSettings

# Of TrainSettings: the result is the same whatever their value.
SETTINGS_WITHOUT_EFFECT = ("loader_threads", "cache_folder", "cache_gib", "stall_timeout_s")


class AugmentSettings(BaseModel, frozen=True, extra="forbid"):
    """The augmentation of training crops."""

    masks: int = Field(2, ge=0, le=8, description="Masks along frequency, and as many along time; 0 for none")
    mask_bands_share: float = Field(
        0.12, ge=0.0, le=0.5, description="Widest frequency mask, as a share of all mel bands"
    )
    mask_frames_share: float = Field(
        0.12, ge=0.0, le=0.5, description="Longest time mask, as a share of the crop"
    )
    gain_db: float = Field(
        4.0, ge=0.0, le=20.0, description="Random gain of a crop, at most this up or down, in dB"
    )
    tone_db: float = Field(
        3.0,
        ge=0.0,
        le=20.0,
        description="Random curve over the mel bands that is added to a crop: standard deviation in dB",
    )
    mixup: float = Field(
        0.0,
        ge=0.0,
        le=2.0,
        description="mixup: two crops are blended by a share drawn from Beta(mixup, mixup); 0 for none",
    )


class TrainSettings(BaseModel, frozen=True, extra="forbid"):
    """How a network is trained."""

    target: Literal["top", "multi"] = Field(
        "top",
        description="top: one genre for each track (softmax); multi: any number of genres (one sigmoid each)",
    )
    crop_s: float = Field(4.0, ge=0.5, le=60.0, description="Length of a training crop, in seconds")
    crops_per_track: int = Field(8, ge=1, le=1_000, description="Crops of each track in one epoch")
    epochs: int = Field(15, ge=1, le=10_000, description="Epochs of the whole run")
    batch_size: int = Field(32, ge=2, description="Crops of one step, on all processes together")
    micro_batch_size: int = Field(
        16,
        ge=2,
        description="Crops that go through the network together and share batch-norm statistics; batch_size must "
        "be a multiple of this, and its micro-batches are shared among the processes",
    )
    learning_rate: float = Field(1e-3, gt=0.0, le=1.0, description="Peak learning rate of AdamW")
    weight_decay: float = Field(0.05, ge=0.0, le=1.0, description="Weight decay of AdamW")
    warmup_share: float = Field(
        0.1, ge=0.0, le=0.5, description="Share of all steps in which the learning rate rises"
    )
    max_grad_norm: float = Field(5.0, gt=0.0, description="Gradient norm above which gradients are clipped")
    label_smoothing: float = Field(
        0.1, ge=0.0, lt=1.0, description="Label smoothing: share of the target that is spread over all genres"
    )
    balance: Balance = Field(
        "none",
        description="What has equally many crops. none: every track; genre: every genre (target top only); artist: "
        "every artist; genre-artist: every genre, and within it every artist (target top only)",
    )
    class_weights: bool = Field(
        False,
        description="Weight the loss of a crop by the inverse of its genre's number of tracks (networks, target top)",
    )
    validation_crops: int = Field(8, ge=1, le=100, description="Evenly spaced crops of each validation track")
    seed: int = Field(
        0, ge=0, lt=2**32, description="Seed of initial weights, crops, dropout and augmentation"
    )
    compile: bool = Field(
        False,
        description="Compile the network with torch.compile, which takes a minute; no gain on CPUs",
    )
    loader_threads: int = Field(
        2, ge=1, le=64, description="Threads of each process that read crops ahead of the steps"
    )
    reading: Reading = Field(
        "random",
        description="Order of crops. random: true random order; runs: runs of stored frames in random order, the crops "
        "of --mixed-runs of them mixed, for stores that are slow and larger than the cache",
    )
    mixed_runs: int = Field(
        1_024, ge=1, description="Runs that are mixed (--reading runs): 1 MiB each of float16 at 128 bands"
    )
    cache_folder: str = Field(
        "",
        description="Folder on a local disk of each host that keeps what was read of a slow or remote store; empty for "
        "none",
    )
    cache_gib: float = Field(50.0, gt=0.0, description="Largest size of the cache of a host, in GiB")
    checkpoint_steps: int = Field(
        500, ge=1, description="Steps between two checkpoints; one more is written after each epoch"
    )
    stall_timeout_s: float = Field(
        120.0,
        ge=5.0,
        description="Time after which a process that does not communicate counts as lost, in seconds",
    )
    model: ModelSettings = Field(ModelSettings(), description="The network")
    pretrained: PretrainedSettings = Field(
        PretrainedSettings(), description="The weights that training starts from"
    )
    augment: AugmentSettings = Field(AugmentSettings(), description="The augmentation of training crops")

    @model_validator(mode="after")
    def _check(self) -> "TrainSettings":
        if self.batch_size % self.micro_batch_size:
            raise ValueError(
                f"--batch-size {self.batch_size} is not a multiple of --micro-batch-size {self.micro_batch_size}"
            )
        if self.pretrained.frozen_epochs > self.epochs:
            raise ValueError(
                f"--pretrained.frozen-epochs {self.pretrained.frozen_epochs} is more than --epochs {self.epochs}"
            )
        if self.balance in ("genre", "genre-artist") and self.target == "multi":
            raise ValueError(
                f"--balance {self.balance} needs --target top: a track of several genres cannot be counted once; "
                "--balance artist can be used"
            )
        if self.class_weights and self.target == "multi":
            raise ValueError(
                "--class-weights needs --target top: a track of several genres has no weight of its own"
            )
        if self.class_weights and self.balance in ("genre", "genre-artist"):
            raise ValueError(f"--class-weights and --balance {self.balance} both balance genres: choose one")
        if "://" in self.cache_folder:
            raise ValueError(f"--cache-folder {self.cache_folder}: must be a folder on a local disk")
        return self
