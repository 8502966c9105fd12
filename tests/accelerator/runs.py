"""Runs on a device, and what happened there: called by the tests in a process that has the device."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any
from unittest import mock

import gymnasium
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import Dataset

from antelope import Memory, ml
from antelope.agents.policy.gaussians import SquashedGaussian
from antelope.envs import Digits, PermutedMNIST, RotatedMNIST
from antelope.launcher.learn.actor import Actor
from antelope.launcher.learn.evaluate import Evaluator
from antelope.launcher.learn.learner import Learner
from antelope.launcher.learn.watchdog import Watchdog
from antelope.launcher.mammoth import Buffer, ContinualModel
from antelope.launcher.run import Run

from . import pretend

WARM = 3  # Steps of a kind before anything is counted: what is made once is made in them.
STRATEGIES = (
    *("naive", "joint", "cumulative", "er", "er_ace", "der", "derpp", "ewc", "ewc_online", "si"),
    *("mas", "lwf", "gem", "agem", "gdumb", "cwr", "icarl", "pnn", "packnet"),
)


class MLP(nn.Module):
    def __init__(self, in_features: int, out_features: int):
        super().__init__()
        layers = nn.Linear(in_features, 32), nn.ReLU(), nn.Linear(32, out_features)
        self.network = nn.Sequential(nn.Flatten(), *layers)

    def forward(self, obs: Tensor) -> Tensor:
        return self.network(obs)

    def learn(self, replay: Any) -> Tensor:
        batch = next(replay)
        return F.cross_entropy(self(batch.obs), batch.label)


class Noisy(MLP):
    """Draws on its device."""

    def learn(self, replay: Any) -> Tensor:
        batch = next(replay)
        obs = F.dropout(batch.obs + 0.1 * torch.randn_like(batch.obs), 0.2)
        return F.cross_entropy(self(obs), batch.label)


class Holder(MLP):
    """Holds all that a module can: buffers filled late, tensors here and there, a generator, a memory."""

    mean: Tensor | None
    count: Tensor | None

    def __init__(self, in_features: int, out_features: int, device: torch.device):
        super().__init__(in_features, out_features)
        self.optim = torch.optim.Adam(self.parameters(), 1e-3)
        self.register_buffer("mean", None)
        self.register_buffer("count", None, persistent=False)
        self.rebound = torch.zeros(out_features)  # On the host, until `learn` has one of its own.
        self.host = torch.zeros(out_features, dtype=torch.int64)  # Stays there.
        self.labels: list[Tensor] = []
        self.generator = torch.Generator(device=device)
        self.memory = Memory(40)

    def learn(self, replay: Any, log: Any) -> None:
        batch = next(replay)
        noise = torch.randn(batch.obs.shape, generator=self.generator, device=batch.obs.device)
        if self.mean is None or self.count is None:
            self.mean, self.count = torch.zeros_like(batch.obs[0]), torch.zeros_like(batch.label[0])
        self.mean.lerp_(batch.obs.mean(0), 0.1)
        self.count += len(batch)
        output = self(batch.obs - self.mean + 0.01 * noise)
        self.rebound = 0.9 * self.rebound.to(output.device) + 0.1 * output.detach().mean(0)
        self.host += batch.label.cpu().bincount(minlength=len(self.host))
        self.labels = [*self.labels[-2:], batch.label[:2]]
        self.memory.add(batch)
        past = self.memory.sample(4)
        loss = F.cross_entropy(output - self.rebound, batch.label)
        loss = loss + F.cross_entropy(self(past.obs), past.label)
        self.optim.zero_grad()
        loss.backward()
        self.optim.step()
        log.loss = loss


class Growing(MLP):
    """Gets a layer with each task, made where torch makes layers: on the CPU."""

    def begin_task(self, task: int) -> None:
        if task:
            layer = nn.Sequential(nn.Linear(32, 32), nn.BatchNorm1d(32))
            self.network.insert(2, layer)


class GrowingInParts(MLP):
    """Gets single tensors with each task, and a layer when one ends, made on the CPU likewise."""

    def begin_task(self, task: int) -> None:
        self.scale = nn.Parameter(torch.ones(10))
        self.register_buffer("shift", torch.zeros(10))

    def end_task(self, replay: Any) -> None:
        self.network.insert(2, nn.Linear(32, 32))

    def forward(self, obs: Tensor) -> Tensor:
        output = super().forward(obs)
        return output * self.scale + self.shift if hasattr(self, "scale") else output


class Observing(ContinualModel):
    """Rehearses in the way of Mammoth."""

    def __init__(self, backbone: Any, loss: Any, args: Any, transform: Any, dataset: Any = None):
        super().__init__(backbone, loss, args, transform, dataset=dataset)
        self.buffer = Buffer(50)

    def observe(self, inputs: Tensor, labels: Tensor, not_aug_inputs: Tensor) -> float:
        x, y = inputs, labels
        if not self.buffer.is_empty():
            past = self.buffer.get_data(8, transform=self.transform)
            x, y = torch.cat((x, past[0])), torch.cat((y, past[1]))
        self.opt.zero_grad()
        loss = self.loss(self.net(x), y)
        loss.backward()
        self.opt.step()
        self.buffer.add_data(not_aug_inputs, labels=labels)
        return loss.item()


class Squashing(nn.Module):
    """A policy that returns a distribution of its own making."""

    def __init__(self, in_features: int):
        super().__init__()
        self.layer = nn.Linear(in_features, 2)

    def forward(self, obs: Tensor) -> SquashedGaussian:
        loc, log_std = self.layer(obs).chunk(2, -1)
        bounds = torch.full((2, 1), 2.0, device=obs.device)
        return SquashedGaussian(loc, log_std, -bounds[0], bounds[1])


class Plain(nn.Module):
    """Only a forward."""

    def __init__(self, in_features: int, out_features: int):
        super().__init__()
        self.layer = nn.Linear(in_features, out_features)

    def forward(self, obs: Tensor) -> Tensor:
        return self.layer(obs)


class Imitating(Plain):
    """Without `act`: what it does is made of its forward, with some noise."""

    def learn(self, replay: Any) -> Tensor:
        batch = next(replay)
        return F.mse_loss(self(batch.obs), batch.action)


class PermutedDigits(Digits):
    alterations = PermutedMNIST.alterations


class RotatedDigits(Digits):
    alterations = RotatedMNIST.alterations


class Changing(Dataset[Any]):
    """Rows that are other ones each time they are read."""

    def __len__(self) -> int:
        return 40

    def __getitem__(self, i: int) -> tuple[Tensor, int]:
        return torch.rand(5) + i % 2, i % 2


class Pixels(gymnasium.Env[Any, Any]):
    observation_space = gymnasium.spaces.Box(0, 255, (3, 84, 84), np.uint8)
    action_space = gymnasium.spaces.Box(-1, 1, (2,), np.float32)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.time = 0
        return self._frame(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.time += 1
        return self._frame(), 1.0, False, self.time >= 20, {}

    def _frame(self) -> np.ndarray:
        return self.np_random.integers(0, 256, (3, 84, 84), np.uint8)


class Mixed(Pixels):
    """Dicts in and out, with every kind of space in them."""

    observation_space = gymnasium.spaces.Dict(  # type: ignore[assignment]
        place=gymnasium.spaces.Box(-1, 1, (3,), np.float32),
        kind=gymnasium.spaces.Discrete(4),
        flags=gymnasium.spaces.MultiBinary(3),
    )
    action_space = gymnasium.spaces.Dict(  # type: ignore[assignment]
        move=gymnasium.spaces.Discrete(3),
        push=gymnasium.spaces.Box(-1, 1, (2,), np.float32),
        keys=gymnasium.spaces.MultiDiscrete([2, 3]),
    )

    def _frame(self) -> Any:
        return {
            "place": self.np_random.uniform(-1, 1, 3).astype(np.float32),
            "kind": self.np_random.integers(4),
            "flags": self.np_random.integers(0, 2, 3, np.int8),
        }


class Clock(gymnasium.Env[Any, Any]):
    """Tells the time in seconds since 1970."""

    dtype: Any = np.float64

    def __init__(self) -> None:
        self.observation_space = gymnasium.spaces.Box(0, 2**40, (1,), self.dtype)
        self.action_space = gymnasium.spaces.Discrete(2)
        self.seconds = 1_700_000_000

    def reset(self, **_: Any) -> Any:  # type: ignore[override]
        return np.array([self.seconds], self.dtype), {}

    def step(self, action: Any) -> Any:
        self.seconds += 1
        return np.array([self.seconds], self.dtype), 1.0, self.seconds % 20 == 0, False, {}


class Counter(Clock):
    dtype = np.int64


_DIGITS = {"dataset": "Digits", "train_steps": 56}
_LABELS = torch.arange(100) % 2
_SECONDS = 1.7e9 + torch.arange(100, dtype=torch.float64)[:, None]
_SEQUENCE = {"dataset": "Digits", "tasks": 2, "train_steps": 12, "model": MLP}


def _strategy(name: str) -> dict[str, Any]:
    scenario = {"scenario": "task"} if name in ("pnn", "packnet") else {}
    few = {"strategy.passes": 8} if name == "gdumb" else {}
    return {**_SEQUENCE, "strategy": name, **scenario, **few}


_PARTS = {
    "image": torch.arange(6400).remainder(251).to(torch.uint8).view(100, 1, 8, 8),
    "times": _SECONDS,
    "tokens": torch.arange(300).view(100, 3).remainder(17),
    "flag": torch.arange(100) % 3 == 0,
}

DATA: dict[str, dict[str, Any]] = {
    "default agent": _DIGITS,
    "mlp": {"model": MLP, **_DIGITS},
    "cnn with aug": {"model": "CNN", "aug": "RandomCrop", "aug.padding": 1, **_DIGITS},
    "ema, clip, scheduler": {
        **_DIGITS,
        **{"model": MLP, "ema": 0.99, "clip_grad": 1.0},
        **{"scheduler": "CosineAnnealingLR", "scheduler.T_max": 100, "scheduler_every": "step"},
    },
    "values": {"dataset": "Diabetes", "train_steps": 56},
    "integers": {"dataset": (torch.arange(300).view(100, 3), _LABELS), "train_steps": 56},
    "pictures of integers": {
        "dataset": (torch.arange(6400).view(100, 1, 8, 8), _LABELS),
        "train_steps": 8,
    },
    "time stamps": {"dataset": (_SECONDS, _LABELS), "train_steps": 56},
    "time stamps in RAM": {"dataset": (_SECONDS, _LABELS), "data": "ram", "train_steps": 8},
    "truth values": {"dataset": (_SECONDS > 1.7e9 + 9, _LABELS), "train_steps": 8},
    "sequences": {"dataset": "Language", "dataset.rows": 8, "train_steps": 4},
    "sequences on the device, er": {
        **{"dataset": "Language", "dataset.rows": 8, "tasks": 2, "epochs": 1},
        **{"strategy": "er", "data": "device"},
    },
    "dict": {"dataset": (_PARTS, _LABELS), "train_steps": 56},
    "dict in RAM, aug": {
        **{"dataset": (_PARTS, _LABELS), "train_steps": 56},
        **{"data": "ram", "aug": "RandomHorizontalFlip"},
    },
    "dict, er": {"dataset": (_PARTS, _LABELS), "tasks": 2, "strategy": "er", "train_steps": 28},
    "resnet18": {"model": "resnet18", "dataset": "Digits", "train_steps": 2},
    "updates itself": {"model": Holder, **_DIGITS},
    "plateau": {"model": MLP, "dataset": "Digits", "epochs": 2, "scheduler": "ReduceLROnPlateau"},
    "RMSprop": {"model": MLP, "optim": "RMSprop", **_DIGITS},
    "bf16": {"model": "CNN", "precision": "bf16", "channels_last": True, **_DIGITS},
    "fp16": {"model": MLP, "precision": "16", "clip_grad": 1.0, **_DIGITS},
    "deterministic": {"model": "CNN", "deterministic": True, **_DIGITS},
    "rows in RAM": {"model": MLP, "data": "ram", **_DIGITS},
    "rows in RAM, aug": {"model": "CNN", "aug": "RandomHorizontalFlip", "data": "ram", **_DIGITS},
    "decoded as read": {"model": MLP, "dataset": Changing, "train_steps": 8},
    "validation": {
        **{"model": MLP, "dataset": "Digits", "validation": 0.1, "epochs": 2},
        "early_stopping.patience": 1,
        "early_stopping.restore": True,
    },
    "init and picture": {
        **{"model": "CNN", "init": "orthogonal", "render_model": True, "plot": True},
        **{"dataset": "Digits", "train_steps": 2},
    },
    "online": {"model": MLP, "tasks": 2, "online": True, "dataset": "Digits"},
    "told the task": {**_SEQUENCE, "scenario": "task"},
    "permuted": {"model": MLP, "dataset": PermutedDigits, "tasks": 2, "train_steps": 12},
    "permuted, jointly": {
        **{"model": MLP, "dataset": PermutedDigits, "tasks": 2, "train_steps": 12},
        "strategy": "joint",
    },
    "grows": {**_SEQUENCE, "model": Growing, "ema": 0.9, "clip_grad": 1.0},
    "grows, lwf": {**_SEQUENCE, "model": Growing, "strategy": "lwf"},
    "grows in parts": {**_SEQUENCE, "model": GrowingInParts},
    "observes": {**_SEQUENCE, "model": Observing},
    "rotated": {"model": MLP, "dataset": RotatedDigits, "tasks": 2, "train_steps": 12},
    **{f"strategy {name}": _strategy(name) for name in STRATEGIES},
    "er and ewc, aug": {**_SEQUENCE, "strategy": ["er", "ewc"], "aug": "RandomHorizontalFlip"},
    "vit": {"model": "ViT", "dataset": "Digits", "train_steps": 6},
    "residual": {"model": "ResidualCNN", "dataset": "Digits", "train_steps": 6},
    "ensemble": {"model": "Ensemble", "dataset": "Digits", "train_steps": 6},
    "vae": {"model": "VAE", "plot": True, **_DIGITS},
    "dcgan": {"model": "DCGAN", "dataset": "Digits", "train_steps": 6},
    "flow matching": {"model": "FlowMatching", "dataset": "Digits", "train_steps": 6},
    "generate": {"generate": True, "dataset": "Digits", "train_steps": 6},
    "rl on labels": {"rl": True, **_DIGITS},
}

_COMMON = {"train_steps": 110, "seed_steps": 30, "batch_size": 16, "time_limit": 30}
_CARTPOLE = {"env": "CartPole-v1", "learn_every": 1, **_COMMON}
_PENDULUM = {"env": "Pendulum-v1", **_COMMON}
_GPU = {"replay.storage": "gpu"}
_SHORT = {"train_steps": 24, "seed_steps": 14, "batch_size": 4, "capacity": 60}

ENVIRONMENTS: dict[str, dict[str, Any]] = {
    "default agent": _CARTPOLE,
    "default agent, values": _PENDULUM,
    "dqn": {"model": "DQN", **_CARTPOLE},
    "dqn, gpu": {"model": "DQN", **_GPU, **_CARTPOLE},
    "dqn, prioritised": {"model": "DQN", "replay.prioritized": True, **_CARTPOLE},
    "dqn, prioritised, 3 steps, gpu": {
        **{"model": "DQN", "nstep": 3, "replay.prioritized": True},
        **_GPU,
        **_CARTPOLE,
    },
    "dqn, stacked": {"model": "DQN", "frame_stack": 3, **_CARTPOLE},
    "dqn, stacked, gpu": {"model": "DQN", "frame_stack": 3, **_GPU, **_CARTPOLE},
    "dqn, four copies, gpu": {"model": "DQN", "num_envs": 4, **_GPU, **_CARTPOLE},
    "drqn": {"model": "DRQN", **_CARTPOLE},
    "drqn, gpu": {"model": "DRQN", "replay.sequence": 8, **_GPU, **_CARTPOLE},
    "ppo": {"model": "PPO", "model.steps": 64, **_CARTPOLE},
    "ppo, normalised": {
        **{"model": "PPO", "model.steps": 64, "normalize_obs": True, "normalize_reward": True},
        **_PENDULUM,
    },
    "dqn, clock": {"model": "DQN", "normalize_obs": True, **_COMMON, "env": Clock},
    "dqn, counter, gpu": {
        **{"model": "DQN", "normalize_obs": True, "env": Counter},
        **_GPU,
        **_COMMON,
    },
    "ppo, gpu": {"model": "PPO", "model.steps": 64, **_GPU, **_CARTPOLE},
    "a2c": {"model": "A2C", **_CARTPOLE},
    "sac": {"model": "SAC", **_PENDULUM},
    "sac, normalised, gpu": {"model": "SAC", "normalize_obs": True, **_GPU, **_PENDULUM},
    "sac, bf16": {"model": "SAC", "precision": "bf16", **_PENDULUM},
    "default agent, fp16": {"precision": "16", **_PENDULUM},
    "td3": {"model": "TD3", **_PENDULUM},
    "td3, bf16": {"model": "TD3", "precision": "bf16", **_PENDULUM},
    "ddpg": {"model": "DDPG", **_PENDULUM},
    "ddpg, fp16": {"model": "DDPG", "precision": "16", **_PENDULUM},
    "bins": {"discrete": True, "bins": 3, **_PENDULUM},
    "truncated policy": {"model": "PPO", "model.steps": 64, "policy": Squashing, **_PENDULUM},
    "recurrent policy": {"env": "Recall", "policy": "Recurrent", **_COMMON},
    "recall": {"env": "Recall", "model": "DRQN", **_COMMON},
    "errand": {"env": "Errand", **_COMMON},
    "workshop": {"env": "Workshop", "model": "PPO", "model.steps": 64, **_COMMON},
    "workshop, gpu": {"env": "Workshop", "capacity": 200, **_GPU, **_COMMON},
    "two tasks": {"model": "DQN", **_CARTPOLE, "env": ["CartPole-v1", "CartPole-v1"]},
    "drqv2": {"model": "DrQV2", "env": Pixels, "frame_stack": 3, **_SHORT},
    "drqv2, gpu": {"model": "DrQV2", "env": Pixels, "frame_stack": 3, **_GPU, **_SHORT},
    "dicts": {"env": Mixed, **_COMMON},
    "dicts, gpu": {"env": Mixed, **_GPU, **_COMMON},
    "encoder": {"encoder": "MLP", "render_model": True, **_CARTPOLE},
    "random": {"model": "Random", **_CARTPOLE},
    "random, values": {"model": "Random", **_PENDULUM},
    "only a forward": {"model": Plain, **_CARTPOLE},
    "only a forward, values": {"model": Plain, **_PENDULUM},
    "imitates": {"model": Imitating, **_PENDULUM},
    "prior": {"model": "PPO", "model.steps": 64, "head_bias": [0.9, 0.1], **_CARTPOLE},
}

RUNS = {"data": DATA, "environments": ENVIRONMENTS}
_QUIET = {"progress": False, "plot": False, "seed": 1, "eval_episodes": 1, "resume": False}


def start(device: str, path: Path, **settings: Any) -> Run:
    """One of these runs."""
    return ml(**{**_QUIET, "device": device, "path": str(path), **settings})


def learn(kind: str, name: str, device: str, path: Path, *, float64: bool = True) -> dict[str, Any]:
    """The run's metrics, and how often things happened per step: `{"learn": {"wait": 0.0, ...}, ...}`."""
    if not float64:
        _without_float64()
    with counted() as counts:
        run = start(device, path, **RUNS[kind][name])
    kinds = {p.device.type for p in run.agent.parameters()} | {torch.device(device).type}
    assert len(kinds) == 1, kinds
    return {"metrics": run.metrics, "counts": counts, "places": dict(pretend.PLACES)}


