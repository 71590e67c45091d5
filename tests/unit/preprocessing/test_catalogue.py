import csv
import shutil
from collections.abc import Callable
from pathlib import Path

import fsspec
import mutagen.id3
import pytest
from hypothesis import given
from hypothesis import strategies as st

from preprocessing.catalogue import (
    CATALOGUE_SCHEMA,
    CatalogueSettings,
    Genre,
    read_catalogue,
    read_genre_tree,
    with_ancestors,
)
from preprocessing.splits import SplitSettings
from store.errors import BadInput

DEMO = Path("tests/data/demo_music")
FMA_GENRES = Path("../shared/data/fma_real/genres.csv")
AUTO = CatalogueSettings()
UNSPLIT = SplitSettings(mode="none")


@pytest.fixture
def fma(tmp_path: Path) -> Path:
    """Make FMA's layout with the demo's tables; the audio is empty, since only names and sizes are read."""
    shutil.copytree(DEMO / "fma_metadata", tmp_path / "fma/fma_metadata", copy_function=shutil.copyfile)
    fill(tmp_path / "fma/fma_small", [f"200/{path.name}" for path in DEMO.glob("fma_small/200/*.mp3")])
    return tmp_path / "fma"


def fill(folder: Path, names: list[str], content: bytes = b"") -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


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


# FMA


def test_the_demo_music_is_read_as_published():
    table = read_catalogue(str(DEMO), AUTO)
    assert table.schema.equals(CATALOGUE_SCHEMA)
    assert table["track_id"].to_pylist() == [str(number) for number in range(200001, 200052)]
    assert table.slice(47, 1).to_pylist() == [
        {
            "track_id": "200048",
            "url": str(DEMO.absolute() / "fma_small/200/200048.mp3"),
            "size_bytes": (DEMO / "fma_small/200/200048.mp3").stat().st_size,
            "artist": "Wildfire Games",
            "album": "Wildfire Games",
            "title": "Rise of Macedon",
            "genres": ["Instrumental", "Soundtrack"],
            "genre_top": "Instrumental",
            "split": "test",
            "duration_s": 24.0,
        }
    ]
    assert table["split"].to_pylist().count("test") == 12


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
    assert table.drop_columns("url").equals(local.drop_columns("url"))


def test_ids_are_sorted_as_numbers(fma):
    set_cell(fma, 50, "track_id", "7")
    fill(fma / "fma_small", ["000/000007.mp3"])
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
    with pytest.raises(BadInput, match=r"found fma_small; wanted fma_large; unpack .* or choose a subset"):
        read_catalogue(str(fma), CatalogueSettings(subset="large"))
    shutil.rmtree(fma / "fma_small")
    with pytest.raises(BadInput, match=r"found no folder fma_\*; wanted fma_small, fma_medium"):
        read_catalogue(str(fma), AUTO)


def test_audio_of_another_collection_is_bad_input(fma):
    (fma / "fma_small/200").rename(fma / "fma_small/201")
    with pytest.raises(BadInput, match=r"none of the 51 tracks in .*; wanted files like 200/200001\.mp3"):
        read_catalogue(str(fma), AUTO)


def test_fma_without_its_metadata_is_bad_input(tmp_path):
    with pytest.raises(BadInput, match=r"no fma_metadata/tracks\.csv and no tracks\.csv; .* unpack"):
        read_catalogue(str(tmp_path), CatalogueSettings(kind="fma"))
    with pytest.raises(BadInput, match="missing: no such folder"):
        read_catalogue(str(tmp_path / "missing"), CatalogueSettings(kind="fma"))


# The genre tree


def test_fmas_own_genre_tree(need):
    need(FMA_GENRES.is_file(), "../shared/data/fma_real is not here")
    tree = read_genre_tree(str(FMA_GENRES))
    assert len(tree) == 163
    assert sum(genre.parent_id is None for genre in tree.values()) == 16
    assert {tree[each].title for each in with_ancestors([89], tree)} == {"Post-Punk", "Punk", "Rock"}
    assert {tree[each].title for each in tree if tree[each].title.startswith("Old-Time")} == {
        "Old-Time / Historic"
    }


