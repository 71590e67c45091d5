"""What other programs show of the genres and notes that we write; seen with FFmpeg 5.1, MediaInfo 23.04 and taglib 2.

Ours shows all values of every format. Many others show the first only: the genre that the model is
surest of comes first.
"""

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import taglib
from mutagen.apev2 import delete

from store.tags.write import copy_with_genres, read_tags
from tests.support.audio_formats import encode
from tests.support.tagged_files import KINDS

MONKEY = Path("../shared/data/hostile/mutagen/mac-399.ape")  # no free encoder makes one
GENRES = ["Old-Time / Historic", "Électronique", "Rock"]
NOTES = {"GENRE_CONFIDENCE": "0.87", "GENRE_MODEL": "v1"}
FIRST, *LAST = GENRES
NOTHING = None
READERS = ["ffprobe", "mediainfo", "taglib"]
ID3 = (FIRST, FIRST, GENRES)
VORBIS = (";".join(GENRES), " / ".join(GENRES), GENRES)
SHOWN = {  # by each of READERS
    **dict.fromkeys([kind for kind in KINDS if kind.endswith(".mp3")], ID3),
    "music.aac": ID3,
    "music.aiff": ID3,
    "music.flac": VORBIS,
    "music.ogg": VORBIS,
    "music.opus": VORBIS,
    "music.m4a": (FIRST, " / ".join(GENRES), GENRES),
    "music.wma": (FIRST, FIRST, [*LAST, FIRST]),  # ASF keeps the first in one place and the others in another
    "music.wav": ("; ".join(GENRES), FIRST, GENRES),  # ffprobe reads the INFO chunk, the others ID3
    "music.wv": (FIRST, NOTHING, GENRES),
    "monkey.ape": (FIRST, FIRST, GENRES),
    "true.tta": (FIRST, NOTHING, GENRES),
    "true with APEv2.tta": (NOTHING, NOTHING, GENRES),  # ffprobe reads the APEv2 tag, others ID3
}
NO_NOTES = [  # where a reader shows genres, but no field of another's making
    ("ffprobe", "music.wav"),
    ("taglib", "music.wma"),
]


@pytest.fixture(scope="module")
def tagged(originals, tmp_path_factory) -> Path:
    """One file of each kind with several genres, in noted/ with notes too."""
    folder = tmp_path_factory.mktemp("tagged")
    sources = {kind: originals / kind for kind in KINDS}
    sources["true with APEv2.tta"] = folder / "ffmpeg.tta"
    encode(folder / "ffmpeg.tta", "tta", 22050, "tta")  # with an APEv2 tag of its encoder's name
    sources["true.tta"] = Path(shutil.copy(folder / "ffmpeg.tta", folder / "bare.tta"))
    delete(folder / "bare.tta")
    sources |= {"monkey.ape": MONKEY} if MONKEY.exists() else {}
    for kind, source in sources.items():
        copy_with_genres(source, folder / "plain" / kind, GENRES)
        copy_with_genres(source, folder / "noted" / kind, GENRES, custom_tags=NOTES)
    return folder


Shown = tuple[object, dict[str, str]]  # genres as a reader has them; notes


def by_ffprobe(path: Path) -> Shown:
    asked = ["ffprobe", "-v", "error", "-show_entries", "format_tags:stream_tags", "-of", "json", str(path)]
    shown = json.loads(subprocess.run(asked, check=True, capture_output=True).stdout)
    texts = {**shown["format"].get("tags", {}), **shown["streams"][0].get("tags", {})}
    genres = [text for key, text in texts.items() if key.lower() in ("genre", "wm/genre")]
    assert len(genres) < 2
    return (genres or [NOTHING])[0], notes_of(texts)


def by_taglib(path: Path) -> Shown:
    with taglib.File(path) as file:
        return file.tags.get("GENRE"), notes_of({name: ";".join(texts) for name, texts in file.tags.items()})


def by_mediainfo(folder: Path) -> dict[Path, Shown]:
    """Ask once for all the files of a folder: {path: what is shown}."""
    asked = subprocess.run(
        ["mediainfo", "--Output=JSON", *map(str, sorted(folder.iterdir()))],
        check=True,
        capture_output=True,
        env={**os.environ, "LC_ALL": "C.UTF-8"},
    )
    shown = {}
    for answer in json.loads(asked.stdout):
        general = next(it for it in answer["media"]["track"] if it["@type"] == "General")
        shown[Path(answer["media"]["@ref"])] = (general.get("Genre"), notes_of(general.get("extra", {})))
    return shown


def notes_of(texts: dict[str, str]) -> dict[str, str]:
    return {name: text for name, text in texts.items() if name.startswith("GENRE_")}


@pytest.fixture(scope="module")
def readers(tagged, need) -> Callable[[str, Path], Shown]:
    """Return `readers(name, path)`: what a reader shows of a file."""
    answers: dict[Path, Shown] = {}

    def read(name: str, path: Path) -> Shown:
        match name:
            case "ffprobe":
                need(shutil.which("ffprobe"), "ffprobe is not installed")
                return by_ffprobe(path)
            case "taglib":
                return by_taglib(path)
        need(shutil.which("mediainfo"), "mediainfo is not installed")
        if path not in answers:
            answers.update(by_mediainfo(path.parent))
        return answers[path]

    return read


@pytest.mark.parametrize("kind", SHOWN)
@pytest.mark.parametrize("reader", READERS)
def test_other_programs_show_the_genres(kind, reader, tagged, readers, need):
    need(kind != "monkey.ape" or MONKEY.exists(), f"{MONKEY} is not here")
    expected = SHOWN[kind][READERS.index(reader)]
    assert readers(reader, tagged / "plain" / kind) == (expected, {})
    custom_tags = {} if expected is NOTHING or (reader, kind) in NO_NOTES else NOTES
    assert readers(reader, tagged / "noted" / kind) == (expected, custom_tags)


@pytest.mark.parametrize("kind", SHOWN)
def test_ours_shows_all(kind, tagged, need):
    need(kind != "monkey.ape" or MONKEY.exists(), f"{MONKEY} is not here")
    for folder, custom_tags in (("plain", {}), ("noted", NOTES)):
        view = read_tags(tagged / folder / kind)
        assert (view.genres, view.custom_tags) == (GENRES, custom_tags)
