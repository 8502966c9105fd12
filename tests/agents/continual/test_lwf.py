"""LwF: on the new data the model keeps giving the answers it gave before the task."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from antelope import Batch, ConfigError, ml
from antelope.agents.continual import lwf
from antelope.agents.continual.context import Context
from antelope.agents.continual.lwf import LwF

from .course import WIDTH, Course, Idle, Shallow, permuted_digits
from .resuming import Crashing, check_resuming


class Net(nn.Module):
    """With statistics and a random stream, which the teacher must neither use nor disturb."""

    def __init__(self, outputs: int):
        super().__init__()
        self.first = nn.Linear(WIDTH, 16)
        self.norm = nn.BatchNorm1d(16)
        self.drop = nn.Dropout(0.2)
        self.last = nn.Linear(16, outputs)

    def forward(self, obs: Tensor) -> Tensor:
        return self.last(self.drop(self.norm(self.first(obs)).relu()))


# ----------------------------------------------------------------------------------- the heart


class Witness(LwF):
    """Works out at every step what the loss must be, with a copy of the model as teacher."""

    copy: Any = None  # An optimiser's parameters, weights and buffers of the last task's end.
    seen = 0

    def after_loss(self, agent: nn.Module, batch: Batch, loss: Tensor) -> Tensor:
        total = super().after_loss(agent, batch, loss)
        expected = loss.detach()
        if self.copy is not None:
            teacher = Net(self.context.spec.action.n)
            teacher.load_state_dict(self.copy)
            answers = teacher.eval()(batch.obs).detach()
            now = self.context.logits(batch.obs)
            kept = torch.zeros(())
            for outputs in self.outputs():
                old = [answers[:, k].div(self.temperature).exp() for k in outputs]
                new = [now[:, k].div(self.temperature).exp() for k in outputs]
                for p, q in zip(old, new, strict=True):
                    kept = kept - (p / sum(old) * (q / sum(new)).log()).mean()
            expected = loss + self.importance * kept
            own, theirs = (
                torch.autograd.grad(what, list(agent.parameters()), retain_graph=True)
                for what in (total, expected)
            )
            torch.testing.assert_close(own, theirs)
            self.seen += 1
        else:
            assert total is loss
        torch.testing.assert_close(total.detach(), expected.detach())
        return total

    def end_task(self, agent: nn.Module, replay: Any) -> None:
        super().end_task(agent, replay)
        self.copy = {name: value.clone() for name, value in agent.state_dict().items()}

    def outputs(self) -> list[list[int]]:
        """Two classes for each task, in order."""
        task = self.context.task
        if self.context.scenario == "domain":
            return [[0, 1]]
        if self.context.scenario == "class":
            return [[*range(2 * task)]]
        return [[2 * old, 2 * old + 1] for old in range(task)]


def check(kind: type[Witness] = Witness, scenario: str = "class") -> None:
    """Three tasks, in which loss and gradient are those of the equation at every step."""
    strategy = kind(importance=0.7, temperature=3)
    Course(strategy, Net, scenario=scenario).learn(0, 1, 2, steps=4)
    assert strategy.seen == 8


@pytest.mark.parametrize("scenario", ["class", "task", "domain"])
def test_loss_and_gradient_are_those_of_the_equation(scenario: str) -> None:
    check(scenario=scenario)


def nothing(logits: Tensor, answers: Tensor, temperature: float) -> Tensor:
    return 0 * F.cross_entropy(logits / temperature, (answers / temperature).softmax(1))


def of_itself(logits: Tensor, answers: Tensor, temperature: float) -> Tensor:
    return F.cross_entropy(logits / temperature, (logits.detach() / temperature).softmax(1))


def as_hard_as_it_is(logits: Tensor, answers: Tensor, temperature: float) -> Tensor:
    return F.cross_entropy(logits, answers.softmax(1))


@pytest.mark.parametrize("broken", [nothing, of_itself, as_hard_as_it_is])
def test_the_check_objects_to_another_distillation(
    broken: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lwf, "distillation", broken)
    with pytest.raises(AssertionError):
        check()


class FirstTeacherForEver(Witness):
    def end_task(self, agent: nn.Module, replay: Any) -> None:
        teacher = self.teacher
        super().end_task(agent, replay)
        self.teacher = teacher or self.teacher


class TeacherOfThisTask(Witness):
    """The teacher learns on: its weights are the model's own."""

    def end_task(self, agent: nn.Module, replay: Any) -> None:
        super().end_task(agent, replay)
        self.teacher = dict(agent.state_dict())


class AllOutputs(Witness):
    def _old(self) -> list[Tensor]:
        return [torch.arange(self.context.spec.action.n)]


@pytest.mark.parametrize("scenario", ["class", "task"])
@pytest.mark.parametrize("broken", [FirstTeacherForEver, TeacherOfThisTask, AllOutputs])
def test_the_check_objects_to(broken: type[Witness], scenario: str) -> None:
    with pytest.raises(AssertionError):
        check(broken, scenario)


def test_the_check_objects_to_a_teacher_that_trains(monkeypatch: pytest.MonkeyPatch) -> None:
    def recall(context: Context, weights: dict[str, Tensor], obs: Tensor) -> Tensor:
        with torch.no_grad():
            return torch.func.functional_call(context.agent, weights, (obs,))

    monkeypatch.setattr(Context, "recall", recall)
    with pytest.raises(AssertionError):
        check()


# ------------------------------------------------------------------------------------- in a run


def test_without_strength_it_is_naive_to_the_bit() -> None:
    def weights(strategy: Any) -> dict[str, Tensor]:
        return Course(strategy, Net).learn(0, 1, 2).weights()

    naive, without = weights(Idle()), weights(LwF(importance=0))
    assert all(torch.equal(naive[name], without[name]) for name in naive)
    taught = weights(LwF(importance=1))
    assert not torch.equal(naive["last.weight"], taught["last.weight"])


def test_the_first_task_is_learnt_as_without_it() -> None:
    naive = Course(Idle(), Net).learn(0).weights()
    run = Course(LwF(importance=1e6), Net).learn(0).weights()
    assert all(torch.equal(naive[name], run[name]) for name in naive)


def test_less_is_forgotten(tmp_path: Path) -> None:
    naive, held = (permuted_digits(words, tmp_path) for words in ("naive", "lwf 1"))
    assert held["forgetting"] < 0.8 * naive["forgetting"]
    assert held["accuracy"] > naive["accuracy"] + 0.01


class Stops(Crashing, Shallow): ...


def test_a_resumed_run_ends_with_the_same_weights(tmp_path: Path) -> None:
    check_resuming(["strategy=lwf"], Stops, tmp_path)


def test_values_are_refused(tmp_path: Path) -> None:
    targets = torch.rand(20, 1)
    with pytest.raises(ConfigError, match="strategy=lwf is for classes"):
        ml(strategy="lwf", dataset=[(targets, targets)] * 2, path=tmp_path, epochs=1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"importance": -1}, r"lwf.importance is -1; it must be a number of at least 0"),
        ({"temperature": 0}, r"lwf.temperature is 0; it must be a number of at least 0.001"),
    ],
)
def test_numbers_out_of_bounds_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        LwF(**arguments)
