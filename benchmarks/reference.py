"""Short seeded runs of every kind, each as a hash of its weights, losses and metrics.

A change that must not affect any result, such as a refactoring, prints the same hashes as the commit before
it, given the same machine and version of torch:

    python benchmarks/reference.py --save before.txt        # at the commit before
    python benchmarks/reference.py --against before.txt     # at the change; exits 1 where a run differs
"""

from __future__ import annotations

import argparse
import hashlib
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import torch
from torch import nn

import antelope
from antelope import Run

STRATEGIES = (
    *("naive", "joint", "cumulative", "er", "er_ace", "der", "derpp", "ewc", "ewc_online", "si"),
    *("mas", "lwf", "gem", "agem", "gdumb", "cwr", "icarl", "pnn", "packnet"),
)
STEPS = 200


def ml(**settings: Any) -> Run:
    """A run without pictures and output."""
    return antelope.ml(plot=False, progress=False, seed=1, **settings)


class Recurrent(nn.Module):
    """A GRU over sequences of observations, whose state is carried while acting."""

    def __init__(self, obs_dim: int, num_actions: int):
        super().__init__()
        self.gru = nn.GRU(obs_dim, 16, batch_first=True)
        self.head = nn.Linear(16, num_actions)

    def forward(self, obs: torch.Tensor, state: torch.Tensor | None = None) -> tuple[Any, Any]:
        """`[B, T, obs_dim]` to `[B, T, num_actions]`, and the state."""
        output, state = self.gru(obs, state)
        return self.head(output), state


class Signals(gymnasium.Env[dict[str, Any], dict[str, Any]]):
    """Dict observations and actions: the reward is 1 for the side that the cue names, less the force used."""

    def __init__(self) -> None:
        box = gymnasium.spaces.Box
        self.observation_space = gymnasium.spaces.Dict(
            {"cue": gymnasium.spaces.Discrete(2), "noise": box(-1.0, 1.0, (3,), np.float32)}
        )
        self.action_space = gymnasium.spaces.Dict(
            {"side": gymnasium.spaces.Discrete(2), "force": box(-1.0, 1.0, (2,), np.float32)}
        )

    def _look(self) -> dict[str, Any]:
        noise = self.np_random.uniform(-1, 1, 3).astype(np.float32)
        return {"cue": int(self.np_random.integers(2)), "noise": noise}

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        """The first observation of an episode of 20 steps."""
        super().reset(seed=seed)
        self._steps, self._obs = 0, self._look()
        return self._obs, {}

    def step(self, action: dict[str, Any]) -> Any:
        """Rewards the side that the cue names, less the force used."""
        reward = float(action["side"] == self._obs["cue"]) - 0.1 * float(
            np.square(action["force"]).sum()
        )
        self._steps, self._obs = self._steps + 1, self._look()
        return self._obs, reward, False, self._steps >= 20, {}


def on_data(**settings: Any) -> Callable[[Path], Run]:
    """A run on the embedded digits."""
    return lambda path: ml(path=path, train_steps=STEPS, **{"eval_rows": 100, **settings})


def in_tasks(strategy: str, **settings: Any) -> Callable[[Path], Run]:
    """A run on five tasks of digits."""
    return lambda path: ml(
        path=path, tasks=5, strategy=strategy, train_steps=STEPS // 5, **settings
    )


def acting(env: Any, agent: Any, **settings: Any) -> Callable[[Path], Run]:
    """A run in an environment."""
    defaults = {"train_steps": STEPS, "seed_steps": 64, "batch_size": 32, "eval_episodes": 1}
    return lambda path: ml(path=path, env=env, agent=agent, **{**defaults, **settings})


def offline(path: Path) -> Run:
    """Learning from the transitions that another run has saved."""
    source = acting("CartPole-v1", "DQN")(path / "source")
    source.replay.save(path / "saved")
    settings = {"agent": "DQN", "train_steps": STEPS, "eval_episodes": 1}
    return ml(path=path / "run", offline=str(path / "saved"), env="CartPole-v1", **settings)


