"""The commands of an operator: the parameters. The rooms `diagnosis`, `security` and `recovery` do the work."""

import sys
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter, validators

EXIT_PROBLEM = 1
CERTIFICATES = Path("data/certificates")
Positive = validators.Number(gte=1)


def doctor(
    *,
    store: Annotated[str, Parameter(help="Folder or URL of the spectrogram store")] = "data/store",
    models: Annotated[str, Parameter(help="Folder or URL of the models")] = "data/models",
    certificates: Annotated[str, Parameter(help="Folder of this host's certificates, if it has some")] = "",
    scheduler: Annotated[str, Parameter(help="Address of a Dask scheduler to check, too")] = "",
    port: Annotated[int, Parameter(help="Port of the Prefect server of `serve`")] = 4200,
) -> None:
    """Check this machine, and say for each finding what to do. The exit status is 1 if there is a problem."""
    from flows.diagnosis.checkup import check_machine

    findings = []
    for finding in check_machine(
        store=store, models=models, certificates=certificates, scheduler=scheduler, port=port
    ):
        print(finding.line(), flush=True)
        findings.append(finding.level)
    if "problem" in findings:
        sys.exit(EXIT_PROBLEM)


def certificates(
    *hosts: Annotated[str, Parameter(help="Names or addresses of the hosts, as Dask's addresses have them")],
    folder: Annotated[Path, Parameter(help="Folder of the authority and the certificates")] = CERTIFICATES,
    days: Annotated[int, Parameter(validator=Positive, help="Days that a host's certificate is valid")] = 365,
    renew: Annotated[bool, Parameter(negative="", help="Replace certificates that exist")] = False,
    dask: Annotated[bool, Parameter(negative="", help="Write the file that DASK_CONFIG names, too")] = False,
    installed_in: Annotated[
        Path | None, Parameter(help="Folder of the certificates on the hosts, for --dask; default: --folder")
    ] = None,
) -> None:
    """Make certificates for TLS between Dask's processes: one for each host, signed by an authority of their own."""
    from flows.security.certificates import AUTHORITY, key_path, make_certificates, write_dask_config

    for path in make_certificates(folder, hosts or ("localhost",), days, renew=renew):
        print(path)
        if dask:
            print(write_dask_config(folder, path.stem, installed_in or folder.absolute()))
    print(f"each host needs ca.pem, its .pem and its .key; {key_path(folder, AUTHORITY)} stays here")


def backup(
    target: Annotated[str, Parameter(help="New folder or URL for the backup")],
    *,
    models: Annotated[str, Parameter(help="Folder or URL of the models")] = "data/models",
    runs: Annotated[str, Parameter(help="Folder or URL of the tagging runs")] = "data/tagging",
) -> None:
    """Copy models, champion, tagging runs with their journals, and Prefect's sqlite database."""
    from flows.recovery.backup import make_backup

    print("\n".join(make_backup(target, models, runs)))


def restore(
    source: Annotated[str, Parameter(help="Folder or URL that `backup` wrote")],
    *,
    models: Annotated[str, Parameter(help="Folder or URL for the models")] = "data/models",
    runs: Annotated[str, Parameter(help="Folder or URL for the tagging runs")] = "data/tagging",
    database: Annotated[bool, Parameter(help="Restore Prefect's database, too")] = True,
) -> None:
    """Put a backup back, once every byte of it was checked. Nothing that exists is overwritten."""
    from flows.recovery.restore import restore_backup

    print("\n".join(restore_backup(source, models, runs, with_database=database)))
