"""Agents with their defaults, on environments that these were not chosen on, beside the agents of
Stable-Baselines3 with its defaults: `benchmarks/learning.py --untuned`.

Both sides get the environment, the number of steps and the seed, and nothing else; the budgets were
fixed before any figure was seen. Sources of our defaults (`agents/usual.py`, and the constructors):

    DQN   a learning step every 4 environment steps: Mnih et al. (2015); double: van Hasselt (2015); epsilon
          from 1 to 0.05: CleanRL, over a fifth of the run: RL Zoo has 0.12 to 0.2; 256-256, batches of
          128, a target that moves every 800 environment steps: RL Zoo's classic control, about
    PPO   rollouts of 2048, 10 epochs in batches of 64, lr 3e-4, clip 0.2, lambda 0.95: Schulman et al.
          (2017), table 3; observations and rewards normalised, orthogonal weights, small last layer:
          Engstrom et al. (2020), Andrychowicz et al. (2020)
    A2C   64 steps per update, of all environments together: Mnih et al. (2016) have 80; normalised as PPO
    SAC   batches of 256, tau 0.005: Haarnoja et al. (2018); pink noise: Eberhard et al. (2023)

Learning rates for which no paper is named are AdamW's own, 1e-3. Where these sources leave a choice, it was
made by trials on CartPole-v1 and on small environments written for the purpose: a courier in a grid, and a
swing-up with a sparse reward. N-step returns, repeated random actions (Dabney et al., 2020) and rollouts of
256 and 512 steps were tried; none was better on all of them. No default was chosen by a figure of this
benchmark.

This file also runs without Antelope, for a Stable-Baselines3 that is installed elsewhere; a run prints one
line of JSON, the mean return of 100 greedy episodes after the last step:

    python benchmarks/untuned.py --side sb3 --task MountainCar-v0 --seed 0 >> results.jsonl
    python benchmarks/learning.py --untuned --results results.jsonl
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import torch

EPISODES = 100  # Greedy ones, at the end.
_CUT = 1000  # Steps of an episode, in training and at the end, where an environment sets no limit.


@dataclass(frozen=True)
class Task:
    """What is learnt, by which agent, in how many environment steps.

    Budgets are what a side does in a minute or two of CPU time; they were fixed before any figure
    was seen.
    """

    agent: str
    steps: int


TASKS = {
    "MountainCar-v0": Task("DQN", 100_000),
    "Taxi-v4": Task("DQN", 100_000),  # v3 of the issue, which gymnasium 1.4 no longer makes.
    "FrozenLake-v1": Task("DQN", 50_000),
    "CliffWalking-v1": Task("PPO", 50_000),
    "MountainCarContinuous-v0": Task("SAC", 15_000),
    "Pendulum-v1": Task("PPO", 100_000),
    "Acrobot-v1": Task("A2C", 100_000),
    "MiniGrid-Empty-5x5-v0": Task("PPO", 50_000),
}


def compare(tasks: list[str], *, seeds: int, jobs: int, results: Path | None) -> bool:
    """Run both sides on every task and seed, each in a process of its own, and print them.

    Args:
        results: A file of the lines that `main` prints: runs in it are not repeated, others are added.

    Returns:
        Whether the median is at or above Stable-Baselines3's on all tasks but one.
    """
    known: dict[tuple[str, str, int], float] = {}
    for line in results.read_text().splitlines() if results and results.exists() else ():
        said = json.loads(line)
        known[said["side"], said["task"], said["seed"]] = said["return"]
    has_sb3 = importlib.util.find_spec("stable_baselines3") is not None
    if not has_sb3:
        print(
            "Stable-Baselines3 is not installed: left out, but for what the results file has of it."
        )

    def value(side: str, task: str, seed: int) -> float | None:
        if (side, task, seed) in known or (side == "sb3" and not has_sb3):
            return known.get((side, task, seed))
        line = _in_a_process(side, task, seed)
        if results is not None:
            with results.open("a") as file:
                file.write(line + "\n")
        return json.loads(line)["return"]

    print(f"{'task':<26}{'agent':<7}{'steps':>8}  {'side':<10}{'median':>9}  by seed")
    ahead = compared = 0
    with ThreadPoolExecutor(jobs) as pool:
        runs = {
            (task, side): [pool.submit(value, side, task, seed) for seed in range(seeds)]
            for task in tasks
            for side in ("antelope", "sb3")
        }
        medians: dict[tuple[str, str], float] = {}
        for (task, side), futures in runs.items():
            returns = [r for future in futures if (r := future.result()) is not None]
            if returns:
                medians[task, side] = statistics.median(returns)
                listed = " ".join(f"{r:.2f}" for r in returns)
                print(
                    f"{task:<26}{TASKS[task].agent:<7}{TASKS[task].steps:>8,}  {side:<10}"
                    f"{medians[task, side]:>9.2f}  {listed}",
                    flush=True,
                )
    for task in tasks:
        if (task, "antelope") in medians and (task, "sb3") in medians:
            ours, theirs = medians[task, "antelope"], medians[task, "sb3"]
            compared += 1
            # One side adds up rewards in float32, the other in float64.
            ahead += ours > theirs or math.isclose(ours, theirs, rel_tol=1e-6)
    print(f"At or above Stable-Baselines3 on {ahead} of {compared} tasks.")
    return ahead >= compared - 1


def _in_a_process(side: str, task: str, seed: int) -> str:
    """The line that a run prints.

    Raises:
        RuntimeError: If it failed, with its last words.
    """
    command = [sys.executable, __file__, "--side", side, "--task", task, "--seed", str(seed)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    run = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if run.returncode:
        raise RuntimeError(f"{side} on {task}, seed {seed}:\n{run.stderr[-2000:]}")
    return run.stdout.splitlines()[-1]


def make(name: str) -> Callable[[], gymnasium.Env[Any, Any]]:
    """A factory of the environment, the same for both sides."""

    def factory(**options: Any) -> gymnasium.Env[Any, Any]:
        if name.startswith("MiniGrid"):
            from minigrid.wrappers import ImgObsWrapper

            return ImgObsWrapper(gymnasium.make(name, **options))
        env = gymnasium.make(name, **options)
        if name.startswith("CliffWalking"):
            env = gymnasium.wrappers.TimeLimit(env, _CUT)
        return env

    return factory


def sb3(name: str, seed: int) -> float:
    """Stable-Baselines3: `MlpPolicy` and no other argument."""
    import stable_baselines3
    from stable_baselines3.common.evaluation import evaluate_policy
    from stable_baselines3.common.monitor import Monitor

    task = TASKS[name]
    algorithm = getattr(stable_baselines3, task.agent)
    model = algorithm("MlpPolicy", Monitor(make(name)()), seed=seed, device="cpu")
    model.learn(task.steps, log_interval=None)
    env = Monitor(make(name)())
    env.reset(seed=1_000_003)
    returns, _ = evaluate_policy(
        model, env, EPISODES, deterministic=True, return_episode_rewards=True
    )
    return float(np.mean(returns))


def antelope(name: str, seed: int) -> float:
    """`ml(env=..., agent=...)` and no setting of how it learns."""
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    from antelope import ml

    task = TASKS[name]
    with tempfile.TemporaryDirectory() as folder:
        run = ml(
            env=make(name),
            agent=task.agent,
            train_steps=task.steps,
            seed=seed,
            device="cpu",
            eval_every=10**9,
            eval_episodes=EPISODES,
            save_every=10**9,
            plot=False,
            progress=False,
            path=folder + "/run",
        )
        return run.metrics["return"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--side", required=True, choices=["antelope", "sb3"])
    parser.add_argument("--task", required=True, choices=list(TASKS))
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    side = {"antelope": antelope, "sb3": sb3}[arguments.side]
    result = side(arguments.task, arguments.seed)
    said = {"side": arguments.side, "task": arguments.task, "seed": arguments.seed}
    print(json.dumps({**said, "return": result, "cpu_s": round(time.process_time())}), flush=True)


if __name__ == "__main__":
    main()
