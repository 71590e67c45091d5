"""One browser for all tests here."""

import importlib.util
import os
import shutil
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.support.chromium import CHROMIUM, CHROMIUM_FLAGS


@pytest.fixture(scope="module")
def browser(need, tmp_path_factory):
    """Open headless Chromium with a fresh profile; no page of it may ask another machine.

    It ends with the tests of a file: as long as it is open, Playwright has an event loop running in this thread,
    and others of the same process, as those of Prefect's flows, cannot run one.
    """
    need(importlib.util.find_spec("playwright"), "playwright is not installed")
    need(shutil.which(CHROMIUM), f"{CHROMIUM} is not installed")
    from playwright.sync_api import sync_playwright

    hosts = set()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch_persistent_context(
            tmp_path_factory.mktemp("profile"),
            executable_path=CHROMIUM,
            args=list(CHROMIUM_FLAGS),
            viewport={"width": 1280, "height": 1000},
        )
        browser.set_default_timeout(30_000)
        browser.on("request", lambda request: hosts.add(urlsplit(request.url).hostname))
        yield browser
        browser.close()
    assert hosts <= {"127.0.0.1", None}  # None: what the page made itself, data: and blob:


@pytest.fixture
def page(browser):
    page = browser.new_page()
    yield page
    page.close()


@pytest.fixture(scope="session")
def pictures(tmp_path_factory):
    """Name the folder where screenshots are kept."""
    folder = Path(os.environ.get("CI_ARTIFACTS_DIR") or tmp_path_factory.mktemp("pictures"))
    folder.mkdir(parents=True, exist_ok=True)
    return folder
