"""What is installed on this machine: packages, libraries that decode audio, GPUs."""

import re
import subprocess
from collections.abc import Callable, Mapping
from importlib.metadata import PackageNotFoundError, distributions, requires
from pathlib import Path

from flows.diagnosis.findings import Finding, ok, problem, warning

PROJECT = "spectrogram-one"
LOCK_FILE = Path(__file__).parents[2] / "requirements.lock"
INSTALL = "pip install -r requirements.lock"
REQUIREMENT = re.compile(r"^([A-Za-z0-9._-]+)==([^\s;]+)")
MAX_NAMED = 4  # packages in one line


def check_packages(
    installed: Mapping[str, str], lock: Mapping[str, str] | None, needed: set[str]
) -> list[Finding]:
    """Compare the installed packages with the lock file; `needed` are those without which nothing runs."""
    missing = sorted(needed - set(installed))
    if missing:
        return [
            problem(
                "packages", f"{_name_some(missing)} not installed", f"`{INSTALL}` in the environment used"
            )
        ]
    if lock is None:
        return [warning("packages", "no requirements.lock beside the code", "versions were not compared")]
    other = [
        f"{name} {installed[name]} (lock: {version})"
        for name, version in sorted(lock.items())
        if name in installed and installed[name] != version
    ]
    if other:
        return [warning("packages", f"other versions than in the lock: {_name_some(other)}", f"`{INSTALL}`")]
    return [ok("packages", f"{len(set(lock) & set(installed))} installed as in requirements.lock")]


def read_installed() -> dict[str, str]:
    """Return the version of each installed package, without the suffix for CPU or CUDA."""
    return {_normal(it.metadata["Name"]): it.version.split("+")[0] for it in distributions()}


def read_lock(path: Path = LOCK_FILE) -> dict[str, str] | None:
    """Return the versions of a lock file; None if it is not there."""
    if not path.is_file():
        return None
    found = (REQUIREMENT.match(line) for line in path.read_text(encoding="utf-8").splitlines())
    return {_normal(it[1]): it[2].split("+")[0] for it in found if it}


def read_needed() -> set[str]:
    """Return the packages that this project requires, without those of its extras."""
    try:
        lines = requires(PROJECT) or []
    except PackageNotFoundError:
        return {PROJECT}
    return {_normal(re.split(r"[^A-Za-z0-9._-]", it)[0]) for it in lines if "extra ==" not in it}


def check_decoders(read_versions: Callable[[], Mapping[str, str]]) -> list[Finding]:
    """Load the libraries that decode audio. A missing one raises ImportError or OSError when it is loaded."""
    try:
        versions = read_versions()
    except (ImportError, OSError) as why:
        return [
            problem(
                "decoders", f"cannot be loaded ({why})", f"`{INSTALL}`; on Debian `apt install libsndfile1`"
            )
        ]
    return [ok("decoders", ", ".join(f"{name} {version}" for name, version in versions.items()))]


def check_gpus(listed: list[str], describe: Callable[[], tuple[int, str | None]]) -> list[Finding]:
    """Compare the GPUs that the driver lists with those that torch can use; `describe` imports torch."""
    if not listed:
        return [ok("gpu", "none; trainings use the CPU")]
    usable, nccl = describe()
    if not usable:
        return [
            problem(
                "gpu",
                f"the driver lists {len(listed)}, torch can use none",
                "install the CUDA build of torch that is in requirements.lock, and a driver that is new enough for it",
            )
        ]
    if nccl is None and usable > 1:
        return [
            problem("gpu", f"{usable}, without NCCL", "install the CUDA build of torch, which contains it")
        ]
    if usable < len(listed):
        return [
            warning(
                "gpu", f"{usable} of {len(listed)} can be used", "look at CUDA_VISIBLE_DEVICES and nvidia-smi"
            )
        ]
    return [ok("gpu", f"{usable}, NCCL {nccl}")]


def list_gpus() -> list[str]:
    """Return the GPUs that the NVIDIA driver lists; none without a driver."""
    try:
        done = subprocess.run(
            ["nvidia-smi", "--list-gpus"], capture_output=True, text=True, check=True, timeout=30
        )
    except (OSError, subprocess.SubprocessError):
        return []
    return done.stdout.splitlines()


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _name_some(names: list[str]) -> str:
    more = f" and {len(names) - MAX_NAMED} more" if len(names) > MAX_NAMED else ""
    return ", ".join(names[:MAX_NAMED]) + more
