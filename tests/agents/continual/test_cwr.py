"""CWR*: an output layer learnt anew in each task, consolidated by the paper's equation."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from antelope import ConfigError, ml
from antelope.agents.continual import CWR, cwr
from antelope.agents.continual.cwr import consolidate

from .course import Course, Normed, Shallow, blobs
from .resuming import Crashing, check_same_end, resumed

OPTIMISERS: dict[str, Any] = {
    "SGD": lambda p: torch.optim.SGD(p, 0.1),
    "momentum and decay": lambda p: torch.optim.SGD(p, 0.05, momentum=0.9, weight_decay=0.01),
    "AdamW": lambda p: torch.optim.AdamW(p, 0.01, weight_decay=0.1),
}


def _nothing(*_: Any, **__: Any) -> None:
    pass


# --------------------------------------------------------------------------------- consolidation


def test_consolidation_by_hand() -> None:
    cw = torch.tensor([[1.0, 1.0], [2.0, 4.0], [0.0, 0.0]])
    tw = torch.tensor([[9.0, 9.0], [6.0, 2.0], [1.0, 3.0]])
    ours = torch.tensor([False, True, True])
    past_share = torch.tensor([5.0, 3.0, 0.0])
    # The mean of the task's rows is 3. Class 1: (3 * (2, 4) + (3, -1)) / 4; class 2 is new.
    expected = torch.tensor([[1.0, 1.0], [2.25, 2.75], [-2.0, 0.0]])
    torch.testing.assert_close(consolidate(cw, tw, past_share, ours), expected)


def test_biases_are_consolidated_by_a_mean_of_their_own() -> None:
    cw, tw = torch.tensor([1.0, 2.0, 0.0]), torch.tensor([9.0, 6.0, 2.0])
    ours = torch.tensor([False, True, True])
    found = consolidate(cw, tw, torch.tensor([0.0, 1.0, 0.0]), ours)
    torch.testing.assert_close(found, torch.tensor([1.0, 2.0, -2.0]))


def check_tasks_are_consolidated_by_the_equation(scenario: str) -> None:
    """In `domain` classes come again, three times as many rows in the first task."""
    data = None
    if scenario == "domain":
        obs, label = blobs(6)
        keep = (label < 2) | (torch.arange(len(label)) % 3 == 0)
        data = (obs[keep], label[keep])
    course = Course(CWR(), scenario=scenario, data=data)
    cw, past = torch.zeros_like(course.agent.last.weight), torch.zeros(course.spec.action.n)
    for task in range(3):
        course.begin(task).steps(12)
        tw = course.weights()["last.weight"]
        rows = course.rows(task).label.bincount(minlength=len(past)).float()
        own = rows.nonzero().flatten()
        for j in own.tolist():
            w = (past[j] / rows[j]) ** 0.5
            cw[j] = (w * cw[j] + tw[j] - tw[own].mean()) / (w + 1)
        past += rows
        course.end()
        torch.testing.assert_close(course.strategy.consolidated["last.weight"], cw)
        torch.testing.assert_close(course.strategy.past, past)


@pytest.mark.parametrize("scenario", ["class", "domain"])
def test_tasks_are_consolidated_by_the_equation(scenario: str) -> None:
    check_tasks_are_consolidated_by_the_equation(scenario)


def _without_mean_shift(cw: Tensor, tw: Tensor, past_share: Tensor, ours: Tensor) -> Tensor:
    share = past_share[:, None] if cw.dim() == 2 else past_share
    return torch.where(
        ours[:, None] if cw.dim() == 2 else ours, (share * cw + tw) / (share + 1), cw
    )


def _overwritten(cw: Tensor, tw: Tensor, past_share: Tensor, ours: Tensor) -> Tensor:
    return consolidate(cw, tw, torch.zeros_like(past_share), ours)


def _of_all_classes(cw: Tensor, tw: Tensor, past_share: Tensor, ours: Tensor) -> Tensor:
    return consolidate(cw, tw, past_share, torch.ones_like(ours))


@pytest.mark.parametrize(
    ("broken", "scenario"),
    [
        (_without_mean_shift, "class"),
        (_without_mean_shift, "domain"),
        (_overwritten, "domain"),
        (_of_all_classes, "class"),
        (lambda cw, *_: cw, "class"),
    ],
)
def test_the_check_notices_another_equation(
    broken: Any, scenario: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cwr, "consolidate", broken)
    with pytest.raises(AssertionError):
        check_tasks_are_consolidated_by_the_equation(scenario)


# ----------------------------------------------------------------------------- what is learnt


def check_only_the_output_layer_is_learnt(optim: str, agent: Any = Normed) -> None:
    """After the first task all else is the same to the bit, running statistics too."""
    course = Course(CWR(), agent, optim=OPTIMISERS[optim])
    initial = course.weights()
    course.learn(0)
    first = course.weights()
    assert not torch.equal(first["stem.weight"], initial["stem.weight"])
    course.learn(1, 2)
    last = course.weights()
    for name in last:
        assert torch.equal(last[name], first[name]) != name.startswith("head."), name


@pytest.mark.parametrize("optim", OPTIMISERS)
def test_only_the_output_layer_is_learnt(optim: str) -> None:
    check_only_the_output_layer_is_learnt(optim)


class Trains(Normed):
    """Puts itself into training mode before each step."""

    def learn(self, replay: Any) -> Tensor:
        self.train()
        batch = next(replay)
        return F.cross_entropy(self(batch.obs), batch.label)


def test_a_model_that_goes_back_to_training_mode_changes_nothing() -> None:
    check_only_the_output_layer_is_learnt("SGD", Trains)


@pytest.mark.parametrize("optim", OPTIMISERS)
def test_the_check_notices_that_all_is_learnt(optim: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CWR, "after_backward", _nothing)
    with pytest.raises(AssertionError):
        check_only_the_output_layer_is_learnt(optim)


def test_the_check_notices_normalisation_that_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cwr, "rest_normalisation", _nothing)
    with pytest.raises(AssertionError):
        check_only_the_output_layer_is_learnt("SGD")


def test_a_task_starts_with_what_is_consolidated_of_its_classes_and_zeros() -> None:
    course = Course(CWR(), optim=OPTIMISERS["momentum and decay"]).learn(0).begin(1)
    assert (course.agent.last.weight == 0).all()
    assert (course.agent.last.bias == 0).all()
    assert course.learner.optimizer is not None
    assert course.agent.last.weight not in course.learner.optimizer.state
    course.replay._tasks[2] = course.replay._tasks[0]  # Its classes come again.
    course.steps(4).end().begin(2)
    cw = course.strategy.consolidated["last.weight"]
    assert (cw[:4] != 0).any(1).all()
    assert torch.equal(course.agent.last.weight[:2], cw[:2])
    assert (course.agent.last.weight[2:] == 0).all()


def test_the_first_task_is_naive_to_the_bit_until_it_is_consolidated() -> None:
    class Naive:
        def after_step(self, agent: nn.Module, batch: Any) -> None: ...

    ours, naive = (Course(s).begin(0).steps(10).weights() for s in (CWR(), Naive()))
    assert all(torch.equal(ours[name], naive[name]) for name in naive)


# ------------------------------------------------------------------------------------ prediction


def test_only_classes_that_were_seen_are_predicted() -> None:
    course = Course(CWR())
    assert torch.equal(course.predict(), course.agent.eval()(course.obs))  # Nothing is learnt yet.
    course.agent.train()
    course.learn(0, 1)
    assert (course.predict()[:, 4:] < -1e4).all()
    assert course.predict()[:, :4].abs().max() < 1e3


def test_within_a_task_the_prediction_is_as_if_it_ended_there() -> None:
    course = Course(CWR()).learn(0).begin(1).steps(7)
    before = course.predict()
    assert not torch.equal(course.agent(course.obs), before)
    course.end()
    torch.testing.assert_close(course.predict(), before)


def test_the_model_has_the_consolidated_weights_after_the_run() -> None:
    course = Course(CWR(), Normed).learn(0, 1, 2)
    expected = course.predict()
    agent = course.agent.eval()
    assert torch.equal(agent(course.obs), expected)
    assert torch.equal(copy.deepcopy(agent)(course.obs), expected)


# --------------------------------------------------------------------------------- runs, resumed


class Stops(Crashing, Shallow):
    norm = True


def learnt(path: Path, model: Any = Stops, **settings: Any) -> Any:
    how: dict[str, Any] = {"strategy": "cwr", "tasks": 5, "epochs": 2, "batch_size": 32}
    how |= {"optim": {"_target_": "SGD", "lr": 0.05, "momentum": 0.9}, "save_every": 4}
    return ml(model=model, path=path, plot=False, progress=False, **how | settings)


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A run that nothing stopped."""
    return learnt(tmp_path_factory.mktemp("runs") / "reference")


