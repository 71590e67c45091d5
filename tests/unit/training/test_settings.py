"""Settings are read by every command: they must not import what they configure."""

import subprocess
import sys

import pytest

HEAVY = ("torch", "torchaudio", "numpy", "scipy", "sklearn", "pyarrow")


@pytest.mark.parametrize(
    "module",
    [
        "training.fit.settings",
        "training.networks.settings",
        "training.evaluation.settings",
        "training.inference.settings",
    ],
)
def test_settings_import_no_heavy_package(module):
    code = f"import sys, {module}; print([it for it in {HEAVY} if it in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
