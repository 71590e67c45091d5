import pytest
import torch
from pydantic import ValidationError

from training.fit.augment import augment
from training.fit.settings import AugmentSettings

NOTHING = AugmentSettings(masks=0, gain_db=0, tone_db=0, mixup=0)


def assert_close_in_float32(difference, wanted, changed):
    """A sum, and the difference that is taken from it, are each rounded to half an eps of the sum."""
    bound = 2 * torch.finfo(torch.float32).eps * changed.abs().max().item()
    torch.testing.assert_close(difference, wanted.expand_as(difference), atol=bound, rtol=0)


def batch():
    torch.manual_seed(3)
    return torch.randn(6, 40, 32), torch.eye(6)


def test_settings_of_zero_change_nothing():
    mel, target = batch()
    same_mel, same_target = augment(mel, target, NOTHING)
    assert torch.equal(same_mel, mel)
    assert torch.equal(same_target, target)


def test_gain_changes_a_whole_crop_within_its_bound():
    mel, target = batch()
    louder, _ = augment(mel, target, NOTHING.model_copy(update={"gain_db": 4.0}))
    moved = louder - mel
    assert moved.abs().max() <= 4
    assert moved.std(dim=0).min() > 0.1
    assert_close_in_float32(moved, moved[:, :1, :1], louder)


def test_tone_is_a_smooth_curve_that_is_the_same_in_all_frames():
    mel, target = batch()
    bent, _ = augment(mel, target, NOTHING.model_copy(update={"tone_db": 3.0}))
    moved_BFM = bent - mel
    assert_close_in_float32(moved_BFM, moved_BFM[:, :1], bent)
    curve_BM = moved_BFM[:, 0]
    assert 1 < curve_BM.std() < 6
    assert curve_BM.diff(dim=1).abs().max() < 2.5, "it jumps from band to band"
    assert curve_BM.std(dim=0).min() > 0.1, "crops are bent alike"


def test_masks_replace_stripes_and_leave_the_rest():
    mel, target = batch()
    masked, _ = augment(mel, target, NOTHING.model_copy(update={"masks": 1}))
    masked_BFM = masked != mel
    assert masked_BFM.any()
    for crop in masked_BFM:
        frames, bands = crop.all(dim=1), crop.all(dim=0)
        assert torch.equal(crop, frames[:, None] | bands[None, :])
        assert frames.sum() <= 0.12 * 40
        assert bands.sum() <= 0.12 * 32
    assert len({crop.numpy().tobytes() for crop in masked_BFM}) > 1


def test_mixup_blends_targets_as_it_blends_crops():
    mel, target = torch.eye(6)[:, None, :].repeat(1, 5, 1), torch.eye(6)
    mixed_mel, mixed_target = augment(mel, target, NOTHING.model_copy(update={"mixup": 0.8}))
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
