"""Settings of the Dask cluster, and of the hosts that train together."""

from typing import Literal

from pydantic import BaseModel, Field, model_validator


class ClusterSettings(BaseModel, frozen=True, extra="forbid"):
    """Where the work is done."""

    kind: Literal["local", "scheduler"] = Field(
        "local", description="local: processes on this machine; scheduler: a Dask cluster that is already up"
    )
    workers: int = Field(0, ge=0, le=1_024, description="Local worker processes; 0 for one per core")
    memory_gib: float = Field(4.0, gt=0.1, description="Memory of one local worker, in GiB")
    scheduler: str = Field("", description="Address of the scheduler, such as tcp://10.0.0.5:8786")
    certificates: str = Field(
        "", description="Folder of this host's certificates, for a scheduler at tls://; see `certificates`"
    )
    allow_plaintext: bool = Field(
        False,
        description="Use a scheduler on another host without TLS: all who can reach it can run code on its workers",
    )
    connect_timeout_s: float = Field(
        30.0, gt=0.0, description="Longest wait for the scheduler and its workers, in seconds"
    )

    @model_validator(mode="after")
    def _has_an_address(self) -> "ClusterSettings":
        if (self.kind == "scheduler") != bool(self.scheduler):
            raise ValueError(
                f"--kind {self.kind} with --scheduler {self.scheduler!r}: an address is needed with "
                "--kind scheduler, and only there"
            )
        if self.scheduler.startswith("tls://") and not self.certificates:
            raise ValueError(
                f"--scheduler {self.scheduler}: --certificates with the folder of this host's is needed"
            )
        return self


class HostSettings(BaseModel, frozen=True, extra="forbid"):
    """On which hosts a network is trained, with how many processes."""

    min_hosts: int = Field(1, ge=1, description="Fewest hosts to train on")
    max_hosts: int = Field(0, ge=0, description="Most hosts to train on; 0 for no limit")
    wait_s: float = Field(
        60.0,
        ge=0.0,
        description="Longest wait for min_hosts, at the start and after a host is lost, in seconds",
    )
    processes_per_host: int = Field(
        0, ge=0, le=64, description="Processes on each host; 0 for one per GPU, or two without a GPU"
    )
    max_restarts: int = Field(
        3,
        ge=0,
        description="Most restarts after lost processes, and as many after lost hosts",
    )
    port: int = Field(
        0,
        ge=0,
        le=65_535,
        description="Port of the first host for the rendezvous of all processes; 0 for any free one",
    )

    @model_validator(mode="after")
    def _check(self) -> "HostSettings":
        if self.max_hosts and self.min_hosts > self.max_hosts:
            raise ValueError(f"--min-hosts {self.min_hosts} is more than --max-hosts {self.max_hosts}")
        return self
