"""`spectrogram-one` in a fork of a process that has imported what commands need: a command in a second, not in ten.

Prefect reads its environment when it is imported: that of the process holds, with the URL of the server; a command
that is not to be recorded has that variable removed.
"""

import os
import random
import signal
import sys
from collections.abc import Mapping, Sequence

import s3fs  # noqa: F401

import flows.build_dataset
import flows.cluster.dask_batches
import flows.commands.run
import flows.prefect_flows
import flows.services.prefect_server
import flows.tag_catalogue
import flows.train_model
import flows.undo_tagging  # noqa: F401
from flows.cli import main


def run_command(arguments: Sequence[str], variables: Mapping[str, str | None], log: str) -> None:
    """Run a command to its end, with these changes of the environment; its output goes to the file `log`."""
    os.setsid()
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    for stream in (1, 2):
        os.dup2(output, stream)
    random.seed()
    for name, value in variables.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
    sys.argv = ["spectrogram-one", *arguments]
    status: object = 1
    try:
        main()
        status = 0
    except SystemExit as end:
        status = end.code
    finally:
        if sys.exc_info()[0] is not None:
            sys.excepthook(*sys.exc_info())  # type: ignore[arg-type]
        sys.stdout.flush()
        os._exit(status if isinstance(status, int) else int(status is not None))
