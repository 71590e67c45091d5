"""What training costs: two processes against one, our loop against a bare one, and a process killed in mid-run.

    python -m tests.benchmarks.training [--figure FILE.png]

Real spectrograms (the bundled music), the default network. Ratios are taken within a round; medians of rounds.
"""

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[name] = "1"

import torch
from matplotlib.figure import Figure
from torch.nn.utils import clip_grad_norm_

from flows.cluster.client import open_cluster
from flows.cluster.settings import ClusterSettings, HostSettings
from flows.cluster.training_hosts import train_on_hosts
from flows.settings import TrainModelSettings
from flows.train_model import prepare_run
from store.reader import open_snapshot
from tests.support.dask_cluster import list_rank_processes
from training.fit.checkpoint import EpochProgress
from training.fit.context import make_training_context
from training.fit.distributed import RankContext
from training.fit.epoch import read_crops_of_step, train_epoch
from training.fit.run import read_run
from training.fit.settings import AugmentSettings, TrainSettings
from training.fit.step import genre_loss
from training.fit.train_state import make_train_state
from training.loading.batches import to_db
from training.loading.crops import plan_epoch

COMMAND = str(Path(sys.executable).with_name("spectrogram-one"))
MUSIC = Path(__file__).parents[1] / "data" / "demo_music"
PLAIN = AugmentSettings(masks=0, gain_db=0, tone_db=0)


