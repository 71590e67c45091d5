import subprocess
import sys

import pytest

HEAVY = {
    "av",
    "fsspec",
    "llvmlite",
    "numba",
    "numpy",
    "pyarrow",
    "scipy",
    "soundfile",
    "soxr",
    "torch",
    "zarr",
}


@pytest.mark.parametrize("room", ["build", "catalogue", "decode", "mel"])
def test_settings_import_nothing_of_what_they_configure(room):
    """A form or --help needs the settings, and must not wait for decoders and arrays."""
    program = f"import sys, preprocessing.{room}.settings; print(*sys.modules)"
    modules = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    ).stdout
    assert HEAVY.isdisjoint(modules.split())


def test_a_decoding_process_imports_only_what_decoding_needs():
    program = "import sys, preprocessing.decode.decoding_process; print(*sys.modules)"
    modules = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    ).stdout
    assert {"fsspec", "numba", "pyarrow", "scipy", "torch", "zarr"}.isdisjoint(modules.split())


def test_the_process_that_starts_one_imports_no_decoder():
    program = "import sys, preprocessing.decode.sandbox; print(*sys.modules)"
    modules = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    ).stdout
    assert (HEAVY - {"numpy"}).isdisjoint(modules.split())
