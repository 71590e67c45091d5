"""What all tests share."""

import os
from collections.abc import Callable

import pytest


@pytest.fixture(scope="session")
def need() -> Callable[[object, str], None]:
    """Give `need(found, reason)`, for what pip does not bring: without it a test is skipped, in CI it fails."""

    def need(found: object, reason: str) -> None:
        if not found:
            (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(reason)

    return need
