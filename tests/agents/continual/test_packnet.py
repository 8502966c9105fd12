"""PackNet: what a task keeps is its own for ever, and the rest is there for the next."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from antelope import ConfigError, ml
from antelope.agents.continual import PackNet, packnet

from .course import MLP, Course, Normed, Shallow
from .resuming import Crashing, check_same_end, resumed

OPTIMISERS: dict[str, Any] = {
    "SGD": lambda p: torch.optim.SGD(p, 0.1),
    "momentum and decay": lambda p: torch.optim.SGD(p, 0.05, momentum=0.9, weight_decay=0.01),
    "AdamW": lambda p: torch.optim.AdamW(p, 0.01, weight_decay=0.1),
}


# ------------------------------------------------------------------------------- nothing is lost


def check_earlier_tasks_stay_as_they_are(agent: Any = MLP, **settings: Any) -> None:
    """Each task's outputs, after it and after every later one, are the same to the bit."""
    course = Course(PackNet(), agent, tasks=3, **settings)
    first: dict[int, Tensor] = {}
    for task in range(3):
        course.learn(task)
        first[task] = course.predict(task)
        for earlier in range(task + 1):
            assert torch.equal(course.predict(earlier), first[earlier])
            assert course.accuracy(earlier) > 0.9
    assert not torch.equal(first[0], first[1])


@pytest.mark.parametrize("agent", [MLP, Normed])
@pytest.mark.parametrize("optim", OPTIMISERS)
def test_earlier_tasks_stay_as_they_are(optim: str, agent: type[nn.Module]) -> None:
    check_earlier_tasks_stay_as_they_are(agent, optim=OPTIMISERS[optim])


@pytest.mark.parametrize("scenario", ["task", "domain"])
def test_earlier_tasks_stay_as_they_are_in_the_other_scenarios(scenario: str) -> None:
    check_earlier_tasks_stay_as_they_are(scenario=scenario)


def _nothing(*_: Any, **__: Any) -> None:
    pass


def _all_weights(self: PackNet, agent: nn.Module, task: int) -> dict[str, Tensor]:
    return {}


def _all_free(self: PackNet, agent: nn.Module) -> None:
    original_fix(self, agent)
    self.mine = {name: torch.ones_like(mask) for name, mask in self.mine.items()}


original_fix = PackNet.fix


@pytest.mark.parametrize(
    ("name", "broken", "optim"),
    [
        ("weights", _all_weights, "SGD"),  # The mask is not applied.
        ("fix", _all_free, "SGD"),  # Weights of earlier tasks are trained.
        ("after_step", _nothing, "momentum and decay"),  # They are not put back.
    ],
)
def test_the_check_notices_that_weights_are_not_kept(
    name: str, broken: Any, optim: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(PackNet, name, broken)
    with pytest.raises(AssertionError):
        check_earlier_tasks_stay_as_they_are(optim=OPTIMISERS[optim])


def test_the_check_notices_normalisation_that_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packnet, "rest_normalisation", _nothing)
    monkeypatch.setattr(packnet, "running_statistics", lambda agent: {})
    with pytest.raises(AssertionError):
        check_earlier_tasks_stay_as_they_are(Normed)


class Trains(Normed):
    """Puts itself into training mode before each step."""

    def learn(self, replay: Any) -> Tensor:
        self.train()
        batch = next(replay)
        return F.cross_entropy(self(batch.obs), batch.label)


def test_a_model_that_goes_back_to_training_mode_loses_nothing() -> None:
    check_earlier_tasks_stay_as_they_are(Trains)


# --------------------------------------------------------------------------------------- pruning


def check_the_largest_weights_are_kept() -> None:
    """Of each layer, and the others are zero."""
    course = Course(PackNet(keep=0.25, retrain_epochs=0)).begin(0).steps(5)
    before = course.weights()
    course.end()
    for name in ("first.weight", "second.weight"):
        kept = course.strategy.owner[name] == 0
        size, weight = before[name].abs(), course.weights()[name]
        assert kept.sum() == round(0.25 * kept.numel())
        assert size[kept].min() >= size[~kept].max()
        assert torch.equal(weight[kept], before[name][kept])
        assert (weight[~kept] == 0).all()
    # Outputs are not pruned.
    assert torch.equal(course.weights()["last.weight"], before["last.weight"])


