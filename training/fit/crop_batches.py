"""Batches of crops of a store, for a training loop of one's own.

batches = CropBatches("data/store", batch_size=256)
for batch in torch.utils.data.DataLoader(batches, batch_size=None):
    batch = batch.to(device)
    mel_BFM = to_db(batch.mel_BFM)
"""

from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow.compute as pc
from torch.utils.data import IterableDataset, get_worker_info

from preprocessing.mel.settings import MelSettings
from store.dataset.frame_reader import LOCATION_COLUMNS, Locations
from store.errors import BadInput
from store.reader import open_snapshot
from training.evaluation.calibration import Target
from training.fit.labels import label_columns, select_labelled_tracks, select_training_genres
from training.fit.run import artists_of, targets_of
from training.loading.batches import Batch, BatchMemory, read_ahead, read_batch
from training.loading.crops import (
    Tracks,
    crops_of_rank,
    micro_batches_of_rank,
    plan_epoch,
)
from training.loading.readers import ReadingPlan
from training.loading.settings import Balance


class CropBatches(IterableDataset[Batch]):
    """The batches of one rank; iterating once over it is one epoch, in true random order unless `reading` has another.

    `batch_size` is of all ranks together: all make equally many steps, and no crop occurs on two of them. The state is
    the number of epochs and batches, so a run resumes exactly, at another world size too. Threads read, so it
    needs no worker processes. A batch's memory is used again when nothing refers to it any more.
    """

    def __init__(
        self,
        store: str,
        *,
        split: str = "training",
        target: Target = "top",
        genres: Sequence[str] = (),
        crop_s: float = 4.0,
        crops_per_track: int = 8,
        batch_size: int = 256,
        balance: Balance = "none",
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        threads: int = 2,
        pinned: bool = False,
        reading: ReadingPlan | None = None,
    ) -> None:
        snapshot = open_snapshot(store)
        columns = snapshot.track_columns(label_columns(target, balance), LOCATION_COLUMNS)
        self.genres = select_training_genres(columns, target, genres)
        labelled = select_labelled_tracks(columns, target, self.genres)
        rows = labelled.filter(pc.equal(labelled["split"], split))
        self._tracks = Tracks(rows["track_id"], Locations.of(rows), targets_of(rows), artists_of(rows))
        self._reading = reading or ReadingPlan()
        self._source, self._memory = self._reading.open_reader(snapshot), BatchMemory(pinned=pinned)
        self._crop_frames = MelSettings.model_validate(snapshot.mel_settings).count_frames(crop_s)
        self._crops_per_track, self._batch_size, self._balance = crops_per_track, batch_size, balance
        self._seed, self._threads = seed, threads
        self._share = micro_batches_of_rank(batch_size, rank=rank, world_size=world_size)
        self._epoch = self._batch = 0

    def __len__(self) -> int:
        return int(np.ceil(len(self._tracks) * self._crops_per_track / self._batch_size))

    def __iter__(self) -> Iterator[Batch]:
        if get_worker_info() is not None:
            raise BadInput("CropBatches reads in threads of its own; use DataLoader(..., num_workers=0)")
        plan = plan_epoch(
            self._tracks,
            crop_frames=self._crop_frames,
            crops_per_track=self._crops_per_track,
            batch_size=self._batch_size,
            balance=self._balance,
            seed=self._seed,
            epoch=self._epoch + 1,
            mixed_runs=self._reading.runs_in_use,
        )
        steps = crops_of_rank(plan, self._share, batch_size=self._batch_size, micro_batch_size=1)
        batches = read_ahead(
            lambda it: read_batch(self._source, self._tracks, it, self._crop_frames, self._memory),
            steps[self._batch :],
            threads=self._threads,
        )
        for batch in batches:
            self._batch += 1
            yield batch
        self._epoch, self._batch = self._epoch + 1, 0

    def state_dict(self) -> dict[str, int]:
        """Return the number of whole epochs, and of batches of the next one that were returned."""
        return {"epoch": self._epoch, "batch": self._batch}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Continue where `state_dict` was called, in a process of any rank and world size."""
        self._epoch, self._batch = state["epoch"], state["batch"]
