"""Where the work is done."""

from typing import Literal

from pydantic import BaseModel, Field, model_validator


class ClusterSettings(BaseModel, frozen=True, extra="forbid"):
    """Where the work is done."""

    kind: Literal["local", "scheduler"] = Field(
        "local", description="local: processes on this machine; scheduler: a Dask cluster that is up"
    )
    workers: int = Field(0, ge=0, le=1_024, description="Local worker processes; 0 for one a core")
    memory_gib: float = Field(4.0, gt=0.1, description="Memory of one local worker, in GiB")
    scheduler: str = Field("", description="Address of the scheduler, such as tcp://10.0.0.5:8786")
    connect_timeout_s: float = Field(
        30.0, gt=0.0, description="How long to wait for the scheduler and its workers, in seconds"
    )

    @model_validator(mode="after")
    def _has_an_address(self) -> "ClusterSettings":
        if (self.kind == "scheduler") != bool(self.scheduler):
            raise ValueError(
                f"kind {self.kind} with scheduler {self.scheduler!r}; give an address with kind scheduler only"
            )
        return self


class HostSettings(BaseModel, frozen=True, extra="forbid"):
    """On which hosts a network is trained, with how many processes."""

    min_hosts: int = Field(1, ge=1, description="Train on so many training hosts at least")
    max_hosts: int = Field(0, ge=0, description="Use so many training hosts at most; 0 for all there are")
    wait_s: float = Field(
        60.0, ge=0.0, description="How long to wait for min_hosts, at the start and after a loss, in seconds"
    )
    processes_per_host: int = Field(
        0, ge=0, le=64, description="Processes on each host; 0 for one a GPU, or two where there is none"
    )
    max_restarts: int = Field(
        3,
        ge=0,
        description="How often lost processes are started again, and how often lost hosts are done without",
    )
    port: int = Field(
        0, ge=0, le=65_535, description="Port of the first host where the processes meet; 0 for any free one"
    )

    @model_validator(mode="after")
    def _check(self) -> "HostSettings":
        if self.max_hosts and self.min_hosts > self.max_hosts:
            raise ValueError(f"min_hosts {self.min_hosts} is more than max_hosts {self.max_hosts}")
        return self
