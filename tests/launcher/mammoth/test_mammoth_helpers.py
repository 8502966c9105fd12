"""What Mammoth's models import beside their base and their buffer."""

from __future__ import annotations

import math
import sys
import types
import warnings
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from antelope import ConfigError
from antelope.launcher import mammoth as m


def gradient_of(net: nn.Module, dims: list[int]) -> Tensor:
    vector = torch.full((sum(dims),), 9.0)
    m.store_grad(net.parameters, vector, dims)
    return vector


# ----------------------------------------------------------------------------------- gradients


def test_gradients_are_written_to_a_vector_and_back() -> None:
    net = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))
    dims = [p.numel() for p in net.parameters()]
    net[0](torch.ones(1, 2)).sum().backward()  # The second layer has no gradient.
    vector = gradient_of(net, dims)
    assert vector.tolist() == [1.0] * 9 + [0.0] * 4
    m.overwrite_grad(net.parameters, 2 * vector + 1, dims)
    assert net[0].bias.grad is not None
    assert net[0].bias.grad.tolist() == [3.0] * 3
    assert net[1].weight.grad is None


def test_a_projected_gradient_does_not_oppose_the_memorys() -> None:
    new, old = torch.tensor([1.0, -2.0]), torch.tensor([0.0, 3.0])
    assert m.project(new, old).tolist() == [1.0, 0.0]


def test_gems_projection_solves_for_all_memories_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    # Orthogonal memories, so each constraint is on its own: v_i = max(margin, -g_i . g / |g_i|^2).
    def solve_qp(gram: Any, linear: Any, constraints: Any, bounds: Any) -> Any:
        assert np.allclose(constraints, np.eye(2))
        return (np.maximum(bounds, linear / np.diag(gram)),)

    solver = types.ModuleType("solver")
    solver.solve_qp = solve_qp  # type: ignore[attr-defined]
    gradient = torch.tensor([[-2.0], [3.0], [1.0]])
    memories = torch.tensor([[1.0, 0.0], [0.0, 2.0], [0.0, 0.0]])
    m.project2cone2(solver, gradient, memories, margin=0.0, eps=0.0)
    assert gradient.flatten().tolist() == [0.0, 3.0, 1.0]


# ------------------------------------------------------------------------------------- losses


def test_the_contrastive_loss_is_that_of_the_paper() -> None:
    torch.manual_seed(0)
    features = F.normalize(torch.randn(3, 2, 4), dim=2)
    labels = torch.tensor([0, 1, 0])
    rows = torch.cat([features[:, 0], features[:, 1]])
    kinds = labels.repeat(2)
    total = 0.0
    for i in range(6):
        scores = [math.exp(float(rows[i] @ rows[a]) / 0.5) for a in range(6)]
        below = sum(scores[a] for a in range(6) if a != i)
        alike = [p for p in range(6) if p != i and kinds[p] == kinds[i]]
        total -= sum(math.log(scores[p] / below) for p in alike) / len(alike)
    loss = m.SupConLoss(temperature=0.5, base_temperature=0.5)
    assert float(loss(features, labels)) == pytest.approx(total / 6, rel=1e-5)
    whole = m.SupConLoss(temperature=0.5, base_temperature=0.5, reduction="sum")
    assert float(whole(features, labels)) == pytest.approx(total / 2, rel=1e-5)
    # Without labels each row is alike its own other view.
    assert torch.allclose(loss(features), loss(features, torch.arange(3)))
    assert torch.allclose(loss(features), loss(features, mask=torch.eye(3)))
    with pytest.raises(ValueError, match=r"features \[B, views, \.\.\.\], not \[3, 2\]"):
        loss(features[:, :, 0])


def test_similarities_that_agree_cost_nothing() -> None:
    torch.manual_seed(0)
    rows = torch.randn(4, 3)
    assert float(m.SPKDLoss("batchmean")(rows, 3 * rows)) == pytest.approx(0, abs=1e-9)
    teacher, student = torch.eye(2), torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    # Similarities: the identity, and halves: four differences of 1/2, squared, over 2^2.
    assert float(m.SPKDLoss("batchmean")(teacher, student)) == pytest.approx(0.25)
    assert float(m.SPKDLoss("sum")(teacher, student)) == pytest.approx(1.0)


