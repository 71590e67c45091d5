"""Model versions, immutable, and the champion: the one that is in service.

ROOT/VERSION/weights.safetensors, report/...     the files of a version
ROOT/VERSION/model.json                          written last: with it the version exists
ROOT/champion.json                               names one version, and all that were champion before it

champion.json is replaced as a whole: pointer and history never tell two stories. Two that promote
at the same instant both succeed, and the later one's story is kept.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from types import EllipsisType
from typing import Any
from uuid import uuid4

from store.errors import BadInput, CommitConflict
from store.fs.files import exists, join, list_names, put_if_absent, read_bytes, write_atomic

CARD = "model.json"
CHAMPION_FILE = "champion.json"


@dataclass(frozen=True)
class Promotion:
    """One move of the pointer: which version went into service when, and why."""

    version: str
    at: str  # ISO 8601, UTC
    reason: str = ""
    is_rollback: bool = False


def publish_version(root: str, files: Mapping[str, bytes], card: Mapping[str, Any]) -> str:
    """Store a model under a name never used before, and give that name.

    `files` maps paths within the version to their content; `card` becomes model.json.
    """
    version = f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{uuid4().hex[:6]}"
    for path, data in files.items():
        write_atomic(join(root, version, path), data)
    content = json.dumps({**card, "version": version}, indent=1, allow_nan=False).encode()
    put_if_absent(join(root, version, CARD), content)
    return version


def list_versions(root: str) -> list[str]:
    """List the versions that are complete, oldest first."""
    return [name for name in list_names(root) if exists(join(root, name, CARD))]


def read_card(version_url: str) -> dict[str, Any]:
    """Read a version's model.json. Raises: BadInput if there is no such version, or its card is damaged."""
    url = join(version_url, CARD)
    try:
        content = read_bytes(url)
    except (FileNotFoundError, NotADirectoryError):
        raise BadInput(
            f"{version_url}: no model version ({CARD} is missing); train one with `spectrogram-one train`"
        ) from None
    try:
        card = json.loads(content)
        found = "" if isinstance(card, dict) else f"wanted an object, found {type(card).__name__}"
    except (ValueError, RecursionError) as why:
        found = str(why)
    if found:
        raise BadInput(
            f"{url}: not readable as JSON of a model ({found}); restore it from a copy, or remove the folder of "
            "this version"
        )
    return dict(card)


def read_cards(root: str) -> Iterator[tuple[str, dict[str, Any] | None]]:
    """Read the cards of all versions, oldest first; None for one that is damaged: others can be told of."""
    for version in list_versions(root):
        try:
            card = read_card(join(root, version))
        except BadInput:
            yield version, None
        else:
            yield version, card


def promote(root: str, version: str, reason: str = "", *, expected: str | EllipsisType | None = ...) -> None:
    """Put a version into service; the champion promoted again stays as it is.

    `expected` is the champion that the version was judged against, None for none at all;
    left out, whatever is in service is replaced.

    Raises: BadInput if there is no such version, or champion.json is damaged; CommitConflict if
    another than the expected champion is in service.
    """
    read_card(join(root, version))
    before = promotion_history(root)
    found = before[-1].version if before else None
    if expected is not ... and found not in (expected, version):
        raise CommitConflict(
            f"{join(root, CHAMPION_FILE)}: {found or 'no version'} is in service, no longer {expected or 'none'}, "
            f"which {version} was to replace; promote it with `spectrogram-one models promote` if that is still wanted"
        )
    if not before or before[-1].version != version:
        _move(root, before, version, reason, is_rollback=False)


def rollback(root: str, reason: str = "") -> str:
    """Put the champion before this one back into service, and name it.

    Raises: BadInput if there was none before it, or its folder is gone.

    Each rollback goes one further back, never to and fro: what was rolled back from is no
    longer before anything. A promotion after a rollback goes on from where that led.
    """
    before = promotion_history(root)
    line = _line(before)
    if len(line) < 2:
        found = f"{line[0]} is the first" if line else "no version is in service"
        raise BadInput(
            f"{join(root, CHAMPION_FILE)}: no champion to go back to ({found}); choose one with "
            "`spectrogram-one models list` and `models promote`"
        )
    version = line[-2]
    if not exists(join(root, version, CARD)):
        raise BadInput(
            f"{root}: the champion before, {version}, is gone; choose another with "
            "`spectrogram-one models list` and `models promote`"
        )
    _move(root, before, version, reason or f"rolled back from {line[-1]}", is_rollback=True)
    return version


def champion(root: str) -> str | None:
    """Name the version in service, or None if none ever was. Raises: BadInput if champion.json is damaged."""
    moves = promotion_history(root)
    return moves[-1].version if moves else None


def promotion_history(root: str) -> list[Promotion]:
    """Tell who was champion from when on, oldest first. Raises: BadInput if champion.json is damaged.

    A champion.json of an older version tells of one promotion only.
    """
    url = join(root, CHAMPION_FILE)
    try:
        content = read_bytes(url)
    except FileNotFoundError:
        return []
    try:
        pointer = json.loads(content)
        old = [{"version": pointer["version"], "at": pointer["promoted"]}]
        moves = [Promotion(**each) for each in pointer.get("history", old)]
        if not isinstance(pointer["version"], str) or _line(moves)[-1] != pointer["version"]:
            raise ValueError("version is not where its history leads")
    except (AttributeError, LookupError, TypeError, ValueError) as why:
        raise BadInput(
            f"{url}: does not say which model is in service ({type(why).__name__}: {why}); remove it, then "
            "`spectrogram-one models promote` the version that is to serve"
        ) from None
    return moves


def _line(moves: Sequence[Promotion]) -> list[str]:
    """Give the versions that rollbacks would lead back along, the champion last."""
    line: list[str] = []
    for move in moves:
        if move.is_rollback:
            line.pop()
        else:
            line.append(move.version)
    return line


def _move(root: str, before: Sequence[Promotion], version: str, reason: str, *, is_rollback: bool) -> None:
    now = datetime.now(UTC).isoformat(timespec="seconds")
    moves = [*before, Promotion(version, now, reason, is_rollback)]
    pointer = {"version": version, "promoted": now, "history": [asdict(move) for move in moves]}
    write_atomic(join(root, CHAMPION_FILE), json.dumps(pointer, indent=1).encode())


def resolve_version(root: str, which: str) -> str:
    """Give the URL of a version: "champion", "latest", its name, or the beginning of it.

    Raises: BadInput if there is none, or several begin so.
    """
    match which:
        case "champion":
            name = champion(root)
        case "latest":
            name = next(iter(reversed(list_versions(root))), None)
        case _:
            name = _complete(root, which)
    if name is None:
        raise BadInput(f"{root}: holds no {which} model; train one with `spectrogram-one train`")
    url = join(root, name)
    read_card(url)
    return url


def _complete(root: str, beginning: str) -> str:
    """Give the one version whose name begins so; what is a name already, or none, stays as it is."""
    if not beginning or exists(join(root, beginning, CARD)):
        return beginning
    found = [name for name in list_versions(root) if name.startswith(beginning)]
    if len(found) > 1:
        raise BadInput(
            f"{root}: {len(found)} versions begin with {beginning}: {', '.join(found)}; give more of it"
        )
    return found[0] if found else beginning