def check_what_is_kept_is_trained_further() -> None:
    """For as long as asked; what is freed stays zero."""
    course = Course(PackNet(keep=0.5, retrain_epochs=2)).begin(0).steps(5)
    before, batches = course.weights(), course.replay.step
    course.end()
    assert course.replay.step - batches == 2 * course.replay.batches_per_epoch
    kept = course.strategy.owner["second.weight"] == 0
    after = course.weights()["second.weight"]
    assert (after[kept] != before["second.weight"][kept]).any()
    assert not kept.all()
    assert (after[~kept] == 0).all()


def check_all_tasks_get_equally_many_weights(scenario: str = "class") -> None:
    """Unless told otherwise; all weights are used."""
    course = Course(PackNet(), tasks=3, scenario=scenario).learn(0, 1, 2)
    used = course.strategy.parameters_used(course.agent)
    assert max(used["used"]) - min(used["used"]) <= 3
    assert sum(used["used"]) == used["total"]


PRUNING = [
    check_the_largest_weights_are_kept,
    check_what_is_kept_is_trained_further,
    check_all_tasks_get_equally_many_weights,
]


@pytest.mark.parametrize("check", PRUNING)
def test_pruning(check: Any) -> None:
    check()


def test_all_tasks_get_equally_many_weights_where_they_share_outputs() -> None:
    check_all_tasks_get_equally_many_weights("domain")


