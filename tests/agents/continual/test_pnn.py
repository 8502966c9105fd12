"""Progressive networks: a column for each task that listens to the earlier ones, which never change."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from antelope import ConfigError, ml
from antelope.agents.continual import PNN, pnn

from .course import MLP, WIDTH, Course, Normed, Shallow
from .resuming import Crashing, check_same_end, resumed

OPTIMISERS: dict[str, Any] = {
    "SGD": lambda p: torch.optim.SGD(p, 0.1),
    "momentum and decay": lambda p: torch.optim.SGD(p, 0.05, momentum=0.9, weight_decay=0.01),
    "AdamW": lambda p: torch.optim.AdamW(p, 0.01, weight_decay=0.1),
}


# ------------------------------------------------------------------------------- nothing is lost


def check_earlier_columns_stay_as_they_are(agent: Any = MLP, **settings: Any) -> None:
    """Each task's outputs, after it and after every later one, are the same to the bit."""
    course = Course(PNN(), agent, tasks=3, **settings)
    first: dict[int, Tensor] = {}
    for task in range(3):
        course.learn(task)
        first[task] = course.predict(task)
        for earlier in range(task + 1):
            assert torch.equal(course.predict(earlier), first[earlier])
            assert course.accuracy(earlier) > 0.9


@pytest.mark.parametrize("agent", [MLP, Normed])
@pytest.mark.parametrize("optim", OPTIMISERS)
def test_earlier_columns_stay_as_they_are(optim: str, agent: type[nn.Module]) -> None:
    check_earlier_columns_stay_as_they_are(agent, optim=OPTIMISERS[optim])


@pytest.mark.parametrize("scenario", ["task", "domain"])
def test_earlier_columns_stay_as_they_are_in_the_other_scenarios(scenario: str) -> None:
    check_earlier_columns_stay_as_they_are(scenario=scenario)


def _same_tensors(self: PNN, agent: nn.Module, replay: Any) -> None:
    if self.context.task:
        named = [*agent.named_parameters(), *agent.named_buffers()]
        self.columns.freeze({name: tensor.detach() for name, tensor in named})


def _newest(self: Any, agent: nn.Module, obs: Tensor, columns: int) -> list[Tensor]:
    return [agent(obs)] * columns


