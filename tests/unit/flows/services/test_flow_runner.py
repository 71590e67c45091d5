"""The runner of `serve`, beside those of other users."""

import stat
import tempfile
import threading

from flows.services.flow_runner import CancellableRunner


def test_a_runner_has_a_folder_of_its_own_beside_those_of_other_users(tmp_path, monkeypatch):
    """Prefect's folder for all runners belongs to the user of the first one: others may not write into it."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    CancellableRunner(threading.Event())
    CancellableRunner(threading.Event())
    folders = list(tmp_path.glob("spectrogram-one-*"))
    assert [stat.S_IMODE(folder.stat().st_mode) for folder in folders] == [0o700, 0o700]
