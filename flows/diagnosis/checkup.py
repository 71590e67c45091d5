"""All checks of a machine, in the order of their lines."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from flows.diagnosis import network, places, software
from flows.diagnosis.findings import Finding
from store.fs.files import local_path


def check_machine(
    *, store: str, models: str, certificates: str, scheduler: str, port: int
) -> Iterator[Finding]:
    """Yield the findings of all checks; each is made when it is asked for."""
    yield from software.check_packages(
        software.read_installed(), software.read_lock(), software.read_needed()
    )
    yield from software.check_decoders(_decoder_versions)
    yield from software.check_gpus(software.list_gpus(), _usable_gpus)
    yield from places.check_place("store", store)
    yield from places.check_place("models", models)
    yield from _check_disks(store, models)
    yield from network.check_proxies(os.environ, network.server_urls())
    yield from network.check_exposure(os.environ)
    yield from _check_prefect(port)
    if certificates:
        yield from network.check_certificates(Path(certificates))
    if scheduler:
        from flows.diagnosis.dask_state import check_scheduler

        yield from check_scheduler(scheduler, certificates)


def _check_disks(store: str, models: str) -> Iterator[Finding]:
    folders = {path: None for it in (store, models) if (path := local_path(it)) is not None}
    disks: dict[int, Path] = {}
    for folder in (*folders, Path(tempfile.gettempdir())):
        disks.setdefault(places.nearest_existing(folder).stat().st_dev, folder)
    for folder in disks.values():
        yield from places.check_space("disk", folder)
        if folder in folders:
            yield from places.check_fsync("fsync", folder)


def _check_prefect(port: int) -> Iterator[Finding]:
    from prefect.settings import get_current_settings

    from flows.diagnosis.prefect_state import check_prefect_database, check_prefect_server
    from flows.services.server_check import responds

    yield from check_prefect_database()
    yield from check_prefect_server(get_current_settings().api.url)
    yield from network.check_port(port, is_ours=responds(f"http://127.0.0.1:{port}/api"))


def _decoder_versions() -> dict[str, str]:
    from preprocessing.decode.libraries import library_versions

    return library_versions()


def _usable_gpus() -> tuple[int, str | None]:
    from training.networks.devices import usable_gpus

    return usable_gpus()
