"""A folder of music in all formats that is tagged and undone, and what each file is before and after."""

import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from store.fs.signatures import signature_from_stat
from store.tagging.batch import WriteSettings, apply_batch, undo_batch
from store.tagging.swap.drafts import DRAFT_PREFIX
from store.tagging.swap.journal import read_journal
from store.tags.write import write_genres
from tests.support.audio_formats import CODECS, encode
from tests.support.audio_hash import audio_hash
from tests.support.disk_faults import faults

SETTINGS = WriteSettings()
GENRES = ["Old-Time / Historic", "Folk"]
CUSTOM_TAGS = {"GENRE_CONFIDENCE": "0.93"}
MEMORY = "/dev/shm"  # a kill or a failing call is the same there, and the suites are quicker


def request_row(path: Path) -> dict[str, Any]:
    """Return the row that asks for a file to be tagged."""
    signature = signature_from_stat(path.stat())
    return {
        "track_id": path.name,
        "url": str(path),
        "signature": signature,
        "genres": GENRES,
        "custom_tags": CUSTOM_TAGS,
    }


def tag(rows: Sequence[dict[str, Any]], run: str) -> set[str]:
    """Tag files as one batch; give their statuses."""
    done = apply_batch(rows, settings=SETTINGS, journal_url=f"{run}/journal", name="0")
    return {row["status"] for row in done}


def undo(run: str) -> set[str]:
    """Undo that batch; give the files' statuses."""
    journal = read_journal(f"{run}/journal", "0")
    done = undo_batch(
        journal, settings=SETTINGS, journal_url=f"{run}/undo", name="0", even_changed=False, dry_run=False
    )
    return {row["status"] for row in done}


def crash_at(number: int, act: str, **arguments: Any) -> None:
    """Tag or undo, and be killed at a call that changes a file or opens one."""
    with faults(number):
        {"tag": tag, "undo": undo}[act](**arguments)


class TaggingScenario:
    """Small files in a folder or two, their bytes before (`old`) and after (`new`) tagging."""

    def __init__(self, suffixes: Sequence[str], albums: int = 1) -> None:
        shared = MEMORY if os.access(MEMORY, os.W_OK) else None
        self.folder = Path(tempfile.mkdtemp(dir=shared))
        self.run = str(self.folder / "run")
        self.files = []
        for suffix in suffixes:
            codec, rate, container = CODECS[suffix]
            for album in range(albums):
                self.files.append(self.folder / f"music/album {album}" / f"music{suffix}")
                self.files[-1].parent.mkdir(parents=True, exist_ok=True)
                encode(self.files[-1], codec, rate, container, seconds=0.1 * (album + 1))
                write_genres(self.files[-1], ["Noise"])
        self.old = self.content()
        self.audio = self.audio_now()
        self.tag()
        self.new = self.content()
        assert self.audio_now() == self.audio
        assert not set(self.old.values()) & set(self.new.values())

    def tag(self) -> None:
        assert tag([request_row(path) for path in self.files], self.run) == {"written"}

    def content(self) -> dict[Path, bytes]:
        return {path: path.read_bytes() for path in self.files}

    def audio_now(self) -> dict[Path, str]:
        return {path: audio_hash(path) for path in self.files}

    def start(self, content: dict[Path, bytes]) -> None:
        """Have the files be what they were; forget the runs if they are the old ones."""
        for path, data in content.items():
            path.unlink()
            path.write_bytes(data)
        if content is self.old:
            shutil.rmtree(self.run, ignore_errors=True)
        shutil.rmtree(f"{self.run}/undo", ignore_errors=True)

    def assert_whole(self) -> None:
        """Every file is what it was, or what it is to be: so its audio is what it was, too."""
        for path, data in self.content().items():
            assert data in (self.old[path], self.new[path]), path

    def assert_clean(self) -> None:
        """No draft is left."""
        found = {path for path in self.folder.joinpath("music").rglob("*") if path.parent.name != "music"}
        assert found == set(self.files)
        assert not list(self.folder.rglob(f"{DRAFT_PREFIX}*"))
