"""Model versions, immutable, and the champion: the one that is in service.

ROOT/VERSION/weights.safetensors, report/...     the files of a version
ROOT/VERSION/model.json                          written last: with it the version exists
ROOT/champion.json                               names one version; promotion moves it
"""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

from store.errors import BadInput
from store.files import exists, join, list_names, put_if_absent, read_bytes, write_whole

CARD = "model.json"
POINTER = "champion.json"


def publish_version(root: str, files: Mapping[str, bytes], card: Mapping[str, Any]) -> str:
    """Store a model under a name never used before, and give that name.

    `files` maps paths within the version to their content; `card` becomes model.json.
    """
    version = f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{uuid4().hex[:6]}"
    for path, data in files.items():
        write_whole(join(root, version, path), data)
    content = json.dumps({**card, "version": version}, indent=1, allow_nan=False).encode()
    put_if_absent(join(root, version, CARD), content)
    return version


def list_versions(root: str) -> list[str]:
    """List the versions that are complete, oldest first."""
    return [name for name in list_names(root) if exists(join(root, name, CARD))]


def read_card(version_url: str) -> dict[str, Any]:
    """Read a version's model.json. Raises: BadInput if there is no such version."""
    try:
        card: dict[str, Any] = json.loads(read_bytes(join(version_url, CARD)))
    except (FileNotFoundError, NotADirectoryError):
        raise BadInput(
            f"{version_url}: no model version ({CARD} is missing); train one with `spectrogram-one train`"
        ) from None
    except ValueError as why:
        raise BadInput(f"{join(version_url, CARD)}: not readable as JSON ({why}); train again") from None
    return card


def promote(root: str, version: str) -> None:
    """Put a version into service. Raises: BadInput if there is no such version."""
    read_card(join(root, version))
    pointer = {"version": version, "promoted": datetime.now(UTC).isoformat(timespec="seconds")}
    write_whole(join(root, POINTER), json.dumps(pointer).encode())


def champion(root: str) -> str | None:
    """Name the version in service, or None if none ever was."""
    try:
        version: str = json.loads(read_bytes(join(root, POINTER)))["version"]
    except FileNotFoundError:
        return None
    return version


def find_version(root: str, which: str) -> str:
    """Give the URL of a version: "champion", "latest", or the name of one.

    Raises: BadInput if there is none.
    """
    match which:
        case "champion":
            name = champion(root)
        case "latest":
            name = next(iter(reversed(list_versions(root))), None)
        case _:
            name = which
    if name is None:
        raise BadInput(f"{root}: holds no {which} model; train one with `spectrogram-one train`")
    url = join(root, name)
    read_card(url)
    return url
