"""A process of its own for decoding: a file that crashes, hangs or gorges its decoder costs that file only.

Requests and answers are lines of JSON on two pipes; spectrograms lie on a spool, a nameless
temporary file that both processes hold open. The decoding process sees one file of this
machine at a time: whatever goes wrong in it is that file's doing, or the machine's.

    python -m preprocessing.decode.sandbox REQUESTS ANSWERS SPOOL MEMORY_BYTES     file descriptors
"""

import errno
import json
import os
import resource
import select
import signal
import subprocess
import sys
import tempfile
import threading
import time
import weakref
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from preprocessing.child_processes import die_with_parent
from preprocessing.decode.seeking import DecodedWindow, SpooledWindow, open_window, spool_windows
from preprocessing.decode.settings import ExcerptSettings, LimitSettings, WindowSettings
from preprocessing.decode.spectrogram import SpooledMel, spool_mel, verify_sha1
from preprocessing.errors import FATAL_REASONS, BadAudio, Reason
from preprocessing.mel.settings import MelSettings
from preprocessing.mel.transform import log_mel

STARTUP_TIMEOUT_S = 120.0  # for the decoding process to import what it needs, on a busy machine


class Sandbox:
    """A decoding process, started when it is first needed and anew when a file was its end."""

    def __init__(self, limits: LimitSettings) -> None:
        self.limits = limits
        self._spool: BinaryIO = tempfile.TemporaryFile()  # noqa: SIM115 (as long as we live)
        weakref.finalize(self, self._spool.close)
        self._process: _Decoder | None = None

    def decode_mel(
        self, path: Path, mel: MelSettings, excerpt: ExcerptSettings, sha1: str | None = None
    ) -> tuple[SpooledMel, Iterator[NDArray[np.float32]]]:
        """Turn an audio file into its spectrogram; give what is known of it, and its pieces.

        Shapes: each piece (F_i, M) float32, in dB. They must be read before the next call.
        Raises: BadAudio if the file cannot be used; OSError if a disk fails.

        A file is given up only when it was the end of two processes, the second of them fresh:
        what kills or bloats a process may have come from outside, or from an earlier file.
        """
        request = {
            "path": str(path),
            "mel": mel.model_dump(),
            "excerpt": excerpt.model_dump(),
            "max_duration_s": self.limits.max_duration_h * 3600,
            "sha1": sha1,
        }
        spooled = SpooledMel(**self._ask_again(request, path))
        return spooled, spooled.read_blocks(self._spool)

    def decode_windows(
        self, path: Path, mel: MelSettings, windows: WindowSettings, *, as_waves: bool = False
    ) -> list[DecodedWindow]:
        """Decode windows of an audio file, to spectrograms or waveforms, which must be read before the next call.

        Raises: as `decode_mel` does.
        """
        request = {
            "path": str(path),
            "mel": mel.model_dump(),
            "windows": windows.model_dump(),
            "as_waves": as_waves,
            "max_duration_s": self.limits.max_duration_h * 3600,
        }
        told = self._ask_again(request, path)["windows"]
        spool = self._spool.fileno()
        return [open_window(spool, SpooledWindow(**row), mel, as_waves=as_waves) for row in told]

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.end()
            self._process = None

    def _ask_again(self, request: dict[str, Any], path: Path) -> dict[str, Any]:
        try:
            return self._ask(request, path)
        except BadAudio as why:
            if why.reason not in FATAL_REASONS:
                raise
            return self._ask(request, path)

    def _ask(self, request: dict[str, Any], path: Path) -> dict[str, Any]:
        os.ftruncate(self._spool.fileno(), 0)
        if self._process is None:
            self._process = _Decoder(self._spool, int(self.limits.memory_gib * (1 << 30)))
        try:
            size_mb = path.stat().st_size / 1e6
        except OSError:
            size_mb = 0.0  # whoever opens it finds out why
        answer = None
        try:
            answer = self._process.ask(
                request, self.limits.timeout_s + self.limits.timeout_s_per_mb * size_mb
            )
        finally:
            if answer is None:  # or it would come as the answer to the next request
                self.close()
        match answer:
            case {"reason": reason, "detail": detail}:
                if reason in FATAL_REASONS:
                    self.close()
                raise BadAudio(reason, detail)
            case {"errno": number, "message": message}:
                self.close()  # what a full disk did not take still waits in its buffer
                raise OSError(number, message)
        return answer


