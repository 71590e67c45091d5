"""The services of deploy/compose.yaml, started natively: their commands, environments and checks as they stand there.

One network namespace is the network of all containers: their names lead to its loopback address, and their ports
are free. Folders of this machine take the place of volumes and bind mounts, in commands and environments.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from tests.support import postgres
from tests.support.waiting import wait_for

COMPOSE = Path("deploy/compose.yaml")
NAMES = Path("/etc/netns")  # where `ip netns exec` finds what takes the place of files in /etc
VARIABLE = re.compile(r"\$\{(\w+):\?[^}]*\}")
BIN = Path(sys.executable).parent


@dataclass
class Project:
    """A Compose project that runs natively."""

    folder: Path
    namespace: str
    secrets: Mapping[str, str]
    services: dict[str, dict[str, Any]] = field(init=False)
    running: dict[str, "subprocess.Popen[bytes]"] = field(default_factory=dict)

    def __post_init__(self) -> None:
        missing = set(VARIABLE.findall(COMPOSE.read_text())) - set(self.secrets)
        assert not missing, f"secrets without a value: {missing}"
        text = VARIABLE.sub(lambda found: self.secrets[found[1]], COMPOSE.read_text())
        self.services = yaml.safe_load(text)["services"]

    def environment(self, name: str) -> dict[str, str]:
        """Return what a service finds in its environment, and nothing of Prefect's or Dask's from here."""
        given = {key: self.native(name, value) for key, value in self.services[name]["environment"].items()}
        inherited = {
            key: value
            for key, value in os.environ.items()
            if not key.startswith(("PREFECT_", "DASK_", "AWS_"))
        }
        home = {"PREFECT_HOME": str(self.folder / name / "prefect"), "PATH": f"{BIN}:{os.environ['PATH']}"}
        return inherited | home | given

    def native(self, name: str, text: str) -> str:
        """Replace the folders of a container by those that take their place here."""
        for volume in self.services[name].get("volumes", []):
            source, inside = volume.split(":")[:2]
            text = text.replace(inside, str(self.folder / Path(source).name))
        return text

    def run(self, command: list[str], **options: Any) -> "subprocess.CompletedProcess[str]":
        """Run a command where the names of the services lead to them."""
        inside = ["ip", "netns", "exec", self.namespace, *command]
        return subprocess.run(inside, capture_output=True, text=True, check=False, **options)

    def start(self, name: str, command: list[str] | None = None, **options: Any) -> None:
        """Start a service, by its own command, and wait until its check passes."""
        folder = self.folder / name
        folder.mkdir(exist_ok=True)
        command = command or [self.native(name, word) for word in self.services[name]["command"]]
        with (folder / "log").open("wb") as log:
            self.running[name] = subprocess.Popen(
                ["ip", "netns", "exec", self.namespace, *command],
                **{"cwd": folder, "env": self.environment(name), "stdout": log, "stderr": log} | options,
            )
        wait_for(lambda: self.is_healthy(name), within_s=300, every_s=0.5)

    def run_once(self, name: str) -> None:
        """Run a service that ends, as those wait for that depend on its success."""
        (self.folder / name).mkdir()
        words = [self.native(name, word) for word in self.services[name]["command"]]
        ended = self.run(words, cwd=self.folder / name, env=self.environment(name))
        assert ended.returncode == 0, ended.stdout + ended.stderr

    def is_healthy(self, name: str) -> bool:
        """Return what the check of a service finds; a service without one is healthy while it runs."""
        log = self.folder / name / "log"
        assert self.running[name].poll() is None, f"{name} ended: {log.read_text()[-2000:]}"
        check = self.services[name].get("healthcheck", {}).get("test")
        if not check:
            return True
        assert check[0] == "CMD"
        program = postgres.binary(check[1]) if check[1].startswith("pg_") else check[1]
        return self.run([program, *check[2:]], env=self.environment(name)).returncode == 0

    def start_postgres(self, name: str) -> None:
        """Start the database as its image does: create it, then run the command as its own user."""
        environment = self.environment(name)
        data = Path(self.native(name, "/var/lib/postgresql/data"))
        postgres.init_database(data, environment["POSTGRES_USER"], environment["POSTGRES_PASSWORD"])
        program, *options = self.services[name]["command"]
        namespace_of = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"]
        command = [*namespace_of, postgres.binary(program), *options]
        more = {"PGDATA": str(data)}
        sockets = ["-c", f"unix_socket_directories={data}", "-c", "fsync=off"]
        self.start(name, [*command, *sockets], env=environment | more, cwd="/")
        create = [
            postgres.binary("createdb"),
            "--host=127.0.0.1",
            f"--username={environment['POSTGRES_USER']}",
        ]
        made = self.run(
            [*create, environment["POSTGRES_DB"]],
            env=environment | {"PGPASSWORD": environment["POSTGRES_PASSWORD"]},
        )
        assert made.returncode == 0, made.stderr

    def end(self) -> None:
        """End what runs, all at once."""
        processes = list(self.running.values())
        for process in reversed(processes):
            process.terminate()
        for process in reversed(processes):
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@contextmanager
def compose_project(secrets: Mapping[str, str]) -> Iterator[Project]:
    """Make the network, and a folder that other users may enter; end all services and remove both."""
    namespace = f"spo{os.getpid()}c"
    with ExitStack() as stack:
        folder = Path(tempfile.mkdtemp(prefix="spectrogram-one-compose-"))
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        folder.chmod(0o711)
        project = Project(folder, namespace, secrets)
        (NAMES / namespace).mkdir(parents=True)
        stack.callback(shutil.rmtree, NAMES / namespace)
        (NAMES / namespace / "hosts").write_text(f"127.0.0.1 localhost {' '.join(project.services)}\n")
        _ip("netns", "add", namespace)
        stack.callback(_ip, "netns", "delete", namespace)
        _ip("-n", namespace, "link", "set", "lo", "up")
        stack.callback(project.end)
        yield project


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)
