import csv
import hashlib
import shutil
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import fsspec
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from preprocessing.catalogue.duplicates import add_duplicate_groups
from preprocessing.catalogue.settings import CatalogueSettings, SplitSettings
from preprocessing.catalogue.source_counts import SourceCounts
from preprocessing.catalogue.sources import CATALOGUE_SCHEMA, read_catalogue
from preprocessing.catalogue.splits import split_tracks
from store.dataset.recipe import Recipe
from store.dataset.snapshots import INDEX_SCHEMA, publish, put_catalogue
from store.errors import BadInput
from store.fs.files import read_bytes
from store.reader import open_snapshot
from tests.support.audio_folders import write_files, zip_folder

DEMO = Path("tests/data/demo_music")
AUTO = CatalogueSettings()
PLACES = ["url", "signature"]  # what depends on where the files lie
CHECKED = CatalogueSettings(verify_checksums=True)


@pytest.fixture
def fma(tmp_path: Path) -> Path:
    """Make FMA's layout with the demo's tables; the audio is empty, since only names and sizes are read."""
    shutil.copytree(DEMO / "fma_metadata", tmp_path / "fma/fma_metadata", copy_function=shutil.copyfile)
    write_files(tmp_path / "fma/fma_small", [f"200/{path.name}" for path in DEMO.glob("fma_small/200/*.mp3")])
    return tmp_path / "fma"


def change_table(path: Path, change: Callable[[list[list[str]]], object]) -> None:
    """Read a CSV file, change its rows in place, and write it back."""
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))
    change(rows)
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)


def set_cell(fma: Path, track: int, column: str, text: str) -> None:
    """Overwrite one cell of tracks.csv, `column` as in "track.title", `track` counted from 0."""

    def change(rows: list[list[str]]) -> None:
        names = [".".join(pair) for pair in zip(rows[0], rows[1], strict=True)]
        rows[3 + track][names.index(column) if "." in column else 0] = text

    change_table(fma / "fma_metadata/tracks.csv", change)


def test_files_without_a_track_and_tracks_without_a_file_are_counted(fma):
    write_files(fma / "fma_small", ["999/999999.mp3", "200/notes.txt", "@eaDir/200001.mp3"])
    (fma / "fma_small/200/200001.mp3").unlink()
    counts = SourceCounts()
    table = read_catalogue(str(fma), AUTO, counts=counts)
    assert (len(table), counts.missing, counts.not_in_catalogue, counts.audio) == (51, 1, 1, 51)
    assert counts.line({"with a spectrogram": 50}) == (
        "all files of the source (53): 50 with a spectrogram, 1 not in the table of tracks, "
        "1 not audio (1 .txt), 1 excluded (1 nas-index)"
    )


def test_the_demo_music_is_read_as_published():
    table = read_catalogue(str(DEMO), AUTO)
    assert table.schema.equals(CATALOGUE_SCHEMA)
    assert table["track_id"].to_pylist() == [str(number) for number in range(200001, 200052)]
    status = (DEMO / "fma_small/200/200048.mp3").stat()
    assert table.slice(47, 1).to_pylist() == [
        {
            "track_id": "200048",
            "url": str(DEMO.absolute() / "fma_small/200/200048.mp3"),
            "size_bytes": status.st_size,
            "artist": "Wildfire Games",
            "album": "Wildfire Games",
            "title": "Rise of Macedon",
            "genres": ["Instrumental", "Soundtrack"],
            "genre_top": "Instrumental",
            "split": "test",
            "duration_s": 24.0,
            "signature": f"{status.st_size}-{status.st_mtime_ns}",
            "sha1": None,
            "duplicate_group": None,
        }
    ]
    assert table["split"].to_pylist().count("test") == 12


def test_the_genre_tree_travels_with_the_catalogue_all_the_way_into_a_snapshot(tmp_path):
    table = read_catalogue(str(DEMO), AUTO)
    own_artist = table.set_column(table.schema.get_field_index("artist"), "artist", table["track_id"])
    answers = pa.Table.from_pylist([{}] * len(table), INDEX_SCHEMA)
    for mode in ("official", "artist", "none"):
        split = split_tracks(own_artist, SplitSettings(mode=mode))
        root = str(tmp_path / mode)
        publish(
            root,
            parent=None,
            shards=[],
            index=INDEX_SCHEMA.empty_table(),
            catalogue=put_catalogue(root, add_duplicate_groups(split, answers)),
            recipe=Recipe({}, "", "float16", {}),
            settings={},
        )
        parents = open_snapshot(root).genre_parents
        assert (parents["Krautrock"], parents["Death-Metal"]) == ("Rock", "Metal")
        assert "Rock" not in parents


