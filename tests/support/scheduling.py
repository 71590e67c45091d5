"""The distribution of the tests to several test processes."""

import pytest
from xdist.scheduler import LoadScopeScheduling

# These start Chromium and a Prefect server, which cost more than their tests.
SHARE_A_PROCESS = (
    "tests/e2e/test_cancel_training.py",
    "tests/e2e/test_ui.py",
)


class ByFile(LoadScopeScheduling):
    """Run the tests of a file in one process, in the order of collection: e2e and integration, the slowest, first."""

    def _split_scope(self, nodeid: str) -> str:
        file, _, _ = nodeid.partition("::")
        return "Prefect" if file in SHARE_A_PROCESS else file


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> ByFile:
    config.option.loadscopereorder = False  # by number of tests, which says nothing of their duration
    return ByFile(config, log)
