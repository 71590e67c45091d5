"""Artifacts on the page of a run in the Prefect UI. Outside of a Prefect run these functions do nothing."""

import html
from collections.abc import Callable, Iterable, Mapping
from uuid import UUID

from flows.reporting.stage import in_flow_run

MAX_IMAGE_BYTES = 500_000
ShowProgress = Callable[[float, str], None]  # percent, description


def show_table(key: str, rows: Iterable[Mapping[str, object]], description: str) -> None:
    """Put a table on the page of the run.

    The UI renders every cell as HTML, and cells contain names and tags of other people's files.
    """
    if not in_flow_run():
        return
    from prefect.artifacts import create_table_artifact

    safe = [{name: html.escape(str(cell), quote=False) for name, cell in row.items()} for row in rows]
    create_table_artifact(safe, key=key, description=html.escape(description, quote=False))


def show_markdown(key: str, text: str) -> None:
    """Put Markdown on the page of the run."""
    if not in_flow_run():
        return
    from prefect.artifacts import create_markdown_artifact

    create_markdown_artifact(text, key=key)


def show_link(key: str, url: str, text: str) -> None:
    """Put a link on the page of the run."""
    if not in_flow_run():
        return
    from prefect.artifacts import create_link_artifact

    create_link_artifact(url, link_text=text, key=key)


def show_image(key: str, read_png: Callable[[], bytes], description: str) -> None:
    """Put a figure on the page of the run.

    The artifact contains it, since a browser on another machine cannot open local files. A figure that is too large
    for Prefect's database is left out, and one that was removed with its report.
    """
    if not in_flow_run():
        return
    try:
        png = read_png()
    except FileNotFoundError:
        return
    if len(png) > MAX_IMAGE_BYTES:
        return
    from prefect.artifacts import create_image_artifact

    from training.report.formatting import data_uri

    create_image_artifact(data_uri(png), key=key, description=html.escape(description, quote=False))


def progress_artifact(key: str, description: str) -> ShowProgress:
    """Put a progress bar on the page of the run, and return a function that moves it."""
    if not in_flow_run():
        return lambda percent, description: None
    from prefect.artifacts import create_progress_artifact, update_progress_artifact

    artifact = create_progress_artifact(0.0, key=key, description=description)
    assert isinstance(artifact, UUID), "outside of an event loop Prefect creates it synchronously"

    def show(percent: float, description: str) -> None:
        update_progress_artifact(artifact, percent, description=description)

    return show
