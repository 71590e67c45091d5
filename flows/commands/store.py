"""`spectrogram-one store ...`: the parameters. `store_snapshots`, `store_upkeep`, `store_copies` do the work."""

from typing import Annotated

from cyclopts import App, Parameter, validators

app = App(name="store", help="Inspect the snapshots of a store, verify it, free its space, copy it.")
STORE = "data/store"
Root = Annotated[str, Parameter(help="Folder or URL of the spectrogram store")]
Which = Annotated[str, Parameter(help="A snapshot: its number, a tag, or latest")]
Positive = validators.Number(gte=1)


@app.command
def log(*, store: Root = STORE) -> None:
    """List the snapshots, newest first, with their tags."""
    from rich.console import Console

    from flows.commands.store_snapshots import list_snapshots

    Console(markup=False).print(list_snapshots(store))


@app.command
def show(snapshot: Which = "latest", *, store: Root = STORE) -> None:
    """Show the tracks, splits, settings and files of a snapshot."""
    from flows.commands.store_snapshots import show_snapshot

    print("\n".join(show_snapshot(store, snapshot)))


@app.command
def diff(
    one: Which,
    other: Which = "latest",
    *,
    store: Root = STORE,
    limit: Annotated[int, Parameter(help="Most tracks to list of each kind of difference")] = 20,
) -> None:
    """Show which tracks differ between two snapshots, and in what."""
    from flows.commands.store_snapshots import diff_snapshots

    print("\n".join(diff_snapshots(store, one, other, limit)) or "no track differs")


@app.command
def tag(
    name: Annotated[str, Parameter(help="Name of the tag")],
    snapshot: Which = "latest",
    *,
    store: Root = STORE,
    move: Annotated[bool, Parameter(negative="", help="Move a tag that names another snapshot")] = False,
    remove: Annotated[bool, Parameter(negative="", help="Remove the tag; the snapshot stays")] = False,
) -> None:
    """Name a snapshot, so that sweeps keep it."""
    from flows.commands.store_snapshots import remove_store_tag, tag_snapshot

    print(remove_store_tag(store, name) if remove else tag_snapshot(store, name, snapshot, move=move))


@app.command
def verify(
    snapshot: Which = "latest",
    *,
    store: Root = STORE,
    threads: Annotated[int, Parameter(validator=Positive, help="Files that are read at once")] = 8,
) -> None:
    """Read every byte of a snapshot and compare it with its checksums; name damaged tracks."""
    from flows.commands.store_upkeep import verify_store

    for line in verify_store(store, snapshot, threads):  # one by one: at its end it may raise
        print(line)


@app.command
def sweep(
    *,
    store: Root = STORE,
    grace_hours: Annotated[
        float, Parameter(validator=validators.Number(gte=0), help="Keep unnamed files that are younger")
    ] = 24.0,
    keep_snapshots: Annotated[
        int | None,
        Parameter(validator=Positive, help="Remove all but the newest snapshots and those with a tag"),
    ] = None,
    dry_run: Annotated[bool, Parameter(negative="", help="Only show what would be removed")] = False,
) -> None:
    """Remove the files that no snapshot names: what killed builds left, and what was built again."""
    from flows.commands.store_upkeep import sweep_store

    print("\n".join(sweep_store(store, grace_hours, keep_snapshots, is_dry_run=dry_run)))


@app.command
def export(
    target: Annotated[str, Parameter(help="Folder or URL for the tar files")],
    snapshot: Which = "latest",
    *,
    store: Root = STORE,
    tar_mib: Annotated[int, Parameter(validator=Positive, help="Size of one tar file, in MiB")] = 256,
    seed: Annotated[int, Parameter(help="Seed of the order of tracks")] = 0,
) -> None:
    """Write a snapshot as tar files for WebDataset: an .npy and a .json for each track."""
    from flows.commands.store_copies import export_store

    print(export_store(store, snapshot, target, tar_mib, seed))


@app.command(name="import")
def import_(
    source: Annotated[str, Parameter(help="Folder or URL that an export wrote")], *, store: Root = STORE
) -> None:
    """Make a new store of the tar files that an export wrote."""
    from flows.commands.store_copies import import_store

    print(import_store(source, store))