def test_metadata_may_lie_beside_the_audio_folder(fma):
    expected = read_catalogue(str(fma), AUTO)
    for path in (fma / "fma_metadata").iterdir():
        path.rename(fma / path.name)
    assert read_catalogue(str(fma), AUTO).equals(expected)


def test_a_catalogue_on_another_file_system_has_its_urls(fma):
    fsspec.filesystem("memory").put(str(fma), "/catalogue-fma", recursive=True)
    table = read_catalogue("memory://catalogue-fma", AUTO)
    assert table["url"][0].as_py() == "memory://catalogue-fma/fma_small/200/200001.mp3"
    local = read_catalogue(str(fma), AUTO)
    assert table["signature"].null_count == len(table)
    assert table.drop_columns(PLACES).equals(local.drop_columns(PLACES))


def test_ids_are_sorted_as_numbers(fma):
    set_cell(fma, 50, "track_id", "7")
    write_files(fma / "fma_small", ["000/000007.mp3"])
    assert read_catalogue(str(fma), AUTO)["track_id"].to_pylist()[:2] == ["7", "200001"]


def test_fields_of_several_lines_and_blank_fields(fma):
    set_cell(fma, 0, "track.title", "two\nlines")
    set_cell(fma, 1, "track.title", "  ")
    set_cell(fma, 1, "track.genre_top", "")
    set_cell(fma, 1, "track.genres_all", "[]")
    set_cell(fma, 1, "track.duration", "")
    set_cell(fma, 1, "set.split", "")
    set_cell(fma, 0, "artist.bio", 'She said "no",\nthen:\r\n\n"yes, ' + "x" * 100_000)
    first, second = read_catalogue(str(fma), AUTO).slice(0, 2).to_pylist()
    assert first["title"] == "two\nlines"
    assert [second[name] for name in ("title", "genre_top", "genres", "duration_s", "split")] == [None] * 5


def test_tables_longer_than_a_block_of_the_reader(fma):
    def lengthen(rows: list[list[str]]) -> None:
        for row in rows[3:8]:
            row[rows[1].index("bio")] = "a line\n" * 700_000

    change_table(fma / "fma_metadata/tracks.csv", lengthen)
    assert len(read_catalogue(str(fma), AUTO)) == 51


def test_genres_are_closed_over_the_tree(fma):
    set_cell(fma, 0, "track.genres_all", "[89]")  # Post-Punk, below Punk, below Rock
    assert read_catalogue(str(fma), AUTO)["genres"][0].as_py() == ["Post-Punk", "Punk", "Rock"]


def test_a_track_whose_file_is_not_there_is_listed_without_a_size(fma):
    (fma / "fma_small/200/200002.mp3").unlink()
    table = read_catalogue(str(fma), AUTO)
    assert len(table) == 51
    assert table["size_bytes"].to_pylist()[:3] == [0, None, 0]
    assert pc.is_valid(table["signature"]).to_pylist()[:3] == [True, False, True]
    assert table["url"][1].as_py() == str(fma / "fma_small/200/200002.mp3")


def test_subsets_nest_and_the_largest_that_is_there_is_read(fma):
    set_cell(fma, 1, "set.subset", "medium")
    set_cell(fma, 2, "set.subset", "large")
    shutil.copytree(fma / "fma_small", fma / "fma_medium")
    assert len(read_catalogue(str(fma), CatalogueSettings(subset="small"))) == 49
    table = read_catalogue(str(fma), AUTO)
    assert len(table) == 50
    assert table["url"][0].as_py() == str(fma / "fma_medium/200/200001.mp3")
    (fma / "fma_medium").rename(fma / "fma_full")
    assert len(read_catalogue(str(fma), AUTO)) == 51