class _Decoder:
    """The process, seen from outside."""

    def __init__(self, spool: BinaryIO, memory_bytes: int) -> None:
        requests, self._requests = os.pipe()
        self._answers, answers = os.pipe()
        self._ready = select.poll()  # select() itself knows descriptors below 1,024 only
        self._ready.register(self._answers, select.POLLIN)
        self._unread = b""
        self._errors: BinaryIO = tempfile.TemporaryFile()  # noqa: SIM115 (as long as we live)
        descriptors = (requests, answers, spool.fileno())
        self._process = subprocess.Popen(
            [
                sys.executable,
                "-P",
                "-m",
                "preprocessing.decode.sandbox",
                *map(str, descriptors),
                str(memory_bytes),
            ],
            pass_fds=descriptors,
            stdin=subprocess.DEVNULL,
            stdout=self._errors,
            stderr=self._errors,  # decoders print warnings there, thousands at times
            env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
        )
        os.close(requests)
        os.close(answers)
        self.end = weakref.finalize(self, _end, self._process, self._errors, self._requests, self._answers)
        if self._line(STARTUP_TIMEOUT_S) is None:
            raise RuntimeError(f"the decoding process does not start: {self._last_words()}")

    def ask(self, request: dict[str, Any], budget_s: float) -> dict[str, Any]:
        """Raises: BadAudio if the process dies of the request, or has no answer within `budget_s`."""
        self._errors.seek(0)
        self._errors.truncate()
        try:
            os.write(self._requests, json.dumps(request).encode() + b"\n")
            answer = self._line(budget_s)
        except BrokenPipeError:
            answer = None
        except TimeoutError as why:
            raise BadAudio("decoder-hung", str(why)) from None
        if answer is not None:
            return answer
        status = self._process.wait()
        if status >= 0:
            raise RuntimeError(f"{request['path']}: the decoding process ended: {self._last_words()}")
        name = signal.Signals(-status).name
        raise BadAudio("decoder-killed", f"decoding it ended the decoder with {name}")

    def _line(self, budget_s: float) -> dict[str, Any] | None:
        """Read one answer, or None if the process has ended. Raises: TimeoutError."""
        deadline = time.monotonic() + budget_s
        while b"\n" not in self._unread:
            left_s = deadline - time.monotonic()
            if left_s <= 0 or not self._ready.poll(1000 * left_s):
                raise TimeoutError(f"no answer of the decoding process within {budget_s:.0f} s")
            read = os.read(self._answers, 1 << 16)
            if not read:
                return None
            self._unread += read
        line, self._unread = self._unread.split(b"\n", 1)
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _last_words(self) -> str:
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else "it said nothing"


def _end(process: "subprocess.Popen[bytes]", errors: BinaryIO, *pipes: int) -> None:
    process.kill()
    process.wait()
    errors.close()
    for pipe in pipes:
        os.close(pipe)


_of_this_thread = threading.local()


def thread_sandbox(limits: LimitSettings) -> Sandbox:
    """Give the thread's own sandbox: starting one takes a second, so it outlives the batch."""
    sandbox: Sandbox | None = getattr(_of_this_thread, "sandbox", None)
    if sandbox is None or sandbox.limits != limits:
        if sandbox is not None:
            sandbox.close()
        sandbox = _of_this_thread.sandbox = Sandbox(limits)
    return sandbox


# Inside of the decoding process


def main(requests: int, answers: int, spool: int, memory_bytes: int) -> None:
    """Answer requests until there are no more."""
    die_with_parent(signal.SIGKILL)
    for interrupt in (signal.SIGINT, signal.SIGTERM):  # meant for those who started us: they end us
        signal.signal(interrupt, signal.SIG_IGN)
    log_mel(np.zeros(MelSettings().window, np.float32), MelSettings())  # imports and compiles what is needed
    _limit_memory(memory_bytes)
    # Opened anew, the spool has an offset of our own: the one that is inherited moves with its reader's.
    with open(requests) as asked, open(f"/proc/self/fd/{spool}", "r+b") as mels:
        os.write(answers, b"{}\n")
        for line in asked:
            mels.seek(0)
            os.write(answers, json.dumps(_answer(json.loads(line), mels)).encode() + b"\n")


def _limit_memory(more_bytes: int) -> None:
    """Let this process map so much more than it has now; an allocation beyond that fails."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * resource.getpagesize() + more_bytes
    resource.setrlimit(resource.RLIMIT_AS, (most, most))


def _answer(request: dict[str, Any], mels: BinaryIO) -> dict[str, Any]:
    path = Path(request["path"])
    try:
        return _spool(path, request, mels)
    except BadAudio as why:
        return {"reason": why.reason, "detail": why.detail}
    except MemoryError:
        return _out_of_memory()
    except OSError as why:
        if why.errno == errno.ENOMEM:
            return _out_of_memory()
        where = path if why.filename else f"{tempfile.gettempdir()} (decoding {path} there)"
        return {"errno": why.errno or errno.EIO, "message": f"{where}: {why.strerror or why}"}


def _spool(path: Path, request: dict[str, Any], spool: BinaryIO) -> dict[str, Any]:
    mel, max_duration_s = MelSettings(**request["mel"]), request["max_duration_s"]
    if "windows" in request:
        windows = WindowSettings(**request["windows"])
        as_waves = request["as_waves"]
        told = spool_windows(
            path, spool, mel=mel, windows=windows, as_waves=as_waves, max_duration_s=max_duration_s
        )
        return {"windows": [asdict(window) for window in told]}
    if request["sha1"] is not None:
        verify_sha1(path, request["sha1"])
    excerpt = ExcerptSettings(**request["excerpt"])
    return asdict(spool_mel(path, spool, mel=mel, excerpt=excerpt, max_duration_s=max_duration_s))


def _out_of_memory() -> dict[str, Any]:
    reason: Reason = "decoder-out-of-memory"
    most_mib = resource.getrlimit(resource.RLIMIT_AS)[0] >> 20
    return {"reason": reason, "detail": f"decoding it wants more memory than {most_mib:,} MiB in all"}


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
