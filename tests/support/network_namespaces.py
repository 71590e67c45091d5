"""Two network namespaces of this machine as two hosts, joined by a bridge: a link can be cut."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support.dask_cluster import Host

NAMES = Path("/etc/netns")  # where `ip netns exec` finds what takes the place of files in /etc


@dataclass(frozen=True)
class HostNetwork:
    """Where the scheduler listens, and the hosts."""

    here: str
    hosts: tuple[Host, ...]

    def cut(self, host: Host) -> None:
        """Take down a host's link: neither it nor the others are informed."""
        _ip("link", "set", f"{host.namespace}-l", "down")


def unavailable_reason() -> str:
    """Return why this machine cannot have network namespaces; "" if it can."""
    name = f"spo{os.getpid()}p"
    try:
        _ip("netns", "add", name)
        _ip("netns", "delete", name)
    except FileNotFoundError:
        return "the command ip (iproute2) is not installed"
    except subprocess.CalledProcessError as why:
        return f"network namespaces are not allowed here ({why.stderr.decode().strip()})"
    return ""


@contextmanager
def two_hosts() -> Iterator[HostNetwork]:
    """Make them; remove them in the end."""
    number = os.getpid() % 200 + 20
    bridge, net = f"spo{os.getpid()}b", f"10.213.{number}"
    names = [f"spo{os.getpid()}{letter}" for letter in "xy"]
    try:
        _ip("link", "add", bridge, "type", "bridge")
        _ip("address", "add", f"{net}.1/24", "dev", bridge)
        _ip("link", "set", bridge, "up")
        addresses = [f"{net}.{last}" for last, _ in enumerate(names, 2)]
        names_of_hosts = "".join(
            f"{address} {name}\n" for address, name in zip(addresses, names, strict=True)
        )
        hosts = tuple(
            _host(name, bridge, address, gateway=f"{net}.1", names=f"127.0.0.1 localhost\n{names_of_hosts}")
            for name, address in zip(names, addresses, strict=True)
        )
        yield HostNetwork(f"{net}.1", hosts)
    finally:
        for name in names:
            shutil.rmtree(NAMES / name, ignore_errors=True)
            subprocess.run(["ip", "netns", "delete", name], check=False, capture_output=True)
            subprocess.run(["ip", "link", "delete", f"{name}-l"], check=False, capture_output=True)
        _ip("link", "delete", bridge)


def _host(name: str, bridge: str, address: str, *, gateway: str, names: str) -> Host:
    (NAMES / name).mkdir(
        parents=True
    )  # without names, each look-up of an address waits for a DNS server in vain
    (NAMES / name / "hosts").write_text(names)
    (NAMES / name / "resolv.conf").write_text(
        "nameserver 127.0.0.1\n"
    )  # where none listens: it refuses at once
    _ip("netns", "add", name)
    _ip("link", "add", f"{name}-l", "type", "veth", "peer", "name", "eth0", "netns", name)
    _ip("link", "set", f"{name}-l", "master", bridge, "up")
    for arguments in (
        ("link", "set", "lo", "up"),
        ("address", "add", f"{address}/24", "dev", "eth0"),
        ("link", "set", "eth0", "up"),
        ("route", "add", "default", "via", gateway),
    ):
        _ip("-n", name, *arguments)
    return Host(address, name)


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)
