"""A warm process that forks a child for each call, so that a test can kill many without paying for imports.

python -m tests.support.fork_server MODULE      # lines of JSON: {"call": NAME, ...arguments}
"""

import importlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from typing import Any


class ForkServer:
    """Calls functions of a module, each in a process of its own that can be killed at any moment."""

    def __init__(self, module: str, **variables: str) -> None:
        command = [sys.executable, "-m", "tests.support.fork_server", module]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=os.environ | variables
        )
        self._answer()  # it is warm

    def call(self, name: str, *, until: Callable[[], None] | None = None, **arguments: Any) -> int:
        """Call a function; give the status that its process ended with.

        When `until` returns, the process is killed: the status is then -9, if the kill came in time.
        """
        pid = self.start(name, **arguments)
        if until is not None:
            until()
            os.kill(pid, signal.SIGKILL)
        return self.finish()

    def start(self, name: str, **arguments: Any) -> int:
        """Call a function; return the number of its process, which nobody else can have until `finish`."""
        self._send(json.dumps({"call": name, **arguments}))
        return self._answer()

    def finish(self) -> int:
        """Wait for the process; return the status that it ended with."""
        self._send("")
        return self._answer()

    def _send(self, line: str) -> None:
        assert self.process.stdin is not None
        print(line, file=self.process.stdin, flush=True)

    def close(self) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()

    def _answer(self) -> int:
        assert self.process.stdout is not None
        return int(self.process.stdout.readline())


def serve(module_name: str) -> None:
    module = importlib.import_module(module_name)
    print(0, flush=True)
    for line in sys.stdin:
        arguments = json.loads(line)
        function = getattr(module, arguments.pop("call"))
        pid = os.fork()
        if pid == 0:
            function(**arguments)
            os._exit(0)
        print(pid, flush=True)
        sys.stdin.readline()
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)


if __name__ == "__main__":
    serve(sys.argv[1])