@pytest.mark.parametrize(
    ("column", "text", "message"),
    [
        ("track_id", "200001", r"tracks\.csv: track 200001 is there 2 times"),
        ("track_id", "", r"tracks\.csv: data row 2 has no track_id"),
        ("track_id", "two", r"tracks\.csv: In CSV column #0: .* invalid value 'two'; wanted"),
        ("track.duration", "4:33", r"tracks\.csv: In CSV column #38: .* '4:33'; wanted"),
        ("track.genres_all", "[12, 9999]", r"track 200002 has genre 9999, which .*genres\.csv does not list"),
        ("track.genres_all", "Rock", r"track 200002 has genres_all 'Rock'; wanted a list like \[12, 85\]"),
        ("set.split", "train", r"tracks\.csv: found the split 'train'; wanted training, validation, test"),
        ("set.subset", "tiny", r"track 200002 is in the subset 'tiny'; wanted small, medium, large, full"),
    ],
)
def test_a_cell_of_tracks_csv_that_cannot_be_used_is_named(fma, column, text, message):
    set_cell(fma, 1, column, text)
    with pytest.raises(BadInput, match=message):
        read_catalogue(str(fma), AUTO)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: rows.pop(0), "begins with ',comments,date_created.*three header rows"),
        (lambda rows: rows.__delitem__(slice(0, 2)), "begins with 'track_id,.*three header rows"),
        (lambda rows: rows.__delitem__(slice(2, None)), "three header rows"),
        (lambda rows: rows.clear(), "begins with ''; wanted .*three header rows"),
        (lambda rows: [row.pop() for row in rows], r"no column track\.title"),
        (lambda rows: rows[1].__setitem__(31, "piece"), r"no column set\.split"),
        (lambda rows: rows[5].pop(), "Expected 53 columns, got 52"),
        (lambda rows: rows.__delitem__(slice(3, None)), "no track of the subset small"),
    ],
)
def test_a_tracks_csv_of_another_shape_is_bad_input(fma, change, message):
    change_table(fma / "fma_metadata/tracks.csv", change)
    with pytest.raises(BadInput, match=rf"tracks\.csv: .*{message}") as caught:
        read_catalogue(str(fma), AUTO)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"\xff\xfe\x00\x01" * 100, b"\x89PNG\x00" * 100, b"x" * 200_000])
def test_a_tracks_csv_that_is_no_table_is_bad_input(fma, content):
    (fma / "fma_metadata/tracks.csv").write_bytes(content)
    with pytest.raises(BadInput, match=r"tracks\.csv: .*wanted FMA's tracks\.csv"):
        read_catalogue(str(fma), AUTO)


def test_a_tracks_csv_that_is_not_utf_8_below_its_header_is_bad_input(fma):
    path = fma / "fma_metadata/tracks.csv"
    path.write_bytes(path.read_bytes().replace(b"Rise of Macedon", b"Rise of Mac\xe9don"))
    with pytest.raises(BadInput, match=r"tracks\.csv: .*UTF8"):
        read_catalogue(str(fma), AUTO)


def test_a_subset_that_is_not_there_is_bad_input(fma):
    with pytest.raises(BadInput, match=r"found fma_small; wanted fma_large; put FMA.* or choose a subset"):
        read_catalogue(str(fma), CatalogueSettings(subset="large"))
    shutil.rmtree(fma / "fma_small")
    with pytest.raises(BadInput, match=r"found no folder fma_\*; wanted fma_small, fma_medium"):
        read_catalogue(str(fma), AUTO)


def test_audio_of_another_collection_is_bad_input(fma):
    (fma / "fma_small/200").rename(fma / "fma_small/201")
    with pytest.raises(BadInput, match=r"none of the 51 tracks in .*; wanted files like 200/200001\.mp3"):
        read_catalogue(str(fma), AUTO)


def test_fma_without_its_metadata_is_bad_input(tmp_path):
    with pytest.raises(
        BadInput,
        match=r"no fma_metadata/tracks\.csv and no tracks\.csv; .*put fma_metadata\.zip there or unpack",
    ):
        read_catalogue(str(tmp_path), CatalogueSettings(kind="fma"))
    with pytest.raises(BadInput, match="missing: no such folder"):
        read_catalogue(str(tmp_path / "missing"), CatalogueSettings(kind="fma"))


