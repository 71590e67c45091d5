import shutil
import zipfile
from pathlib import Path

import boto3
import fsspec
import mutagen.id3
import pytest

from preprocessing.catalogue.settings import CatalogueSettings
from preprocessing.catalogue.source_counts import SourceCounts
from preprocessing.catalogue.sources import CATALOGUE_SCHEMA, read_catalogue
from preprocessing.catalogue.splits import split_tracks
from store.errors import BadInput
from store.fs.files import read_bytes
from tests.support.audio_folders import write_files, zip_folder

DEMO = Path("tests/data/demo_music")
AUTO = CatalogueSettings()


def test_a_folder_per_genre_labels_its_tracks(tmp_path):
    for number, name in enumerate(("Rock/a.mp3", "Rock/b.mp3", "Electronic/c.mp3", "d.mp3")):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copyfile(DEMO / f"fma_small/200/20000{number + 1}.mp3", tmp_path / name)
    settings = CatalogueSettings(kind="folder-per-genre")
    rows = read_catalogue(str(tmp_path), settings).to_pylist()
    assert [(row["track_id"], row["genre_top"], row["genres"]) for row in rows] == [
        ("Electronic/c.mp3", "Electronic", ["Electronic"]),
        ("Rock/a.mp3", "Rock", ["Rock"]),
        ("Rock/b.mp3", "Rock", ["Rock"]),
        ("d.mp3", None, None),
    ]
    assert rows[1]["url"] == str(tmp_path / "Rock/a.mp3")
    assert rows[1]["size_bytes"] == (tmp_path / "Rock/a.mp3").stat().st_size
    assert {row["split"] for row in rows} == {None}


def test_credits_come_from_the_tags_and_files_without_them_are_tracks_too(tmp_path):
    names = ["Rock/empty.mp3", "Rock/page.mp3", "Rock/tagged.mp3", "Rock/up.mp3"]
    write_files(tmp_path, names[:1])
    write_files(tmp_path, names[1:2], b"<!DOCTYPE html><html></html>")
    shutil.copyfile(DEMO / "fma_small/200/200001.mp3", tmp_path / "Rock/tagged.mp3")
    tags = mutagen.id3.ID3()
    for frame in (mutagen.id3.TPE1, mutagen.id3.TALB, mutagen.id3.TIT2):
        tags.add(frame(text=[f"the {frame.__name__}"]))
    tags.save(tmp_path / "Rock/tagged.mp3")
    (tmp_path / "Rock/up.mp3").symlink_to(tmp_path / "missing.mp3")
    settings = CatalogueSettings(kind="folder-per-genre")
    table = read_catalogue(str(tmp_path), settings)
    assert table["track_id"].to_pylist() == names
    assert table["artist"].to_pylist() == [None, None, "the TPE1", None]
    assert table["album"].to_pylist() == [None, None, "the TALB", None]
    assert table["title"].to_pylist() == [None, None, "the TIT2", None]


def test_a_folder_per_genre_is_split_so_that_each_genre_is_everywhere():
    files = {f"/catalogue-folders/{genre}/{n}.mp3": b"x" for genre in ("jazz", "metal") for n in range(20)}
    fsspec.filesystem("memory").pipe(files)
    table = read_catalogue("memory://catalogue-folders", AUTO)
    assert table["split"].null_count == len(table), "it comes with none"
    table = split_tracks(table, AUTO.split)
    assert sorted(table["split"].to_pylist()) == ["test"] * 4 + ["training"] * 32 + ["validation"] * 4


@pytest.mark.parametrize(
    ("names", "labelled"),
    [
        (["blues/blues.00000.wav", "hiphop/hiphop.00000.wav"], True),
        (["Hip-Hop/a.mp3", "Old-Time _ Historic/b.mp3", "Forró/c.mp3"], True),
        (["Rock/a.mp3", "Rock/b.mp3"], False),
        (["Rock/a.mp3", "Björk/b.mp3"], False),
        (["Björk/a.mp3", "Low/b.mp3"], False),
        (["Rock/a.mp3", "Jazz/b.mp3", "c.mp3"], False),
        (["Rock/a.mp3", "Jazz/x/b.mp3"], False),
    ],
)
def test_folders_are_taken_for_genres_only_if_most_are_named_so(names, labelled):
    root = f"catalogue-auto-{abs(hash(tuple(names)))}"
    fsspec.filesystem("memory").pipe({f"/{root}/{name}": b"x" for name in names})
    table = read_catalogue(f"memory://{root}", AUTO)
    assert len(table) == len(names)
    assert (table["genre_top"].null_count == 0) == labelled
    assert (table["genres"].null_count == 0) == labelled


def test_only_audio_that_is_no_junk_is_a_track(tmp_path):
    write_files(tmp_path, ["a/b/x.MP3", "y.flac", "z.opus", "a/._x.MP3", ".trash/q.mp3", "a.jpg", "w.mid"])
    table = read_catalogue(str(tmp_path), AUTO)
    assert table["track_id"].to_pylist() == ["a/b/x.MP3", "y.flac", "z.opus"]
    assert (
        table.drop_columns(["track_id", "url", "size_bytes", "signature"]).to_pylist()
        == [dict.fromkeys(name for name in CATALOGUE_SCHEMA.names[3:] if name != "signature")] * 3
    )


def test_folders_that_hold_no_tracks_are_bad_input(tmp_path):
    with pytest.raises(BadInput, match=": 0 files, none of them audio; wanted"):
        read_catalogue(str(tmp_path), AUTO)
    write_files(tmp_path, ["cover.jpg"])
    with pytest.raises(
        BadInput, match=r": 1 file, none of them audio; 1 not audio \(1 \.jpg\); wanted \.mp3"
    ):
        read_catalogue(str(tmp_path), AUTO)
    with pytest.raises(BadInput, match="missing: no such file or folder; check"):
        read_catalogue(str(tmp_path / "missing"), AUTO)
    with pytest.raises(BadInput, match=r"cover\.jpg: this is a file; wanted a folder"):
        read_catalogue(str(tmp_path / "cover.jpg"), AUTO)