# ------------------------------------------------------------------------------- augmentations


def test_cutmix_mixes_by_the_share_that_it_gives() -> None:
    np.random.seed(0)
    torch.manual_seed(0)
    images = torch.arange(8.0)[:, None, None, None].expand(8, 1, 10, 10).clone()
    labels = torch.arange(8)
    mixed, first, second, share = m.cutmix_data(images.clone(), labels, force=True)
    assert torch.equal(first, labels)
    expected = share * first + (1 - share) * second
    assert torch.allclose(mixed.mean((1, 2, 3)), expected.float(), atol=1e-5)
    same, _, _, whole = m.cutmix_data(images.clone(), labels, cutmix_prob=0.0)
    assert torch.equal(same, images)
    assert whole == 1.0


def test_images_are_moved_mirrored_and_made_grey() -> None:
    torch.manual_seed(0)
    images = torch.rand(64, 3, 6, 6)
    moved = m.random_crop(images, 2)
    assert moved.shape == images.shape
    padded = F.pad(images, (2,) * 4)
    windows = padded.unfold(2, 6, 1).unfold(3, 6, 1)  # (B, C, 5, 5, 6, 6)
    found = (windows == moved[:, :, None, None]).all(-1).all(-1).all(1)
    assert bool(found.flatten(1).any(1).all())
    assert len({tuple(row.tolist()) for row in found.flatten(1)}) > 8
    flipped = m.random_flip(images.clone())
    mirrored = (flipped == images.flip(3)).flatten(1).all(1)
    assert 16 < int(mirrored.sum()) < 48
    grey = m.random_grayscale(images.clone(), prob=1.0)
    assert torch.allclose(grey[:, 0], grey[:, 2])
    assert torch.equal(m.random_grayscale(images[:, :1].clone(), prob=1.0), images[:, :1])
    assert torch.allclose(m.normalize(images, [0.5] * 3, [0.25] * 3), (images - 0.5) * 4)
    assert m.soft_aug([0.5] * 3, [0.25] * 3)(images).shape == images.shape


def test_strong_augmentation_gives_images_of_the_size_asked_for() -> None:
    torch.manual_seed(0)
    images = torch.rand(4, 1, 8, 8)
    before = images.clone()
    augmented = m.strong_aug((8, 8), [0.0], [1.0])(images)
    assert augmented.shape == images.shape
    assert torch.equal(images, before)
    assert not torch.allclose(augmented, images)


def test_an_image_and_its_maps_are_cropped_and_mirrored_together() -> None:
    np.random.seed(0)
    torch.manual_seed(0)
    image = torch.arange(64.0).view(1, 8, 8)
    both = m.DoubleCompose([m.CustomRandomCrop(8, padding=2), m.CustomRandomHorizontalFlip(1.0)])
    cropped, (belonging,) = both(image, [image])
    assert torch.equal(cropped, belonging)
    assert not torch.equal(cropped, image)
    assert m.DoubleTransform(lambda x: 2 * x)(1, 3) == (2, 3)
    assert m.RepeatedTransform([lambda x: x, lambda x: -x])(torch.ones(2, 1)).shape == (2, 2, 1)


# --------------------------------------------------------------------------------------- others


def test_words_for_yes_and_no() -> None:
    assert [m.binary_to_boolean_type(x) for x in ("1", "True", "y", 1)] == [True] * 4
    assert [m.binary_to_boolean_type(x) for x in ("0", "no", "F", False)] == [False] * 4
    with pytest.raises(ArgumentTypeError, match="'maybe' must be one of"):
        m.binary_to_boolean_type("maybe")
    assert (m.none_or_float("None"), m.none_or_float("0.5")) == (None, 0.5)


