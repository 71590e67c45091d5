import uuid
import zipfile

import fsspec
import pytest

from preprocessing.decode.local_copies import iter_local_copies, local_copies, local_copy
from preprocessing.errors import BadAudio
from tests.support.audio_formats import DEMO_TRACK


@pytest.fixture
def far():
    """A folder that is not on this machine's disk, with two files."""
    root = f"memory://{uuid.uuid4().hex}"
    fs, path = fsspec.url_to_fs(root)
    fs.pipe({f"{path}/one.mp3": b"one", f"{path}/two.mp3": b"two"})
    return root


def test_a_file_that_lies_here_is_used_as_it_is():
    with local_copy(str(DEMO_TRACK)) as path:
        assert path == DEMO_TRACK.absolute()
    assert path.exists()


def test_a_copy_of_a_remote_file_is_kept_as_long_as_it_is_needed(far):
    with local_copy(f"{far}/one.mp3") as path:
        assert path.read_bytes() == b"one"
        assert path.suffix == ".mp3"
    assert not path.exists()


def test_files_come_in_order_with_what_is_wrong_in_its_place_and_leave_no_copy(far):
    paths = []
    for path in iter_local_copies([f"{far}/one.mp3", f"{far}/nowhere.mp3", f"{far}/two.mp3"]):
        paths.append(path)
        if not isinstance(path, BadAudio):
            assert path.read_bytes() in (b"one", b"two")
    one, nowhere, two = paths
    assert str(nowhere) == "missing: no such file"
    assert not one.exists()
    assert not two.exists()


def test_leaving_early_leaves_no_copy(far, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    files = iter_local_copies([f"{far}/one.mp3", f"{far}/two.mp3", f"{far}/one.mp3"])
    next(files)
    assert list(tmp_path.iterdir())
    files.close()
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_its_archive_holds_damaged_is_a_bad_file_and_the_others_are_not(tmp_path):
    with zipfile.ZipFile(tmp_path / "music.zip", "w") as archive:
        archive.writestr("one.mp3", b"the first song")
        archive.writestr("two.mp3", b"the second song")
    data = (tmp_path / "music.zip").read_bytes()
    (tmp_path / "music.zip").write_bytes(data.replace(b"the first song", b"the worst song"))
    one, two = iter_local_copies(f"zip://{name}.mp3::{tmp_path}/music.zip" for name in ("one", "two"))
    assert str(one).startswith("checksum: ")
    assert not isinstance(two, BadAudio)


def test_a_source_that_fails_is_an_exception_not_a_bad_file():
    files = iter_local_copies(["nowhere://one.mp3"])
    with pytest.raises(ValueError, match="Protocol not known"):
        next(files)


def test_all_files_lie_here_at_once_with_what_is_wrong_in_its_place(far):
    with local_copies([f"{far}/one.mp3", None, f"{far}/nowhere.mp3", str(DEMO_TRACK)]) as paths:
        one, none, nowhere, here = paths
        assert one.read_bytes() == b"one"
        assert (none, here) == (None, DEMO_TRACK.absolute())
        assert str(nowhere) == "missing: no such file"
    assert not one.exists()


def test_a_source_that_fails_leaves_no_copy_of_the_others(far, http_url, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "copies"))
    (tmp_path / "copies").mkdir()
    urls = [f"{far}/one.mp3", f"{http_url}/status/500", f"{far}/two.mp3"]
    with pytest.raises(OSError, match="500"), local_copies(urls):
        raise AssertionError("it gave paths")
    assert list((tmp_path / "copies").iterdir()) == []
