"""How a network is trained."""

from typing import Literal

from pydantic import BaseModel, Field, model_validator

from training.networks.settings import ModelSettings, PretrainedSettings


class AugmentSettings(BaseModel, frozen=True, extra="forbid"):
    """How training crops are varied."""

    masks: int = Field(2, ge=0, le=8, description="Masks along frequency, and as many along time; 0 for none")
    mask_bands_share: float = Field(
        0.12, ge=0.0, le=0.5, description="Widest frequency mask, as a share of all mel bands"
    )
    mask_frames_share: float = Field(
        0.12, ge=0.0, le=0.5, description="Longest time mask, as a share of the crop"
    )
    gain_db: float = Field(
        4.0, ge=0.0, le=20.0, description="Loudness is moved by up to this, up or down, in dB"
    )
    tone_db: float = Field(
        3.0,
        ge=0.0,
        le=20.0,
        description="The tone is bent by a smooth random curve over the bands, of this standard deviation in dB",
    )
    mixup: float = Field(
        0.0,
        ge=0.0,
        le=2.0,
        description="Two crops are blended by a share drawn from Beta(mixup, mixup); 0 for never",
    )


class TrainSettings(BaseModel, frozen=True, extra="forbid"):
    """How a network is trained."""

    target: Literal["top", "multi"] = Field(
        "top", description="top: one genre a track; multi: each genre is there or not"
    )
    crop_s: float = Field(4.0, ge=0.5, le=60.0, description="Length of a training crop, in seconds")
    crops_per_track: int = Field(8, ge=1, le=1_000, description="Crops of each track in one epoch")
    epochs: int = Field(15, ge=1, le=10_000, description="Epochs of the whole run")
    batch_size: int = Field(32, ge=2, description="Crops of one step, over all processes together")
    micro_batch_size: int = Field(
        16,
        ge=2,
        description="Crops that go through the network together, and over which batch norm takes its "
        "statistics; batch_size must be a multiple of this, and has so many groups for processes to share",
    )
    learning_rate: float = Field(1e-3, gt=0.0, le=1.0, description="Highest step size of AdamW")
    weight_decay: float = Field(0.05, ge=0.0, le=1.0, description="Decay of the weights, as AdamW defines it")
    warmup_share: float = Field(0.1, ge=0.0, le=0.5, description="Share of all steps in which the rate rises")
    max_grad_norm: float = Field(5.0, gt=0.0, description="Longer gradients are shortened to this norm")
    label_smoothing: float = Field(
        0.1, ge=0.0, lt=1.0, description="Share of the target given to all genres alike"
    )
    balance: bool = Field(False, description="Show every genre equally often (target top only)")
    validation_crops: int = Field(8, ge=1, le=100, description="Evenly spaced crops of each validation track")
    seed: int = Field(0, ge=0, lt=2**32, description="Fixes weights, crops, dropout and augmentation")
    compile: bool = Field(
        False,
        description="Compile the network with torch.compile, which takes a minute; on CPUs it gains nothing",
    )
    cache_gib: float = Field(
        2.0, ge=0.0, description="Spectrograms are held in memory if they fit in this, in GiB a process"
    )
    checkpoint_steps: int = Field(
        500, ge=1, description="A checkpoint is written after so many steps of an epoch, and after each epoch"
    )
    stall_timeout_s: float = Field(
        120.0, ge=5.0, description="A process that is silent for so long is lost, in seconds"
    )
    model: ModelSettings = Field(ModelSettings(), description="The network")
    pretrained: PretrainedSettings = Field(
        PretrainedSettings(), description="The weights that training starts from"
    )
    augment: AugmentSettings = Field(AugmentSettings(), description="How training crops are varied")

    @model_validator(mode="after")
    def _check(self) -> "TrainSettings":
        if self.batch_size % self.micro_batch_size:
            raise ValueError(
                f"batch_size {self.batch_size} is no multiple of micro_batch_size {self.micro_batch_size}"
            )
        if self.pretrained.frozen_epochs > self.epochs:
            raise ValueError(
                f"frozen_epochs {self.pretrained.frozen_epochs} is more than epochs {self.epochs}"
            )
        if self.balance and self.target == "multi":
            raise ValueError("balance needs target top: a track of several genres cannot be counted once")
        return self
