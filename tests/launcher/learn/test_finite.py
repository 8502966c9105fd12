"""What counts as NaN or infinite in a model, in what trains it, in logged losses, statistics and metrics."""

from __future__ import annotations

import math
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from antelope.launcher.learn.finite import FiniteMetrics, Finiteness, bad_loss, bad_statistics
from antelope.launcher.learn.nan import Found, all_finite, word_of
from antelope.launcher.learn.parameters import Parameters
from antelope.replay import Normalizer

NAN, INFINITE = math.nan, math.inf


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(2))
        self.frozen = nn.Parameter(torch.ones(2), requires_grad=False)
        self.register_buffer("mask", torch.ones(2))
        self.register_buffer("running_var", torch.ones(2))
        self.register_buffer("count", torch.tensor(0))


def updates(net: nn.Module, **parts: Any) -> Any:
    usual = {"average": None, "scaler": None, "optimised": True, "waiting": False}
    known = {**usual, "optimizers": list, "parameters": Parameters(net, average=None)}
    return SimpleNamespace(**{**known, **parts})


def spoil(tensor: Tensor, value: float) -> None:
    with torch.no_grad():
        tensor[0] = value


@pytest.mark.parametrize(
    ("name", "what"), [("weight", "weight"), ("frozen", "weight"), ("mask", "buffer")]
)
@pytest.mark.parametrize(("value", "word"), [(NAN, "NaN"), (INFINITE, "infinite")])
def test_a_part_of_the_model_is_found(name: str, what: str, value: float, word: str) -> None:
    net = Net()
    finiteness = Finiteness(updates(net))
    finiteness.begin()
    assert finiteness.first(closely=False) is None
    spoil(getattr(net, name), value)
    assert finiteness.first(closely=False) == Found(what, name, word)


@pytest.mark.parametrize(
    ("name", "found"),
    [("weight", True), ("running_var", True), ("frozen", False), ("mask", False)],
)
def test_what_was_infinite_before_the_first_step_stays_allowed_unless_it_learns(
    name: str, found: bool
) -> None:
    net = Net()
    spoil(getattr(net, name), -INFINITE)
    finiteness = Finiteness(updates(net))
    finiteness.begin()
    assert (finiteness.first(closely=False) is not None) == found


@pytest.mark.parametrize(("value", "found"), [(-INFINITE, False), (NAN, True)])
def test_a_buffer_made_while_learning_may_be_infinite_from_the_start(
    value: float, found: bool
) -> None:
    net = Net()
    finiteness = Finiteness(updates(net))
    finiteness.begin()
    net.register_buffer("later", torch.tensor([value, 0.0]))
    assert (finiteness.first(closely=False) is not None) == found
    spoil(net.later, NAN)  # type: ignore[arg-type]
    assert (finiteness.first(closely=False) is not None) == found  # Once allowed, always.


def test_moments_are_found_only_where_they_are_asked_for_and_counts_never() -> None:
    net = Net()
    optimizer = torch.optim.Adam([net.weight])
    net.weight.sum().backward()
    optimizer.step()
    finiteness = Finiteness(updates(net, optimizers=lambda: [optimizer]))
    finiteness.begin()
    optimizer.state[net.weight]["step"].fill_(INFINITE)
    assert finiteness.first(closely=True) is None
    spoil(optimizer.state[net.weight]["exp_avg"], NAN)
    assert finiteness.first(closely=False) is None
    assert finiteness.first(closely=True) == Found("optimiser's exp_avg of", "weight", "NaN")


@pytest.mark.parametrize(
    ("parts", "found"),
    [({"waiting": True}, True), ({}, False), ({"waiting": True, "scaler": True}, False)],
)
def test_gradients_are_looked_at_while_they_wait_and_are_not_scaled(
    parts: dict[str, Any], found: bool
) -> None:
    net = Net()
    net.weight.grad = torch.tensor([NAN, 0.0])
    if "scaler" in parts:
        parts = {**parts, "scaler": SimpleNamespace(get_scale=lambda: 1.0)}
    gradient = Found("gradient of", "weight", "NaN") if found else None
    assert Finiteness(updates(net, **parts)).first(closely=True) == gradient


@pytest.mark.parametrize("optimised", [True, False])
def test_an_average_counts_once_it_is_used(optimised: bool) -> None:
    net = Net()
    average = SimpleNamespace(by_parameter=lambda: {net.weight: torch.tensor([NAN])})
    found = Finiteness(updates(net, average=average, optimised=optimised)).first(closely=True)
    assert found == (Found("average (ema) of", "weight", "NaN") if optimised else None)


