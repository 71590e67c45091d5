"""Model versions as the terminal shows them: listed, told of one by one, compared, put into service."""

from collections.abc import Mapping
from typing import Any

from rich.table import Table

from store.errors import BadInput
from store.fs.files import exists, join, read_bytes
from store.model_registry import (
    champion,
    promote,
    promotion_history,
    read_card,
    read_cards,
    resolve_version,
    rollback,
)

MODEL_CARD_FILE = "MODEL_CARD.md"
DAMAGED = "damaged"  # its model.json: `models show` tells what to do
UNKNOWN = "-"  # older versions do not tell


def list_models(root: str) -> Table:
    """Lay out all versions, oldest first, the one in service marked; names whole, as they are to be copied.

    Raises: BadInput if there is no version.
    """
    in_service = champion(root)
    cards = list(read_cards(root))
    if not cards:
        raise BadInput(
            f"{root}: holds no model versions; train one with `spectrogram-one train`, or name another folder "
            "with --models"
        )
    table = Table()
    table.add_column("", no_wrap=True, min_width=1)
    table.add_column("version", no_wrap=True, min_width=max(len(version) for version, _ in cards))
    for heading in ("trained", "accuracy", "macro F1", "snapshot", "parent"):
        table.add_column(heading, overflow="fold")
    for version, card in cards:
        table.add_row("*" if version == in_service else "", version, *_row(card))
    table.caption = (
        f"* in service since {promotion_history(root)[-1].at}" if in_service else "none is in service"
    )
    return table


def _row(card: Mapping[str, Any] | None) -> tuple[str, ...]:
    if card is None:
        return DAMAGED, *[UNKNOWN] * 4
    test = card.get("metrics", {}).get("test", {})
    return (
        _short(card.get("trained"), 16).replace("T", " "),
        _accuracy(test),
        f"{test['macro_f1']:.2f}" if "macro_f1" in test else UNKNOWN,
        _last(card.get("snapshot")).removesuffix(".json"),
        _last(card.get("parent")),
    )


def show_model(root: str, which: str) -> list[str]:
    """Tell of one version, by its model card if it has one; and when it was in service."""
    url = resolve_version(root, which)
    version = _last(url)
    moves = [
        f"{'back in' if move.is_rollback else 'in'} service from {move.at}: {move.reason or 'no reason given'}"
        for move in promotion_history(root)
        if move.version == version
    ]
    if exists(join(url, MODEL_CARD_FILE)):
        return [*read_bytes(join(url, MODEL_CARD_FILE)).decode().splitlines(), *moves]
    card = read_card(url)
    test = card.get("metrics", {}).get("test", {})
    told = {
        "version": version,
        "trained": card.get("trained"),
        "code": card.get("code"),
        "genres": ", ".join(card.get("genres", [])),
        "accuracy": _accuracy(test),
        "macro F1": test.get("macro_f1"),
        "best epoch": card.get("best_epoch"),
        "snapshot": card.get("snapshot"),
        "data": card.get("data"),
        "parent": card.get("parent"),
        "seed": card.get("training", {}).get("seed"),
        "report": join(url, "report", "report.html"),
    }
    return [*(f"{name}: {UNKNOWN if it is None else it}" for name, it in told.items()), *moves]


def promote_model(root: str, which: str, reason: str) -> str:
    """Put a version into service; say so in a line."""
    version = _last(resolve_version(root, which))
    before = champion(root)
    promote(root, version, reason)
    return f"{version} is in service" + (f" in place of {before}" if before not in (None, version) else "")


def rollback_model(root: str) -> str:
    """Put the champion before back into service; say so in a line."""
    before = champion(root)
    return f"{rollback(root)} is in service again, in place of {before}"


def _accuracy(test: Mapping[str, Any]) -> str:
    if "accuracy" not in test:
        return UNKNOWN
    interval = test.get("accuracy_interval")
    bounds = f" ({interval['low']:.0%} to {interval['high']:.0%})" if interval else ""
    return f"{test['accuracy']:.0%}{bounds}"


def _short(text: str | None, length: int) -> str:
    return text[:length] if text else UNKNOWN


def _last(url: str | None) -> str:
    return url.rstrip("/").rsplit("/", 1)[-1] if url else UNKNOWN
