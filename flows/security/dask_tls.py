"""TLS between Dask's client, scheduler and workers."""

from pathlib import Path

from distributed import Security

from flows.security.certificate_check import choose_host_certificate
from flows.security.certificates import AUTHORITY, certificate_path, key_path


def read_security(folder: Path) -> Security:
    """Return the TLS settings of this host's certificate, for all roles.

    Raises: BadInput if the folder holds no certificate that this host can use: none, expired, foreign.
    """
    host = choose_host_certificate(folder)
    return use_certificate(
        certificate_path(folder, AUTHORITY), certificate_path(folder, host), key_path(folder, host)
    )


def use_certificate(authority: Path, certificate: Path, key: Path) -> Security:
    """Return the TLS settings of a certificate, for all roles; connections without TLS are refused."""
    roles = {
        f"tls_{role}_{part}": str(path)
        for role in ("scheduler", "worker", "client")
        for part, path in (("cert", certificate), ("key", key))
    }
    return Security(tls_ca_file=str(authority), require_encryption=True, **roles)
