"""The parts of a run that are still to be done, over Dask, one a task."""

from collections.abc import Callable, Sequence
from typing import Any

from flows.cluster.client import Cluster
from flows.cluster.fan_out import fan_out, in_batches
from flows.reporting.progress import showing_progress
from store.tagging.run import TaggingRun
from store.tagging.statistics import TaggingStatistics


def run_pending_parts(
    cluster: Cluster,
    what: str,
    body: Callable[..., TaggingStatistics],
    parts: Sequence[str],
    *,
    run: TaggingRun,
    **arguments: Any,
) -> None:
    """Run `body([part], run=run, **arguments)` for each part that is not done yet."""
    done = set(run.list_parts("done"))
    left = [part for part in parts if part not in done]
    told = TaggingStatistics()
    with showing_progress(what, len(left), "batches") as advance:
        for batch, its_tally in fan_out(cluster, body, in_batches(left, 1), run=run, **arguments):
            told += its_tally
            advance(len(batch), told.summary_line())
