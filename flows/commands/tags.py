"""`spectrogram-one tags ...`: the parameters. `tag_listing` and `run_listing` do the work."""

from pathlib import Path

from cyclopts import App

app = App(name="tags", help="Inspect the tags of files, and the runs that wrote them.")
RUNS = "data/tagging"
MOST_COLUMNS = 10_000


@app.command
def show(*paths: Path) -> None:
    """Show the tags of files, and of the files in folders."""
    from flows.commands.tag_listing import show_tags

    print("\n".join(show_tags(paths)))


@app.command
def diff(one: Path | None = None, other: Path | None = None) -> None:
    """Show the differences between the tags of two files, or of the files of two folders."""
    from flows.commands.tag_listing import diff_tags

    print("\n".join(diff_tags(one, other)) or "no tag differs")


@app.command(name="runs")
def list_runs(*, runs: str = RUNS) -> None:
    """List the tagging runs, oldest first."""
    from rich.console import Console

    from flows.commands.run_listing import runs_table

    console, table = Console(markup=False), runs_table(runs)
    # A pipe has 80 columns for rich, and the names of runs are there to be copied.
    widest = console.measure(table, options=console.options.update(width=MOST_COLUMNS)).maximum
    Console(markup=False, width=max(console.width, widest)).print(table)
