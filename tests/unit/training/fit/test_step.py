import numpy as np
import pytest
import torch
import torch.nn.functional as F

from training.fit.settings import AugmentSettings, TrainSettings
from training.fit.step import class_weights, genre_loss, micro_batch_seeds, train_step
from training.inference.onnx_export import relative_rounding
from training.loading.batches import Batch
from training.networks.network import build_model
from training.networks.settings import ModelSettings

SETTINGS = TrainSettings(batch_size=8, micro_batch_size=4, augment=AugmentSettings(mixup=0.5))


def model_and_optimizer():
    torch.manual_seed(0)
    model = build_model(ModelSettings(width=4), 3, 16)
    return model, torch.optim.SGD(model.parameters(), lr=0.1)


def batch(size=8):
    random = torch.Generator().manual_seed(5)
    mel_BFM = (torch.randn(size, 20, 16, generator=random) * 20 - 10).half()
    return Batch(mel_BFM, F.one_hot(torch.arange(size) % 3, 3).float())


def gradient_of(crops, seeds):
    model, optimizer = model_and_optimizer()
    step = train_step(model, optimizer, crops, SETTINGS, seeds=seeds)
    return step.loss, torch.cat([weight.grad.ravel() for weight in model.parameters()])


def assert_same_gradient(gradient, wanted, model):
    """The sums of the backward pass are as long as those of the forward pass, and are rounded like them."""
    bound = 2 * relative_rounding(model) * wanted.abs().max().item()
    torch.testing.assert_close(gradient, wanted, atol=bound, rtol=0)


def test_a_step_is_the_mean_of_its_micro_batches():
    settings = SETTINGS.model_copy(update={"max_grad_norm": 1e9})
    whole = batch()
    gradients, losses = [], []
    for part, seeds in (
        (whole, [1, 2]),
        (Batch(whole.mel_BFM[:4], whole.target_BG[:4]), [1]),
        (Batch(whole.mel_BFM[4:], whole.target_BG[4:]), [2]),
    ):
        model, optimizer = model_and_optimizer()
        losses.append(train_step(model, optimizer, part, settings, seeds=seeds).loss)
        gradients.append(torch.cat([weight.grad.ravel() for weight in model.parameters()]))
    torch.testing.assert_close(losses[0], losses[1] + losses[2])
    assert_same_gradient(gradients[0], gradients[1] + gradients[2], model)


def test_ranks_of_unequal_share_make_the_same_step():
    settings = TrainSettings(
        batch_size=12, micro_batch_size=4, max_grad_norm=1e9, augment=AugmentSettings(mixup=0.5)
    )
    whole = batch(12)
    gradients = []
    for first, last, world_size in ((0, 3, 1), (0, 1, 2), (1, 3, 2)):
        part = Batch(whole.mel_BFM[4 * first : 4 * last], whole.target_BG[4 * first : 4 * last])
        model, optimizer = model_and_optimizer()
        train_step(model, optimizer, part, settings, seeds=range(first, last), world_size=world_size)
        gradients.append(torch.cat([weight.grad.ravel() for weight in model.parameters()]))
    alone, *ranks = gradients
    assert_same_gradient(alone, sum(ranks) / 2, model)


def test_the_seed_decides_a_step():
    (first, gradient), (second, same) = (gradient_of(batch(), [1, 2]) for _ in range(2))
    assert torch.equal(first, second)
    assert torch.equal(gradient, same)
    assert not torch.equal(gradient, gradient_of(batch(), [1, 3])[1])


def test_micro_batches_have_their_own_seeds_on_any_number_of_ranks():
    alone = micro_batch_seeds(0, 7, range(4))
    assert alone == micro_batch_seeds(0, 7, range(2)) + micro_batch_seeds(0, 7, range(2, 4))
    many = {seed for run in (0, 1) for step in range(20) for seed in micro_batch_seeds(run, step, range(4))}
    assert len(many) == 160


def test_class_weights_give_every_genre_the_same_share_of_the_loss():
    target_TG = np.eye(3, dtype=np.int8)[[0] * 6 + [1] * 2 + [2] * 4]
    weight_G = torch.from_numpy(class_weights(target_TG))
    assert weight_G.tolist() == pytest.approx([12 / 18, 12 / 6, 12 / 12])
    plain = TrainSettings(label_smoothing=0.0)
    logits_TG, target_TG = torch.zeros(12, 3), torch.from_numpy(target_TG).float()
    assert genre_loss(logits_TG, target_TG, plain, weight_G) == pytest.approx(
        np.log(3)
    )  # the weights' mean is 1
    shares = [
        genre_loss(logits_TG[target_TG[:, genre] > 0], target_TG[target_TG[:, genre] > 0], plain, weight_G)
        * tracks
        for genre, tracks in enumerate((6, 2, 4))
    ]
    assert [float(share) for share in shares] == pytest.approx([4 * np.log(3)] * 3)


def test_the_gradient_of_a_crop_is_its_own_times_the_weight_of_its_genre():
    """Smoothed, too: else a rare genre's weight would apply to the smoothing of common ones, and become their best."""
    weight_G, smooth = torch.tensor([0.1, 10.0]), TrainSettings(label_smoothing=0.1)
    mixed = torch.tensor([0.25, 0.75])
    for target_G, weight in (
        (torch.tensor([1.0, 0.0]), 0.1),
        (torch.tensor([0.0, 1.0]), 10.0),
        (mixed, 7.525),
    ):
        gradients = []
        for its in (None, weight_G):
            logits_BG = torch.zeros(1, 2, requires_grad=True)
            genre_loss(logits_BG, target_G[None], smooth, its).backward()
            gradients.append(logits_BG.grad)
        plain_BG, weighted_BG = gradients
        torch.testing.assert_close(
            weighted_BG, weight * plain_BG, rtol=8 * torch.finfo(torch.float32).eps, atol=0
        )


def test_long_gradients_are_clipped():
    model, optimizer = model_and_optimizer()
    step = train_step(
        model, optimizer, batch(), SETTINGS.model_copy(update={"max_grad_norm": 1e-3}), seeds=[1, 2]
    )
    kept = torch.cat([weight.grad.ravel() for weight in model.parameters()]).norm()
    assert step.grad_norm > 0.01
    assert kept == pytest.approx(1e-3, rel=2e-4)  # torch adds 1e-6 to the norm that it divides by


def test_the_loss_of_a_confident_correct_prediction_is_zero():
    confident_BG, target_BG = torch.tensor([[40.0, -40.0]]), torch.tensor([[1.0, 0.0]])
    for target in ("top", "multi"):
        plain = TrainSettings(target=target, label_smoothing=0.0)
        assert genre_loss(confident_BG, target_BG, plain) < 1e-6
        assert genre_loss(confident_BG, 1 - target_BG, plain) > 30
        smooth = TrainSettings(target=target, label_smoothing=0.2)
        best_BG = torch.tensor([[1.0, -1.0]]) * torch.log(torch.tensor(9.0)) / (2 if target == "top" else 1)
        best_BG.requires_grad_()
        genre_loss(best_BG, target_BG, smooth).backward()
        torch.testing.assert_close(
            best_BG.grad, torch.zeros(1, 2), atol=8 * torch.finfo(torch.float32).eps, rtol=0
        )
