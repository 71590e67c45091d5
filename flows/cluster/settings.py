"""Settings of the Dask cluster, and of the hosts that train together."""

from typing import Literal

from pydantic import BaseModel, Field, model_validator


class SlurmSettings(BaseModel, frozen=True, extra="forbid"):
    """The SLURM jobs that run Dask workers. What is not named here is read from dask-jobqueue's own configuration."""

    partition: str = Field("", description="SLURM partition; empty for the default one")
    account: str = Field("", description="SLURM account that is charged; empty for the default one")
    cores: int = Field(8, ge=1, le=1_024, description="Cores of one job, each with a Dask worker process")
    gpus: int = Field(0, ge=0, le=64, description="GPUs of one job (--gres=gpu:N)")
    time_limit_min: int = Field(240, ge=1, description="Time limit of one job, in minutes")
    interface: str = Field(
        "", description="Network interface of this machine that compute nodes reach; empty for Dask's guess"
    )
    folder: str = Field(
        "data/slurm",
        description="Folder that this machine and the compute nodes share: logs of the jobs, TLS keys of the run",
    )
    scratch: str = Field("", description="Folder of a compute node's own disk, for Dask's temporary files")


class KubernetesSettings(BaseModel, frozen=True, extra="forbid"):
    """The DaskCluster resource that Dask's Kubernetes operator turns into a scheduler and workers."""

    spec: str = Field(
        "deploy/kubernetes/dask-cluster.yaml",
        description="YAML file of the DaskCluster; a copy of it with a name of its own is created for each run",
    )
    namespace: str = Field("spectrogram-one", description="Kubernetes namespace of the cluster")
    address: str = Field(
        "tls://{name}-scheduler.{namespace}:8786",
        description="Address of its scheduler as this machine reaches it; {name} and {namespace} are replaced",
    )


class ClusterSettings(BaseModel, frozen=True, extra="forbid"):
    """Where the work is done."""

    kind: Literal["local", "scheduler", "slurm", "kubernetes"] = Field(
        "local",
        description="local: processes on this machine; scheduler: a Dask cluster that is already up; slurm, "
        "kubernetes: workers that are started for the run, as jobs or pods, and ended after it",
    )
    workers: int = Field(0, ge=0, le=1_024, description="Local worker processes; 0 for one per core")
    memory_gib: float = Field(
        4.0, gt=0.1, description="Memory of one worker process, local or in a SLURM job, in GiB"
    )
    scheduler: str = Field("", description="Address of the scheduler, such as tcp://10.0.0.5:8786")
    certificates: str = Field(
        "",
        description="Folder of this host's certificates, for a scheduler at tls://; the command certificates makes it",
    )
    allow_plaintext: bool = Field(
        False,
        description="Use a scheduler on another host without TLS: all who can reach it can run code on its workers",
    )
    connect_timeout_s: float = Field(
        30.0, gt=0.0, description="Longest wait for the scheduler and its workers, in seconds"
    )
    min_jobs: int = Field(1, ge=1, description="Fewest SLURM jobs or Kubernetes pods of workers at a time")
    max_jobs: int = Field(8, ge=1, description="Most SLURM jobs or Kubernetes pods of workers at a time")
    idle_s: float = Field(
        300.0, ge=1.0, description="Time after which a job or pod without work is ended, in seconds"
    )
    start_timeout_s: float = Field(
        3600.0, gt=0.0, description="Longest wait for the first job or pod in the queue, in seconds"
    )
    slurm: SlurmSettings = SlurmSettings()
    kubernetes: KubernetesSettings = KubernetesSettings()

    @property
    def starts_jobs(self) -> bool:
        """Whether workers are jobs or pods that a run starts, waits for and ends."""
        return self.kind in ("slurm", "kubernetes")

    @model_validator(mode="after")
    def _check(self) -> "ClusterSettings":
        if (self.kind == "scheduler") != bool(self.scheduler):
            raise ValueError(
                f"--kind {self.kind} with --scheduler {self.scheduler!r}: an address is needed with "
                "--kind scheduler, and only there"
            )
        if self.min_jobs > self.max_jobs:
            raise ValueError(f"--min-jobs {self.min_jobs} is more than --max-jobs {self.max_jobs}")
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
