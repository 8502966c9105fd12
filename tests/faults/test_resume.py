"""A resumed run ends as if it had never stopped: the same weights to the bit, the same bytes."""

from __future__ import annotations

import collections
import copy
import dataclasses
import enum
import json
import logging
import os
import random
import shutil
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import gymnasium
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from antelope import CheckpointError, ConfigError, ml
from antelope.launcher.record.checkpoint import Checkpoints

# 23 batches an epoch: 46 steps, evaluated at 23 and 46, checkpoints at 7, 14, 21, ...
SHORT: dict[str, Any] = {
    "epochs": 2,
    "batch_size": 64,
    "log_every": 5,
    "save_every": 7,
    "plot": False,
    "progress": False,
}


class Crash(Exception):
    """The model's own failure: the run ends at once, with whatever it had saved."""


class _Stop:
    """What stops a run: called by the models below at the start of every `learn`."""

    step, how = 0, ""
    calls = 0

    def __call__(self) -> None:
        self.calls += 1
        if self.calls != self.step or not self.how:
            return
        if self.how == "crash":
            raise Crash
        os.kill(os.getpid(), getattr(signal, self.how))


stop = _Stop()


@pytest.fixture(autouse=True)
def _fresh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    yield
    stop.how = ""


def interrupted(step: int, how: str, **settings: Any) -> None:
    """A run that its model stops in learning step `step`."""
    stop.calls, stop.step, stop.how = 0, step, how
    error = {"crash": Crash, "SIGTERM": SystemExit, "SIGINT": KeyboardInterrupt}[how]
    with pytest.raises(error) as raised:
        ml(**SHORT | settings)
    if how == "SIGTERM":
        assert raised.value.code == 143
    if how != "crash":
        assert (
            json.loads(Path(settings["path"], "status.json").read_text())["status"] == "interrupted"
        )
    stop.how = ""


def printed(capsys: pytest.CaptureFixture[str]) -> str:
    """All that a person could read, since the last call."""
    out, err = capsys.readouterr()
    return out + err


def same(a: Any, b: Any) -> bool:
    """Whether two nested values are equal to the bit (NaN equals NaN)."""
    if isinstance(a, Tensor):
        bits = [t.detach().cpu().contiguous().view(-1).view(torch.uint8) for t in (a, b)]
        return a.dtype == b.dtype and a.shape == b.shape and torch.equal(*bits)
    if isinstance(a, np.ndarray):
        return a.dtype == b.dtype and np.array_equal(a, b, equal_nan=a.dtype.kind == "f")
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and (a == b or a != a)


def assert_same_run(run: Any, reference: Any) -> None:
    """Weights, files, history and the last checkpoint of both runs are the same."""
    for name in ("train.csv", "eval.csv"):
        assert (run.path / name).read_bytes() == (reference.path / name).read_bytes()
    weights, expected = run.agent.state_dict(), reference.agent.state_dict()
    assert weights.keys() == expected.keys()
    assert [name for name in weights if not same(weights[name], expected[name])] == []
    assert same(run.metrics, reference.metrics)
    assert same(run.history, reference.history)
    assert same(run.accuracy_matrix, reference.accuracy_matrix)
    states = [Checkpoints(r.path / "checkpoints").newest()[0] for r in (run, reference)]
    for state in states:
        assert state is not None
        del state["settings"]
    assert [key for key in states[0] if not same(states[0][key], states[1][key])] == []


def check(model: Any, step: int, how: str = "crash", **settings: Any) -> Any:
    """Interrupt a run at `step`, resume it, and compare it with one that was left alone."""
    reference = ml(path="reference", model=model, **SHORT | settings)
    return check_against(reference, step, how, model=model, **settings)


def check_against(reference: Any, step: int, how: str = "crash", **settings: Any) -> Any:
    """Interrupt a run at `step`, resume it, and compare it with `reference`."""
    interrupted(step, how, path="run", **settings)
    assert json.loads(Path("run/status.json").read_text())["status"] != "finished"
    run = ml(path="run", resume=True, **SHORT | settings)
    assert json.loads(Path("run/status.json").read_text())["status"] == "finished"
    assert not Path("run.1").exists()
    assert_same_run(run, reference)
    return run


# ------------------------------------------------------------------------------------ exactness


