"""Addresses that only this machine can reach."""

import ipaddress
from urllib.parse import urlsplit

LOOPBACK_HOSTS = ("127.0.0.1", "localhost", "::1")


def is_loopback(address: str) -> bool:
    """Return whether an address, or the host of a URL, is on this machine alone."""
    host = urlsplit(address).hostname if "//" in address else address
    if host in LOOPBACK_HOSTS:
        return True
    try:
        return ipaddress.ip_address(host or "").is_loopback
    except ValueError:
        return False
