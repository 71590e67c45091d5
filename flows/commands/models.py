"""`spectrogram-one models ...`: the parameters. `model_versions`, `model_comparison`, `model_export` do the work."""

from typing import Annotated

from cyclopts import App, Parameter

app = App(name="models", help="Inspect model versions, and choose the champion.")
MODELS = "data/models"
Root = Annotated[str, Parameter(help="Folder or URL where model versions are kept")]
Which = Annotated[str, Parameter(help="A version, the beginning of its name, champion or latest")]


@app.command(name="list")
def list_versions(*, models: Root = MODELS) -> None:
    """List the versions, oldest first; * marks the champion."""
    from rich.console import Console

    from flows.commands.model_versions import list_models

    Console(markup=False).print(list_models(models))


@app.command
def show(version: Which = "champion", *, models: Root = MODELS) -> None:
    """Show the model card of a version, and when it was in service."""
    from flows.commands.model_versions import show_model

    print("\n".join(show_model(models, version)))


@app.command
def compare(one: Which, other: Which, *, models: Root = MODELS) -> None:
    """Compare two versions on the test tracks that both were scored on."""
    from rich.console import Console

    from flows.commands.model_comparison import compare_models

    table, lines = compare_models(models, one, other)
    Console(markup=False).print(table)
    print("\n".join(lines))


@app.command
def promote(version: Which, *, models: Root = MODELS, reason: str = "by hand") -> None:
    """Make a version the champion."""
    from flows.commands.model_versions import promote_model

    print(promote_model(models, version, reason))


@app.command
def rollback(*, models: Root = MODELS) -> None:
    """Make the previous champion the champion again; repeat it to go back further."""
    from flows.commands.model_versions import rollback_model

    print(rollback_model(models))


@app.command
def export(target: str, *, version: Which = "champion", models: Root = MODELS) -> None:
    """Write the network of a version as an ONNX file, for `tag --backend onnx --onnx FILE` and other programs."""
    from flows.commands.model_export import export_model

    print(export_model(models, version, target))