def _without_float64() -> None:
    from antelope.replay.devices import has_float64

    has_float64.cache_clear()
    import antelope_pretend

    antelope_pretend.give_float64(False)


@contextmanager
def counted() -> Iterator[dict[str, dict[str, float]]]:
    """Counts what happens in learning steps and in actions, but for the first ones, per step."""
    counts: dict[str, dict[str, float]] = {}
    calls: dict[str, int] = {}
    with ExitStack() as stack:
        for owner, method, name in (
            (Learner, "step", "learn"),
            (Watchdog, "check_losses", "check"),
            (Actor, "__call__", "act"),
            (Evaluator, "__call__", "evaluate"),
        ):
            stack.enter_context(_phased(owner, method, name, calls))
        yield counts
    for (phase, event), count in pretend.EVENTS.items():
        steps = max(1, calls[phase] - WARM)
        counts.setdefault(phase, {})[event] = count / steps


@contextmanager
def _phased(owner: Any, method: str, name: str, calls: dict[str, int]) -> Iterator[None]:
    original = getattr(owner, method)

    def called(*args: Any, **kwargs: Any) -> Any:
        calls[name] = calls.get(name, 0) + 1
        with pretend.phase(name if calls[name] > WARM else "warm"):
            return original(*args, **kwargs)

    calls["warm"] = 0
    with mock.patch.object(owner, method, called):
        yield


