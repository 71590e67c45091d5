"""The snapshots of a store for the terminal: listed, shown, compared, tagged."""

from collections import Counter, defaultdict
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from rich.table import Table

from store.dataset.parts import part_rows
from store.dataset.snapshot_tags import find_snapshot, put_tag, read_tags, remove_tag
from store.dataset.snapshots import SnapshotFile, kept_snapshots
from store.errors import BadInput
from store.fs.files import join
from store.fs.parquet import read_table
from store.reader import Snapshot

COMPARED = ("status", "shard", "start_frame", "genre_top", "split")
LABELS = ("genre_top", "split")


def list_snapshots(root: str) -> Table:
    """Return a table of all snapshots, newest first. Raises: BadInput if there is none."""
    tags = _tags_by_number(root)
    table = Table()
    for heading in ("snapshot", "tags", "published", "by", "tracks", "results added"):
        table.add_column(heading, overflow="fold", justify="right" if heading == "results added" else "left")
    snapshots = list(kept_snapshots(root))
    if not snapshots:
        raise BadInput(f"{root}: holds no published spectrograms; run `spectrogram-one build` first")
    for it, before in zip(snapshots, [*snapshots[1:], None], strict=True):
        added = _results(it) - (_results(before) if before else 0)
        is_next = before is None or before.number == it.number - 1
        table.add_row(
            str(it.number),
            ", ".join(tags[it.number]),
            it.created.replace("T", " ").removesuffix("+00:00"),
            it.kind,
            f"{part_rows(it.catalogue):,}",
            f"{added:,}" if is_next else "-",
        )
    return table


def show_snapshot(root: str, which: str) -> Iterator[str]:
    """Return a snapshot as lines. Raises: BadInput if there is no such snapshot."""
    file = find_snapshot(root, which)
    snapshot = Snapshot(root, file)
    tags = ", ".join(_tags_by_number(root)[file.number])
    yield f"snapshot {file.number} of {root}" + (f" ({tags})" if tags else "")
    yield f"published {file.created} by {file.kind}, write id {file.write_id}, on top of {file.parent or 'none'}"
    yield f"source {file.settings.get('source', 'unknown')}"
    mel = ", ".join(f"{name} {value}" for name, value in file.recipe.mel_settings.items())
    yield f"encoding {file.recipe.encoding}; {mel} (hash {file.recipe.mel_fingerprint})"
    yield from _tracks_lines(snapshot)
    files = [read_table(join(root, name), ["shard", "size_bytes"]) for name in file.files]
    shards = len(
        pc.unique(pa.chunked_array((it for table in files for it in table["shard"].chunks), pa.string()))
    )
    size_bytes = sum(pc.sum(table["size_bytes"]).as_py() or 0 for table in files)
    yield (
        f"{shards:,} shards in {sum(map(len, files)):,} files, {size_bytes / 2**30:.2f} GiB; "
        f"{len(file.index)} parts of the index"
    )


def diff_snapshots(root: str, one: str, other: str, limit: int) -> Iterator[str]:
    """Return the differences between two snapshots: - only in one, + only in the other, ~ changed."""
    before, after = (Snapshot(root, find_snapshot(root, which)) for which in (one, other))
    if before.file.recipe != after.file.recipe:
        yield f"settings: {before.file.recipe} became {after.file.recipe}"
    rows_before, rows_after = _compared(before), _compared(after)
    at = pc.index_in(rows_after["track_id"], value_set=rows_before["track_id"].combine_chunks())
    is_new = pc.is_null(at)
    is_gone = pc.invert(pc.is_in(rows_before["track_id"], value_set=rows_after["track_id"].combine_chunks()))
    yield from _some("-", rows_before.filter(is_gone)["track_id"].to_pylist(), limit, "no longer listed")
    yield from _some("+", rows_after.filter(is_new)["track_id"].to_pylist(), limit, "new")
    both = rows_after.filter(pc.is_valid(at))
    was = rows_before.take(at.drop_null())
    is_built = np.zeros(len(both), np.bool_)
    for name in ("shard", "start_frame"):
        is_built |= _differs(was[name], both[name])
    yield from _some("~", both.filter(pa.array(is_built))["track_id"].to_pylist(), limit, "built again")
    for name in ("status", *LABELS):
        changed = np.flatnonzero(_differs(was[name], both[name]))
        texts = [
            f"{track_id}: {old} became {new}"
            for track_id, old, new in zip(
                both["track_id"].take(changed).to_pylist(),
                was[name].take(changed).to_pylist(),
                both[name].take(changed).to_pylist(),
                strict=True,
            )
        ]
        yield from _some("~", texts, limit, f"of another {name}")


def tag_snapshot(root: str, name: str, which: str, *, move: bool) -> str:
    """Name a snapshot; return the line to print."""
    number = find_snapshot(root, which).number
    put_tag(root, name, number, move=move)
    return f"{name} names snapshot {number} of {root}; sweeps keep it"


def remove_store_tag(root: str, name: str) -> str:
    """Remove a tag; return the line to print."""
    remove_tag(root, name)
    return f"{name} names no snapshot of {root} now"


def _tags_by_number(root: str) -> defaultdict[int, list[str]]:
    tags: defaultdict[int, list[str]] = defaultdict(list)
    for name, number in sorted(read_tags(root).items()):
        tags[number].append(name)
    return tags


def _results(snapshot: SnapshotFile) -> int:
    return sum(map(part_rows, snapshot.index))


def _tracks_lines(snapshot: Snapshot) -> Iterator[str]:
    catalogue = snapshot.catalogue
    index = snapshot.read_index(catalogue["track_id"], ["status", "decoded_s"])
    statuses = Counter(index["status"].to_pylist())
    hours = (pc.sum(index["decoded_s"]).as_py() or 0.0) / 3600
    counts = ", ".join(f"{count:,} {status or 'not built'}" for status, count in statuses.most_common())
    yield f"{len(catalogue):,} tracks ({counts}), {hours:,.2f} h of audio"
    if "split" in catalogue.column_names:
        splits = Counter(catalogue["split"].to_pylist())
        yield "splits: " + ", ".join(f"{count:,} {split or 'none'}" for split, count in splits.most_common())


def _compared(snapshot: Snapshot) -> pa.Table:
    table = snapshot.tracks
    for name in LABELS:
        if name not in table.column_names:
            table = table.append_column(name, pa.nulls(len(table), pa.string()))
    return table.select(["track_id", *COMPARED])


def _differs(was: pa.ChunkedArray, now: pa.ChunkedArray) -> "np.ndarray[tuple[int], np.dtype[np.bool_]]":
    both_null = pc.and_(pc.is_null(was), pc.is_null(now))
    same = pc.or_(both_null, pc.fill_null(pc.equal(was, now), fill_value=False))
    return ~np.asarray(same)


def _some(sign: str, texts: list[str], limit: int, what: str) -> Iterator[str]:
    """Return a count, and the first of some lines."""
    if texts:
        yield f"{len(texts):,} tracks {what}"
        yield from (f"  {sign} {text}" for text in texts[:limit])
        if len(texts) > limit:
            yield f"    and {len(texts) - limit:,} more"