def resumed(path: Path) -> Run:
    """Stopped and continued in the middle of an episode."""
    settings = {"seed_steps": 32, "batch_size": 16, "eval_episodes": 1, "path": path}
    ml(env="Pendulum-v1", agent="SAC", train_steps=STEPS // 2 + 7, **settings)
    return ml(env="Pendulum-v1", agent="SAC", train_steps=STEPS, resume=True, **settings)


def regression(path: Path) -> Run:
    """Numbers from numbers."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(400, 8)).astype(np.float32)
    y = (x @ rng.normal(size=8) + np.sin(x[:, 0])).astype(np.float32)
    return ml(path=path, dataset=(x, y), train_steps=STEPS)


RUNS: dict[str, Callable[[Path], Run]] = {
    "digits": on_data(),
    "cnn, crop, ema": on_data(
        model="CNN", aug="RandomCrop", ema=0.99, **{"aug.size": 8, "aug.padding": 1}
    ),
    "sgd, cosine, accumulate": on_data(
        optim="SGD", lr=0.05, lr_decay_epochs=3, accumulate=2, clip_grad=1.0
    ),
    "regression": regression,
    "vae": on_data(model="VAE"),
    **{f"tasks, {name}": in_tasks(name) for name in STRATEGIES},
    "tasks, er, told": in_tasks("er", scenario="task"),
    "tasks, er and ewc": in_tasks(["er", "ewc"]),  # type: ignore[arg-type]
    "dqn": acting("CartPole-v1", "DQN"),
    "dqn, three steps": acting("CartPole-v1", "DQN", nstep=3, num_envs=2),
    "ppo": acting("CartPole-v1", "PPO", train_steps=1024, num_envs=4),
    "a2c": acting("CartPole-v1", "A2C", num_envs=4),
    "drqn": acting("CartPole-v1", "DRQN"),
    "recurrent": acting("CartPole-v1", Recurrent),
    "default agent": acting("CartPole-v1", None),
    "sac": acting("Pendulum-v1", "SAC"),
    "td3": acting("Pendulum-v1", "TD3"),
    "ddpg": acting("Pendulum-v1", "DDPG"),
    "composed dict": acting(Signals, None),
    "two environments": acting(["CartPole-v1", "CartPole-v1"], "DQN", strategy="ewc"),
    "offline": offline,
    "resumed in mid-episode": resumed,
}


def digest(run: Run) -> str:
    """A hash of the weights, and of every number that was logged."""
    found = hashlib.sha256()
    for name, tensor in run.agent.state_dict().items():
        found.update(name.encode())
        found.update(
            tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
        )
    for row in run.history:
        found.update(repr(sorted((k, repr(v)) for k, v in row.items())).encode())
    found.update(repr(sorted(run.metrics.items())).encode())
    return found.hexdigest()[:16]


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--save", type=Path, help="write the hashes to this file")
    parser.add_argument("--against", type=Path, help="compare with the hashes in this file")
    parser.add_argument("--only", default="", help="the runs whose name holds this text")
    given = parser.parse_args()
    torch.set_num_threads(1)
    before = (
        dict(line.rsplit(": ", 1) for line in given.against.read_text().splitlines())
        if given.against
        else {}
    )
    lines, different = [], []
    for name, make in RUNS.items():
        if given.only not in name:
            continue
        with tempfile.TemporaryDirectory() as folder:
            found = digest(make(Path(folder) / "run"))
        lines.append(f"{name}: {found}")
        if before and before.get(name) != found:
            different.append(name)
        print(lines[-1] + ("   DIFFERENT" if name in different else ""), flush=True)
    if given.save:
        given.save.write_text("\n".join(lines) + "\n")
    if before:
        print(f"{len(different)} of {len(lines)} runs differ")
    return bool(different)


if __name__ == "__main__":
    sys.exit(main())
