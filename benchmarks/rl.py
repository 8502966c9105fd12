"""Environment steps per second with learning: `ml` against Stable-Baselines3 and plain PyTorch loops.

All sides have the same networks, batches, learning rates and updates per environment step, and take turns
in one process and one thread. Ratios are of CPU time, each the median over rounds; start-up and warm-up
are not timed. The plain loops are benchmarks/plain/*.py. `capacity` compares our own step with a large
replay to one with a small replay: its cost must not depend on the size. Run by hand:

    python benchmarks/rl.py [--rounds 7] [--only dqn ppo sac capacity] [--learn_every 10]
"""

from __future__ import annotations

import argparse
import gc
import importlib.util
import platform
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from antelope import ml
from antelope.agents import DQN, PPO, SAC
from benchmarks.plain import dqn, ppo, sac

_NUM_ENVS = 8  # Of PPO.
# The least ratio against each other side.
_FLOORS = {
    "dqn": {"sb3": 1.9, "plain": 0.95},
    "ppo": {"sb3": 1.5, "plain": 1.05},
    "sac": {"sb3": 1.35, "plain": 1.03},
    "capacity": {"small": 0.95},
}
_NAMES = {
    "dqn": "DQN CartPole-v1, 120-84, batch 128",
    "ppo": f"PPO CartPole-v1, 64-64, {_NUM_ENVS} environments",
    "sac": "SAC Pendulum-v1, 256-256, batch 256",
    "capacity": "DQN CartPole-v1, capacity 10^7 and 10^5",
}


class Clock:
    """CPU and wall time from environment step `first` to `last`; called at each step."""

    def __init__(self, first: int, last: int):
        self.first, self.last, self.count = first, last, 0

    def tick(self, steps: int = 1) -> None:
        if self.count == self.first:
            self.start = (time.process_time(), time.perf_counter())
        elif self.count == self.last:
            self.end = (time.process_time(), time.perf_counter())
        self.count += steps

    def rates(self) -> tuple[float, float]:
        """Steps per second of CPU and of wall time."""
        cpu, wall = (end - start for start, end in zip(self.start, self.end, strict=True))
        return (self.last - self.first) / cpu, (self.last - self.first) / wall


