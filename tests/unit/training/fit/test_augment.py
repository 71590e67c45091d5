import pytest
import torch
from pydantic import ValidationError

from training.fit.augment import augment
from training.fit.settings import AugmentSettings

STILL = AugmentSettings(masks=0, gain_db=0, tone_db=0, mixup=0)


def batch():
    torch.manual_seed(3)
    return torch.randn(6, 40, 32), torch.eye(6)


def test_nothing_asked_is_nothing_done():
    mel, target = batch()
    same_mel, same_target = augment(mel, target, STILL)
    assert torch.equal(same_mel, mel)
    assert torch.equal(same_target, target)


def test_gain_moves_a_whole_crop_within_its_bound():
    mel, target = batch()
    louder, _ = augment(mel, target, STILL.model_copy(update={"gain_db": 4.0}))
    moved = louder - mel
    assert moved.abs().max() <= 4
    assert moved.std(dim=0).min() > 0.1
    torch.testing.assert_close(moved, moved[:, :1, :1].expand_as(moved), atol=1e-5, rtol=0)


def test_tone_bends_a_crop_smoothly_and_alike_at_all_times():
    mel, target = batch()
    bent, _ = augment(mel, target, STILL.model_copy(update={"tone_db": 3.0}))
    moved_BFM = bent - mel
    torch.testing.assert_close(moved_BFM, moved_BFM[:, :1].expand_as(moved_BFM), atol=1e-5, rtol=0)
    curve_BM = moved_BFM[:, 0]
    assert 1 < curve_BM.std() < 6
    assert curve_BM.diff(dim=1).abs().max() < 2.5, "it jumps from band to band"
    assert curve_BM.std(dim=0).min() > 0.1, "crops are bent alike"


def test_masks_hide_stripes_and_leave_the_rest():
    mel, target = batch()
    masked, _ = augment(mel, target, STILL.model_copy(update={"masks": 1}))
    hidden = masked != mel
    assert hidden.any()
    for crop in hidden:
        frames, bands = crop.all(dim=1), crop.all(dim=0)
        assert torch.equal(crop, frames[:, None] | bands[None, :])
        assert frames.sum() <= 0.12 * 40
        assert bands.sum() <= 0.12 * 32
    assert len({crop.numpy().tobytes() for crop in hidden}) > 1


def test_mixup_blends_targets_as_it_blends_crops():
    mel, target = torch.eye(6)[:, None, :].repeat(1, 5, 1), torch.eye(6)
    mixed_mel, mixed_target = augment(mel, target, STILL.model_copy(update={"mixup": 0.8}))
    torch.testing.assert_close(mixed_mel, mixed_target[:, None, :].repeat(1, 5, 1))
    torch.testing.assert_close(mixed_target.sum(dim=1), torch.ones(6))
    assert not torch.equal(mixed_target, target)


def test_the_seed_decides():
    mel, target = batch()
    settings = AugmentSettings(mixup=0.5)
    twice = []
    for _ in range(2):
        torch.manual_seed(11)
        twice.append(augment(mel, target, settings)[0])
    assert torch.equal(*twice)


def test_a_bound_out_of_range_is_refused():
    with pytest.raises(ValidationError, match="less than or equal to 20"):
        AugmentSettings(gain_db=21)
