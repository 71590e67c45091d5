"""Model versions for the terminal: listed, shown one by one, promoted, rolled back."""

from collections.abc import Mapping
from typing import Any

from rich.table import Table

from store.errors import BadInput
from store.fs.files import join, last_part, read_bytes
from store.model_registry import (
    MODEL_CARD_FILE,
    champion,
    promote,
    promotion_history,
    read_card,
    read_cards,
    resolve_version,
    rollback,
)

DAMAGED = "damaged"  # its model.json: `models show` reports how
UNKNOWN = "-"


def list_models(root: str) -> Table:
    """Return a table of all versions, oldest first, the champion marked; names are not truncated.

    Raises: BadInput if there is no version.
    """
    champion_version = champion(root)
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
        table.add_row("*" if version == champion_version else "", version, *_row(card))
    table.caption = (
        f"* in service since {promotion_history(root)[-1].at}" if champion_version else "none is in service"
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
    """Return the model card of a version, and when it was in service. Raises: BadInput if it has none."""
    url = resolve_version(root, which)
    version = _last(url)
    moves = [
        f"{'back in' if move.is_rollback else 'in'} service from {move.at}: {move.reason or 'no reason given'}"
        for move in promotion_history(root)
        if move.version == version
    ]
    card_url = join(url, MODEL_CARD_FILE)
    try:
        card = read_bytes(card_url).decode()
    except FileNotFoundError:
        read_card(url)
        raise BadInput(f"{card_url}: no such file; restore the version from a copy, or train again") from None
    return [*card.splitlines(), *moves]


def promote_model(root: str, which: str, reason: str) -> str:
    """Make a version the champion; return a line."""
    version = _last(resolve_version(root, which))
    previous = champion(root)
    promote(root, version, reason)
    return f"{version} is in service" + (
        f" in place of {previous}" if previous not in (None, version) else ""
    )


def rollback_model(root: str) -> str:
    """Make the previous champion the champion again; return a line."""
    replaced = champion(root)
    return f"{rollback(root)} is in service again, in place of {replaced}"


def _accuracy(test: Mapping[str, Any]) -> str:
    if "accuracy" not in test:
        return UNKNOWN
    interval = test.get("accuracy_interval")
    bounds = f" ({interval['low']:.0%} to {interval['high']:.0%})" if interval else ""
    return f"{test['accuracy']:.0%}{bounds}"


def _short(text: str | None, length: int) -> str:
    return text[:length] if text else UNKNOWN


def _last(url: str | None) -> str:
    return last_part(url) if url else UNKNOWN
