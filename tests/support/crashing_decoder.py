"""A decoder that some files make crash, sleep for ever, or allocate without end.

The real decoding process runs the real pipeline; only libsndfile's binding is replaced, when
Python starts, for files that end with a marker.
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
        with open(STARTED, "a") as started:
            started.write("x")
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
    """Write what Python loads at its start, and return the PYTHONPATH with it."""
    site = folder / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text(f"STARTED = {str(folder / 'started')!r}\n{SITE}")
    return f"{site}:{Path.cwd()}"


def decoders_started(folder: Path) -> int:
    """Count the processes that loaded the decoder of `install_crashing_decoder`."""
    return (folder / "started").stat().st_size


def write_crashing_mp3(folder: Path, poison: str) -> Path:
    """Write the first kilobytes of a real MP3 with a marker at their end."""
    path = folder / f"{poison}.mp3"
    path.write_bytes(DEMO_TRACK.read_bytes()[:4_096] + f"poison: {poison}".encode())
    return path
