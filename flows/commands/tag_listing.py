"""What tags say, for a person to look at: of files, of two folders side by side, and of the runs that wrote them."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.table import Table

from preprocessing.catalogue.audio_files import stream_audio
from store.errors import BadInput
from store.fs.files import absolute
from store.tagging.run import list_runs
from store.tags.all_fields import read_fields

Fields = dict[str, list[str]]
MISSING = "(no such file)"


def show_tags(paths: Sequence[Path]) -> Iterator[str]:
    """Tell what the tags of files say, those in folders too, a line a field.

    Raises: BadInput for a path that is not there, or a file whose tags cannot be read, if it is the only one.
    """
    files = [(str(path), path) for given in paths for path in _files_of(given).values()]
    for name, path in files:
        yield name.encode("utf-8", "backslashreplace").decode()
        fields = read_fields(path) if len(files) == 1 else _read(path)
        yield from (f"  {field}: {'; '.join(texts)}" for field, texts in fields.items())


def diff_tags(one: Path, other: Path) -> Iterator[str]:
    """Tell where the tags of two files, or of the files of two folders, differ: - the one, + the other.

    Raises: BadInput for a path that is not there.
    """
    ones, others = _files_of(one), _files_of(other)
    if one.is_file() and other.is_file():
        others = dict(zip(ones, others.values(), strict=True))  # two files may have two names
    for name in sorted({*ones, *others}):
        before, after = (_read(files[name]) if name in files else {MISSING: [""]} for files in (ones, others))
        changed = [field for field in {**before, **after} if before.get(field) != after.get(field)]
        if changed:
            yield name
        for field in changed:
            yield from _changed("-", field, before)
            yield from _changed("+", field, after)


def _changed(sign: str, field: str, fields: Fields) -> Iterator[str]:
    if field in fields:
        yield f"  {sign} {field}: {'; '.join(fields[field])}" if field != MISSING else f"  {sign} {MISSING}"


def runs_table(runs: str) -> Table:
    """Lay out the runs, oldest first: what they were and how they ended."""
    table = Table("run", "what", "source", "files")
    for run in list_runs(absolute(runs)):
        asked, ended = run.request(), run.summary()
        counts = ", ".join(
            f"{count:,} {status}" for status, count in (ended or {}).get("statuses", {}).items()
        )
        of = asked.get("undo") or asked.get("source") or asked.get("apply", "")
        table.add_row(run.name, _kind(asked), of, counts if ended else "not over: run the same command again")
    return table


def _kind(asked: dict[str, object]) -> str:
    if "undo" in asked:
        return "undo, dry run" if asked["dry_run"] else "undo"
    if asked["copy_to"]:
        return "copies"
    return "written" if asked["write"] or asked["apply"] else "dry run"


def _files_of(path: Path) -> dict[str, Path]:
    """Give the audio files of a folder by their paths in it, or a file by its name."""
    if path.is_file():
        return {path.name: path}
    return {file.path: Path(file.url) for file in stream_audio(str(path)) if file.problem is None}


def _read(path: Path) -> Fields:
    try:
        return read_fields(path)
    except (BadInput, OSError) as why:
        return {"not readable": [str(why)]}
