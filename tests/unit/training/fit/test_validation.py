import numpy as np
import pytest
import torch

from store.errors import BadInput, TrainingStopped
from tests.support.held_frames import locations_of
from training.fit.distributed import CPU, RankContext
from training.fit.validation import predict_tracks, validate
from training.inference.onnx_export import relative_rounding
from training.loading.crops import Tracks
from training.networks.network import build_model


@pytest.mark.parametrize("target", ["top", "multi"])
def test_a_track_is_the_mean_of_its_crops(toy, target):
    plain = toy(target=target, micro_batch_size=2, validation_crops=3)
    settings, mels = plain.run.settings, plain.snapshot.mels
    torch.manual_seed(0)
    model = build_model(settings.model, 2, 8).eval()
    tracks = Tracks(("08", "02"), locations_of([60, 30], ["08", "02"]), np.eye(2, dtype=np.int8))
    probability_TG = predict_tracks(model, plain.snapshot.reader, tracks, 10, settings, CPU)
    for track, starts in (("08", (0, 25, 50)), ("02", (0, 10, 20))):
        crops = np.stack([mels[track][start : start + 10] for start in starts])
        logits = model(torch.from_numpy(crops).float()).detach().double()
        probability_KG = logits.softmax(dim=1) if target == "top" else logits.sigmoid()
        # A probability changes by less than its logit.
        bound = relative_rounding(model) * logits.abs().max().item()
        torch.testing.assert_close(
            probability_TG[tracks.ids.index(track)], probability_KG.mean(dim=0), atol=bound, rtol=0
        )


def test_validation_leaves_the_weights_alone(toy):
    plain = toy()
    model = build_model(plain.run.settings.model, 2, 8)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    tracks = Tracks(("00", "01"), locations_of([20, 25], ["00", "01"]), np.eye(2, dtype=np.int8))
    source, settings = plain.snapshot.reader, plain.run.settings
    scores = [
        validate(
            model, source, tracks, ("a", "b"), crop_frames=9, settings=settings, rank_context=RankContext()
        )
        for _ in range(2)
    ]
    assert scores[0] == scores[1]
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize(
    ("weight", "level_db", "error", "message"),
    [
        (1.0, np.nan, BadInput, "validation track 01: its spectrogram is not finite"),
        (np.inf, -10.0, TrainingStopped, "validation track 00: the network's output is not finite"),
    ],
)
def test_output_that_is_not_finite_is_the_fault_of_the_track_or_of_the_network(
    toy, weight, level_db, error, message
):
    plain = toy()
    plain.snapshot.mels["01"][:] = level_db
    model = build_model(plain.run.settings.model, 2, 8)
    model.fc.weight.data.fill_(weight)
    tracks = Tracks(("00", "01"), locations_of([20, 25], ["00", "01"]), np.eye(2, dtype=np.int8))
    with pytest.raises(error, match=message):
        validate(
            model,
            plain.snapshot.reader,
            tracks,
            ("a", "b"),
            crop_frames=9,
            settings=plain.run.settings,
            rank_context=RankContext(),
        )
