"""The pictures of the README, taken from a demo that was run: python -m tests.support.pictures DEMO_FOLDER

A report page, the page of a tagging run, a form in the Prefect UI, and a terminal.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

from playwright.sync_api import BrowserContext, sync_playwright
from rich.console import Console
from rich.text import Text

from tests.support.chromium import CHROMIUM, CHROMIUM_FLAGS
from tests.support.prefect_ui import COMMAND, deployments, serving
from tests.support.processes import free_port

PICTURES = Path("docs/pictures")
SIZE = {"width": 1100, "height": 1100}
LINES = 34  # of the terminal


def main(demo: Path) -> None:
    """Take all pictures."""
    PICTURES.mkdir(parents=True, exist_ok=True)
    draw_terminal(demo)
    with tempfile.TemporaryDirectory() as profile, sync_playwright() as playwright:
        browser = playwright.chromium.launch_persistent_context(
            profile, executable_path=CHROMIUM, args=list(CHROMIUM_FLAGS), viewport=SIZE
        )
        photograph(browser, max(demo.glob("models/2*/report/report.html")), "report.png")
        photograph(browser, max(demo.glob("tagging/2*/summary.html")), "tagging.png")
        photograph_form(browser)
        browser.close()


def photograph(browser: BrowserContext, page_file: Path, name: str) -> None:
    """Take a picture of the top of a page on this disk."""
    page = browser.new_page()
    page.goto(page_file.absolute().as_uri())
    page.screenshot(path=PICTURES / name)
    page.close()


def photograph_form(browser: BrowserContext) -> None:
    """Take a picture of the form of `build-dataset`."""
    with tempfile.TemporaryDirectory() as home, serving(Path(home), free_port()) as served:
        page = browser.new_page()
        page.goto(f"{served.url}/deployments/deployment/{deployments(served)['build-dataset']['id']}/run")
        page.get_by_role("button", name="Submit").wait_for()
        page.screenshot(path=PICTURES / "form.png")
        page.close()


def draw_terminal(demo: Path) -> None:
    """Draw what a dry run prints, as a terminal shows it."""
    command = ["tag", f"{demo}/untagged", "--models", f"{demo}/models", "--runs", f"{demo}/tagging"]
    done = subprocess.run(
        [COMMAND, *command], capture_output=True, text=True, check=True, env={"COLUMNS": "110"}
    )
    shown = done.stdout.replace(f"{demo}/", "")
    console = Console(record=True, width=112, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(Text("$ spectrogram-one tag untagged\n" + "\n".join(shown.splitlines()[:LINES])))
    (PICTURES / "terminal.svg").write_text(console.export_svg(title="spectrogram-one"))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