def test_digits_are_told_apart_far_better_than_without(reference: Any, tmp_path: Path) -> None:
    naive = learnt(tmp_path, strategy="naive")
    assert naive.metrics["accuracy"] < 0.25
    assert reference.metrics["accuracy"] > 0.5


# An epoch is 9 or 10 steps, and a task two of them.
@pytest.mark.parametrize("step", [7, 25, 38])
def test_a_run_that_is_resumed_ends_as_if_it_had_never_stopped(
    step: int, reference: Any, tmp_path: Path
) -> None:
    check_same_end(resumed(learnt, Stops, step, tmp_path / "run"), reference)


def test_a_model_without_an_output_layer_is_refused(tmp_path: Path) -> None:
    class Wider(nn.Module):
        def __init__(self, in_features: int, out_features: int):
            super().__init__()
            self.layer = nn.Linear(in_features, out_features + 1)

        def forward(self, obs: Tensor) -> Tensor:
            return self.layer(obs.flatten(1))[:, :-1]

    with pytest.raises(ConfigError, match=r"strategy=cwr .* no nn\.Linear with out_features=10"):
        learnt(tmp_path, Wider)


# ----------------------------------------------------------------------- whatever optimiser there is


@pytest.mark.parametrize("clip", [None, 1e-3])
def test_the_output_layer_takes_steps_of_plain_sgd(clip: float | None) -> None:
    """Also in the first task, in which an optimiser trains the rest."""
    course = Course(CWR(lr=0.25), optim=OPTIMISERS["AdamW"])
    course.learner.clip_grad = course.context.clip_grad = clip
    for task in range(2):
        batch = course.begin(task).rows(task)
        course.replay.before = lambda _, batch=batch: batch  # type: ignore[misc]
        before = course.weights()
        agent = copy.deepcopy(course.agent)
        F.cross_entropy(agent(batch.obs), batch.label).backward()
        if clip is not None:  # Of what is learnt: all in the first task, then the output layer.
            learnt = [p for n, p in agent.named_parameters() if task == 0 or n.startswith("last.")]
            nn.utils.clip_grad_norm_(learnt, clip)
        course.steps(1)
        after = course.weights()
        for name, weight in agent.named_parameters():
            assert weight.grad is not None
            moved = before[name] - after[name]
            if name.startswith("last."):
                torch.testing.assert_close(moved, 0.25 * weight.grad)
            else:
                assert bool(moved.any()) == (task == 0)
        course.end()


@pytest.mark.parametrize("optim", ["AdamW", "Adam"])
def test_later_tasks_are_learnt_with_an_optimiser_that_adapts(optim: str, tmp_path: Path) -> None:
    run = learnt(tmp_path, optim=optim)
    assert run.metrics["accuracy"] > 0.6
    assert (run.accuracy_matrix[-1] > 0.3).all()


def test_a_rate_that_is_no_number_above_0_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"cwr\.lr is -1"):
        CWR(lr=-1)
