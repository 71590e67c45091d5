import subprocess
import sys

import torch

from training.fit.audio_transforms import FrequencyMasking, TimeMasking

BROKEN_EXTENSION = """
import importlib.abc, sys

class Broken(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == "torchaudio._extension.utils":
            raise OSError("libc10_cuda.so: cannot open shared object file")

sys.meta_path.insert(0, Broken())
import torch
from training.fit.audio_transforms import TimeMasking
import torchaudio
assert torchaudio._internal.module_utils  # nothing of the first try was left half linked
torch.manual_seed(0)
print(int((TimeMasking(5)(torch.ones(1, 4, 20)) == 0).any()))
"""


def test_masks_are_torchaudios():
    assert FrequencyMasking.__module__.startswith("torchaudio.")
    torch.manual_seed(0)
    masked = TimeMasking(5, iid_masks=True)(torch.ones(3, 8, 20), -1.0)
    assert (masked == -1).any()
    assert torch.equal((masked == -1).all(dim=1), (masked == -1).any(dim=1))


def test_they_work_where_the_compiled_extension_cannot_load():
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", BROKEN_EXTENSION], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "1\n", "")
