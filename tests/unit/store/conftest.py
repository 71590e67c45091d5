"""What tests of tags share: short files of each kind, and copies of them to write to."""

import shutil
from pathlib import Path

import pytest

from tests.support.tagged_files import KINDS, write_tagged_files


@pytest.fixture(scope="session")
def originals(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("originals")
    write_tagged_files(folder)
    return folder


@pytest.fixture(params=KINDS)
def track(request, originals, tmp_path) -> Path:
    return Path(shutil.copy(originals / request.param, tmp_path / request.param))