@given(data=st.data(), size=st.integers(1, 30))
def test_a_closure_holds_every_parent_and_closing_twice_changes_nothing(data, size):
    tree = {}
    for number in range(size):
        parent = data.draw(st.none() | st.integers(0, number - 1)) if number else None
        tree[number] = Genre(number, parent, f"genre {number}")
    chosen = data.draw(st.sets(st.sampled_from(range(size))))
    closed = with_ancestors(chosen, tree)
    assert chosen <= closed
    assert {tree[each].parent_id for each in closed} - {None} <= closed
    assert with_ancestors(closed, tree) == closed


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("genre_id,title\n1,Rock\n", r"not a genre tree \('parent'\); wanted the columns genre_id, parent"),
        ("genre_id,parent,title\none,0,Rock\n", "not a genre tree .*'one'"),
        ("genre_id,parent,title\n1\n", "not a genre tree"),
        ("genre_id,parent,title\n1,2,Punk\n", r"genre 1 \(Punk\) leads to parent 2, .* to no root"),
        ("genre_id,parent,title\n1,2,Punk\n2,1,Rock\n", r"genre 1 \(Punk\) leads to parent \d, .* no root"),
    ],
)
def test_a_genre_tree_that_cannot_be_used_is_bad_input(tmp_path, text, message):
    path = tmp_path / "genres.csv"
    path.write_text(text)
    with pytest.raises(BadInput, match=rf"genres\.csv: .*{message}"):
        read_genre_tree(str(path))


def test_a_missing_genre_tree_is_bad_input(fma):
    (fma / "fma_metadata/genres.csv").unlink()
    with pytest.raises(BadInput, match=r"genres\.csv: no such file; wanted FMA's genres"):
        read_catalogue(str(fma), AUTO)


# Folders


def test_a_folder_per_genre_labels_its_tracks(tmp_path):
    for number, name in enumerate(("Rock/a.mp3", "Rock/b.mp3", "Electronic/c.mp3", "d.mp3")):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copyfile(DEMO / f"fma_small/200/20000{number + 1}.mp3", tmp_path / name)
    settings = CatalogueSettings(kind="folder-per-genre", split=UNSPLIT)
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
    fill(tmp_path, names[:1])
    fill(tmp_path, names[1:2], b"<!DOCTYPE html><html></html>")
    shutil.copyfile(DEMO / "fma_small/200/200001.mp3", tmp_path / "Rock/tagged.mp3")
    tags = mutagen.id3.ID3()
    for frame in (mutagen.id3.TPE1, mutagen.id3.TALB, mutagen.id3.TIT2):
        tags.add(frame(text=[f"the {frame.__name__}"]))
    tags.save(tmp_path / "Rock/tagged.mp3")
    (tmp_path / "Rock/up.mp3").symlink_to(tmp_path / "missing.mp3")
    settings = CatalogueSettings(kind="folder-per-genre", split=UNSPLIT)
    table = read_catalogue(str(tmp_path), settings)
    assert table["track_id"].to_pylist() == names
    assert table["artist"].to_pylist() == [None, None, "the TPE1", None]
    assert table["album"].to_pylist() == [None, None, "the TALB", None]
    assert table["title"].to_pylist() == [None, None, "the TIT2", None]


def test_a_folder_per_genre_is_split_so_that_each_genre_is_everywhere():
    files = {f"/catalogue-folders/{genre}/{n}.mp3": b"x" for genre in ("jazz", "metal") for n in range(20)}
    fsspec.filesystem("memory").pipe(files)
    table = read_catalogue("memory://catalogue-folders", AUTO)
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
    table = read_catalogue(f"memory://{root}", CatalogueSettings(split=UNSPLIT))
    assert len(table) == len(names)
    assert (table["genre_top"].null_count == 0) == labelled
    assert (table["genres"].null_count == 0) == labelled


def test_only_visible_audio_is_a_track(tmp_path):
    fill(tmp_path, ["a/b/x.MP3", "y.flac", "z.opus", "a/.hidden.mp3", ".trash/q.mp3", "a.jpg", "w.wv"])
    table = read_catalogue(str(tmp_path), AUTO)
    assert table["track_id"].to_pylist() == ["a/b/x.MP3", "y.flac", "z.opus"]
    assert (
        table.drop_columns(["track_id", "url", "size_bytes"]).to_pylist()
        == [dict.fromkeys(CATALOGUE_SCHEMA.names[3:])] * 3
    )


def test_folders_that_hold_no_tracks_are_bad_input(tmp_path):
    with pytest.raises(BadInput, match=": 0 files, none of them audio; wanted"):
        read_catalogue(str(tmp_path), AUTO)
    fill(tmp_path, ["cover.jpg"])
    with pytest.raises(BadInput, match=r": 1 files, none of them audio; wanted \.mp3"):
        read_catalogue(str(tmp_path), AUTO)
    with pytest.raises(BadInput, match="missing: no such folder; check"):
        read_catalogue(str(tmp_path / "missing"), AUTO)
    with pytest.raises(BadInput, match=r"cover\.jpg: this is a file; wanted a folder"):
        read_catalogue(str(tmp_path / "cover.jpg"), AUTO)


def test_a_file_name_that_is_no_text_is_bad_input(tmp_path):
    fill(tmp_path, ["a.mp3", "caf\udce9.mp3"])
    with pytest.raises(BadInput, match=r"1 files are not UTF-8, the first 'caf\\udce9\.mp3'; .*rename"):
        read_catalogue(str(tmp_path), AUTO)