# Archives, as published


@pytest.fixture
def published(fma: Path) -> Path:
    """Pack metadata and audio as FMA does, with bzip2; the folders go."""
    write_files(fma / "fma_small", ["200/200001.mp3"], b"the first")
    for name in ("fma_metadata", "fma_small"):
        zip_folder(fma / name, fma / f"{name}.zip", zipfile.ZIP_BZIP2)
        shutil.rmtree(fma / name)
    return fma


def test_published_archives_are_read_in_place(published, fma):
    table = read_catalogue(str(published), AUTO)
    assert len(table) == 51
    first = table.slice(0, 1).to_pylist()[0]
    assert first["url"] == f"zip://fma_small/200/200001.mp3::{published}/fma_small.zip"
    assert first["size_bytes"] == 9
    assert first["signature"] == f"9-{zlib.crc32(b'the first'):08x}"
    assert read_bytes(first["url"]) == b"the first"
    assert sorted(path.name for path in published.iterdir()) == ["fma_metadata.zip", "fma_small.zip"]


def test_archives_say_the_same_as_folders(published):
    packed = read_catalogue(str(published), AUTO)
    for name in ("fma_metadata", "fma_small"):  # one after the other: either may be unpacked
        with zipfile.ZipFile(published / f"{name}.zip") as archive:
            archive.extractall(published)
        (published / f"{name}.zip").unlink()
        table = read_catalogue(str(published), AUTO)
        assert table.drop_columns(PLACES).equals(packed.drop_columns(PLACES))
    assert table["url"][0].as_py() == str(published / "fma_small/200/200001.mp3")


def test_the_largest_archive_is_read_and_a_folder_before_its_archive(published):
    shutil.copy(published / "fma_small.zip", published / "fma_large.zip")
    with pytest.raises(BadInput, match=r"zip://fma_large::.*/fma_large\.zip: no such file or folder"):
        read_catalogue(str(published), AUTO)
    chosen = read_catalogue(str(published), CatalogueSettings(subset="small"))
    assert chosen["url"][0].as_py().endswith("fma_small.zip")
    write_files(published / "fma_small", ["200/200001.mp3"])
    chosen = read_catalogue(str(published), CatalogueSettings(subset="small"))
    assert chosen["url"][0].as_py() == str(published / "fma_small/200/200001.mp3")


def test_archives_lie_anywhere(published, s3_url, http_url, tmp_path):
    expected = read_catalogue(str(published), AUTO)
    for archive in published.iterdir():
        fsspec.open(s3_url).fs.put_file(str(archive), f"{s3_url}/fma/{archive.name}")
        shutil.copy(archive, tmp_path / "served")
    for source in (f"{s3_url}/fma", http_url):
        table = read_catalogue(source, AUTO)
        assert table["url"][0].as_py() == f"zip://fma_small/200/200001.mp3::{source}/fma_small.zip"
        assert read_bytes(table["url"][0].as_py()) == b"the first"
        assert table.drop_columns("url").equals(expected.drop_columns("url"))


def test_folders_lie_on_a_web_server_too(fma, http_url, tmp_path):
    expected = read_catalogue(str(fma), CatalogueSettings())
    shutil.copytree(fma, tmp_path / "served/my music")
    table = read_catalogue(f"{http_url}/my music", AUTO)
    assert table["url"][0].as_py() == f"{http_url}/my music/fma_small/200/200001.mp3"
    assert table["size_bytes"].null_count == 51
    places = [*PLACES, "size_bytes"]
    assert table.drop_columns(places).equals(expected.drop_columns(places))


@pytest.mark.parametrize("root", ["fma/", ""])
def test_one_archive_may_hold_all(fma, root, tmp_path):
    expected = read_catalogue(str(fma), AUTO)
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        for path in fma.rglob("*.*"):
            archive.write(path, f"{root}{path.relative_to(fma)}")
    table = read_catalogue(str(tmp_path / "all.zip"), AUTO)
    assert table["url"][0].as_py() == f"zip://{root}fma_small/200/200001.mp3::{tmp_path}/all.zip"
    assert table.drop_columns(PLACES).equals(expected.drop_columns(PLACES))


