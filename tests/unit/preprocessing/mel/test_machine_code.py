import ctypes
from pathlib import Path

import numba
import pytest
from numba import types

from preprocessing.mel.machine_code import load_or_compile

PROTOTYPE = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int64)


def double(number):
    return 2 * number


def inverse(number):
    return 1 // number  # the error for 0 is raised by functions of numba's


@pytest.fixture
def folders(tmp_path, monkeypatch):
    """Keep machine code in folders of the test's own: that of Python's bytecode, and the user's cache."""
    monkeypatch.setattr("sys.pycache_prefix", str(tmp_path / "bytecode"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "kernel.py").write_text("one version")
    return tmp_path


class Compiler:
    """Compiles a function and counts how often."""

    def __init__(self, function=double):
        self.function, self.times = function, 0

    def __call__(self):
        self.times += 1
        return numba.cfunc(types.int64(types.int64))(self.function)


def load(folder, compiler):
    return load_or_compile(compiler, PROTOTYPE, sources=[folder / "kernel.py"])


def kept_in(folder):
    return sorted(folder.rglob("*.o"))


def test_what_is_compiled_once_is_loaded_without_numba_from_then_on(folders):
    compiler = Compiler()
    assert load(folders, compiler)(21) == 42
    assert load(folders, compiler)(21) == 42
    assert compiler.times == 1
    (file,) = kept_in(folders)
    assert file.is_relative_to(folders / "bytecode")
    assert [it.suffix for it in file.parent.iterdir()] == [".o"], "no draft is left"


def test_another_version_of_the_source_is_compiled_again(folders):
    compiler = Compiler()
    load(folders, compiler)
    (folders / "kernel.py").write_text("another version")
    load(folders, compiler)
    assert compiler.times == 2


def test_without_a_folder_for_bytecode_it_is_kept_in_the_users_cache(folders):
    (folders / "bytecode").touch()
    compiler = Compiler()
    for _ in range(2):
        assert load(folders, compiler)(21) == 42
    assert compiler.times == 1
    (file,) = kept_in(folders / "home")
    assert file.parent == folders / "home/.cache/spectrogram-one"


def test_without_any_folder_it_is_compiled_each_time(folders):
    (folders / "bytecode").touch()
    (folders / "home").touch()
    compiler = Compiler()
    for _ in range(2):
        assert load(folders, compiler)(21) == 42
    assert compiler.times == 2


@pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
def test_what_is_half_written_is_compiled_again(share, folders):
    compiler = Compiler()
    load(folders, compiler)
    (file,) = kept_in(folders)
    whole = file.read_bytes()
    file.write_bytes(whole[: int(len(whole) * share)])
    for _ in range(2):
        assert load(folders, compiler)(21) == 42
    assert compiler.times == 2


def test_where_the_file_cannot_be_opened_it_is_kept_elsewhere(folders):
    compiler = Compiler()
    load(folders, compiler)
    (file,) = kept_in(folders)
    file.unlink()
    file.mkdir()
    for _ in range(2):
        assert load(folders, compiler)(21) == 42
    assert compiler.times == 2
    assert [Path(it).is_file() for it in kept_in(folders / "home")] == [True]


def test_code_that_calls_functions_of_numbas_is_not_kept(folders):
    compiler = Compiler(inverse)
    assert load(folders, compiler)(1) == 1
    assert kept_in(folders) == []
