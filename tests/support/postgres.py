"""A Postgres of its own, in a folder, on loopback, for one user; ended with the block."""

import os
import pwd
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.support.processes import free_port
from tests.support.waiting import wait_for

BINARIES = sorted(Path("/usr/lib/postgresql").glob("*/bin"))


def unavailable_reason() -> str:
    """Return why Postgres cannot run here; "" if it can."""
    return "" if BINARIES else "Postgres (postgresql) is not installed"


def binary(name: str) -> str:
    """Return the path of one of Postgres' programs: Debian keeps them off the PATH."""
    return str(BINARIES[-1] / name)


def init_database(folder: Path, user: str, password: str) -> None:
    """Create a cluster of databases, as the first start of Postgres' image does."""
    folder.mkdir(parents=True)
    folder.chmod(0o700)
    secret = folder.with_name(f"{folder.name}.password")
    secret.write_text(password)
    for path in (folder, secret):
        shutil.chown(path, *_owner())
    options = [f"--username={user}", f"--pwfile={secret}", "--auth=scram-sha-256", "--no-sync"]
    run_as_owner([binary("initdb"), f"--pgdata={folder}", *options])


def run_as_owner(command: Sequence[str]) -> None:
    """Run a command as the user that Postgres runs as: it refuses root."""
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd="/", **as_owner())


def as_owner() -> dict[str, object]:
    """Return what makes subprocess run as that user."""
    user, group = _owner()
    return {"user": user, "group": group, "extra_groups": []} if os.geteuid() == 0 else {}


def _owner() -> tuple[int, int]:
    if os.geteuid() != 0:
        return os.geteuid(), os.getegid()
    user = pwd.getpwnam("postgres")
    return user.pw_uid, user.pw_gid


@contextmanager
def postgres(folder: Path) -> Iterator[str]:
    """Start Postgres with an empty database; yield its URL for Prefect."""
    port = free_port()
    init_database(folder, "prefect", "a password")
    command = [binary("postgres"), f"-D{folder}", f"-p{port}", "-clisten_addresses=127.0.0.1"]
    process = subprocess.Popen(
        [*command, f"-cunix_socket_directories={folder}", "-cfsync=off"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd="/",
        **as_owner(),
    )
    try:
        ready = [binary("pg_isready"), "--quiet", "--host=127.0.0.1", f"--port={port}"]
        wait_for(lambda: subprocess.run(ready, check=False).returncode == 0, within_s=60)
        connection = ["--host=127.0.0.1", f"--port={port}", "--username=prefect"]
        subprocess.run(
            [binary("createdb"), *connection, "prefect"],
            env=os.environ | {"PGPASSWORD": "a password"},
            check=True,
        )
        yield f"postgresql+asyncpg://prefect:a%20password@127.0.0.1:{port}/prefect"
    finally:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(30)
        process.kill()
        process.wait()
