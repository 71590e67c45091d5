"""One browser for all tests here."""

import importlib.util
import os
import shutil
from pathlib import Path
from urllib.parse import urlsplit

import pytest

CHROMIUM = "/usr/bin/chromium"
CHROMIUM_FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@pytest.fixture(scope="session")
def browser(need, tmp_path_factory):
    """Open headless Chromium with a fresh profile; no page of it may ask another machine."""
    need(importlib.util.find_spec("playwright"), "playwright is not installed")
    need(shutil.which(CHROMIUM), f"{CHROMIUM} is not installed")
    from playwright.sync_api import sync_playwright

    hosts = set()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch_persistent_context(
            tmp_path_factory.mktemp("profile"),
            executable_path=CHROMIUM,
            args=CHROMIUM_FLAGS,
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
