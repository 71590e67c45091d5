"""What is found wrong with `--cluster.kind slurm` before a job is submitted; jobs: tests/integration/test_slurm.py."""

import sys

import pytest
from pydantic import ValidationError

from flows.checks import check_cluster
from flows.cluster.settings import ClusterSettings
from store.errors import BadInput


@pytest.mark.parametrize(("kind", "package"), [("slurm", "dask_jobqueue"), ("kubernetes", "dask_kubernetes")])
def test_a_missing_extra_is_one_line_with_the_command_that_installs_it(monkeypatch, kind, package):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(BadInput, match=rf"pip install 'spectrogram-one\[{kind}\]'"):
        check_cluster(ClusterSettings(kind=kind))


def test_a_machine_without_slurm_is_named_so(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(BadInput, match="sbatch is not on the PATH; run this on a login node"):
        check_cluster(ClusterSettings(kind="slurm"))


def test_fewest_jobs_are_at_most_the_most():
    with pytest.raises(ValidationError, match="--min-jobs 9 is more than --max-jobs 8"):
        ClusterSettings(kind="slurm", min_jobs=9)
