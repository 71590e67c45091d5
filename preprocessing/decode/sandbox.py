"""A process of its own for decoding: a file that crashes, hangs or exhausts its decoder costs that file only.

This is the parent's side; `preprocessing.decode.decoding_process` is the child's. The child decodes one
local file at a time, so a failure is due to that file, or to the machine.
"""

import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import threading
import time
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from preprocessing.decode.settings import ExcerptSettings, LimitSettings, WindowSettings
from preprocessing.decode.spool import DecodedWindow, SpooledMel, SpooledWindow, open_window
from preprocessing.errors import FATAL_REASONS, BadAudio
from preprocessing.mel.settings import MelSettings

STARTUP_TIMEOUT_S = 120.0  # for the decoding process to import what it needs, on a busy machine


class Sandbox:
    """A decoding process: started when it is first needed, and again after a file ended it."""

    def __init__(self, limits: LimitSettings) -> None:
        self.limits = limits
        self._spool: BinaryIO = tempfile.TemporaryFile()  # noqa: SIM115 (open as long as this object exists)
        weakref.finalize(self, self._spool.close)
        self._process: _DecodingProcess | None = None

    def decode_mel(
        self, path: Path, mel: MelSettings, excerpt: ExcerptSettings, sha1: str | None = None
    ) -> tuple[SpooledMel, Iterator[NDArray[np.float32]]]:
        """Decode an audio file to its spectrogram; return the facts about the track, and the spectrogram in blocks.

        Shapes: each block (F_i, M) float32, in dB. They must be read before the next call.
        Raises: BadAudio if the file cannot be used; OSError if a disk fails.

        A file is rejected only if it ended two processes, the second of them a fresh one: what
        kills a process or fills its memory may also be an earlier file, or come from outside.
        """
        request = self._request(path, mel) | {"excerpt": excerpt.model_dump(), "sha1": sha1}
        spooled = SpooledMel(**self._try_twice(request, path))
        return spooled, spooled.read_blocks(self._spool)

    def decode_windows(
        self, path: Path, mel: MelSettings, windows: WindowSettings, *, as_waves: bool = False
    ) -> list[DecodedWindow]:
        """Decode windows of an audio file, to spectrograms or waveforms, which must be read before the next call.

        Raises: as `decode_mel` does.
        """
        request = self._request(path, mel) | {"windows": windows.model_dump(), "as_waves": as_waves}
        rows = self._try_twice(request, path)["windows"]
        spool = self._spool.fileno()
        return [open_window(spool, SpooledWindow(**row), mel, as_waves=as_waves) for row in rows]

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.end()
            self._process = None

    def _request(self, path: Path, mel: MelSettings) -> dict[str, Any]:
        return {
            "path": str(path),
            "mel": mel.model_dump(),
            "max_duration_s": self.limits.max_duration_h * 3600,
        }

    def _try_twice(self, request: dict[str, Any], path: Path) -> dict[str, Any]:
        try:
            return self._try(request, path)
        except BadAudio as error:
            if error.reason not in FATAL_REASONS:
                raise
            return self._try(request, path)

    def _try(self, request: dict[str, Any], path: Path) -> dict[str, Any]:
        os.ftruncate(self._spool.fileno(), 0)
        if self._process is None:
            self._process = _DecodingProcess(self._spool, int(self.limits.memory_gib * (1 << 30)))
        response = None
        try:
            response = self._process.send(request, self._timeout_s(path))
        finally:
            if response is None:  # else it would be read as the response to the next request
                self.close()
        match response:
            case {"reason": reason, "detail": detail}:
                if reason in FATAL_REASONS:
                    self.close()
                raise BadAudio(reason, detail)
            case {"errno": number, "message": message}:
                self.close()  # its buffer still holds what a full disk did not take
                raise OSError(number, message)
        return response

    def _timeout_s(self, path: Path) -> float:
        try:
            size_mb = path.stat().st_size / 1e6
        except OSError:
            size_mb = 0.0  # the process that opens it reports what is wrong
        return self.limits.timeout_s + self.limits.timeout_s_per_mb * size_mb


class _DecodingProcess:
    """The child process, and the pipes to and from it."""

    def __init__(self, spool: BinaryIO, memory_bytes: int) -> None:
        requests, self._requests = os.pipe()
        self._responses, responses = os.pipe()
        self._ready = select.poll()  # select() itself accepts only descriptors below 1,024
        self._ready.register(self._responses, select.POLLIN)
        self._unread = b""
        self._stderr: BinaryIO = tempfile.TemporaryFile()  # noqa: SIM115 (open as long as this object exists)
        descriptors = (requests, responses, spool.fileno())
        module = "preprocessing.decode.decoding_process"
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", module, *map(str, descriptors), str(memory_bytes)],
            pass_fds=descriptors,
            stdin=subprocess.DEVNULL,
            stdout=self._stderr,
            stderr=self._stderr,  # decoders print warnings there, thousands at times
            env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
        )
        os.close(requests)
        os.close(responses)
        self.end = weakref.finalize(self, _end, self._process, self._stderr, self._requests, self._responses)
        if self._read_line(STARTUP_TIMEOUT_S) is None:
            raise RuntimeError(f"the decoding process does not start: {self._last_stderr_line()}")

    def send(self, request: dict[str, Any], timeout_s: float) -> dict[str, Any]:
        """Send a request and return the response.

        Raises: BadAudio if the process dies of the request, or does not respond within `timeout_s`.
        """
        self._stderr.seek(0)
        self._stderr.truncate()
        try:
            os.write(self._requests, json.dumps(request).encode() + b"\n")
            response = self._read_line(timeout_s)
        except BrokenPipeError:
            response = None
        except TimeoutError as error:
            raise BadAudio("decoder-hung", str(error)) from None
        if response is not None:
            return response
        status = self._process.wait()
        if status >= 0:
            raise RuntimeError(f"{request['path']}: the decoding process ended: {self._last_stderr_line()}")
        name = signal.Signals(-status).name
        raise BadAudio("decoder-killed", f"decoding it ended the decoder with {name}")

    def _read_line(self, timeout_s: float) -> dict[str, Any] | None:
        """Read one response, or None if the process has ended. Raises: TimeoutError."""
        deadline = time.monotonic() + timeout_s
        while b"\n" not in self._unread:
            left_s = deadline - time.monotonic()
            if left_s <= 0 or not self._ready.poll(1000 * left_s):
                raise TimeoutError(f"no response of the decoding process within {timeout_s:.0f} s")
            read = os.read(self._responses, 1 << 16)
            if not read:
                return None
            self._unread += read
        line, self._unread = self._unread.split(b"\n", 1)
        response: dict[str, Any] = json.loads(line)
        return response

    def _last_stderr_line(self) -> str:
        self._stderr.seek(0)
        lines = self._stderr.read().decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else "it printed nothing"


def _end(process: "subprocess.Popen[bytes]", stderr: BinaryIO, *pipes: int) -> None:
    process.kill()
    process.wait()
    stderr.close()
    for pipe in pipes:
        os.close(pipe)


_of_this_thread = threading.local()


def thread_sandbox(limits: LimitSettings) -> Sandbox:
    """Return this thread's own sandbox: starting one takes half a second, so it is kept from batch to batch."""
    sandbox: Sandbox | None = getattr(_of_this_thread, "sandbox", None)
    if sandbox is None or sandbox.limits != limits:
        if sandbox is not None:
            sandbox.close()
        sandbox = _of_this_thread.sandbox = Sandbox(limits)
    return sandbox
