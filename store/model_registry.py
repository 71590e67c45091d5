"""Immutable model versions, and the champion: the version in service.

ROOT/VERSION/weights.safetensors, MODEL_CARD.md, report/...   the files of a version
ROOT/VERSION/model.json                                       written last: it completes the version
ROOT/champion.json                                            every promotion and rollback; the last names the champion

champion.json is replaced as a whole. If two processes promote at the same instant, both succeed, and the later
write is kept.
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

CARD_FILE = "model.json"
MODEL_CARD_FILE = "MODEL_CARD.md"  # the content of CARD_FILE, to be read by people
REPORT_FOLDER, REPORT_PAGE = "report", "report.html"
CHAMPION_FILE = "champion.json"


@dataclass(frozen=True)
class Promotion:
    """One promotion or rollback: the version that went into service, when, and why."""

    version: str
    at: str  # ISO 8601, UTC
    reason: str = ""
    is_rollback: bool = False


def publish_version(root: str, files: Mapping[str, bytes], card: Mapping[str, Any]) -> str:
    """Store a model under a name never used before, and return that name.

    `files` maps paths within the version to their content; `card` becomes model.json.
    """
    version = f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{uuid4().hex[:6]}"
    for path, data in files.items():
        write_atomic(join(root, version, path), data)
    content = json.dumps({**card, "version": version}, indent=1, allow_nan=False).encode()
    put_if_absent(join(root, version, CARD_FILE), content)
    return version


def list_versions(root: str) -> list[str]:
    """Return the names of the complete versions, oldest first."""
    return [name for name in list_names(root) if exists(join(root, name, CARD_FILE))]


def read_card(version_url: str) -> dict[str, Any]:
    """Read a version's model.json. Raises: BadInput if there is no such version, or its card is damaged."""
    url = join(version_url, CARD_FILE)
    try:
        content = read_bytes(url)
    except (FileNotFoundError, NotADirectoryError):
        raise BadInput(
            f"{version_url}: no model version ({CARD_FILE} is missing); train one with `spectrogram-one train`"
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
    """Yield the names and cards of all versions, oldest first; None for a damaged card."""
    for version in list_versions(root):
        try:
            card = read_card(join(root, version))
        except BadInput:
            yield version, None
        else:
            yield version, card


def promote(root: str, version: str, reason: str = "", *, expected: str | EllipsisType | None = ...) -> None:
    """Put a version into service; promoting the champion again changes nothing.

    `expected` is the champion that the version was compared with, None for no champion;
    without it, any champion is replaced.

    Raises: BadInput if there is no such version, or champion.json is damaged; CommitConflict if
        another version than the expected champion is in service.
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
    """Put the previous champion back into service, and return its name.

    Raises: BadInput if there was none, or its folder is missing.

    Each rollback goes one champion further back, never back and forth: a version that was rolled back is
    no previous champion any more.
    """
    before = promotion_history(root)
    stack = _champion_stack(before)
    if len(stack) < 2:
        found = f"{stack[0]} is the first" if stack else "no version is in service"
        raise BadInput(
            f"{join(root, CHAMPION_FILE)}: no champion to go back to ({found}); choose one with "
            "`spectrogram-one models list` and `models promote`"
        )
    version = stack[-2]
    if not exists(join(root, version, CARD_FILE)):
        raise BadInput(
            f"{root}: the previous champion, {version}, is missing; choose another with "
            "`spectrogram-one models list` and `models promote`"
        )
    _move(root, before, version, reason or f"rolled back from {stack[-1]}", is_rollback=True)
    return version


def champion(root: str) -> str | None:
    """Return the version in service, None if there never was one. Raises: BadInput if champion.json is damaged."""
    moves = promotion_history(root)
    return moves[-1].version if moves else None


def promotion_history(root: str) -> list[Promotion]:
    """Return all promotions and rollbacks, oldest first. Raises: BadInput if champion.json is damaged."""
    url = join(root, CHAMPION_FILE)
    try:
        content = read_bytes(url)
    except FileNotFoundError:
        return []
    try:
        moves = [Promotion(**each) for each in json.loads(content)["history"]]
        if not all(isinstance(move.version, str) for move in moves):
            raise ValueError("a version is no text")
        if _champion_stack(moves)[-1] != moves[-1].version:
            raise ValueError("a rollback does not lead to the previous champion")
    except (AttributeError, LookupError, TypeError, ValueError) as why:
        raise BadInput(
            f"{url}: names no champion that can be read ({type(why).__name__}: {why}); remove it, then "
            "`spectrogram-one models promote` the version that is to serve"
        ) from None
    return moves


def _champion_stack(moves: Sequence[Promotion]) -> list[str]:
    """Return the champions that rollbacks would lead back along, the present one last."""
    stack: list[str] = []
    for move in moves:
        if move.is_rollback:
            stack.pop()
        else:
            stack.append(move.version)
    return stack


def _move(root: str, before: Sequence[Promotion], version: str, reason: str, *, is_rollback: bool) -> None:
    now = datetime.now(UTC).isoformat(timespec="seconds")
    moves = [*before, Promotion(version, now, reason, is_rollback)]
    content = json.dumps({"history": [asdict(move) for move in moves]}, indent=1)
    write_atomic(join(root, CHAMPION_FILE), content.encode())


def resolve_version(root: str, which: str) -> str:
    """Return the URL of a version: "champion", "latest", its name, or a prefix of it.

    Raises: BadInput if there is none, or several have the prefix.
    """
    match which:
        case "champion":
            name = champion(root)
        case "latest":
            name = next(iter(reversed(list_versions(root))), None)
        case _:
            name = _complete(root, which)
    if name is None:
        raise BadInput(
            f"{root}: holds no {which} model; train one with `spectrogram-one train` (from nothing: "
            "`spectrogram-one fma small --then-train`), or name another folder with --models"
        )
    url = join(root, name)
    read_card(url)
    return url


def _complete(root: str, prefix: str) -> str:
    """Return the one version with a prefix; a whole name, or what no version begins with, as it is."""
    if not prefix or exists(join(root, prefix, CARD_FILE)):
        return prefix
    found = [name for name in list_versions(root) if name.startswith(prefix)]
    if len(found) > 1:
        raise BadInput(
            f"{root}: {len(found)} versions begin with {prefix}: {', '.join(found)}; type more of the name"
        )
    return found[0] if found else prefix
