"""Free TCP ports of this machine."""

import socket


def find_free_port(host: str, port: int) -> int:
    """Return `port`, or any free one for 0. Raises: OSError if it is in use, or not this user's to open."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind((host, port))
        free: int = probe.getsockname()[1]
        return free