@pytest.mark.parametrize("track", [True, False])
def test_batch_normalisation_may_look_without_learning(track: bool) -> None:
    layer = nn.BatchNorm1d(2)
    with m.bn_track_stats(layer, track):
        layer(torch.ones(4, 2) + torch.rand(4, 2))
    assert bool((layer.running_mean == 0).all()) is not track
    assert layer.track_running_stats


def test_loaders_are_seeded() -> None:
    rows = torch.utils.data.TensorDataset(torch.arange(20))
    args = Namespace(seed=3, num_workers=0)
    one, two = (
        [int(x) for (part,) in m.create_seeded_dataloader(args, rows, shuffle=True) for x in part]
        for _ in range(2)
    )
    assert one == two != list(range(20))


def test_something_is_warned_of_once() -> None:
    with pytest.warns(UserWarning, match="a thing of this test"):
        m.warn_once("a thing", "of this test")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        m.warn_once("a thing of this test")


def test_learning_rates_rise_and_fall() -> None:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    rates = []
    schedule = m.CosineSchedulerWithLinearWarmup(optimizer, 1.0, warmup_length=2, steps=6)
    for _ in range(6):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert rates == pytest.approx([0.5, 1.0, 1.0, 0.8536, 0.5, 0.1464], abs=1e-4)
    other = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=2.0)
    cosine = m.CosineSchedule(other, K=3)
    other.step()
    cosine.step()
    assert other.param_groups[0]["lr"] == pytest.approx(2 * math.cos(0.99 * math.pi / 4))
    with pytest.raises(ConfigError, match="K=1 must be at least 2"):
        m.CosineSchedule(other, K=1)


def test_a_scheduler_is_made_by_its_name() -> None:
    class Model:
        def __init__(self) -> None:
            self.opt = self.get_optimizer()

        def get_optimizer(self) -> torch.optim.Optimizer:
            return torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)

    model = Model()
    assert m.get_scheduler(model, Namespace(lr_scheduler=None)) is None
    before = model.opt
    args = Namespace(lr_scheduler="multisteplr", lr_milestones=[1], sched_multistep_lr_gamma=0.5)
    scheduler = m.get_scheduler(model, args)
    assert model.opt is not before
    model.opt.step()
    scheduler.step()
    assert model.opt.param_groups[0]["lr"] == 0.5
    with pytest.raises(ConfigError, match=r"lr_scheduler=cosin.*Did you mean `cosine`"):
        m.get_scheduler(model, Namespace(lr_scheduler="cosin"))
    with pytest.raises(ConfigError, match="needs lr_milestones"):
        m.get_scheduler(model, Namespace(lr_scheduler="multisteplr", lr_milestones=[]))


def test_star_moves_weights_to_learn_and_puts_them_back() -> None:
    torch.manual_seed(0)
    parser = ArgumentParser()
    m.add_perturb_args(parser)
    net = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 2))
    args = parser.parse_args([])
    rows = torch.randn(16, 3)
    labels = net(rows).argmax(1)
    before = [p.detach().clone() for p in net.parameters()]
    perturber = m.Perturber(Namespace(net=net, args=args, device=torch.device("cpu")))
    perturber(rows, labels)
    assert all(
        torch.allclose(p, b, atol=1e-6) for p, b in zip(net.parameters(), before, strict=True)
    )
    gradients = [p.grad for p in net.parameters()]
    assert all(g is not None and float(g.abs().sum()) > 0 for g in gradients)
    # Where all predictions are wrong there is nothing to keep.
    net.zero_grad()
    perturber(rows, 1 - labels)
    assert all(p.grad is None for p in net.parameters())


def test_names_come_without_torchvision() -> None:
    assert "torchvision" not in vars(sys.modules["antelope.launcher.mammoth.augmentations"])
    named: dict[str, Any] = {}
    exec("from antelope.launcher.mammoth import *", named)
    assert {"strong_aug", "Buffer", "ArgumentParser", "fill_buffer"} <= named.keys()
