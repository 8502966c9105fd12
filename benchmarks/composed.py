"""Composed models on tasks that need them: two inputs and two actions, and a memory.

The modules are those of examples/composed_*.py; in two ablations one of the inputs is blank, or a linear
layer replaces the LSTM. Every seed must end within the bounds: the mean reward per step, or the mean
return, of the final policy in 50 new episodes; for CartPole the best of the evaluations. Run by hand;
a seed takes some ten minutes:

    python benchmarks/composed.py [--seeds 0 1 2] [--only workshop errand ...]
"""

from __future__ import annotations

import argparse
import runpy
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium
import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from antelope import Run, ml
from antelope.envs import Workshop

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"


class Blank(gymnasium.ObservationWrapper[Any, Any, Any]):
    """`Workshop` with zeros for one of its inputs."""

    def __init__(self, name: str):
        super().__init__(Workshop())
        self.name = name

    def observation(self, observation: Any) -> Any:
        return {**observation, self.name: 0 * observation[self.name]}


class Now(nn.Module):
    """Replaces the memory: only what is seen now."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(128, 32)

    def forward(self, x: Tensor, state: Any) -> tuple[Tensor, None]:
        return self.layer(x).tanh(), None


@dataclass(frozen=True)
class Case:
    """One pair of modules in one environment.

    Attributes:
        settings: What `ml` is given, beside `words`.
        low, high: The bounds of every seed's score.
        score: reward of a step, return, or best return.
    """

    name: str
    words: str
    settings: dict[str, Any]
    score: str
    low: float
    high: float = float("inf")


def cases() -> dict[str, Case]:
    """By the names that `--only` takes."""
    cartpole, plain, own, shared = (
        runpy.run_path(str(EXAMPLES / f"composed_{name}.py"))
        for name in ("cartpole", "plain", "dict", "shared")
    )

    class Forgetful(own["Trunk"]):  # type: ignore[misc]
        def __init__(self, obs_shapes: Any, action_logits_shapes: Any):
            super().__init__(obs_shapes, action_logits_shapes)
            self.memory = Now()

        def forward(self, obs: dict[str, Tensor]) -> dict[str, Tensor]:  # Of steps, [B, ...].
            out, _ = super().forward({name: x[:, None] for name, x in obs.items()})
            return {name: x[:, 0] for name, x in out.items()}

    class Critic(Forgetful):
        def __init__(self, obs_shapes: Any):
            super().__init__(obs_shapes, {"value": (1,)})

    pole = "task=rl/cartpole_ppo train_steps=40000 eval_every=1000"
    workshop = "task=rl/workshop_ppo eval_every=1000000 eval_episodes=50"
    errand = f"{workshop} env=Errand model.steps=18 learn_every=576 train_steps=8064"
    both = {"policy": own["Trunk"], "critic": own["Critic"]}
    blank = {
        name: both | {"env": lambda name=name: Blank(name)} for name in ("screen", "inventory")
    }
    return {
        "cartpole": Case(
            "CartPole, MLP blocks",
            pole,
            {"policy": cartpole["Policy"], "critic": cartpole["Critic"]},
            "best return",
            475,
        ),
        "plain": Case(
            "CartPole, plain modules",
            pole,
            {"policy": plain["Actor"], "critic": plain["Critic"]},
            "best return",
            475,
        ),
        "workshop": Case("Workshop", workshop, both, "reward", 0.95),
        "shared": Case(
            "Workshop, shared embedding",
            workshop,
            {"policy": shared["Policy"], "critic": shared["Critic"]},
            "reward",
            0.95,
        ),
        # 5/8 and 3/4 are what the other input is worth; the standard error of 800 steps is 0.008.
        "screen": Case("Workshop, blank screen", workshop, blank["screen"], "reward", 0.59, 0.65),
        "inventory": Case(
            "Workshop, blank inventory", workshop, blank["inventory"], "reward", 0.71, 0.775
        ),
        "errand": Case("Errand, LSTM", errand, both, "return", 0.95),
        # A quarter, plus or minus three times 0.061.
        "forgetful": Case(
            "Errand, linear layer",
            errand,
            {"policy": Forgetful, "critic": Critic},
            "return",
            0.06,
            0.44,
        ),
    }


def score(run: Run, kind: str) -> float:
    if kind == "best return":
        return max(row["return"] for row in run.history if row["mode"] == "eval")
    return run.metrics["return"] / (run.metrics["episode_length"] if kind == "reward" else 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", nargs="*", type=int, default=[0, 1, 2])
    table = cases()
    parser.add_argument("--only", nargs="*", default=list(table), choices=list(table))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print(f"{'work':<29}{'score':<13}{'target':<14}{'seeds':<22}{'CPU s':>6}")
    for name in arguments.only:
        case = table[name]
        scores, seconds = [], []
        for seed in arguments.seeds:
            start = time.process_time()
            with tempfile.TemporaryDirectory() as folder:
                run = ml(
                    *case.words.split(),
                    **case.settings,
                    seed=seed,
                    path=folder,
                    device="cpu",
                    plot=False,
                    progress=False,
                )
            scores.append(score(run, case.score))
            seconds.append(time.process_time() - start)
        bounds = f">= {case.low:g}" if case.high == float("inf") else f"{case.low:g}..{case.high:g}"
        verdict = "pass" if all(case.low <= x <= case.high for x in scores) else "FAIL"
        shown = " ".join(f"{x:.3g}" for x in scores)
        print(
            f"{case.name:<29}{case.score:<13}{bounds:<14}{shown:<22}"
            f"{statistics.median(seconds):>6.0f}  {verdict}",
            flush=True,
        )


if __name__ == "__main__":
    main()