# ------------------------------------------------------------------------------------- interruption


class Crash(Exception):
    """What ends a run."""


def continued(
    settings: dict[str, Any], folder: Path, *, at: int, saved: str, now: str
) -> dict[str, Any]:
    """What `_continued` gives, but for the run itself, which stays in this process."""
    ends = _continued(settings, folder, at=at, saved=saved, now=now)
    return {name: end for name, end in ends.items() if name != "run"}


def _continued(
    settings: dict[str, Any], folder: Path, *, at: int, saved: str, now: str
) -> dict[str, Any]:
    """A run that ends at learning step `at` on one device and is continued on another.

    Returns:
        It, its weights and metrics, and those of a run that was never interrupted, on the first device.
    """
    whole = start(saved, folder / "whole", **settings)
    step, settings = Learner.step, {"save_every": 10, **settings}

    def crash(self: Learner, *args: Any) -> None:
        if self.steps == at:
            raise Crash
        step(self, *args)

    with mock.patch.object(Learner, "step", crash):
        try:
            start(saved, folder / "cut", **settings)
            raise AssertionError("the run was not interrupted")
        except Crash:
            pass
    run = start(now, folder / "cut", **{**settings, "resume": True})
    return {
        "run": run,
        "weights": _weights(run),
        "expected": _weights(whole),
        "metrics": run.metrics,
        "expected_metrics": whole.metrics,
        "devices": sorted({str(p.device) for p in run.agent.parameters()}),
    }


def _weights(run: Run) -> Tensor:
    return torch.cat([p.detach().cpu().flatten() for p in run.agent.parameters()])


def holder_continued(folder: Path, *, saved: str, now: str) -> dict[str, Any]:
    """Where everything that `Holder` holds is, after it was continued on another device."""
    settings = {"model": Holder, "dataset": "Digits", "train_steps": 40, "progress": True}
    with redirect_stderr(io.StringIO()) as said, redirect_stdout(said):
        ends = _continued(settings, folder, at=25, saved=saved, now=now)
    agent: Any = ends.pop("run").agent
    tensors = {name: getattr(agent, name) for name in ("mean", "count", "rebound", "host")}
    tensors |= {"labels": agent.labels[0], "memory": agent.memory.sample(1).obs}
    places = {name: x.device.type for name, x in tensors.items()}
    return {**ends, "places": places, "said": " ".join(said.getvalue().split())}
