"""The code and packages installed on a host. Hosts that train together must have the same."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import distributions
from importlib.metadata import version as installed_version
from pathlib import Path

from store.errors import BadInput

FLOORS = ("store", "preprocessing", "training", "flows")


@dataclass(frozen=True)
class HostVersions:
    """Our release with a digest of its sources, and each package's version, without the suffix for CPU or CUDA."""

    code: str
    packages: dict[str, str]


def read_versions() -> HostVersions:
    """Return the versions of what is installed on this host."""
    root, digest = Path(__file__).parents[2], hashlib.sha256()
    for path in sorted(path for floor in FLOORS for path in (root / floor).rglob("*.py")):
        digest.update(f"{path.relative_to(root)}\0".encode() + path.read_bytes())
    packages = {each.metadata["Name"].lower(): each.version.split("+")[0] for each in distributions()}
    return HostVersions(f"{installed_version('spectrogram-one')}-{digest.hexdigest()[:8]}", packages)


def check_same_versions(here: HostVersions, hosts: Mapping[str, HostVersions | BaseException]) -> None:
    """Compare the versions of all hosts.

    Raises: BadInput if a host has other code than this one, or a package of another version than the first host.

    A package that only some hosts have does not matter: CUDA's are on GPU hosts only. A host whose
    code has no `read_versions` is passed with the exception that it raised.
    """
    known = check_same_code(here, hosts, "training host")
    first, *others = known
    for name in others:
        for package, wanted in sorted(known[first].packages.items()):
            version = known[name].packages.get(package, wanted)
            if version != wanted:
                raise BadInput(
                    f"training host {name}: has {package} {version}, host {first} has {wanted}; "
                    "install both from the same requirements.lock, and restart their Dask workers"
                )


def check_same_code(
    here: HostVersions, hosts: Mapping[str, HostVersions | BaseException], kind: str = "worker"
) -> dict[str, HostVersions]:
    """Return the versions of all hosts. Raises: BadInput if one runs other code than this flow."""
    known: dict[str, HostVersions] = {}
    for name, found in hosts.items():
        if not isinstance(found, HostVersions):
            raise BadInput(
                f"{kind} {name}: runs other code than this flow ({here.code}): {found}; "
                "install the same commit on both, and restart the host's Dask worker"
            )
        known[name] = found
        if found.code != here.code:
            raise BadInput(
                f"{kind} {name}: runs code {found.code}, this flow {here.code}; "
                "install the same commit on both, and restart the host's Dask worker"
            )
    return known
