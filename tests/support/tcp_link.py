"""A link between two processes: a TCP proxy whose connections can be cut; it then refuses others until it is joined."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from tests.support.processes import free_port

CHUNK_BYTES = 2**16


class Link:
    """The proxy: what comes to its port goes to another, until it is cut."""

    def __init__(self, target_port: int) -> None:
        self.port, self._target_port = free_port(), target_port
        self._listener: socket.socket | None = None
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()

    def join(self) -> None:
        """Pass connections on, from now on if it was cut."""
        if self._listener is not None:
            return
        listener = socket.create_server(("127.0.0.1", self.port))
        self._listener = listener
        threading.Thread(target=self._accept, args=(listener,), daemon=True).start()

    def cut(self) -> int:
        """Refuse new connections and break those that are open, as an end that is gone does; return how many."""
        if self._listener is not None:
            with suppress(OSError):
                self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()
            self._listener = None
        with self._lock:
            broken, self._open = self._open, set()
        for each in broken:
            _close(each)
        return len(broken) // 2

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                near, _ = listener.accept()
            except OSError:
                return  # cut
            try:
                far = socket.create_connection(("127.0.0.1", self._target_port))
            except OSError:
                near.close()
                continue
            with self._lock:
                self._open |= {near, far}
                is_cut = self._listener is not listener
            if is_cut:
                self._forget(near, far)
                continue
            for one, other in ((near, far), (far, near)):
                threading.Thread(target=self._pass_on, args=(one, other), daemon=True).start()

    def _pass_on(self, one: socket.socket, other: socket.socket) -> None:
        with suppress(OSError):
            while data := one.recv(CHUNK_BYTES):
                other.sendall(data)
        self._forget(one, other)

    def _forget(self, *ends: socket.socket) -> None:
        with self._lock:
            self._open -= set(ends)
        for each in ends:
            _close(each)


@contextmanager
def link_to(port: int) -> Iterator[Link]:
    """Yield a link to a port of this machine; cut it in the end."""
    link = Link(port)
    link.join()
    try:
        yield link
    finally:
        link.cut()


def _close(end: socket.socket) -> None:
    with suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)
    end.close()