class Case:
    """One algorithm on every side.

    Attributes:
        window: Environment steps between which the clock runs: (first, last).
        steps: Environment steps to take, a few more than the window needs.
    """

    def __init__(self, name: str, arguments: argparse.Namespace):
        self.name, self.arguments = name, arguments
        rollout = arguments.rollout_steps * _NUM_ENVS
        self.window = {
            "dqn": (2000, 2000 + arguments.steps),
            # From the start of a rollout to the start of another.
            "ppo": (rollout, rollout * (1 + max(1, arguments.steps // rollout))),
            "sac": (1100, 1100 + arguments.steps // 40),
            "capacity": (2000, 2000 + arguments.steps),
        }[name]
        self.steps = self.window[1] + _NUM_ENVS

    def plain(self, clock: Clock) -> None:
        train: Any = {"dqn": dqn.train, "ppo": ppo.train, "sac": sac.train}[self.name]
        settings: dict[str, dict[str, Any]] = {
            "dqn": {"learn_every": self.arguments.learn_every, "decay_steps": 1},
            "ppo": {"rollout_steps": self.arguments.rollout_steps, "num_envs": _NUM_ENVS},
            "sac": {},
        }
        step = _NUM_ENVS if self.name == "ppo" else 1
        train(self.steps, every_step=lambda: clock.tick(step), **settings[self.name])

    def sb3(self, clock: Clock) -> None:
        import stable_baselines3
        from stable_baselines3.common.env_util import make_vec_env

        common: dict[str, Any] = {"learning_rate": 1e-3, "device": "cpu", "seed": 0}
        if self.name == "dqn":
            model = stable_baselines3.DQN(
                "MlpPolicy",
                "CartPole-v1",
                buffer_size=50_000,
                learning_starts=1000,
                batch_size=128,
                train_freq=self.arguments.learn_every,
                target_update_interval=500,
                exploration_initial_eps=0.05,
                policy_kwargs={"net_arch": [120, 84]},
                **common,
            )
        elif self.name == "ppo":
            model = stable_baselines3.PPO(
                "MlpPolicy",
                make_vec_env("CartPole-v1", _NUM_ENVS),
                n_steps=self.arguments.rollout_steps,
                batch_size=256,
                n_epochs=10,
                **common,
            )
        else:
            model = stable_baselines3.SAC(
                "MlpPolicy",
                "Pendulum-v1",
                buffer_size=100_000,
                learning_starts=1000,
                batch_size=256,
                **common,
            )
        step = model.get_env().num_envs

        def tick(_locals: dict[str, Any], _globals: dict[str, Any]) -> bool:
            clock.tick(step)
            return True

        model.learn(self.steps, callback=tick, log_interval=None)

    def large(self, clock: Clock) -> None:
        self.antelope(clock, name="dqn", capacity=10**7)

    def small(self, clock: Clock) -> None:
        self.antelope(clock, name="dqn", capacity=10**5)

    def antelope(self, clock: Clock, *, name: str | None = None, **more: Any) -> None:
        name = name or self.name
        agent: Any = {"dqn": DQN, "ppo": PPO, "sac": SAC}[name]
        rollout_steps, learn_every = self.arguments.rollout_steps, self.arguments.learn_every
        # What makes it the others' equal, where its defaults are others.
        settings: dict[str, dict[str, Any]] = {
            "dqn": {
                "agent.hidden": [120, 84],
                "agent.double": False,
                "agent.epsilon": [0.05, 0.05],
                "agent.target_every": 500 // learn_every,
                "nstep": 1,
                "env": "CartPole-v1",
                "batch_size": 128,
                "learn_every": learn_every,
                "seed_steps": 1000,
                "lr": 1e-3,
            },
            "ppo": {
                "agent.steps": rollout_steps,
                "agent.minibatch_size": 256,
                "agent.epochs": 10,
                "agent.lr": 1e-3,
                "normalize_obs": False,
                "normalize_reward": False,
                "env": "CartPole-v1",
                "num_envs": _NUM_ENVS,
                "seed_steps": 0,
                "learn_every": rollout_steps * _NUM_ENVS,
            },
            "sac": {
                "agent.color": 0.0,
                "env": "Pendulum-v1",
                "batch_size": 256,
                "seed_steps": 1000,
                "lr": 1e-3,
            },
        }

        class Timed(agent):
            def act(self, obs: Tensor) -> Any:
                if self.training:
                    clock.tick(len(obs))
                return super().act(obs)

        with tempfile.TemporaryDirectory() as folder:
            ml(
                agent=Timed,
                train_steps=self.steps,
                device="cpu",
                # The others evaluate, save, write and draw nothing.
                eval_every=10**9,
                eval_episodes=1,
                save_every=10**9,
                log_every=1000,
                plot=False,
                progress=False,
                path=folder,
                **settings[name],
                **more,
            )


def measure(case: Case, sides: list[str], *, rounds: int) -> dict[str, list[tuple[float, float]]]:
    """Each side's CPU and wall rates, round by round; the first round warms up."""
    rates: dict[str, list[tuple[float, float]]] = {side: [] for side in sides}
    for turn in range(rounds + 1):
        for side in sides if turn % 2 else reversed(sides):
            gc.collect()
            clock = Clock(*case.window)
            run: Callable[[Clock], None] = getattr(case, side)
            run(clock)
            if turn:
                rates[side].append(clock.rates())
    return rates


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--only", nargs="*", default=list(_NAMES), choices=list(_NAMES))
    sides = ["antelope", "plain", "sb3"]
    parser.add_argument("--sides", nargs="*", default=sides, choices=sides)
    parser.add_argument("--steps", type=int, default=12_000, help="timed; a fortieth of it for SAC")
    parser.add_argument("--learn_every", type=int, default=10, help="of DQN")
    parser.add_argument("--rollout_steps", type=int, default=128, help="of PPO, per environment")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    print(f"{platform.processor() or platform.machine()}, torch {torch.__version__}, one thread")
    sides = list(arguments.sides)
    if "sb3" in sides and importlib.util.find_spec("stable_baselines3") is None:
        print("Stable-Baselines3 is not installed: left out.")
        sides.remove("sb3")
    print(
        "Environment steps per second of CPU time, medians; ratios of CPU time (and of wall time)"
    )
    header = ["ours", "theirs", "ratio", "(wall)", "floor", ""]
    print(f"{'work':<42}{'against':<10}" + "".join(f"{name:>9}" for name in header))
    for name in arguments.only:
        compared = ["large", "small"] if name == "capacity" else sides
        rates = measure(Case(name, arguments), compared, rounds=arguments.rounds)
        ours = rates[compared[0]]
        for side in compared[1:]:
            cpu, wall = (
                statistics.median(a[i] / b[i] for a, b in zip(ours, rates[side], strict=True))
                for i in (0, 1)
            )
            floor = _FLOORS[name][side]
            mine, theirs = (statistics.median(r[0] for r in x) for x in (ours, rates[side]))
            verdict = (
                ("pass" if cpu >= floor else "FAIL") if compared[0] in ("antelope", "large") else ""
            )
            print(
                f"{_NAMES[name]:<42}{side:<10}{mine:>9,.0f}{theirs:>9,.0f}{cpu:>9.2f}{wall:>9.2f}"
                f"{floor:>9.2f}{verdict:>9}",
                flush=True,
            )


if __name__ == "__main__":
    main()