@pytest.mark.parametrize("check", PRUNING)
def test_the_checks_notice_that_nothing_is_pruned(
    check: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(PackNet, "prune", _nothing)
    with pytest.raises(AssertionError):
        check()


def test_the_check_notices_that_the_smallest_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    sort = Tensor.argsort
    monkeypatch.setattr(Tensor, "argsort", lambda x, **how: sort(-x, **how))
    with pytest.raises(AssertionError):
        check_the_largest_weights_are_kept()


def test_the_check_notices_that_nothing_is_trained_further(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.optim.SGD, "step", _nothing)
    with pytest.raises(AssertionError):
        check_what_is_kept_is_trained_further()


def test_a_share_of_what_is_free_is_kept() -> None:
    course = Course(PackNet(keep=0.5), tasks=3).learn(0, 1, 2)
    hidden = course.strategy.owner["second.weight"]
    counts = [(hidden == owner).sum() for owner in (0, 1, 2, packnet.FREE)]
    assert counts == [128, 64, 32, 32]
    # And of each task its two outputs, 16 weights and a bias each.
    used = course.strategy.parameters_used(course.agent)["used"]
    assert used == [48 + 128 + 34, 24 + 64 + 34, 12 + 32 + 34]


def test_the_first_task_is_naive_until_it_is_pruned() -> None:
    class Nothing:
        def after_step(self, agent: nn.Module, batch: Any) -> None: ...

    # In one task there are no outputs of others, which it would have to leave alone.
    ours, naive = (Course(s, tasks=1).begin(0).steps(10).weights() for s in (PackNet(), Nothing()))
    assert all(torch.equal(ours[name], naive[name]) for name in naive)


def test_biases_stay_as_the_first_task_leaves_them_but_those_of_outputs() -> None:
    course = Course(PackNet(), tasks=2).learn(0)
    first = course.weights()
    course.learn(1)
    last = course.weights()
    for name in ("first.bias", "second.bias"):
        assert torch.equal(first[name], last[name])
    assert torch.equal(first["last.bias"][:2], last["last.bias"][:2])
    assert (first["last.bias"][2:] != last["last.bias"][2:]).all()


# ------------------------------------------------------------------------------------ prediction


def test_a_task_not_told_gets_the_outputs_of_each_task_from_its_own_weights() -> None:
    course = Course(PackNet(), tasks=3).learn(0, 1)
    together = course.predict(None)
    assert torch.equal(together[:, :2], course.predict(0)[:, :2])
    assert torch.equal(together[:, 2:4], course.predict(1)[:, 2:4])
    assert (together[:, 4:] < -1e4).all()


def test_the_model_is_the_last_task_s_after_the_run() -> None:
    course = Course(PackNet(), Normed).learn(0, 1, 2)
    last = course.predict(2)
    course.agent.eval()
    assert torch.equal(course.agent(course.obs), last)
    assert torch.equal(copy.deepcopy(course.agent)(course.obs), last)


# --------------------------------------------------------------------------------- runs, resumed


class Stops(Crashing, Shallow):
    width, norm = 24, True


def learnt(path: Path, model: Any = Stops, **settings: Any) -> Any:
    how: dict[str, Any] = {"strategy": "packnet", "tasks": 5, "epochs": 2, "batch_size": 32}
    how |= {"optim": {"_target_": "SGD", "lr": 0.1, "momentum": 0.9}, "save_every": 4}
    return ml(model=model, path=path, plot=False, progress=False, **how | settings)


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A run that nothing stopped."""
    return learnt(tmp_path_factory.mktemp("runs") / "reference")


def test_digits(reference: Any) -> None:
    told, parameters = reference.task_il_matrix, reference.tasks[-1]["parameters"]
    assert all((told[task:, task] == told[task, task]).all() for task in range(5))
    assert told[-1].mean() > 0.95
    assert sum(parameters["used"]) == parameters["total"]


# An epoch is 9 or 10 steps, and a task three of them, the last after pruning.
@pytest.mark.parametrize("step", [13, 27, 40, 66, 100])
def test_a_run_that_is_resumed_ends_as_if_it_had_never_stopped(
    step: int, reference: Any, tmp_path: Path
) -> None:
    check_same_end(resumed(learnt, Stops, step, tmp_path / "run"), reference)


# ---------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize("keep", [0, -0.1, 1.5])
def test_a_share_must_be_one(keep: float) -> None:
    with pytest.raises(ConfigError, match=r"keep=.* must be a share in \(0, 1\]"):
        PackNet(keep=keep)


def test_a_model_without_an_output_layer_is_refused(tmp_path: Path) -> None:
    class NoLayer(nn.Module):
        def __init__(self, in_features: int, out_features: int):
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(out_features, in_features))

        def forward(self, obs: Tensor) -> Tensor:
            return F.linear(obs.flatten(1), self.weight)

    with pytest.raises(ConfigError, match=r"calls no nn\.Linear with out_features=10"):
        learnt(tmp_path, NoLayer)


def test_a_stream_without_borders_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="must know where a task ends"):
        learnt(tmp_path, online=True, epochs=1)


def test_what_was_pruned_is_made_up_for_also_where_the_rate_has_fallen_to_0(tmp_path: Path) -> None:
    class Watched(PackNet):
        def prune(self, agent: nn.Module) -> None:
            super().prune(agent)
            self.pruned = self.context.snapshot()

        def end_task(self, agent: nn.Module, replay: Any) -> None:
            optimizer = self.context.optimizer
            assert optimizer is not None
            before = optimizer.param_groups[0]["lr"]
            super().end_task(agent, replay)
            moved = self.context.snapshot()["1.weight"] - self.pruned["1.weight"]
            seen.append((before, float(moved.abs().max())))
            assert optimizer.param_groups[0]["lr"] == before

    seen: list[tuple[float, float]] = []
    how: dict[str, Any] = {"plot": False, "progress": False, "path": tmp_path / "run"}
    ml(model=Shallow, tasks=2, epochs=2, lr=0.01, lr_decay_epochs=2, strategy=Watched(), **how)
    assert all(rate < 1e-9 and moved > 1e-3 for rate, moved in seen)
    assert len(seen) == 2
