"""The certificates of a cluster: an authority of one's own, and one certificate for each host, signed by it.

A folder holds `ca.pem` and `ca.key`, and for each host `HOST.pem` and `HOST.key`. A host needs the first and its
own two; `ca.key` stays where the certificates are made. A host's certificate serves all its Dask processes.
"""

import os
import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from store.errors import BadInput
from store.fs.files import replacing

AUTHORITY = "ca"
AUTHORITY_DAYS = 3_650
CLOCK_TOLERANCE = timedelta(hours=1)  # hosts' clocks differ; a certificate is valid from before it was made
HOST_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9.:_-]{0,252}")


def make_certificates(folder: Path, hosts: Sequence[str], days: int, *, renew: bool = False) -> list[Path]:
    """Sign a certificate for each host, by the authority of the folder, which is made if there is none.

    Raises: BadInput if a host's name cannot be one, or it has a certificate and `renew` is not asked for.
    """
    for host in hosts:
        if not HOST_NAME.fullmatch(host) or host == AUTHORITY:
            raise BadInput(f"{host!r}: not a name or address of a host; it becomes the name of a file")
        if certificate_path(folder, host).exists() and not renew:
            raise BadInput(
                f"{certificate_path(folder, host)}: exists already; --renew replaces it by a new one"
            )
    folder.mkdir(parents=True, exist_ok=True)
    authority, key = _open_authority(folder)
    return [_make_host_certificate(folder, host, days, authority, key) for host in hosts]


def certificate_path(folder: Path, name: str) -> Path:
    """Return the file of a certificate; its key lies beside it."""
    return folder / f"{name}.pem"


def key_path(folder: Path, name: str) -> Path:
    """Return the file of a private key."""
    return folder / f"{name}.key"


def write_dask_config(folder: Path, host: str, installed_in: Path) -> Path:
    """Write the file of settings by which Dask uses a host's certificate.

    Dask reads it where `DASK_CONFIG` names it. `installed_in` is the folder of the certificates on that host.
    """
    tls: dict[str, Any] = {"ca-file": str(certificate_path(installed_in, AUTHORITY))}
    for role in ("scheduler", "worker", "client"):
        tls[role] = {
            "cert": str(certificate_path(installed_in, host)),
            "key": str(key_path(installed_in, host)),
        }
    comm = {"default-scheme": "tls", "require-encryption": True, "tls": tls}
    path = folder / f"{host}.dask.yaml"
    path.write_text(yaml.safe_dump({"distributed": {"comm": comm}}, sort_keys=False), encoding="utf-8")
    return path


def _open_authority(folder: Path) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    """Read the authority of a folder, or make one. Raises: BadInput if half of it is missing or unusable."""
    certificate_file, key_file = certificate_path(folder, AUTHORITY), key_path(folder, AUTHORITY)
    if certificate_file.exists() != key_file.exists():
        missing = key_file if certificate_file.exists() else certificate_file
        raise BadInput(
            f"{missing}: missing; put it back to sign with this authority, or name another --folder"
        )
    if not certificate_file.exists():
        return _make_authority(folder)
    try:
        authority = x509.load_pem_x509_certificate(certificate_file.read_bytes())
        key = serialization.load_pem_private_key(key_file.read_bytes(), password=None)
    except (ValueError, TypeError) as why:
        raise BadInput(f"{folder}: the authority cannot be read ({why}); name another --folder") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise BadInput(
            f"{key_file}: not a key that this command made; name another --folder for an authority of its own"
        )
    return authority, key


def _make_authority(folder: Path) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = _name("The Spectrogram One: authority of a cluster")
    builder = _builder(name, name, key.public_key(), AUTHORITY_DAYS)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    builder = builder.add_extension(_key_usage(is_authority=True), critical=True)
    authority = builder.sign(key, hashes.SHA256())
    _write(folder, AUTHORITY, authority, key)
    return authority, key


def _make_host_certificate(
    folder: Path, host: str, days: int, authority: x509.Certificate, authority_key: ec.EllipticCurvePrivateKey
) -> Path:
    key = ec.generate_private_key(ec.SECP256R1())
    builder = _builder(_name(host[:64]), authority.subject, key.public_key(), days)
    usage = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
    issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key())
    for extension, critical in (
        (x509.BasicConstraints(ca=False, path_length=None), True),
        (_key_usage(is_authority=False), True),
        (x509.ExtendedKeyUsage(usage), False),
        (x509.SubjectAlternativeName([_alternative_name(host)]), False),
        (issuer, False),
    ):
        builder = builder.add_extension(extension, critical=critical)
    return _write(folder, host, builder.sign(authority_key, hashes.SHA256()), key)


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, days: int
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - CLOCK_TOLERANCE)
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _alternative_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _key_usage(*, is_authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not is_authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=is_authority,
        crl_sign=is_authority,
        encipher_only=False,
        decipher_only=False,
    )


def _write(folder: Path, name: str, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> Path:
    """Write a key that only its owner can read, then the certificate; return the path of the certificate."""
    data = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    _replace(key_path(folder, name), data, mode=0o600)
    path = certificate_path(folder, name)
    _replace(path, certificate.public_bytes(serialization.Encoding.PEM), mode=0o644)
    return path


def _replace(path: Path, data: bytes, mode: int) -> None:
    with replacing(path) as draft:
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)  # never readable in between
        with open(descriptor, "wb") as file:
            file.write(data)
