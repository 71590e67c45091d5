"""Ports, proxies, certificates and the servers that settings name."""

import os
import socket
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit

from flows.diagnosis.findings import Finding, ok, problem, warning
from flows.security.addresses import is_loopback
from flows.security.certificate_check import read_certificates
from store.errors import BadInput

PROXY_VARIABLES = ("http_proxy", "https_proxy", "all_proxy")
RENEW_DAYS = 30.0


def check_port(port: int, *, is_ours: bool) -> list[Finding]:
    """Try to bind the port of the Prefect server. `is_ours`: a Prefect server of this user responds there."""
    if is_ours:
        return [ok("port", f"{port}: a Prefect server responds there")]
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as why:
            return [
                problem("port", f"{port} cannot be bound ({why.strerror})", "`serve --port` with another one")
            ]
    return [ok("port", f"{port} is free for `spectrogram-one serve`")]


def check_proxies(environment: Mapping[str, str], servers: Mapping[str, str]) -> list[Finding]:
    """Judge whether the proxies of the environment would be used for our own servers, by name and URL."""
    values = {name.lower(): value for name, value in environment.items() if value}
    proxies = [name for name in PROXY_VARIABLES if name in values]
    if not proxies:
        return [ok("proxy", "none set")]
    exempt = [it.strip().lstrip(".").lower() for it in values.get("no_proxy", "").split(",") if it.strip()]
    found = []
    for name, url in servers.items():
        host = (urlsplit(url).hostname or "").lower()
        is_exempt = "*" in exempt or any(host == it or host.endswith(f".{it}") for it in exempt)
        if host and not is_exempt and not is_loopback(url):
            found.append(
                warning(
                    "proxy", f"{name} at {host} is reached through {proxies[0]}", f"add {host} to NO_PROXY"
                )
            )
    return found or [ok("proxy", f"{', '.join(proxies)} set; this machine's own servers are exempt")]


def check_certificates(folder: Path, now: datetime | None = None) -> list[Finding]:
    """Judge each certificate of a folder: readable, signed by its authority, not expired and not soon."""
    now = now or datetime.now(UTC)
    try:
        found = read_certificates(folder, now)
    except BadInput as why:
        return [problem("certificates", str(why), "or leave --certificates away")]
    findings = []
    for it in found:
        if it.fault:
            findings.append(problem("certificates", f"{it.path}: {it.fault}", ""))
        elif it.days_left(now) < RENEW_DAYS:
            findings.append(
                warning(
                    "certificates",
                    f"{it.path} expires in {it.days_left(now):.0f} days",
                    f"`spectrogram-one certificates {it.path.stem} --renew --folder {folder}`, then restart that "
                    "host's Dask processes",
                )
            )
        else:
            findings.append(ok("certificates", f"{it.path} is valid for {it.days_left(now):.0f} days"))
    return findings


def check_exposure(environment: Mapping[str, str]) -> list[Finding]:
    """Judge whether the server of the environment would be reachable from other hosts without a password."""
    host = environment.get("PREFECT_SERVER_API_HOST", "127.0.0.1")
    if is_loopback(host) or environment.get("PREFECT_SERVER_API_AUTH_STRING"):
        return []
    return [
        problem(
            "prefect",
            f"PREFECT_SERVER_API_HOST={host}: others can reach the server, and it asks for no password",
            "set PREFECT_SERVER_API_AUTH_STRING=USER:PASSWORD, or bind it to 127.0.0.1",
        )
    ]


def server_urls() -> dict[str, str]:
    """Return the servers that the environment names."""
    names = {
        "Prefect": "PREFECT_API_URL",
        "the object store": "AWS_ENDPOINT_URL",
        "MLflow": "MLFLOW_TRACKING_URI",
    }
    return {name: os.environ[it] for name, it in names.items() if os.environ.get(it, "").startswith("http")}
