"""The tags of files as lines for the terminal, and the differences between those of two folders."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from store.errors import BadInput
from store.tags.all_fields import read_fields
from store.tags.vocabulary.printable import mark_invisible

Fields = dict[str, list[str]]
MISSING = "(no such file)"


def show_tags(paths: Sequence[Path]) -> Iterator[str]:
    """Return the tags of files, those in folders too, a line per field.

    Raises: BadInput for a path that does not exist; and for a file without readable tags, if it is the only one.
    """
    if not paths:
        raise BadInput("tags show: name at least one file or folder: spectrogram-one tags show MY_FILES")
    files = [(str(path), path) for given in paths for path in _files_of(given).values()]
    for name, path in files:
        yield mark_invisible(name)
        fields = read_fields(path) if len(files) == 1 else _read(path)
        yield from (mark_invisible(f"  {field}: {'; '.join(texts)}") for field, texts in fields.items())


def diff_tags(one: Path | None, other: Path | None) -> Iterator[str]:
    """Return the differences between the tags of two files, or of the files of two folders: - one, + other.

    Raises: BadInput for a path that is not given or does not exist.
    """
    if one is None or other is None:
        raise BadInput("tags diff: name two files, or two folders: spectrogram-one tags diff MY_FILES tagged")
    ones, others = _files_of(one), _files_of(other)
    if one.is_file() and other.is_file():
        others = dict(zip(ones, others.values(), strict=True))  # two files may have two names
    for name in sorted({*ones, *others}):
        before, after = (_read(files[name]) if name in files else {MISSING: [""]} for files in (ones, others))
        changed = [field for field in {**before, **after} if before.get(field) != after.get(field)]
        if changed:
            yield mark_invisible(name)
        for field in changed:
            yield from _changed("-", field, before)
            yield from _changed("+", field, after)


def _changed(sign: str, field: str, fields: Fields) -> Iterator[str]:
    if field in fields:
        text = f"  {sign} {field}: {'; '.join(fields[field])}" if field != MISSING else f"  {sign} {MISSING}"
        yield mark_invisible(text)


def _files_of(path: Path) -> dict[str, Path]:
    """Return the audio files of a folder by their paths in it, or a file by its name."""
    if path.is_file():
        return {path.name: path}
    if not path.exists():
        raise BadInput(f"{path}: no such file or folder")
    from preprocessing.catalogue.audio_files import (
        stream_audio,
    )  # imports pyarrow, which one file does not need

    return {file.path: Path(file.url) for file in stream_audio(str(path)) if file.problem is None}


def _read(path: Path) -> Fields:
    try:
        return read_fields(path)
    except (BadInput, OSError) as why:
        return {"not readable": [str(why)]}
