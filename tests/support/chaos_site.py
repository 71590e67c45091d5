"""A cluster on this machine whose every part can be made to fail: services, links, disk, object store."""

import logging
import os
import random
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

import boto3
import s3fs
from distributed import Client
from moto.server import ThreadedMotoServer

from tests.support.faulty_proxy import Outage, proxy_with_outages
from tests.support.killable_services import (
    Service,
    postgres_service,
    prefect_service,
    scheduler_service,
    worker_service,
)
from tests.support.other_disks import mounted
from tests.support.processes import free_port
from tests.support.tcp_link import Link, link_to

KINDS = ("prefect", "postgres", "scheduler", "worker", "flow", "disk", "link", "s3")
RECORDED = ("prefect", "postgres")  # runs that such a fault is to disturb are recorded by the Prefect server
DISK_MIB = 96
BUCKET = "chaos"
REJOIN_WITHIN_S = 30.0
AWS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1"}


class Site:
    """The parts, and one method for each way in which they fail; `heal` brings all of them back."""

    def __init__(self, folder: Path, disk: Path, outage: Outage, s3_link: Link) -> None:
        self.folder, self.disk, self.outage, self.s3_link = folder, disk, outage, s3_link
        self.scheduler_port = free_port()
        self.flow_link, self.worker_link = Link(self.scheduler_port), Link(self.scheduler_port)
        self.prefect_port = free_port()
        self.aws_endpoint = f"http://127.0.0.1:{s3_link.port}"
        self.api_url = f"http://127.0.0.1:{self.prefect_port}/api"
        self.scheduler = scheduler_service(folder, self.scheduler_port)
        self.worker = worker_service(
            folder,
            f"tcp://127.0.0.1:{self.worker_link.port}",
            has_joined=self._has_worker,
            AWS_ENDPOINT_URL=self.aws_endpoint,
        )
        self.services: list[Service] = [self.scheduler, self.worker]
        self.postgres: Service | None = None
        self.prefect: Service | None = None

    @property
    def cluster_flags(self) -> list[str]:
        """Return the flags of commands that use the cluster through the link."""
        address = f"tcp://127.0.0.1:{self.flow_link.port}"
        return [
            "--cluster.kind=scheduler",
            f"--cluster.scheduler={address}",
            "--cluster.connect-timeout-s=60",
        ]

    def variables(self, *, recorded: bool) -> dict[str, str | None]:
        """Return what commands find in their environment."""
        return {"AWS_ENDPOINT_URL": self.aws_endpoint, "PREFECT_API_URL": self.api_url if recorded else None}

    def start(self, *, with_prefect: bool) -> None:
        """Start all parts."""
        if with_prefect:
            self.postgres, url = postgres_service(self.folder)
            self.prefect = prefect_service(
                self.folder,
                url,
                self.prefect_port,
                PREFECT_SERVER_SERVICES_REPOSSESSOR_LOOP_SECONDS="5",
            )
            self.services = [self.postgres, self.prefect, *self.services]
        for each in self.services:
            if each.process is None:
                each.start()
        self.heal()

    def end(self) -> None:
        """Kill all parts."""
        for each in reversed(self.services):
            each.kill()
        self.flow_link.cut()
        self.worker_link.cut()

    def heal(self) -> None:
        """Have every part work again, as supervisors and operators do."""
        self.outage.status = None
        (self.disk / "ballast").unlink(missing_ok=True)
        for link in (self.flow_link, self.worker_link, self.s3_link):
            link.join()
        for each in self.services:
            self._revive(each)
        for each in self.services:
            if each is not self.worker:
                each.wait()
        self._wait_for_worker()

    def _revive(self, service: Service) -> None:
        if service.process is None or service.process.poll() is not None:
            service.start()

    def _wait_for_worker(self) -> None:
        until = time.monotonic() + REJOIN_WITHIN_S
        while not self._has_worker():
            self._revive(self.worker)  # a host whose scheduler is gone ends
            if time.monotonic() > until:
                self.worker.kill()
                until = time.monotonic() + REJOIN_WITHIN_S
            time.sleep(0.3)

    def _has_worker(self) -> bool:
        with (
            suppress(OSError, TimeoutError),
            Client(f"tcp://127.0.0.1:{self.scheduler_port}", timeout=10, set_as_default=False) as client,
        ):
            return bool(client.run(os.getpid))
        return False

    def strike(self, kind: str, draw: random.Random, kill_flow: Callable[[], None], *, remote: bool) -> str:
        """Have a part fail; return in words what was done, "" if there was nothing to do it to."""
        match kind:
            case "flow":
                kill_flow()
                return "SIGKILL to the process of the flow"
            case "prefect" | "postgres" | "scheduler":
                {"prefect": self.prefect, "postgres": self.postgres, "scheduler": self.scheduler}[kind].kill()
                return f"SIGKILL to {kind} and all its processes"
            case "worker":
                return self._kill_worker(whole_host=draw.random() < 0.5)
            case "disk":
                return self._fill_disk()
            case "link":
                name = draw.choice(["flow_link", "worker_link"] + ["s3_link"] * 2 * remote)
                broken = getattr(self, name).cut()
                return f"{name} cut" if broken else ""
            case _:
                self.outage.status = 503
                return "S3 answers 503"

    def _kill_worker(self, *, whole_host: bool) -> str:
        if whole_host:
            self.worker.kill()
            return "SIGKILL to the nanny and its worker"
        self.worker.kill_children()
        return "SIGKILL to the worker process"

    def _fill_disk(self) -> str:
        with (self.disk / "ballast").open("wb", buffering=0) as ballast, suppress(OSError):
            while ballast.write(bytes(2**16)):
                pass
        return f"disk of {DISK_MIB} MiB filled"

    def copy(self, start: Path, name: str, *, remote: bool) -> str:
        """Copy a folder to the small disk or the object store; return its new URL."""
        if not remote:
            return str(shutil.copytree(start, self.disk / name))
        client = boto3.client("s3")
        for path in sorted(it for it in start.rglob("*") if it.is_file()):
            client.put_object(Bucket=BUCKET, Key=f"{name}/{path.relative_to(start)}", Body=path.read_bytes())
        return f"s3://{BUCKET}/{name}"

    def remove(self, url: str) -> None:
        """Remove what was copied, and what came to it."""
        if "://" not in url:
            shutil.rmtree(url)
            return
        prefix = url.removeprefix(f"s3://{BUCKET}/")
        boto3.resource("s3").Bucket(BUCKET).objects.filter(Prefix=f"{prefix}/").delete()


def forget_listings() -> None:
    """Have this process read the object store as it is now."""
    s3fs.S3FileSystem.clear_instance_cache()


@contextmanager
def running_site(folder: Path, kinds: Sequence[str]) -> Iterator[Site]:
    """Start a site in a folder; kill all of it in the end."""
    with ExitStack() as stack:
        logging.getLogger("werkzeug").setLevel(logging.ERROR)  # it logs each request
        moto = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
        moto.start()
        stack.callback(moto.stop)
        endpoint = f"http://127.0.0.1:{moto.get_host_and_port()[1]}"
        os.environ.update(AWS | {"AWS_ENDPOINT_URL": endpoint})
        boto3.client("s3").create_bucket(Bucket=BUCKET)
        proxy, outage = stack.enter_context(proxy_with_outages(endpoint))
        s3_link = stack.enter_context(link_to(urlsplit(proxy).port or 0))
        disk = folder / "disk"
        stack.enter_context(mounted(disk, "-t", "tmpfs", "-o", f"size={DISK_MIB}m", "tmpfs"))
        site = Site(folder, disk, outage, s3_link)
        stack.callback(site.end)
        site.start(with_prefect=bool(set(kinds) & set(RECORDED)))
        yield site
