"""The parts of a tagging run that are still to be done, one Dask task each."""

from collections.abc import Callable, Sequence
from typing import Any

from flows.cluster.client import Cluster
from flows.cluster.fan_out import fan_out, in_batches
from flows.reporting.progress import showing_progress
from store.tagging.run import TaggingRun
from store.tagging.statistics import TaggingStatistics


def run_pending_parts(
    cluster: Cluster,
    title: str,
    body: Callable[..., TaggingStatistics],
    parts: Sequence[str],
    *,
    count_files: Callable[[str], int],
    run: TaggingRun,
    **arguments: Any,
) -> None:
    """Run `body([part], run=run, **arguments)` for each part that is not done yet; show `title` meanwhile.

    `count_files` returns the number of files of a part.
    """
    done = set(run.list_parts("done"))
    pending = [part for part in parts if part not in done]
    total = TaggingStatistics()
    with showing_progress(title, sum(map(count_files, pending)), "files") as advance:
        for _, statistics in fan_out(cluster, body, in_batches(pending, 1), run=run, **arguments):
            total += statistics
            advance(statistics.files, total.summary_line())