class Net(nn.Module):
    """A model whose learn returns a loss."""

    def __init__(self, in_features: int, out_features: int, hidden: int = 16):
        super().__init__()
        self.first = nn.Linear(in_features, hidden)
        self.last = nn.Linear(hidden, out_features)

    def forward(self, obs: Tensor) -> Tensor:
        return self.last(self.first(obs.flatten(1)).relu())

    def loss(self, batch: Any) -> Tensor:
        return F.cross_entropy(self(batch.obs), batch.label)

    def learn(self, replay: Any) -> Any:
        stop()
        return self.loss(next(replay))


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A run of `Net` that nothing interrupted."""
    return ml(model=Net, path=tmp_path_factory.mktemp("runs") / "reference", **SHORT)


@pytest.mark.parametrize(
    ("step", "how"),
    [
        (1 + 7, "crash"),  # The step after a checkpoint.
        (17, "crash"),
        (23, "crash"),  # The last of an epoch, and the first of the next.
        (24, "crash"),
        (46, "crash"),  # The last of all.
        (1, "SIGTERM"),
        (17, "SIGTERM"),
        (17, "SIGINT"),
        (23, "SIGTERM"),
        (24, "SIGINT"),
        (45, "SIGTERM"),
        (46, "SIGTERM"),  # Everything is learnt: resuming finishes the run.
    ],
)
def test_model_that_returns_a_loss(step: int, how: str, reference: Any) -> None:
    check_against(reference, step, how, model=Net)


def test_run_interrupted_many_times(reference: Any) -> None:
    interrupted(5, "SIGTERM", model=Net, path="run")
    interrupted(6, "SIGINT", model=Net, path="run", resume=True)
    interrupted(20, "crash", model=Net, path="run", resume=True)
    interrupted(3, "crash", model=Net, path="run", resume=True)
    assert_same_run(ml(model=Net, path="run", resume=True, **SHORT), reference)


@dataclasses.dataclass
class Counter:
    seen: int = 0
    losses: list[float] = dataclasses.field(default_factory=list)


class SelfMade(Net):
    """Its own optimiser, scheduler, counters, buffers and random streams, in plain attributes."""

    def __init__(self, in_features: int, out_features: int):
        super().__init__(in_features, out_features)
        self.optim = torch.optim.Adam(self.parameters(), 1e-2)
        self.schedules = {"lr": torch.optim.lr_scheduler.ExponentialLR(self.optim, 0.99)}
        self.memory: collections.deque[Any] = collections.deque(maxlen=5)
        self.generator = torch.Generator().manual_seed(3)
        self.numpy_random = np.random.default_rng(3)
        self.python_random = random.Random(3)
        self.counter = Counter()
        self.per_class = collections.defaultdict(int)
        self.scale = 1.0
        self.trace = torch.zeros(3)
        self.means = np.zeros(2)
        self.teacher = [nn.Linear(out_features, out_features)]
        self.best: Any = None
        self.steps = 0

    def learn(self, replay: Any, log: Any) -> None:
        stop()
        batch = next(replay)
        self.steps += 1
        self.memory.append((batch.obs[:4].clone(), batch.label[:4]))
        obs, label = self.memory[self.python_random.randrange(len(self.memory))]
        noise = torch.randn(obs.shape, generator=self.generator) * self.scale
        logits = self.teacher[0](self(obs + noise + float(self.numpy_random.normal())))
        loss = self.loss(batch) + 0.1 * F.cross_entropy(logits, label)
        self.optim.zero_grad()
        loss.backward()
        self.optim.step()
        self.schedules["lr"].step()
        with torch.no_grad():
            for weight in self.teacher[0].parameters():
                weight.mul_(0.99)
        self.counter.seen += len(batch)
        self.counter.losses = [*self.counter.losses, loss.item()][-3:]
        self.per_class[int(batch.label[0])] += 1
        self.scale *= 0.99
        self.trace = 0.9 * self.trace + self.counter.losses[-1]
        self.means += [loss.item(), 1]
        if self.best is None or loss.item() < self.best[0]:
            self.best = (loss.item(), self.steps)
        log.loss = loss
        log["mine/seen"] = self.counter.seen
        log["mine/all"] = (
            self.trace.sum() + sum(self.counter.losses) + self.means.sum() + max(self.best)
        )
        log["mine/classes"] = sum(k * v for k, v in self.per_class.items())


@pytest.mark.parametrize(("step", "how"), [(17, "crash"), (24, "SIGTERM")])
def test_model_with_everything_in_plain_attributes(step: int, how: str) -> None:
    run = check(SelfMade, step, how)
    assert isinstance(run.agent.memory, collections.deque)
    assert run.agent.memory.maxlen == 5
    assert isinstance(run.agent.per_class, collections.defaultdict)
    assert isinstance(run.agent.counter, Counter)
    assert run.agent.best[1] > 0


class Noisy(nn.Module):
    """Dropout and BatchNorm: global random streams, and buffers that training moves."""

    def __init__(self, in_features: int, out_features: int):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Flatten(),
            nn.Linear(in_features, 16),
            nn.BatchNorm1d(16),
            nn.Dropout(0.5),
            nn.Linear(16, out_features),
        )

    def forward(self, obs: Tensor) -> Tensor:
        return self.layers(obs)

    def learn(self, replay: Any) -> Tensor:
        stop()
        batch = next(replay)
        noise = random.random() + np.random.random()
        return F.cross_entropy(self(batch.obs) * (1 + noise), batch.label)


@pytest.mark.parametrize(("step", "how"), [(17, "crash"), (24, "SIGTERM")])
def test_dropout_and_batch_norm(step: int, how: str) -> None:
    check(Noisy, step, how)


def test_augmentation() -> None:
    aug = {"_target_": "RandomCrop", "padding": 1}
    check(Net, 17, aug=aug)


def test_scheduler_average_and_clipping() -> None:
    cosine = {"_target_": "CosineAnnealingLR", "T_max": 30}
    settings = {"ema": 0.9, "clip_grad": 0.1, "optim": "SGD", "lr": 0.1}
    check(Noisy, 17, scheduler=cosine, scheduler_every="step", **settings)
    shutil.rmtree("run")
    check(Net, 30, "SIGTERM", lr_decay_epochs=2, ema=0.9, weight_decay=0.1)


@pytest.mark.parametrize(
    "scheduler",
    [
        {"_target_": "OneCycleLR", "max_lr": 0.1, "total_steps": 50},
        {"_target_": "MultiStepLR", "milestones": [5, 20], "gamma": 0.5},
        {"_target_": "ReduceLROnPlateau", "patience": 1},
        {"_target_": "CosineAnnealingWarmRestarts", "T_0": 5},
        {"_target_": "CyclicLR", "base_lr": 0.01, "max_lr": 0.1},
        {"_target_": "LinearLR"},
        {"_target_": "PolynomialLR", "total_iters": 50},
    ],
    ids=lambda scheduler: scheduler["_target_"],
)
def test_schedulers_of_torch(scheduler: dict[str, Any]) -> None:
    every = {} if scheduler["_target_"] == "ReduceLROnPlateau" else {"scheduler_every": "step"}
    check(
        Net,
        17,
        scheduler=scheduler,
        **every,
        optim={"_target_": "SGD", "momentum": 0.9, "lr": 0.01},
    )


@pytest.mark.parametrize("name", ["Adagrad", "Adamax", "ASGD", "NAdam", "RMSprop", "Rprop", "Muon"])
def test_optimisers_of_torch(name: str) -> None:
    class Square(Net):
        """Matrices only, as Muon wants."""

        def __init__(self, in_features: int, out_features: int):
            super().__init__(in_features, out_features)
            self.first.bias = self.last.bias = None

    check(Square, 17, optim=name)


def test_bfloat16() -> None:
    check(Net, 17, precision="bf16")


class Texts(nn.Module):
    """Learns values far from zero of integers."""

    def __init__(self, vocab_size: int, out_features: int, spec: Any):
        super().__init__()
        self.embedding = nn.Embedding(vocab_size, out_features)
        self.spec = [spec]

    def forward(self, obs: Tensor) -> Tensor:
        space = self.spec[0].action
        return self.embedding(obs).sum(1) * space.stddev + space.mean

    def learn(self, replay: Any) -> Tensor:
        stop()
        batch = next(replay)
        return F.mse_loss(self(batch.obs), batch.label)


def test_integers_and_values_far_from_zero() -> None:
    tokens = torch.arange(1500).view(500, 3) % 11
    check(Texts, 12, dataset=(tokens, 1e9 + tokens.sum(1).double()), epochs=3)


def test_inputs_far_from_zero() -> None:
    seconds = 1_700_000_000 + torch.arange(1500).view(500, 3)
    check(Net, 12, dataset=(seconds, torch.arange(500) % 3), epochs=3)


def test_early_stopping() -> None:
    run = check(Noisy, 17, lr=0.2, epochs=20, eval_every=4, **{"early_stopping.patience": 2})
    assert run.history[-1]["step"] < 100


class Draws(Net):
    """Draws from the replay beside its batches, more at some steps than at others."""

    def learn(self, replay: Any) -> Tensor:
        stop()
        batch, other = next(replay), replay.sample(8)
        if replay.step % 3 == 0:
            other = replay.sample(100)
        return self.loss(batch) + self.loss(other)


class OnlyDraws(Net):
    def learn(self, replay: Any) -> Tensor:
        stop()
        return self.loss(replay.sample(16))


class Skips(Net):
    """Takes two batches at some steps, so that steps and batches are counted differently."""

    def learn(self, replay: Any) -> Tensor:
        stop()
        loss = self.loss(next(replay))
        return loss + self.loss(next(replay)) if replay.step % 4 == 0 else loss


@pytest.mark.parametrize("model", [Draws, OnlyDraws, Skips])
def test_model_that_takes_batches_its_own_way(model: type[nn.Module]) -> None:
    check(model, 17)


class Logs(Net):
    """Logs numbers of every kind, some of them at some steps only."""

    def __init__(self, in_features: int, out_features: int):
        super().__init__(in_features, out_features)
        self.steps = 0

    def learn(self, replay: Any, log: Any) -> Tensor:
        stop()
        self.steps += 1
        loss = self.loss(next(replay))
        log.double = loss.double() / 3
        log.large = torch.tensor(2**24 + self.steps)
        log.integer = self.steps
        log.true = self.steps % 2 == 0
        log.array = np.float32(self.steps / 7)
        log["half"] = loss.to(torch.bfloat16)
        if self.steps % 3 == 0:
            log["now and then"] = loss if self.steps % 2 else loss.item()
        if self.steps > 25:
            log["late, with a comma"] = -float("inf")
        return loss


@pytest.mark.parametrize("step", [17, 19, 33])
def test_rows_with_numbers_of_every_kind(step: int) -> None:
    check(Logs, step)
    shutil.rmtree("run")
    interrupted(step, "SIGTERM", model=Logs, path="run")
    run = ml(model=Logs, path="run", resume=True, **SHORT)
    assert Path("run/train.csv").read_bytes() == Path("reference/train.csv").read_bytes()
    assert run.history[-1]["mode"] == "eval"


class Tasks(Net):
    """A replay buffer of its own, filled at the end of each task."""

    def __init__(self, in_features: int, out_features: int):
        super().__init__(in_features, out_features)
        self.kept: list[Any] = []
        self.task = -1

    def begin_task(self, task: int) -> None:
        self.task = task

    def end_task(self, replay: Any) -> None:
        stop()
        batch = replay.sample(4)
        self.kept.append((batch.obs, batch.label))

    def learn(self, replay: Any) -> Tensor:
        stop()
        loss = self.loss(next(replay))
        for obs, label in self.kept:
            loss = loss + F.cross_entropy(self(obs), label)
        return loss * (1 + self.task)


# Five batches and one end_task to each task of an epoch: calls 6, 12, ... are those at the ends.
@pytest.mark.parametrize(
    ("step", "how"),
    [
        (2, "SIGTERM"),
        (9, "crash"),
        (15, "SIGTERM"),
        (17, "SIGTERM"),
        (18, "SIGTERM"),
        (18, "crash"),
    ],
)
def test_sequence_of_tasks(step: int, how: str) -> None:
    run = check(Tasks, step, how, tasks=5, epochs=1, save_every=3)
    assert run.accuracy_matrix.shape == (5, 5)


def test_sequence_of_tasks_stopped_between_two_of_them() -> None:
    class Begins(Tasks):
        def begin_task(self, task: int) -> None:
            if task == 2:
                stop.step = stop.calls + 1
                stop()
            super().begin_task(task)

    settings = {"model": Begins, "tasks": 5, "epochs": 1, "save_every": 100}
    reference = ml(path="reference", **SHORT | settings)
    interrupted(-1, "crash", path="run", **settings)
    run = ml(path="run", resume=True, **SHORT | settings)
    assert_same_run(run, reference)


class Freezes(Net):
    """Freezes its first layer in the second task, in weights and in mode."""

    def __init__(self, in_features: int, out_features: int):
        super().__init__(in_features, out_features)
        self.noise = nn.Dropout(0.5)

    def begin_task(self, task: int) -> None:
        if task == 1:
            self.first.requires_grad_(False)
            self.noise.eval()

    def forward(self, obs: Tensor) -> Tensor:
        return self.last(self.noise(self.first(obs.flatten(1)).relu()))


def test_what_was_frozen_stays_frozen() -> None:
    # Plain SGD with decay: a frozen weight has no gradient and is left alone.
    check(Freezes, 9, "SIGTERM", tasks=5, epochs=1, optim="SGD", lr=0.1, weight_decay=0.1)


class Unregistered(Net):
    """State where `state_dict` does not look."""

    def __init__(self, in_features: int, out_features: int):
        super().__init__(in_features, out_features)
        self.register_buffer("count", torch.zeros(()), persistent=False)
        self.register_buffer("anchor", None)

    def learn(self, replay: Any) -> Tensor:
        self.count += 1
        if self.anchor is None and self.count == 5:
            self.anchor = self.last.bias.detach().clone()
        pull = 0 if self.anchor is None else (self.last.bias - self.anchor).square().sum()
        return super().learn(replay) * (1 + 0.01 * self.count) + pull


def test_buffers_that_are_not_in_the_state_dict() -> None:
    check(Unregistered, 17)


class HoldsParameters(Net):
    """Lists of its own parameters, which must stay those."""

    def __init__(self, in_features: int, out_features: int):
        super().__init__(in_features, out_features)
        self.weights = list(self.parameters())
        self.by_name = {"bias": self.last.bias}
        self.groups = ((self.first.weight,), (self.last.weight,))
        self.optim = torch.optim.SGD(self.weights, 0.1)

    def learn(self, replay: Any, log: Any) -> None:
        stop()
        loss = self.loss(next(replay)) + self.by_name["bias"].square().sum()
        loss = loss + 0.1 * sum(group[0].square().sum() for group in self.groups)
        self.optim.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.weights, 0.1)
        self.optim.step()
        log.loss = loss


def test_parameters_in_plain_attributes() -> None:
    agent = check(HoldsParameters, 17).agent
    assert agent.weights[0] is agent.first.weight
    assert agent.by_name["bias"] is agent.last.bias
    assert agent.groups[1][0] is agent.last.weight


class HoldsTwice(Net):
    """One tensor under several names, and several times in a list."""

    def __init__(self, in_features: int, out_features: int):
        super().__init__(in_features, out_features)
        self.newest = self.slow = torch.zeros(10)
        self.past: list[Tensor] = []

    def learn(self, replay: Any) -> Tensor:
        stop()
        self.newest = self.last.bias.detach().clone()
        if replay.step % 5 == 0:
            self.slow = self.newest
            self.past = [*self.past[-2:], self.newest, self.newest]
        pulls = [(self.last.bias - tensor).square().sum() for tensor in (self.slow, *self.past)]
        return self.loss(next(replay)) + sum(pulls)


@pytest.mark.parametrize("step", [13, 17])
def test_tensor_under_several_names(step: int) -> None:
    check(HoldsTwice, step, "SIGTERM")


class Phase(enum.Enum):
    WARM = 1
    HOT = 2


class Best(NamedTuple):
    loss: float
    step: int


class Slots:
    __slots__ = ("total",)

    def __init__(self, total: float = 0.0) -> None:
        self.total = total

    def add(self, value: float) -> Slots:
        self.total += value
        return self


# Its first value, the next one given the last and the loss, and a number made of it.
VALUES: dict[str, tuple[Any, Any, Any]] = {
    "enum": (Phase.WARM, lambda v, x: Phase.HOT, lambda v: v.value),
    "named tuple": (Best(9.0, 0), lambda v, x: min(v, Best(x, v.step + 1)), lambda v: v.loss),
    "frozenset": (frozenset(), lambda v, x: v | {round(x, 1)}, len),
    "set": (set(), lambda v, x: v | {round(x, 1)}, len),
    "complex": (1j, lambda v, x: v * 1j + x, abs),
    "slots": (Slots(), lambda v, x: v.add(x), lambda v: v.total),
    "Counter": (
        collections.Counter(),
        lambda v, x: v + collections.Counter("ab"),
        lambda v: v["a"],
    ),
    "OrderedDict": (
        collections.OrderedDict(),
        lambda v, x: collections.OrderedDict({**v, (len(v) % 3, "x"): x}),
        lambda v: sum(v.values()),
    ),
    "bytes": (b"", lambda v, x: v + b"x", len),
    "None": (None, lambda v, x: (v or 0) + x, lambda v: v or 0),
    "None, then a list": (None, lambda v, x: [*(v or []), x], lambda v: sum(v or [])),
    "nested": (
        {"a": {1: [torch.zeros(2), (1, 2)]}, (0, 1): None},
        lambda v, x: {**v, "a": {1: [v["a"][1][0] + x, (1, x)]}},
        lambda v: float(v["a"][1][0].sum()) + v["a"][1][1][1],
    ),
}


class Holds(Net):
    def __init__(self, in_features: int, out_features: int, kind: str):
        super().__init__(in_features, out_features)
        value, self.change, self.number = VALUES[kind]
        self.value = copy.deepcopy(value)

    def learn(self, replay: Any) -> Tensor:
        stop()
        loss = self.loss(next(replay))
        if replay.step > 10:
            self.value = self.change(self.value, loss.item())
        return loss * (1 + 0.01 * self.number(self.value))


@pytest.mark.parametrize("kind", VALUES)
def test_attribute_of_any_plain_kind(kind: str) -> None:
    before = [phase.value for phase in Phase]
    run = check(Holds, 17, **{"model.kind": kind})
    assert before == [phase.value for phase in Phase]
    if VALUES[kind][0] is not None:
        assert type(run.agent.value) is type(VALUES[kind][0])


class HoldsTools(Net):
    """Objects that are no state of the model and cannot be saved."""

    def __init__(self, in_features: int, out_features: int):
        super().__init__(in_features, out_features)
        self.logger = logging.getLogger("a model's")
        self.lock = threading.Lock()
        self.event = threading.Event()
        self.numbers = iter(range(10**6))
        self.activation = F.relu
        self.scale = lambda x: 2 * x

    def learn(self, replay: Any) -> Tensor:
        with self.lock:
            return self.scale(super().learn(replay))


def test_tools_that_are_not_state_do_not_end_a_run() -> None:
    check(HoldsTools, 17)


class Keeps(Net):
    """Keeps what it was given, for its other methods."""

    def __init__(self, in_features: int, out_features: int):
        super().__init__(in_features, out_features)
        self.replay: Any = None
        self.before: Any = None

    def learn(self, replay: Any, log: Any) -> Tensor:
        stop()
        self.replay, self.log = replay, log
        batch = next(self.replay)
        loss = self.loss(batch)
        if self.before is not None:
            loss = loss + self.loss(self.before)
        self.before = batch
        return loss


def test_model_that_keeps_replay_log_and_batch() -> None:
    check(Keeps, 17)


class Dims:
    """An augmentation with a random stream of its own."""

    def __init__(self) -> None:
        self.generator = torch.Generator().manual_seed(5)

    def __call__(self, images: Tensor) -> Tensor:
        return images * torch.rand(len(images), 1, 1, 1, generator=self.generator)


def test_augmentation_with_its_own_random_stream() -> None:
    reference = ml(model=Net, path="reference", aug=Dims(), **SHORT)
    interrupted(17, "crash", model=Net, path="run", aug=Dims())
    assert_same_run(ml(model=Net, path="run", resume=True, aug=Dims(), **SHORT), reference)


class Actor(nn.Module):
    def __init__(self, in_features: int, num_actions: int):
        super().__init__()
        self.layer = nn.Linear(in_features, num_actions)

    def forward(self, obs: Tensor) -> Tensor:
        return self.layer(obs)

    def learn(self, replay: Any) -> Tensor:
        stop()
        batch = next(replay)
        value = self(batch.obs).gather(1, batch.action[:, None]).squeeze(1)
        return F.mse_loss(value, batch.reward)


def test_environment() -> None:
    settings = {"train_steps": 300, "seed_steps": 100, "eval_every": 200, "eval_episodes": 2}
    settings = {**SHORT, **settings, "env": "CartPole-v1", "model": Actor}
    del settings["epochs"]
    reference = ml(path="reference", **settings)
    stop.calls, stop.step, stop.how = 0, 90, "SIGTERM"
    with pytest.raises(SystemExit):
        ml(path="run", **settings)
    assert_same_run(ml(path="run", resume=True, **settings), reference)


def test_model_and_optimiser_given_as_instances() -> None:
    def settings() -> dict[str, Any]:
        torch.manual_seed(0)
        model = Net(64, 10)
        optim = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
        schedule = torch.optim.lr_scheduler.StepLR(optim, 10)
        return {"model": model, "optim": optim, "scheduler": schedule}

    reference = ml(path="reference", **SHORT | settings())
    interrupted(17, "crash", path="run", **settings())
    assert_same_run(ml(path="run", resume=True, **SHORT | settings()), reference)


def test_regression_and_lazy_data() -> None:
    class Jitter(torch.utils.data.Dataset):
        """Draws noise at every reading, so that it is decoded anew each time."""

        def __len__(self) -> int:
            return 60

        def __getitem__(self, i: int) -> Any:
            return torch.rand(4) + i, float(i)

    class Regressor(nn.Module):
        def __init__(self, in_features: int, out_features: int):
            super().__init__()
            self.layer = nn.Linear(in_features, out_features)

        def forward(self, obs: Tensor) -> Tensor:
            return self.layer(obs)

        def learn(self, replay: Any) -> Tensor:
            stop()
            batch = next(replay)
            return F.mse_loss(self(batch.obs), batch.label)

    check(Regressor, 9, dataset=Jitter(), batch_size=8, save_every=2)


def test_default_agent() -> None:
    settings = {**SHORT, "train_steps": 9, "save_every": 2, "model": "AC2Agent"}
    reference = ml(path="reference", **settings)
    ml(path="run", **settings)
    for newer in sorted(Path("run/checkpoints").iterdir())[-2:]:
        shutil.rmtree(newer)  # As it was when killed some steps before the end.
    assert_same_run(ml(path="run", resume=True, **settings), reference)


# ------------------------------------------------------------------------------ damaged checkpoints


def _truncate(checkpoint: Path) -> str:
    file = checkpoint / "tensors.safetensors"
    os.truncate(file, file.stat().st_size // 2)
    return "tensors.safetensors has"  # Fewer bytes than the manifest says.


def _flip(checkpoint: Path) -> str:
    file = checkpoint / "state.json"
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    return "state.json does not match its SHA-256"


def _lose(checkpoint: Path) -> str:
    (checkpoint / "tensors.safetensors").unlink()
    return "tensors.safetensors cannot be read"


def _lose_manifest(checkpoint: Path) -> str:
    (checkpoint / "manifest.json").unlink()
    return "manifest.json cannot be read"


def _empty_manifest(checkpoint: Path) -> str:
    (checkpoint / "manifest.json").write_bytes(b"")
    return "manifest.json cannot be read"


def _zero_manifest(checkpoint: Path) -> str:
    file = checkpoint / "manifest.json"
    file.write_bytes(bytes(file.stat().st_size))
    return "manifest.json cannot be read"


def _other_manifest(checkpoint: Path) -> str:
    (checkpoint / "manifest.json").write_text("[1]")
    return "manifest.json"


def _empty_folder(checkpoint: Path) -> str:
    shutil.rmtree(checkpoint)
    checkpoint.mkdir()
    return "manifest.json cannot be read"


def _plain_file(checkpoint: Path) -> str:
    shutil.rmtree(checkpoint)
    checkpoint.write_bytes(b"")
    return "manifest.json cannot be read"


@pytest.mark.parametrize(
    "damage",
    [
        _truncate,
        _flip,
        _lose,
        _lose_manifest,
        _empty_manifest,
        _zero_manifest,
        _other_manifest,
        _empty_folder,
        _plain_file,
    ],
)
@pytest.mark.row(4, 5, 6)
def test_damaged_newest_checkpoint_is_named_and_passed_over(
    damage: Any, reference: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    interrupted(17, "crash", model=Net, path="run")
    newest = max(Checkpoints(Path("run/checkpoints")).numbered())
    assert newest.name == "000002"
    what = damage(newest)
    capsys.readouterr()
    run = ml(model=Net, path="run", resume=True, **SHORT | {"progress": True})
    said = printed(capsys)
    assert f"Skipped: {newest.absolute()} is " in said
    assert what in said
    assert "Resumed at step 7." in said
    assert_same_run(run, reference)


def test_two_damaged_checkpoints(reference: Any) -> None:
    interrupted(30, "crash", model=Net, path="run")
    folders = sorted(Checkpoints(Path("run/checkpoints")).numbered())
    assert len(folders) == 3
    _truncate(folders[-1])
    _flip(folders[-2])
    assert_same_run(ml(model=Net, path="run", resume=True, **SHORT), reference)


def test_one_flipped_bit_anywhere_is_noticed() -> None:
    ml(model=Net, path="run", **SHORT | {"train_steps": 2})
    (checkpoint,) = Path("run/checkpoints").iterdir()
    draw = random.Random(0)
    for name in ("model.safetensors", "tensors.safetensors", "state.json"):
        file, whole = checkpoint / name, (checkpoint / name).read_bytes()
        for _ in range(10):
            data = bytearray(whole)
            data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
            file.write_bytes(data)
            with pytest.raises(CheckpointError, match=f"damaged: {name} does not match"):
                ml(model=Net, load=checkpoint, path="next", **SHORT)
        file.write_bytes(whole)


@pytest.mark.row(7)
def test_when_every_checkpoint_is_damaged_the_run_is_moved_aside_and_begun_afresh_if_forced(
    reference: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    interrupted(9, "crash", model=Net, path="run")
    _flip(Path("run/checkpoints/000001"))
    files = {p: p.read_bytes() for p in Path("run").rglob("*") if p.is_file()}
    with pytest.raises(CheckpointError, match=r"(?s)000001 is damaged.*resume=force"):
        ml(model=Net, path="run", resume=True, **SHORT)
    assert {p: p.read_bytes() for p in Path("run").rglob("*") if p.is_file()} == files
    run = ml(model=Net, path="run", resume="force", **SHORT | {"progress": True})
    said = printed(capsys)
    assert "000001 is damaged" in said
    assert "starting from scratch" in said
    assert Path("run.1/checkpoints/000001/state.json").exists()
    assert_same_run(run, reference)


def test_half_written_checkpoint_is_neither_read_nor_in_the_way(reference: Any) -> None:
    interrupted(9, "crash", model=Net, path="run")
    partial = Path("run/checkpoints/partial-000002")
    partial.mkdir()
    (partial / "tensors.safetensors").write_bytes(b"half")
    assert_same_run(ml(model=Net, path="run", resume=True, **SHORT), reference)
    assert not partial.exists()


# ----------------------------------------------------------------------------- what resuming says


@pytest.mark.row(8)
@pytest.mark.parametrize("killed", [False, True])
def test_without_a_checkpoint_a_run_starts_afresh_and_says_so(
    killed: bool, reference: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    if killed:
        interrupted(3, "crash", model=Net, path="run", save_every=100)
    run = ml(model=Net, path="run", resume=True, **SHORT | {"progress": True})
    said = printed(capsys)
    assert (
        f"No checkpoint to resume from in {Path('run').absolute()} yet: starting from scratch."
        in said
    )
    assert_same_run(run, reference)


@pytest.mark.parametrize("silent", [False, True])
def test_what_went_wrong_is_said_even_without_progress(
    silent: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    interrupted(17, "crash", model=Net, path="run")
    _flip(Path("run/checkpoints/000002"))
    ml(model=Net, path="run", resume=True, **SHORT | {"progress": not silent, "epochs": 1})
    said = printed(capsys)
    assert "000002 is damaged" in said
    assert "epochs: 2 -> 1" in said


def test_finished_run_resumed_is_as_it_was(reference: Any) -> None:
    shutil.copytree(reference.path, "run")
    assert_same_run(ml(model=Net, path="run", resume=True, **SHORT), reference)


def test_resumed_with_more_epochs_a_finished_run_goes_on_or_says_that_it_is_finished(
    reference: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(reference.path, "run")
    run = ml(model=Net, path="run", resume=True, **SHORT | {"epochs": 3, "progress": True})
    said = printed(capsys)
    assert "epochs: 2 -> 3" in said
    assert run.history[-1]["step"] == 69 or "finished" in said


@pytest.mark.row(10)
def test_resumed_run_says_which_settings_changed(capsys: pytest.CaptureFixture[str]) -> None:
    interrupted(17, "crash", model=Net, path="run", lr=0.01)
    settings = {"lr": 0.02, "epochs": 3, "weight_decay": 0.5, "resume": True, "progress": True}
    ml(model=Net, path="run", **SHORT | settings)
    said = [line for line in printed(capsys).splitlines() if "Changed" in line]
    assert said == [
        "Changed since the checkpoint: lr: 0.01 -> 0.02",
        "Changed since the checkpoint: weight_decay: None -> 0.5",
        "Changed since the checkpoint: epochs: 2 -> 3",
    ]
    rows = Path("run/train.csv").read_text().splitlines()
    assert rows[0].endswith(",lr")
    assert [float(row.split(",")[-1]) for row in rows[1:4]] == [0.01, 0.01, 0.02]


def test_unchanged_settings_are_not_mentioned(capsys: pytest.CaptureFixture[str]) -> None:
    interrupted(17, "crash", model=Net, path="run")
    ml(model=Net, path="run", resume=True, **SHORT | {"progress": True, "save_every": 9})
    said = printed(capsys)
    assert "Resumed at step 14." in said
    assert "Changed" not in said


@pytest.mark.row(10)
@pytest.mark.parametrize(
    "settings",
    [
        {"batch_size": 512, "override": "batch_size"},
        {"batch_size": 128, "override": "batch_size"},
        {"batch_size": 16, "override": "batch_size"},
        {"optim": "SGD", "lr": 0.1},
        {"ema": 0.999},  # Of the weights there are, not of those before they were loaded.
        {"clip_grad": 0.1},
        {"lr_decay_epochs": 2},
        {"scheduler": {"_target_": "StepLR", "step_size": 5}},
        {"eval_every": 3},
        {"aug": {"_target_": "RandomCrop", "padding": 1}},
        {"epochs": 1},
        {"train_steps": 10},
        {"precision": "bf16"},
        {"seed": 5, "override": ["seed"]},
        {"loggers": []},
    ],
    ids=lambda settings: ",".join(settings),
)
def test_setting_that_may_change_between_a_run_and_its_continuation(
    settings: dict[str, Any],
) -> None:
    interrupted(19, "crash", model=Net, path="run", lr=0.01)
    run = ml(model=Net, path="run", resume=True, **{**SHORT, "lr": 0.01, **settings})
    assert run.metrics["accuracy"] > 0.5  # Chance is 0.1; at the checkpoint it is 0.7.
    assert json.loads(Path("run/status.json").read_text())["status"] == "finished"


def test_number_of_tasks_may_not_change() -> None:
    interrupted(12, "crash", model=Net, path="run", tasks=5, epochs=1)
    with pytest.raises(ConfigError, match="tasks"):
        ml(model=Net, path="run", resume=True, **SHORT | {"tasks": 2, "epochs": 1})


class Other(nn.Module):
    def __init__(self, in_features: int, out_features: int):
        super().__init__()
        self.head = nn.Linear(in_features, out_features)

    def forward(self, obs: Tensor) -> Tensor:
        return self.head(obs.flatten(1))


@pytest.mark.row(9)
def test_foreign_checkpoint_is_refused_and_left_alone() -> None:
    interrupted(17, "crash", model=Net, path="run")
    files = {p: p.read_bytes() for p in Path("run").rglob("*") if p.is_file()}
    with pytest.raises(CheckpointError, match=r"does not fit Other.*`head.weight` is missing"):
        ml(model=Other, path="run", resume=True, **SHORT)
    with pytest.raises(CheckpointError, match=r"`first.weight` is \[16, 64\], the model's"):
        ml("model.hidden=20", model=Net, path="run", resume=True, **SHORT)
    assert {p: p.read_bytes() for p in Path("run").rglob("*") if p.is_file()} == files


def test_object_that_the_rebuilt_model_has_not_got_is_named() -> None:
    class Late(Net):
        def __init__(self, in_features: int, out_features: int):
            super().__init__(in_features, out_features)
            self.optim: Any = None

        def learn(self, replay: Any) -> None:
            stop()
            if self.optim is None:
                self.optim = torch.optim.SGD(self.parameters(), 0.1)
            loss = self.loss(next(replay))
            self.optim.zero_grad()
            loss.backward()
            self.optim.step()

    interrupted(17, "crash", model=Late, path="run")
    with pytest.raises(CheckpointError, match=r"`optim`.*Create it in __init__"):
        ml(model=Late, path="run", resume=True, **SHORT)


@pytest.mark.parametrize("where", ["run", "run/checkpoints", "run/checkpoints/000002"])
def test_load_takes_only_weights(where: str) -> None:
    class Remembers(Net):
        def __init__(self, in_features: int, out_features: int):
            super().__init__(in_features, out_features)
            self.steps = 0
            self.at_first: Any = None

        def learn(self, replay: Any) -> Tensor:
            if self.at_first is None:
                self.at_first = {k: v.clone() for k, v in self.state_dict().items()}
            self.steps += 1
            return super().learn(replay)

    settings = {**SHORT, "save_every": 30}
    ml(model=Remembers, path="run", **settings)
    saved = Checkpoints(Path("run/checkpoints")).newest()[0]
    assert saved is not None
    run = ml(model=Remembers, path="next", load=where, **SHORT | {"train_steps": 3})
    assert same(run.agent.at_first, saved["learner"]["agent"])
    assert run.agent.steps == 3
    assert [row["step"] for row in run.history] == [3, 3]
    # All but the weights is that of a run of its own.
    fresh = ml(model=Remembers, path="fresh", **SHORT | {"train_steps": 3})
    states = [Checkpoints(r.path / "checkpoints").newest()[0] for r in (run, fresh)]
    for key in ("replay", "random"):
        assert same(states[0][key], states[1][key])
    assert not same(run.agent.state_dict(), fresh.agent.state_dict())


def test_resumed_after_load_the_loaded_weights_are_not_taken_again() -> None:
    ml(model=Net, path="first", **SHORT | {"train_steps": 9})
    check(Net, 17, load="first")


def test_ml_runs_in_a_thread(reference: Any) -> None:
    interrupted(17, "crash", model=Net, path="run")
    results: list[Any] = []

    def work() -> None:
        results.append(ml(model=Net, path="run", resume=True, **SHORT))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join(60)
    assert_same_run(results[0], reference)


def test_checkpoints_are_data_only_and_few() -> None:
    ml(model=SelfMade, path="run", **SHORT)
    folders = sorted(p.name for p in Path("run/checkpoints").iterdir())
    assert folders == ["000005", "000006", "000007"]
    for folder in folders:
        names = sorted(p.name for p in Path("run/checkpoints", folder).iterdir())
        assert names == [
            *("manifest.json", "model.safetensors", "state.json", "tensors.safetensors")
        ]


def test_directory_and_signals_are_free_again_after_every_end() -> None:
    handlers = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    for how in ("SIGTERM", "SIGINT", "crash"):
        interrupted(3, how, model=Net, path="run")
        assert not list(Path("run").glob(".*"))
        assert handlers == (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT))


class Opaque(gymnasium.Wrapper):  # type: ignore[type-arg]
    """Holds what cannot be described, as a simulator written in C does."""

    def __init__(self) -> None:
        super().__init__(gymnasium.make("CartPole-v1"))
        self.simulator = iter(range(3))


def test_environment_that_cannot_be_kept_is_played_again_to_where_it_was() -> None:
    settings = {**SHORT, "env": Opaque, "model": Actor, "train_steps": 150, "seed_steps": 100}
    del settings["epochs"]
    reference = ml(path="reference", **settings)
    stop.calls, stop.step, stop.how = 0, 20, "SIGTERM"
    with pytest.raises(SystemExit):
        ml(path="run", **settings)
    assert_same_run(ml(path="run", resume=True, **settings), reference)


class Chance(Opaque):
    """Does not care for its seed."""

    def reset(self, **_: Any) -> Any:
        return self.env.reset(seed=int.from_bytes(os.urandom(4)))


def test_environment_that_cannot_be_played_again_begins_its_episodes_anew_and_says_so(
    capsys: pytest.CaptureFixture[str],
) -> None:
    settings = {**SHORT, "env": Chance, "model": Actor, "train_steps": 150, "seed_steps": 100}
    del settings["epochs"]
    stop.calls, stop.step, stop.how = 0, 20, "SIGTERM"
    with pytest.raises(SystemExit):
        ml(path="run", **settings)
    run = ml(path="run", resume=True, **settings)
    assert run.history[-1]["step"] == 150
    assert "its episodes start over" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["Acrobot-v1", "Pendulum-v1"])
def test_random_streams_of_environments_continue(name: str) -> None:
    settings = {**SHORT, "env": name, "agent": "Random", "train_steps": 300, "eval_episodes": 1}
    settings |= {"num_envs": 3, "save_every": 50, "eval_every": 120}
    del settings["epochs"]
    reference = ml(path="reference", **settings)
    shutil.copytree("reference", "run")
    newest, *_ = sorted(Path("run/checkpoints").iterdir(), reverse=True)
    shutil.rmtree(newest)
    run = ml(path="run", resume=True, **settings)
    assert Path("run/eval.csv").read_bytes() == Path("reference/eval.csv").read_bytes()
    batches = [r.replay.storage.gather(torch.arange(290)) for r in (run, reference)]
    assert all(torch.equal(batches[0][field], batches[1][field]) for field in batches[0])
