"""The epoch that the benchmarks of reading plan: tracks of 30 s, crops of 4 s, batches of 256."""

from preprocessing.mel.settings import MelSettings
from training.loading.crops import Crops, Tracks, plan_epoch

MEL = MelSettings()
TRACK_FRAMES, CROP_FRAMES = MEL.count_frames(30.0), MEL.count_frames(4.0)
CROPS_PER_TRACK, BATCH_SIZE = 8, 256


def plan(tracks: Tracks, epoch: int = 1, *, mixed_runs: int = 0) -> Crops:
    """Plan an epoch as training does."""
    return plan_epoch(
        tracks,
        crop_frames=CROP_FRAMES,
        crops_per_track=CROPS_PER_TRACK,
        batch_size=BATCH_SIZE,
        balance="none",
        seed=0,
        epoch=epoch,
        mixed_runs=mixed_runs,
    )
