import bisect
import random
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from store.fs.listing import FoundFile
from store.tagging.batching import MAX_FILES_IN_WHOLE_FOLDERS, batch_name, iter_batches

PATHS = st.lists(
    st.builds(
        "{}/{}.mp3".format, st.sampled_from(["a", "a/b", "c", "c d", "é"]), st.integers(0, 60)
    ),
    unique=True,
    max_size=120,
).map(sorted)  # fmt: skip


def files(paths: Iterable[str]) -> list[FoundFile]:
    return [FoundFile(path, f"/music/{path}", 1, "1-2-3") for path in paths]


def cut(paths: Iterable[str], **options) -> list[list[str]]:
    return [[file.path for file in batch] for batch in iter_batches(files(paths), **options)]


@given(paths=PATHS, target_size=st.integers(1, 12), keep_folders=st.booleans())
def test_batches_are_the_stream_in_pieces(paths, target_size, keep_folders):
    batches = cut(paths, target_size=target_size, keep_folders=keep_folders)
    assert [path for batch in batches for path in batch] == paths
    assert all(batches)
    if not keep_folders:
        assert max(map(len, batches), default=0) <= 2 * target_size


@given(paths=PATHS, new=st.integers(61, 99), target_size=st.integers(1, 12), keep_folders=st.booleans())
def test_a_new_file_changes_nothing_before_its_batch_nor_after_the_next_natural_border(
    paths, new, target_size, keep_folders
):
    path = f"c/{new}.mp3"
    before = cut(paths, target_size=target_size, keep_folders=keep_folders)
    after = cut(sorted([*paths, path]), target_size=target_size, keep_folders=keep_folders)
    changed = [batch for batch in after if batch not in before]
    at = bisect.bisect(paths, path)
    assert all(batch in before for batch in after if batch[-1] < path and batch is not changed[0])
    # What is cut alone, from any place on, begins a batch: that is a natural border.
    borders = [
        paths[place]
        for place in range(at + 1, len(paths))
        if cut(paths[place - 1 : place + 1], target_size=target_size, keep_folders=keep_folders)
        == [[paths[place - 1]], [paths[place]]]
    ]
    if borders:
        assert all(batch[0] < borders[0] for batch in changed)


def test_one_file_more_or_less_among_many_leaves_nearly_all_batches():
    paths = sorted(f"{number % 97:02}/{number:05}.mp3" for number in range(20_000))
    for keep_folders in (False, True):
        before = cut(paths, keep_folders=keep_folders)
        draw = random.Random(1)
        for _ in range(5):
            gone = draw.randrange(len(paths))
            after = cut(paths[:gone] + paths[gone + 1 :], keep_folders=keep_folders)
            new = {batch[0]: batch for batch in after}
            assert sum(new.get(batch[0]) != batch for batch in before) <= 5


def test_batches_are_about_as_large_as_asked_for():
    batches = cut(f"{number:06}.mp3" for number in range(20_000))
    assert 40 < 20_000 / len(batches) < 90
    assert max(map(len, batches)) == 128


def test_folders_stay_whole():
    paths = [f"{folder:03}/{song:02}.mp3" for folder in range(300) for song in range(folder % 17)]
    batches = cut(paths, keep_folders=True)
    homes: dict[str, int] = {}
    for number, batch in enumerate(batches):
        for path in batch:
            assert homes.setdefault(path.split("/")[0], number) == number
    assert 32 < len(paths) / len(batches) < 160


def test_folders_of_hundreds_are_cut_between_them_and_a_larger_one_within():
    paths = [f"{folder}/{song:04}.mp3" for folder in "abcdef" for song in range(700)]
    paths += [f"g/{song:04}.mp3" for song in range(2_500)]
    batches = cut(paths, target_size=1_000, keep_folders=True)
    assert max(map(len, batches)) == MAX_FILES_IN_WHOLE_FOLDERS
    assert {batch[0] for batch in batches} >= {"b/0000.mp3", "g/0000.mp3", "g/1024.mp3", "g/2048.mp3"}
    assert all(path.endswith("/0000.mp3") for path in (batch[0] for batch in batches) if path[0] < "g")


def test_batches_are_given_before_the_stream_ends():
    def stream():
        yield from files(f"{number}.mp3" for number in range(1_000))
        pytest.fail("more was read than was asked for")

    assert len(next(iter_batches(stream()))) <= 128
    assert len(next(iter_batches(stream(), target_size=1))) <= 2


def test_the_name_of_a_batch_is_that_of_its_first_file():
    one, two = files(["a.mp3", "b.mp3"])
    assert batch_name([one, two]) == batch_name([one]) != batch_name([two])
    assert batch_name([one]) == "78e754450a4c77c6e7ecc36206950a07"
