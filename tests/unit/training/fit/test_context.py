"""What all epochs share is made from the settings of a run."""

import numpy as np
import pytest

from tests.support.toy_training import SETTINGS, publish_toy, write_toy_run
from training.fit.context import make_training_context
from training.fit.distributed import RankContext
from training.fit.epoch import crops_of_steps, read_crops_of_step
from training.fit.run import read_run


def test_crops_come_through_the_cache_of_the_settings_in_the_order_of_the_settings(tmp_path):
    snapshot, found, notices = publish_toy(str(tmp_path / "store")), [], []
    settings = SETTINGS.model_copy(update={"cache_folder": str(tmp_path / "cache"), "cache_gib": 1e-6})
    for reading, cache_gib in (("random", 1e-6), ("runs", 1.0)):
        settings = settings.model_copy(update={"reading": reading, "cache_gib": cache_gib})
        run, tracks = read_run(str(write_toy_run(tmp_path / reading, snapshot, settings)))
        context = make_training_context(run, tracks, snapshot, RankContext(), notices.append)
        steps = crops_of_steps(context, 1)
        batch = read_crops_of_step(context, steps[0])
        assert len(batch.mel_BFM) == settings.batch_size
        found.append(np.concatenate([it.start_N for it in steps]))
    assert [it["message"].partition(" is smaller")[0] for it in notices] == ["the cache (cache_gib 1e-06)"]
    assert sorted(found[0]) == sorted(found[1])
    assert found[0].tolist() != found[1].tolist()
    assert len(list((tmp_path / "cache").iterdir())) == 2, "the lock, and a block"


def test_class_weights_are_those_of_the_training_tracks_where_the_settings_want_them(tmp_path):
    snapshot = publish_toy(str(tmp_path / "store"))
    for wanted in (False, True):
        settings = SETTINGS.model_copy(update={"class_weights": wanted})
        run, tracks = read_run(str(write_toy_run(tmp_path / str(wanted), snapshot, settings)))
        context = make_training_context(run, tracks, snapshot, RankContext(), lambda event: None)
        if wanted:
            counts_G = context.training.target_TG.sum(axis=0)
            wanted_G = counts_G.sum() / (len(counts_G) * counts_G)
            assert context.class_weight_G.tolist() == pytest.approx(wanted_G.tolist())
        else:
            assert context.class_weight_G is None