@pytest.mark.parametrize(
    ("holder", "name", "broken"),
    [
        (PNN, "begin_task", _same_tensors),  # Earlier columns are trained on.
        (PNN, "begin_task", lambda *_: None),  # There is one column.
        (pnn.Columns, "outputs", _newest),  # The newest one answers for all.
    ],
)
def test_the_check_notices_columns_that_change(
    holder: type, name: str, broken: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(holder, name, broken)
    with pytest.raises(AssertionError):
        check_earlier_columns_stay_as_they_are()


# -------------------------------------------------------------------------- lateral connections


def check_the_third_column_is_the_equation_s() -> None:
    """Computed by hand from the weights of all columns."""
    course = Course(PNN()).learn(0, 1, 2)
    columns = [*course.strategy.columns.frozen, course.agent.state_dict()]
    first: list[Tensor] = []  # What goes into the second layer, of each column so far.
    second: list[Tensor] = []
    for column, w in enumerate(columns):
        x = F.linear(course.obs, w["first.weight"], w["first.bias"]).relu()
        y = F.linear(x, w["second.weight"], w["second.bias"])
        y = y + sum(F.linear(first[j], w[f"second.laterals.{j}"]) for j in range(column))
        out = F.linear(y.relu(), w["last.weight"], w["last.bias"])
        out = out + sum(F.linear(second[j], w[f"last.laterals.{j}"]) for j in range(column))
        first, second = [*first, x], [*second, y.relu()]
        torch.testing.assert_close(course.predict(column), out)
    for name in ("second", "last"):
        for j in range(2):
            assert columns[2][f"{name}.laterals.{j}"].abs().max() > 0.01


def check_a_column_listens() -> None:
    """Other activations in an earlier column make other outputs in the newest."""
    course = Course(PNN()).learn(0, 1)
    before = course.predict(1)
    course.strategy.columns.frozen[0]["first.bias"] += 1
    assert (course.predict(1) - before).abs().max() > 0.01


LATERALS = [check_the_third_column_is_the_equation_s, check_a_column_listens]


@pytest.mark.parametrize("check", LATERALS)
def test_lateral_connections(check: Any) -> None:
    check()


@pytest.mark.parametrize("check", LATERALS)
def test_the_checks_notice_that_they_are_cut(check: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pnn, "apply", lambda layer, x, weight: 0)
    with pytest.raises((AssertionError, KeyError)):
        check()


def test_the_check_notices_that_columns_hear_only_the_last_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def last_alone(self: Any, layer: Any, args: Any, output: Tensor) -> Tensor:
        *earlier, own = self._inputs
        if self._earlier:
            own[layer] = args[0]
        number = len(earlier) - 1
        return output + F.linear(earlier[-1][layer], layer.laterals[number]) if earlier else output

    monkeypatch.setattr(pnn.Columns, "_listen", last_alone)
    with pytest.raises(AssertionError):
        check_the_third_column_is_the_equation_s()


def test_convolutions_listen_too() -> None:
    course = Course(PNN(), Normed).learn(0, 1)
    for layer in (course.agent.block, course.agent.hidden, course.agent.head):
        assert layer.laterals[0].shape == layer.weight.shape
        assert layer.laterals[0].abs().max() > 0
    assert not hasattr(course.agent.stem, "laterals")  # It is called first: both see the input.


def test_nothing_flows_back_into_earlier_columns() -> None:
    course = Course(PNN()).learn(0).begin(1)
    frozen = course.strategy.columns.frozen[0]
    assert not any(weight.requires_grad for weight in frozen.values())
    course.agent(course.obs).sum().backward()
    assert all(weight.grad is None for weight in frozen.values())


# ------------------------------------------------------------------------------------ beginnings


def test_the_first_task_is_naive_to_the_bit() -> None:
    class Naive:
        def after_step(self, agent: nn.Module, batch: Any) -> None: ...

    ours, naive = (Course(s).begin(0).steps(10).weights() for s in (PNN(), Naive()))
    assert all(torch.equal(ours[name], naive[name]) for name in naive)


def test_a_column_starts_where_the_model_did_without_a_momentum() -> None:
    course = Course(PNN(), Normed, optim=OPTIMISERS["momentum and decay"])
    initial = course.weights()
    course.learn(0)
    assert course.learner.optimizer is not None
    assert course.learner.optimizer.state
    course.begin(1)
    assert all(torch.equal(weight, initial[name]) for name, weight in course.weights().items())
    assert not course.learner.optimizer.state


def test_running_statistics_are_each_column_s_own() -> None:
    course = Course(PNN(), Normed).learn(0).begin(1).steps(3)
    first = course.strategy.columns.frozen[0]["norm.running_mean"].clone()
    assert not torch.equal(course.agent.norm.running_mean, first)
    assert course.agent.norm.training
    course.steps(3)
    assert torch.equal(course.strategy.columns.frozen[0]["norm.running_mean"], first)


# ------------------------------------------------------------------------------------ prediction


def test_a_task_not_told_gets_the_outputs_of_each_task_from_its_own_column() -> None:
    course = Course(PNN()).learn(0, 1)
    together = course.predict(None)
    assert torch.equal(together[:, :2], course.predict(0)[:, :2])
    assert torch.equal(together[:, 2:4], course.predict(1)[:, 2:4])
    assert (together[:, 4:] < -1e4).all()


def test_outputs_that_tasks_share_are_the_highest_of_theirs() -> None:
    course = Course(PNN(), scenario="domain").learn(0, 1)
    expected = torch.maximum(course.predict(0), course.predict(1))
    assert torch.equal(course.predict(None), expected)


def test_parameters_by_hand() -> None:
    course = Course(PNN()).learn(0, 1, 2)
    alone = (WIDTH * 16 + 16) + (16 * 16 + 16) + (16 * 6 + 6)
    lateral = 16 * 16 + 16 * 6
    used = course.strategy.parameters_used(course.agent)
    assert used == {
        "used": [alone, alone + lateral, alone + 2 * lateral],
        "total": 3 * alone + 3 * lateral,
    }
    frozen = course.strategy.columns.frozen
    assert [sum(w.numel() for w in column.values()) for column in frozen] == used["used"][:2]


def test_the_model_is_the_last_column_after_the_run_and_so_are_its_copies() -> None:
    course = Course(PNN(), Normed).learn(0, 1, 2)
    last = course.predict(2)
    agent = course.agent.eval()
    course.context.close()
    assert torch.equal(agent(course.obs), last)
    for twin in (copy.deepcopy(agent), pickle.loads(pickle.dumps(agent))):
        assert torch.equal(twin(course.obs), last)
        assert torch.equal(agent(course.obs), last)
        with torch.no_grad():
            twin.head.weight.zero_()
        assert not torch.equal(twin(course.obs), last)
        assert torch.equal(agent(course.obs), last)


def test_a_single_task_is_a_plain_network() -> None:
    course = Course(PNN(), tasks=1).learn(0)
    assert course.strategy.parameters_used(course.agent)["used"] == [
        sum(p.numel() for p in course.agent.parameters())
    ]


# --------------------------------------------------------------------------------- runs, resumed


class Stops(Crashing, Shallow):
    width, norm = 24, True


def learnt(path: Path, model: Any = Stops, **settings: Any) -> Any:
    how: dict[str, Any] = {"strategy": "pnn", "tasks": 5, "epochs": 2, "batch_size": 32}
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


# An epoch is 9 or 10 steps, and a task two of them.
@pytest.mark.parametrize("step", [7, 25, 38, 80])
def test_a_run_that_is_resumed_ends_as_if_it_had_never_stopped(
    step: int, reference: Any, tmp_path: Path
) -> None:
    check_same_end(resumed(learnt, Stops, step, tmp_path / "run"), reference)


def test_a_model_may_copy_itself_while_it_learns() -> None:
    class Copies(MLP):
        def learn(self, replay: Any) -> Tensor:
            batch = next(replay)
            output = self(batch.obs)
            teacher = copy.deepcopy(self)(batch.obs)
            assert torch.equal(teacher, output)
            return F.cross_entropy(output, batch.label)

    assert Course(PNN(), Copies).learn(0, 1).accuracy(1) > 0.9


class Twice(MLP):
    """Its last two layers are called twice, with different inputs."""

    def forward(self, obs: Tensor) -> Tensor:
        x = self.first(obs).relu()
        return self.last(self.second(x).relu()) + 2 * self.last(self.second(-x).relu())


def test_a_layer_that_is_called_twice_listens_to_the_same_call() -> None:
    course = Course(PNN(), Twice).learn(0, 1)
    old, agent, obs = course.strategy.columns.frozen[0], course.agent, course.obs
    new = dict(agent.named_parameters())
    assert new["second.laterals.0"].abs().max() > 0.01

    def layer(weights: Any, name: str, x: Tensor) -> Tensor:
        return F.linear(x, weights[f"{name}.weight"], weights[f"{name}.bias"])

    first = [layer(weights, "first", obs).relu() for weights in (old, new)]
    total = torch.zeros(len(obs), 6)
    for sign, share in ((1, 1), (-1, 2)):
        below = layer(old, "second", sign * first[0]).relu()
        heard = F.linear(sign * first[0], new["second.laterals.0"])
        own = (layer(new, "second", sign * first[1]) + heard).relu()
        total += share * (layer(new, "last", own) + F.linear(below, new["last.laterals.0"]))
    torch.testing.assert_close(course.predict(1), total.detach())
    assert course.accuracy(0) > 0.9
    assert course.accuracy(1) > 0.9


# ---------------------------------------------------------------------------------------- errors


def test_a_run_that_fails_before_it_learns_leaves_the_model_as_it_was(tmp_path: Path) -> None:
    model = Shallow(64, 10)
    settings: dict[str, Any] = {"progress": False, "plot": False, "tasks": 5, "epochs": 1}
    wrong: list[dict[str, Any]] = [{"ema": 0.9}, {"optim": "Nope"}, {"online": True}]
    for words in wrong:
        path = tmp_path / next(iter(words))
        with pytest.raises(ConfigError):
            ml(model=model, dataset="Digits", strategy="pnn", path=path, **{**settings, **words})
        assert len(list(model.parameters())) == 4
        assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    ml(model=model, dataset="Digits", strategy="pnn", path=tmp_path / "right", **settings)
    assert len(list(model.parameters())) == 4 + 4


def test_a_model_of_an_earlier_run_is_refused() -> None:
    agent = Course(PNN()).agent
    with pytest.raises(ConfigError, match="from an earlier run"):
        Course(PNN(), lambda outputs: agent)


def test_learning_past_the_model_s_forward_is_refused() -> None:
    class Past(MLP):
        def learn(self, replay: Any) -> Tensor:
            batch = next(replay)
            x = self.second(self.first(batch.obs).relu()).relu()
            return F.cross_entropy(self.last(x), batch.label)

    course = Course(PNN(), Past).begin(0)
    with pytest.raises(ConfigError, match=r"Let `learn` call self\(batch\.obs\)"):
        course.steps(1)


def test_a_forward_that_fails_leaves_nothing_behind() -> None:
    course = Course(PNN()).learn(0).begin(1)
    with pytest.raises(RuntimeError):
        course.agent(torch.zeros(1, 1))
    assert torch.isfinite(course.agent(course.obs)).all()
    with pytest.raises(ConfigError, match="outside the model's forward"):
        course.agent.last(torch.zeros(1, 16))
