"""A strategy put through a few small tasks, one hook after the other, as a run does it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from antelope import Batch, ml
from antelope.agents.continual.context import Context
from antelope.agents.continual.strategy import Strategy
from antelope.agents.learn_method import learn_method
from antelope.envs import Digits
from antelope.launcher.assembly.model import Model
from antelope.launcher.learn.learner import Learner
from antelope.launcher.learn.strategies import Strategies
from antelope.launcher.record.log import Log, quiet
from antelope.replay import Replay, Space, Spec, Table

WIDTH = 6


def blobs(classes: int, rows: int = 40) -> tuple[Tensor, Tensor]:
    """Rows around a centre for each class, `[classes * rows, WIDTH]`, and their labels."""
    generator = torch.Generator().manual_seed(0)
    label = torch.arange(classes).repeat_interleave(rows)
    centres = 3 * torch.randn(classes, WIDTH, generator=generator)
    return centres[label] + torch.randn(len(label), WIDTH, generator=generator), label


class MLP(nn.Module):
    """Three layers."""

    def __init__(self, outputs: int = 6):
        super().__init__()
        self.first, self.second = nn.Linear(WIDTH, 16), nn.Linear(16, 16)
        self.last = nn.Linear(16, outputs)

    def forward(self, obs: Tensor) -> Tensor:
        return self.last(self.second(self.first(obs).relu()).relu())


class Normed(nn.Module):
    """Convolutions, BatchNorm, dropout, a residual, and a head that is defined first."""

    def __init__(self, outputs: int = 6):
        super().__init__()
        self.head = nn.Linear(8, outputs)
        self.stem = nn.Conv2d(1, 4, (1, 3), padding=(0, 1))
        self.norm = nn.BatchNorm2d(4)
        self.block = nn.Conv2d(4, 4, (1, 3), padding=(0, 1), groups=2)
        self.hidden = nn.Linear(4 * WIDTH, 8)
        self.drop = nn.Dropout(0.2)
        self.after = nn.BatchNorm1d(8)

    def forward(self, obs: Tensor) -> Tensor:
        x = self.norm(self.stem(obs[:, None, None])).relu()
        x = (x + self.block(x)).relu()
        return self.head(self.drop(self.after(self.hidden(x.flatten(1)))).relu())


class Shallow(nn.Sequential):
    """One hidden layer, for the data that a run has."""

    width, norm = 64, False

    def __init__(self, in_features: int, out_features: int):
        norm = [nn.BatchNorm1d(self.width)] if self.norm else []
        super().__init__(
            nn.Flatten(),
            nn.Linear(in_features, self.width),
            *norm,
            nn.ReLU(),
            nn.Linear(self.width, out_features),
        )


class Idle(Strategy):
    """Nothing against forgetting."""

    def after_step(self, agent: nn.Module, batch: Batch) -> None: ...


class Course:
    """Tasks of two classes each, and a learner with a strategy.

    Args:
        agent: Makes the agent, of so many outputs.
        optim: Makes the optimiser of the agent's parameters.
    """

    def __init__(
        self,
        strategy: Any,
        agent: Callable[[int], nn.Module] = MLP,
        *,
        tasks: int = 3,
        scenario: str = "class",
        batch_size: int = 10,
        optim: Any = lambda parameters: torch.optim.SGD(parameters, 0.1),
        data: tuple[Tensor, Tensor] | None = None,
        seed: int = 0,
    ):
        torch.manual_seed(seed)
        outputs = 2 if scenario == "domain" else 2 * tasks
        self.agent = agent(outputs)
        self.obs, classes = data if data is not None else blobs(2 * tasks)
        self.task_of = classes // 2
        self.label = classes % 2 if scenario == "domain" else classes
        every = torch.arange(outputs)
        self.spec = Spec(Space((WIDTH,)), Space((outputs,), torch.int64, discrete=True), tasks)
        self.context = Context(
            self.agent,
            self.spec,
            scenario=scenario,
            classes=[
                every if scenario == "domain" else every[2 * t : 2 * t + 2] for t in range(tasks)
            ],
            learn=quiet(learn_method(self.agent, self.spec, supervised=True)),
        )
        self.strategy = strategy
        strategies = Strategies({"it": strategy}, self.context)
        self.learner = Learner(
            Model(self.agent, self.spec, torch.device("cpu")),
            optimizer=optim(self.agent.parameters()),
            strategies=strategies,
        )
        self.replay = Replay(
            Table(obs=self.obs, label=self.label),
            lambda fields: fields,
            batch_size=batch_size,
            tasks=[(self.task_of == t).nonzero().flatten() for t in range(tasks)],
        )
        self.replay.transform.without_augmentation = lambda fields: fields  # type: ignore[attr-defined]
        self.replay.before = strategies.before_batch

    def begin(self, task: int) -> Course:
        self.replay.begin(task)
        self.learner.begin_task(task, self.replay)
        return self

    def steps(self, n: int) -> Course:
        for _ in range(n):
            self.learner.step(self.replay, Log())
        return self

    def end(self) -> Course:
        self.learner.end_task(self.replay)
        return self

    def learn(self, *tasks: int, steps: int = 16) -> Course:
        """Whole tasks, one after the other."""
        for task in tasks:
            self.begin(task).steps(steps).end()
        return self

    def predict(self, task: int | None = None, obs: Tensor | None = None) -> Tensor:
        with self.learner.evaluating():
            output = self.learner.predict(self.obs if obs is None else obs, task)
        assert output is not None
        return output

    def accuracy(self, task: int, *, told: bool = True) -> float:
        own = self.task_of == task
        output = self.predict(task if told else None, self.obs[own])
        if told:
            output = output.index_select(1, self.context.classes[task])
            return float(
                (output.argmax(1) == self.label[own] - self.label[own].min()).float().mean()
            )
        return float((output.argmax(1) == self.label[own]).float().mean())

    def rows(self, task: int) -> Batch:
        own = self.task_of == task
        return Batch(obs=self.obs[own], label=self.label[own], task=self.task_of[own])

    def weights(self) -> dict[str, Tensor]:
        return {name: value.clone() for name, value in self.agent.state_dict().items()}


def permuted_digits(strategy: str, path: Path) -> dict[str, float]:
    """What comes of three tasks, in each of which the pixels have another order.

    Args:
        strategy: Its name, and its `importance` where one is given.
    """
    obs, label = Digits().tensors
    stream = torch.Generator().manual_seed(0)
    orders = [torch.randperm(64, generator=stream) for _ in range(3)]
    data = [(obs.flatten(1).float()[:, order], label) for order in orders]
    settings = {"epochs": 5, "optim": "SGD", "lr": 0.05, "plot": False, "progress": False}
    name, _, strength = strategy.partition(" ")
    words = [f"strategy={name}", *([f"strategy.importance={strength}"] if strength else [])]
    return ml(*words, model=Shallow, dataset=data, path=path / name, **settings).metrics  # type: ignore[arg-type]
