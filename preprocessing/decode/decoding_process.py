"""The process that a sandbox decodes in: it reads requests, and writes responses and a spool.

Requests and responses are lines of JSON on two pipes; spectrograms are written to the spool, a
nameless temporary file that both processes hold open. It imports only what decoding needs, since
each worker starts one.

    python -m preprocessing.decode.decoding_process REQUESTS RESPONSES SPOOL MEMORY_BYTES     file descriptors
"""

import errno
import json
import os
import resource
import signal
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from preprocessing.child_processes import die_with_parent
from preprocessing.decode.seeking import spool_windows
from preprocessing.decode.settings import ExcerptSettings, WindowSettings
from preprocessing.decode.spectrogram import spool_mel, verify_sha1
from preprocessing.errors import BadAudio, Reason
from preprocessing.mel.settings import MelSettings
from preprocessing.mel.transform import log_mel


def main(requests: int, responses: int, spool: int, memory_bytes: int) -> None:
    """Respond to requests until there are no more."""
    die_with_parent(signal.SIGKILL)
    for interrupt in (signal.SIGINT, signal.SIGTERM):  # for the parent, which then ends this process
        signal.signal(interrupt, signal.SIG_IGN)
    log_mel(np.zeros(MelSettings().window, np.float32), MelSettings())  # loads the compiled kernel
    _limit_memory(memory_bytes)
    # The inherited descriptor of the spool shares its offset with the parent's, which reads: open it again.
    with open(requests) as lines, open(f"/proc/self/fd/{spool}", "r+b") as spool_file:
        os.write(responses, b"{}\n")
        for line in lines:
            spool_file.seek(0)
            response = _respond(json.loads(line), spool_file)
            os.write(responses, json.dumps(response).encode() + b"\n")


def _limit_memory(extra_bytes: int) -> None:
    """Let this process map that much more memory than it has now; an allocation beyond that fails."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + extra_bytes
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def _respond(request: dict[str, Any], spool: BinaryIO) -> dict[str, Any]:
    path = Path(request["path"])
    try:
        return _decode(path, request, spool)
    except BadAudio as error:
        return {"reason": error.reason, "detail": error.detail}
    except MemoryError:
        return _out_of_memory()
    except OSError as error:
        if error.errno == errno.ENOMEM:
            return _out_of_memory()
        where = path if error.filename else f"{tempfile.gettempdir()} (decoding {path} there)"
        return {"errno": error.errno or errno.EIO, "message": f"{where}: {error.strerror or error}"}


def _decode(path: Path, request: dict[str, Any], spool: BinaryIO) -> dict[str, Any]:
    mel, max_duration_s = MelSettings(**request["mel"]), request["max_duration_s"]
    if "windows" in request:
        windows = spool_windows(
            path,
            spool,
            mel=mel,
            windows=WindowSettings(**request["windows"]),
            as_waves=request["as_waves"],
            max_duration_s=max_duration_s,
        )
        return {"windows": [asdict(window) for window in windows]}
    if request["sha1"] is not None:
        verify_sha1(path, request["sha1"])
    excerpt = ExcerptSettings(**request["excerpt"])
    return asdict(spool_mel(path, spool, mel=mel, excerpt=excerpt, max_duration_s=max_duration_s))


def _out_of_memory() -> dict[str, Any]:
    reason: Reason = "decoder-out-of-memory"
    limit_mib = resource.getrlimit(resource.RLIMIT_AS)[0] >> 20
    return {"reason": reason, "detail": f"decoding it needs more memory than {limit_mib:,} MiB in all"}


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