@pytest.mark.parametrize(
    ("scale", "optimised", "found"), [(1e-5, True, True), (1e-3, True, False), (1e-5, False, False)]
)
def test_a_loss_scaler_that_has_fallen_to_nothing_is_found(
    scale: float, optimised: bool, found: bool
) -> None:
    scaler = SimpleNamespace(get_scale=lambda: scale)
    finiteness = Finiteness(updates(Net(), scaler=scaler, optimised=optimised))
    assert (finiteness.first(closely=True) is not None) == found
    assert finiteness.first(closely=False) is None


# ------------------------------------------------------------------------------------ tensors


@pytest.mark.parametrize(
    ("make", "word"),
    [
        (lambda: torch.tensor([1.0, NAN]), "NaN"),
        (lambda: torch.tensor([INFINITE, NAN]), "NaN"),
        (lambda: torch.tensor([-INFINITE]), "infinite"),
        (lambda: torch.tensor([NAN], dtype=torch.bfloat16), "NaN"),
        (lambda: torch.tensor([complex(0, NAN)]), "NaN"),
        (lambda: torch.full((1000,), 6e4, dtype=torch.float16), None),  # Its norm overflows.
        (lambda: torch.full((4,), 3e38), None),
        (lambda: torch.empty(0), None),
        (lambda: torch.tensor([1]), None),
        (lambda: torch.tensor([NAN]).to_sparse(), None),  # Cannot be looked through.
        (lambda: torch.empty(2, device="meta"), None),
    ],
)
def test_tensors_of_every_kind(make: Callable[[], Tensor], word: str | None) -> None:
    tensor = make()
    assert word_of(tensor) == word
    others = [torch.ones(2), torch.ones(2, dtype=torch.float64), torch.ones(2, dtype=torch.half)]
    if word is not None:
        assert not all_finite([*others, tensor])
    elif tensor.numel() < 3:
        assert all_finite([*others, tensor])


# ------------------------------------------------------------------- losses, statistics, metrics


@pytest.mark.parametrize("name", ["loss", "critic/loss", "Loss_q2", "kl-loss", "loss2"])
def test_a_logged_loss_must_be_finite(name: str) -> None:
    assert bad_loss({name: NAN}) == Found("logged", name, "NaN")
    assert bad_loss({"lr": 1.0, name: INFINITE}) == Found("logged", name, "infinite")
    assert bad_loss({name: 1.0}) is None


@pytest.mark.parametrize("name", ["return", "accuracy", "lossless", "closs"])
def test_other_columns_need_not_be(name: str) -> None:
    assert bad_loss({name: NAN}) is None


@pytest.mark.parametrize(
    ("part", "name", "what"),
    [
        ("squares", "observations/a", "running variance of"),
        ("_mean", "observations/a", "running mean of"),
        ("squares", "returns", "running variance of"),
    ],
)
def test_statistics_of_an_environment(part: str, name: str, what: str) -> None:
    normalizer = Normalizer({"a": (2,)}, num_envs=1, discount=0.9, obs=True, reward=True)
    normalizer.see({"a": np.ones((3, 2), np.float32)})
    normalizer.see_rewards(np.ones(1), np.zeros(1, bool))
    assert bad_statistics(normalizer) is None
    moments = normalizer.returns if name == "returns" else normalizer.moments["a"]
    setattr(moments, part, np.full_like(getattr(moments, part), INFINITE))
    assert bad_statistics(normalizer) == Found(what, name, "infinite")


def test_an_environment_without_statistics_has_nothing_to_find() -> None:
    assert bad_statistics(None) is None
    neither = Normalizer({}, num_envs=1, discount=0.9, obs=False, reward=False)
    assert bad_statistics(neither) is None


def test_a_built_in_metric_must_be_finite_unless_its_labels_leave_it_undefined() -> None:
    metrics = FiniteMetrics()
    assert metrics.first([0], [{"loss": NAN}]) == Found("metric", "loss", "NaN")
    assert metrics.first([0], [{"r2": NAN, "mean_iou": NAN}]) is None
    assert metrics.first([0], [{"r2": -INFINITE}]) == Found("metric", "r2", "infinite")


def test_a_metric_of_the_users_must_stay_finite_once_it_was_for_the_same_task() -> None:
    metrics = FiniteMetrics()
    assert metrics.first([0], [{"mine": NAN}]) is None
    assert metrics.first([0], [{"mine": 1.0}]) is None
    assert metrics.first([0, 1], [{"mine": 1.0}, {"mine": NAN}]) is None
    assert metrics.first([0], [{"mine": NAN}]) == Found("metric", "mine", "NaN")


def test_metrics_of_tasks_that_are_not_learnt_yet_do_not_count() -> None:
    assert FiniteMetrics().first(range(1), [{"loss": 1.0}, {"loss": NAN}]) is None
