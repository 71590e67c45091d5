"""Certificates as they are found in a folder: by whom they were signed, and until when they are valid."""

import socket
import stat
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization

from flows.security.certificates import AUTHORITY, certificate_path, key_path
from store.errors import BadInput


@dataclass(frozen=True)
class FoundCertificate:
    """A certificate of a folder, and what is wrong with it, if anything is."""

    path: Path
    valid_until: datetime | None
    fault: str | None

    def days_left(self, now: datetime) -> float:
        """Return the days until it expires; 0 for one that cannot be read."""
        return (self.valid_until - now).total_seconds() / 86_400 if self.valid_until else 0.0


def read_certificates(folder: Path, now: datetime | None = None) -> list[FoundCertificate]:
    """Check the authority and every host's certificate of a folder. Raises: BadInput if it has no authority."""
    path = certificate_path(folder, AUTHORITY)
    if not path.is_file():
        raise BadInput(
            f"{folder}: holds no {path.name}; make certificates with `spectrogram-one certificates HOST`, or copy "
            "them here"
        )
    now = now or datetime.now(UTC)
    found = [_check(path, None, now)]
    authority = None if found[0].valid_until is None else x509.load_pem_x509_certificate(path.read_bytes())
    others = sorted(it for it in folder.glob("[!.]*.pem") if it != path)
    return found + [_check(it, authority, now) for it in others]


def choose_host_certificate(folder: Path) -> str:
    """Return the name of the certificate that this host uses. Raises: BadInput if none can be used.

    It is the one with this host's name or, on a host that has a single one, that one.
    """
    authority, *others = read_certificates(folder)
    if authority.fault:
        raise BadInput(f"{authority.path}: {authority.fault}")
    hosts = {it.path.stem: it for it in others}
    name = socket.gethostname()
    if name not in hosts and len(hosts) != 1:
        raise BadInput(
            f"{folder}: holds certificates for {', '.join(hosts) or 'no host'}, and this one is {name}; "
            f"`spectrogram-one certificates {name}` makes one, where {AUTHORITY}.key is"
        )
    chosen = hosts[name] if name in hosts else next(iter(hosts.values()))
    if chosen.fault:
        raise BadInput(f"{chosen.path}: {chosen.fault}")
    return chosen.path.stem


def _check(path: Path, authority: x509.Certificate | None, now: datetime) -> FoundCertificate:
    try:
        certificate = x509.load_pem_x509_certificate(path.read_bytes())
    except (ValueError, OSError) as why:
        return FoundCertificate(path, None, f"cannot be read as a certificate ({why}); make it again")
    fault = (
        _date_fault(certificate, now)
        or (None if authority is None else _authority_fault(certificate, authority))
        or _key_fault(certificate, key_path(path.parent, path.stem), is_needed=path.stem != AUTHORITY)
    )
    return FoundCertificate(path, certificate.not_valid_after_utc, fault)


def _date_fault(certificate: x509.Certificate, now: datetime) -> str | None:
    if now > certificate.not_valid_after_utc:
        return (
            f"expired on {certificate.not_valid_after_utc:%Y-%m-%d %H:%M} UTC; make another with "
            "`spectrogram-one certificates HOST --renew`, and restart the Dask processes of that host"
        )
    if now < certificate.not_valid_before_utc:
        return (
            f"not valid before {certificate.not_valid_before_utc:%Y-%m-%d %H:%M} UTC, and this host's clock shows "
            f"{now:%Y-%m-%d %H:%M}; set the clock"
        )
    return None


def _authority_fault(certificate: x509.Certificate, authority: x509.Certificate) -> str | None:
    try:
        certificate.verify_directly_issued_by(authority)
    except (ValueError, TypeError, InvalidSignature):
        return (
            f"was signed by another authority than the {AUTHORITY}.pem beside it; all hosts need certificates and "
            f"the {AUTHORITY}.pem of the same folder"
        )
    return None


def _key_fault(certificate: x509.Certificate, path: Path, *, is_needed: bool) -> str | None:
    if not path.is_file():
        return f"its key {path.name} is missing; copy it here, or make both again" if is_needed else None
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    except (ValueError, TypeError, OSError) as why:
        return f"its key {path.name} cannot be read ({why}); make both again"
    if key.public_key() != certificate.public_key():
        return f"{path.name} is the key of another certificate; copy both from the same run"
    if stat.S_IMODE(path.stat().st_mode) & 0o077:
        return f"other users may read its key; `chmod 600 {path}`"
    return None
