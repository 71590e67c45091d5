"""`spectrogram-one tags ...`: what is typed; `tag_listing` does it."""

from pathlib import Path

from cyclopts import App

app = App(name="tags", help="Inspect the tags of files, and the runs that wrote them.")
RUNS = "data/tagging"


@app.command
def show(*paths: Path) -> None:
    """Show what the tags of files contain, those in folders too."""
    from flows.commands.tag_listing import show_tags

    print("\n".join(show_tags(paths)))


@app.command
def diff(one: Path, other: Path) -> None:
    """Show where the tags of two files, or of the files of two folders, differ."""
    from flows.commands.tag_listing import diff_tags

    print("\n".join(diff_tags(one, other)) or "no tag differs")


@app.command(name="runs")
def list_runs(*, runs: str = RUNS) -> None:
    """List the tagging runs, oldest first."""
    from rich.console import Console

    from flows.commands.tag_listing import runs_table

    Console(markup=False).print(runs_table(runs))
