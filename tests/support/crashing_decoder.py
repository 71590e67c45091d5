"""A decoder that some files are the end of: it crashes, sleeps for ever, or allocates without end.

The real decoding process runs the real pipeline; only libsndfile's binding is replaced, when
Python starts, for files that bear a marker.
"""

from pathlib import Path

from tests.support.audio_formats import DEMO_TRACK

CRASH_KINDS = ("segfault", "sleep", "allocate")
SITE = """
import ctypes, sys, time
from importlib.abc import MetaPathFinder
from importlib.machinery import PathFinder

class Poison(MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name != "soundfile":
            return None
        sys.meta_path.remove(self)
        spec = PathFinder.find_spec(name, path, target)
        load = spec.loader.exec_module
        def exec_module(module):
            load(module)
            real = module.SoundFile
            class SoundFile(real):
                def __init__(self, file, *arguments, **named):
                    with open(file, "rb") as opened:
                        tail = opened.read()[-40:]
                    act(tail)
                    super().__init__(file, *arguments, **named)
            module.SoundFile = SoundFile
        spec.loader.exec_module = exec_module
        return spec

def exhaust_memory():
    held = []
    while True:
        held.append(bytearray(1 << 24))

def act(tail):
    for marker, deed in DEEDS.items():
        if tail.endswith(marker):
            deed()

DEEDS = {b"poison: segfault": lambda: ctypes.string_at(0), b"poison: sleep": lambda: time.sleep(1e6),
         b"poison: allocate": exhaust_memory}
sys.meta_path.insert(0, Poison())
"""


def install_crashing_decoder(folder: Path) -> str:
    """Write what Python loads at its start, and give the PYTHONPATH with it."""
    site = folder / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text(SITE)
    return f"{site}:{Path.cwd()}"


def write_crashing_mp3(folder: Path, poison: str) -> Path:
    """Write a real MP3 that is the end of its decoder."""
    path = folder / f"{poison}.mp3"
    path.write_bytes(DEMO_TRACK.read_bytes() + f"poison: {poison}".encode())
    return path
