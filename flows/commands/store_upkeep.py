"""Verifying and sweeping a store, for the terminal."""

from collections.abc import Iterator

from flows.reporting.progress import showing_progress
from store.dataset.concatenation import relink_concatenation
from store.dataset.parts import part_rows
from store.dataset.snapshot_tags import find_snapshot
from store.dataset.sweep import sweep
from store.dataset.verification import Damage, verify
from store.errors import BadInput
from store.reader import Snapshot

MAX_PRINTED = 100


def verify_store(root: str, which: str, threads: int) -> Iterator[str]:
    """Verify a snapshot; return lines about what is damaged but not needed, and a line if nothing else is.

    Raises: BadInput with the damaged files and tracks.
    """
    file = find_snapshot(root, which)
    with showing_progress("Verifying", sum(map(part_rows, file.files)), "files") as advance:
        result = verify(Snapshot(root, file), threads=threads, advance=lambda files: advance(files, ""))
    summary = (
        f"{root}: snapshot {result.snapshot}, {result.files:,} files, {result.size_bytes / 2**30:.2f} GiB"
    )
    unneeded = [it for it in result.damages if not it.tracks and it.path.startswith("shards/")]
    yield from (f"{it.path}: {it.problem}; no track of this snapshot needs it" for it in unneeded)
    needed = [it for it in result.damages if it not in unneeded]
    if not needed:
        yield f"{summary}: every byte{' that its tracks need' if unneeded else ''} is as it was written"
        return
    for it in needed[:MAX_PRINTED]:
        yield _damage_line(it)
    if len(needed) > MAX_PRINTED:
        yield f"and {len(needed) - MAX_PRINTED:,} more files"
    raise BadInput(
        f"{summary}: {len(needed):,} files are damaged{_advice(len(result.tracks), result.tables)}"
    )


def sweep_store(
    root: str, grace_hours: float, keep_snapshots: int | None, *, is_dry_run: bool
) -> Iterator[str]:
    """Sweep a store; return what was removed, a line for each file, and a summary."""
    result = sweep(root, grace_s=3600 * grace_hours, keep_snapshots=keep_snapshots, is_dry_run=is_dry_run)
    if not is_dry_run:
        relink_concatenation(root)
    yield from result.files[:MAX_PRINTED]
    if len(result.files) > MAX_PRINTED:
        yield f"and {len(result.files) - MAX_PRINTED:,} more"
    done = "would be removed" if is_dry_run else "removed"
    yield (
        f"{root}: {len(result.files):,} shards and files and {len(result.snapshots):,} snapshots {done}; "
        f"{result.young:,} unnamed ones are younger than {grace_hours:g} h"
    )


def _damage_line(damage: Damage) -> str:
    tracks = ", ".join(damage.tracks[:MAX_PRINTED])
    more = f" and {len(damage.tracks) - MAX_PRINTED:,} more" if len(damage.tracks) > MAX_PRINTED else ""
    return f"{damage.path}: {damage.problem}" + (f"; tracks {tracks}{more}" if tracks else "")


def _advice(tracks: int, tables: list[str]) -> str:
    if tables:
        return f", {', '.join(tables)} among them: restore these from a backup, then verify again"
    return f", {tracks:,} tracks need them; build the tracks again with `spectrogram-one build --repair`"
