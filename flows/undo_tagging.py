"""Restore the tags that a run replaced, byte for byte where the file was not changed since."""

import shlex
import time

from flows.checks import check_undo
from flows.cluster.client import Cluster, open_cluster
from flows.cluster.run_batches import run_pending_parts
from flows.reporting.stage import stage
from flows.reporting.tagging_summary import TagSummary, summarise_tagging
from flows.services.exclusive import exclusive
from flows.settings import UndoSettings
from store.fs.files import absolute, join
from store.tagging.predictions import CSV_FILE, PREDICTIONS_FILE
from store.tagging.run import TaggingRun, find_run, open_run
from store.tagging.swap.journal import count_entries, list_journalled_batches
from store.tagging.tasks import sweep_killed_run, undo_parts
from training.report.tagging_page import RunFacts


def undo_tagging(settings: UndoSettings) -> TagSummary:
    """Restore the tags that a run replaced, byte for byte where the file was not changed since."""
    check_undo(settings)
    started = time.monotonic()
    target = find_run(absolute(settings.runs), settings.run)
    request = settings.model_dump(mode="json", include={"dry_run", "even_changed", "writing"})
    run = open_run(absolute(settings.runs), {"undo": target.name, **request})
    if not settings.dry_run and "undone" in (target.summary() or {"undone": run.name}):
        sweep_killed_run(target)
    if not settings.dry_run and target.summary() is None:
        # An unfinished run would be resumed by its command, as if it were not undone.
        target.finish({"statuses": {"undone": 1}, "undone": run.name})
    parts = list_journalled_batches(target.journal_url)
    with open_cluster(settings.cluster) as cluster, exclusive("catalogue", absolute(settings.runs)):
        restore_tags(cluster, run, target, parts, settings)
    undone = target.name if settings.dry_run else run.name
    undo = f"spectrogram-one undo {shlex.quote(undone)} --runs {shlex.quote(settings.runs)}"
    if settings.dry_run and settings.even_changed:
        undo += " --even-changed"
    facts = RunFacts(
        name=run.name,
        mode="undo-dry-run" if settings.dry_run else "undo",
        source=target.name,
        seconds=time.monotonic() - started,
        predictions=join(run.url, PREDICTIONS_FILE),
        csv_url=join(run.url, CSV_FILE),
        commands=(("restore these files" if settings.dry_run else "undo this undo", undo),),
        settings=settings.model_dump(mode="json", exclude={"cluster"}),
    )
    return summarise_tagging(run, "done", parts, facts)


@stage
def restore_tags(
    cluster: Cluster, run: TaggingRun, target: TaggingRun, parts: list[str], settings: UndoSettings
) -> None:
    """Restore the files from the journal, a part of the journal at a time."""
    run_pending_parts(
        cluster,
        "Undoing",
        undo_parts,
        parts,
        count_files=count_entries(target.journal_url).__getitem__,
        run=run,
        target=target,
        settings=settings.writing,
        even_changed=settings.even_changed,
        dry_run=settings.dry_run,
    )