@pytest.mark.parametrize("name", ["fma_metadata.zip", "fma_small.zip"])
def test_an_archive_that_is_cut_short_is_bad_input(published, name):
    content = (published / name).read_bytes()
    (published / name).write_bytes(content[: len(content) // 2])
    with pytest.raises(BadInput, match=rf"/{name}: cannot be read as a zip archive .*; wanted") as caught:
        read_catalogue(str(published), AUTO)
    assert "\n" not in str(caught.value)


def test_metadata_that_is_damaged_in_its_archive_is_bad_input(published):
    content = bytearray((published / "fma_metadata.zip").read_bytes())
    with zipfile.ZipFile(published / "fma_metadata.zip") as archive:
        tracks = archive.getinfo("fma_metadata/tracks.csv")
    content[tracks.header_offset + tracks.compress_size // 2] ^= 0xFF
    (published / "fma_metadata.zip").write_bytes(content)
    with pytest.raises(BadInput, match=r"zip://fma_metadata/tracks\.csv::.*: cannot be unpacked"):
        read_catalogue(str(published), AUTO)


# Checksums


def write_checksums(fma: Path) -> dict[str, str]:
    """Write what FMA publishes beside its audio; return the sums by track_id."""
    paths = sorted(fma.glob("fma_small/200/*.mp3"))
    sums = {path.stem: hashlib.sha1(path.read_bytes() + path.name.encode()).hexdigest() for path in paths}
    lines = [f"{sums[path.stem]}  200/{path.name}\n" for path in paths]
    (fma / "fma_small/checksums").write_text("".join(reversed(lines)))
    return sums


@pytest.mark.parametrize("packed", [False, True])
def test_published_checksums_are_read_when_asked_for(fma, packed):
    sums = write_checksums(fma)
    if packed:
        zip_folder(fma / "fma_small", fma / "fma_small.zip", zipfile.ZIP_DEFLATED)
        shutil.rmtree(fma / "fma_small")
    table = read_catalogue(str(fma), CHECKED)
    assert dict(zip(table["track_id"].to_pylist(), table["sha1"].to_pylist(), strict=True)) == sums
    assert read_catalogue(str(fma), AUTO)["sha1"].null_count == len(table)


def test_a_track_without_a_checksum_has_none(fma):
    write_checksums(fma)
    path = fma / "fma_small/checksums"
    first, *others = path.read_text().splitlines()
    path.write_text("\n".join([first.replace("200051", "200999"), others[0].upper().replace(".MP3", ".mp3")]))
    sums = read_catalogue(str(fma), CHECKED)["sha1"].to_pylist()
    assert sums == [None] * 49 + [others[0][:40], None]


@pytest.mark.parametrize(
    "line", ["", "0" * 39 + "  200/200001.mp3", "g" * 40 + "  a.mp3", "0" * 40 + " a.mp3", "0" * 40 + "  "]
)
def test_a_malformed_checksum_is_bad_input(fma, line):
    write_checksums(fma)
    path = fma / "fma_small/checksums"
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines[:2], line, *lines[2:]]))
    with pytest.raises(
        BadInput, match=rf"checksums: line 3 is {line[:60]!r}; wanted 40 hex digits"
    ) as caught:
        read_catalogue(str(fma), CHECKED)
    assert "\n" not in str(caught.value)


def test_checksums_that_are_not_there_are_bad_input(fma, tmp_path):
    with pytest.raises(BadInput, match=r"fma_small/checksums: no such file; wanted FMA's checksums"):
        read_catalogue(str(fma), CHECKED)
    (fma / "fma_small/checksums").write_bytes(b"\xff\xfe")
    with pytest.raises(BadInput, match=r"checksums: not a list of checksums"):
        read_catalogue(str(fma), CHECKED)
    write_files(tmp_path / "flat", ["a.mp3"])
    with pytest.raises(BadInput, match=r"flat: not FMA's layout, and only FMA publishes checksums"):
        read_catalogue(str(tmp_path / "flat"), CHECKED)


def test_a_missing_genre_tree_is_bad_input(fma):
    (fma / "fma_metadata/genres.csv").unlink()
    with pytest.raises(BadInput, match=r"genres\.csv: no such file; wanted FMA's genres"):
        read_catalogue(str(fma), AUTO)