def main() -> None:
    """Measure everything and print it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--figure", default="", help="where to draw the loss curves")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        store = build_store(Path(folder))
        print(f"{os.cpu_count()} cores; default network, batches of 32 crops of 4 s")
        overhead(store, Path(folder), arguments.rounds)
        processes(store, Path(folder), arguments.rounds)
        killed(store, Path(folder), arguments.figure)


def build_store(folder: Path) -> str:
    command = [COMMAND, "build", str(MUSIC), "--store", f"{folder}/store"]
    subprocess.run(command, check=True, capture_output=True)
    return f"{folder}/store"


def lay_out(store: str, models: Path, **settings: object) -> Path:
    """Write a run of the default network; give its folder."""
    training = TrainSettings.model_validate(settings)
    settings = TrainModelSettings(store=store, models=str(models), training=training)
    return Path(prepare_run(open_snapshot(store), settings)[0])


def overhead(store: str, folder: Path, rounds: int) -> None:
    """Our loop against zero_grad, forward, backward, clip and step over the same crops, on one core."""
    torch.set_num_threads(1)
    ratios, with_augmentation = [], []
    for number in range(rounds):
        ours, bare = ours_and_bare_s(lay_out(store, folder / f"o{number}", augment=PLAIN, crops_per_track=16))
        augmented, same_bare = ours_and_bare_s(lay_out(store, folder / f"a{number}", crops_per_track=16))
        ratios.append(ours / bare)
        with_augmentation.append(augmented / same_bare)
    print(
        f"our loop / bare PyTorch loop, seconds: {spread(ratios)}; with augmentation {spread(with_augmentation)}"
    )


def ours_and_bare_s(run_folder: Path) -> tuple[float, float]:
    run, tracks = read_run(str(run_folder))
    snapshot = open_snapshot(run.snapshot_url)
    context = make_training_context(run, tracks, snapshot, RankContext(), lambda event: None)
    train_state = make_train_state(run, int(snapshot.mel_settings["bands"]), RankContext())
    train_epoch(
        context, train_state, 1, EpochProgress(), lambda part: None
    )  # the first is slower: memory is claimed
    began = time.perf_counter()
    train_epoch(context, train_state, 2, EpochProgress(), lambda part: None)
    ours_s = time.perf_counter() - began
    settings = run.settings
    plan = plan_epoch(
        context.training,
        crop_frames=context.crop_frames,
        crops_per_track=settings.crops_per_track,
        batch_size=settings.batch_size,
        balance="none",
        seed=0,
        epoch=2,
    )
    size = settings.batch_size
    batches = [read_crops_of_step(context, plan[first : first + size]) for first in range(0, len(plan), size)]
    held = [
        [(to_db(group.mel_BFM), group.target_BG) for group in it.micro_batches(settings.micro_batch_size)]
        for it in batches
    ]
    model, optimizer = train_state.model.train(), train_state.optimizer
    began = time.perf_counter()
    for groups in held:
        optimizer.zero_grad(set_to_none=True)
        for mel_BFM, target_BG in groups:
            (genre_loss(model(mel_BFM), target_BG, settings) / len(groups)).backward()
        clip_grad_norm_(model.parameters(), settings.max_grad_norm)
        optimizer.step()
    return ours_s, time.perf_counter() - began


def processes(store: str, folder: Path, rounds: int) -> None:
    """Two processes on two cores against one on one core, the same global batch, over gloo."""
    speeds: dict[int, list[float]] = {1: [], 2: []}
    for number in range(rounds):
        for count in speeds:
            run_folder = lay_out(store, folder / f"p{number}-{count}", crops_per_track=24, epochs=3)
            cores = ",".join(str(core) for core in sorted(os.sched_getaffinity(0))[:count])
            command = ["taskset", "-c", cores, sys.executable, "-m", "torch.distributed.run", "--standalone"]
            subprocess.run(
                [*command, f"--nproc-per-node={count}", "-m", "training", str(run_folder)],
                check=True,
                capture_output=True,
            )
            epochs = json.loads((run_folder / "history.json").read_text())["epochs"][1:]
            speeds[count].append(statistics.mean(row["crops_per_s"] for row in epochs))
            shares = {name: epochs[-1][f"{name}_share"] for name in ("data_wait", "exchange", "compute")}
    ratios = [two / one for one, two in zip(*speeds.values(), strict=True)]
    print(f"one process on one core: {statistics.median(speeds[1]):.0f} crops/s")
    print(f"two processes / one, crops/s: {spread(ratios)}")
    print("a step of two processes: " + ", ".join(f"{name} {share:.1%}" for name, share in shares.items()))


def killed(store: str, folder: Path, figure: str) -> None:
    """Kill a process in mid-epoch: how long until the next step, how many steps are made again; draw both runs."""
    settings = {"epochs": 6, "crops_per_track": 16, "checkpoint_steps": 5}
    with open_cluster(ClusterSettings(workers=1)) as cluster:
        client = cluster.client
        whole, _, _ = watch(client, lay_out(store, folder / "whole", **settings), kill_at=None)
        cut, silent_s, again = watch(client, lay_out(store, folder / "cut", **settings), kill_at=(3, 8))
    print(
        f"from the kill of a process to the next step: {silent_s:.1f} s; steps made again: {again} (checkpoint every 5)"
    )
    worst = max(abs(cut[it] - whole[it]) for it in whole)
    print(f"largest difference of the two loss curves: {worst:.1e}")
    if figure:
        draw(whole, cut, figure)


def watch(client, folder: Path, *, kill_at):  # type: ignore[no-untyped-def]
    """Train; give the loss of each epoch, the seconds from the kill to the next step, and the steps made again."""
    last = (0, 0)
    killed_at = next_step_at = None
    again = 0

    def on_event(event):  # type: ignore[no-untyped-def]
        nonlocal last, killed_at, next_step_at, again
        if event["event"] == "start" and killed_at is not None:
            again = last[1] - event["steps_done"]
        if event["event"] != "step":
            return
        here = (event["epoch"], event["step"])
        if killed_at is not None and next_step_at is None:
            next_step_at = time.perf_counter()
        last = here
        if kill_at is not None and killed_at is None and here >= kill_at:
            os.kill(list_rank_processes()[0].pid, signal.SIGKILL)
            killed_at = time.perf_counter()

    hosts = HostSettings(processes_per_host=2)
    train_on_hosts(client, str(folder), hosts, micro_batches=2, stall_timeout_s=60, on_event=on_event)
    history = {
        row["epoch"]: row["train_loss"] for row in json.loads((folder / "history.json").read_text())["epochs"]
    }
    return history, (next_step_at or 0) - (killed_at or 0), again


def draw(whole: dict[int, float], cut: dict[int, float], path: str) -> None:
    figure = Figure(figsize=(6, 3.5), layout="constrained")
    axes = figure.subplots()
    axes.plot(list(whole), list(whole.values()), lw=5, alpha=0.35, label="undisturbed")
    axes.plot(
        list(cut), list(cut.values()), lw=1.2, marker="o", ms=4, label="a process killed in the third epoch"
    )
    axes.axvline(2.5, ls=":", lw=1)
    axes.set(xlabel="epoch", ylabel="training loss, nats")
    axes.legend(frameon=False)
    figure.savefig(path, dpi=120)


def spread(values: list[float]) -> str:
    return f"{statistics.median(values):.3f} ({min(values):.3f} to {max(values):.3f})"


if __name__ == "__main__":
    main()
