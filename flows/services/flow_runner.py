"""The process that executes the runs submitted to the deployments that it serves."""

import asyncio
import signal
import tempfile
import threading
from functools import partial
from pathlib import Path
from typing import Any

from prefect.runner import Runner

# How often submitted runs are looked for; Prefect's default of 10 s is slow to use.
POLL_INTERVAL_S = 2.0


class CancellableRunner(Runner):
    """A runner that SIGTERM ends as Ctrl-C does: by cancelling the task that serves.

    Prefect's own handler does not await its clean-up, and raises SystemExit in whatever callback is running: some
    catch it, and the runner goes on for ever.
    """

    def __init__(self, asked_to_end: threading.Event) -> None:
        super().__init__(pause_on_shutdown=True, limit=1, query_seconds=POLL_INTERVAL_S)
        # Prefect's folder is below one of a fixed name, which belongs to the machine's first user of a runner.
        self._tmp_dir = Path(tempfile.mkdtemp(prefix="spectrogram-one-"))
        self._asked_to_end = asked_to_end

    async def start(self, run_once: bool = False, webserver: bool | None = None) -> None:
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        assert task is not None
        self._cancel = partial(loop.call_soon_threadsafe, task.cancel)
        signal.signal(signal.SIGTERM, self.handle_sigterm)
        if self._asked_to_end.is_set():
            # Only once it has begun: so it pauses the deployments.
            loop.call_later(POLL_INTERVAL_S, task.cancel)
        await super().start(run_once, webserver)

    def handle_sigterm(self, *args: Any, **kwargs: Any) -> None:
        self._cancel()