def test_a_file_name_that_is_no_text_is_named_and_the_rest_goes_on(tmp_path):
    write_files(tmp_path, ["a.mp3", "caf\udce9.mp3"])
    counts = SourceCounts()
    assert read_catalogue(str(tmp_path), AUTO, counts=counts)["track_id"].to_pylist() == ["a.mp3"]
    assert counts.unusable == {"name-not-utf-8": 1}


# Other places than a folder of this machine


@pytest.fixture
def music(tmp_path: Path) -> Path:
    names = [f"{genre}/{name}.mp3" for genre in ("Rock", "Jazz", "Hip-Hop") for name in ("a b", "ü#1", "50%")]
    return write_files(tmp_path / "music", [*names, "__MACOSX/Rock/._a b.mp3", "Rock/cover.jpg"], b"abc")


def without_macosx(music: Path) -> Path:
    shutil.rmtree(music / "__MACOSX")
    return music


def test_the_same_tracks_are_found_everywhere(music, s3_url, http_url, tmp_path):
    expected = read_catalogue(str(without_macosx(music)), AUTO)
    assert expected["genre_top"].null_count == 0
    shutil.copytree(music, tmp_path / "served/music")
    for path in music.rglob("*.*"):
        key = f"music/{path.relative_to(music)}"
        boto3.client("s3").upload_file(str(path), s3_url.removeprefix("s3://"), key)
    archive = zip_folder(music, tmp_path / "served/music.zip")
    sources = [f"{s3_url}/music", f"{http_url}/music", str(archive), f"{http_url}/music.zip"]
    for source in (*sources, f"zip://music::{archive}"):
        table = read_catalogue(source, AUTO)
        same = ["track_id", "genres", "genre_top"]
        assert table.select(same).equals(expected.select(same))
        assert {read_bytes(url) for url in table["url"].to_pylist()} == {b"abc"}
        has_signatures = table["signature"].null_count == 0
        assert has_signatures == (table["size_bytes"].null_count == 0) == (source != f"{http_url}/music")


def test_an_archive_packed_with_its_folder_is_that_folder(music, tmp_path):
    settings = CatalogueSettings(kind="flat")
    for folder, first in ((music, "zip://music/Hip-Hop/50%.mp3"), (music / "Jazz", "zip://Jazz/50%.mp3")):
        archive = zip_folder(folder, tmp_path / "packed.ZIP", zipfile.ZIP_DEFLATED)
        table = read_catalogue(str(archive), settings)
        assert table["url"][0].as_py() == f"{first}::{archive}"
        names = [str(path.relative_to(music)) for path in folder.rglob("*.mp3") if "__MAC" not in str(path)]
        assert table["track_id"].to_pylist() == sorted(names)


def test_an_archive_packed_without_its_folder_is_read_as_it_is(music, tmp_path):
    with zipfile.ZipFile(tmp_path / "packed.zip", "w") as archive:
        for path in music.rglob("*.*"):
            archive.write(path, path.relative_to(music))
    table = read_catalogue(str(tmp_path / "packed.zip"), AUTO)
    assert set(table["genre_top"].to_pylist()) == {"Rock", "Jazz", "Hip-Hop"}
    assert table["url"][0].as_py() == f"zip://Hip-Hop/50%.mp3::{tmp_path}/packed.zip"


def test_urls_are_good_in_another_folder(music, tmp_path, monkeypatch):
    zip_folder(music, tmp_path / "music.zip")
    monkeypatch.chdir(tmp_path)
    tables = [
        read_catalogue(source, AUTO) for source in ("music", "music.zip", "zip://music/Rock::music.zip")
    ]
    monkeypatch.chdir("/")
    for table in tables:
        assert {read_bytes(url) for url in table["url"].to_pylist()} == {b"abc"}


def test_a_folder_may_be_named_like_an_archive(tmp_path):
    write_files(tmp_path / "music.zip", ["a.mp3"])
    assert read_catalogue(str(tmp_path / "music.zip"), AUTO)["track_id"].to_pylist() == ["a.mp3"]


def test_an_archive_that_is_none_is_bad_input(tmp_path):
    write_files(tmp_path, ["music.zip"], b"<html></html>")
    with pytest.raises(BadInput, match=r"music\.zip: cannot be read as a zip archive"):
        read_catalogue(str(tmp_path / "music.zip"), AUTO)
    with pytest.raises(BadInput, match=r"missing\.zip: no such file or folder"):
        read_catalogue(str(tmp_path / "missing.zip"), AUTO)
    zipfile.ZipFile(tmp_path / "empty.zip", "w").close()
    with pytest.raises(BadInput, match=r"empty\.zip: 0 files, none of them audio"):
        read_catalogue(str(tmp_path / "empty.zip"), AUTO)


def test_a_name_that_would_split_a_url_is_named_and_the_rest_goes_on(tmp_path):
    write_files(tmp_path / "music", ["a::b.mp3", "c.mp3"], b"abc")
    table = read_catalogue(str(tmp_path / "music"), AUTO)
    assert read_bytes(table["url"][0].as_py()) == b"abc"
    archive = zip_folder(tmp_path / "music", tmp_path / "music.zip")
    counts = SourceCounts()
    assert read_catalogue(str(archive), AUTO, counts=counts)["track_id"].to_pylist() == ["music/c.mp3"]
    assert counts.unusable == {"name-breaks-url": 1}
