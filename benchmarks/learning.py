"""How soon the reinforcement-learning presets learn: environment steps until greedy play is good.

Each run is `ml task=rl/PRESET seed=S` in its own process, evaluated over 20 greedy episodes every
1,000 steps, and stopped once their mean reaches the threshold. Run by hand:

    python benchmarks/learning.py [--rows cartpole_dqn ...] [--seeds 5] [--jobs 1]

With `--untuned` there are no presets: agents learn with their defaults on eight other environments, three
seeds each, beside those of Stable-Baselines3 with its defaults (`untuned.py`). `--results FILE` keeps the
results.
"""

from __future__ import annotations

import argparse
import math
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from antelope.launcher.record.csv_file import read_csv
from benchmarks import untuned

_RUN = Path(__file__).resolve().parent.parent / "run.py"
_LIMIT = 1.5  # Times the floor: a run that is not there by then never counts as passed.


@dataclass(frozen=True)
class Row:
    """What a preset must reach.

    Attributes:
        threshold: Mean return of greedy episodes.
        floor: Environment steps that the median over seeds may take.
    """

    env: str
    agent: str
    threshold: float
    floor: int
    eval_every: int = 1000


ROWS = {
    "cartpole_dqn": Row("CartPole-v1", "DQN", 475, 28_000),
    "cartpole_ppo": Row("CartPole-v1", "PPO", 475, 16_000),
    "acrobot_dqn": Row("Acrobot-v1", "DQN", -100, 60_000),
    "acrobot_ppo": Row("Acrobot-v1", "PPO", -100, 60_000),
    "pendulum_sac": Row("Pendulum-v1", "SAC", -200, 4_000),
    "pendulum_td3": Row("Pendulum-v1", "TD3", -200, 13_000),
    "pendulum_ddpg": Row("Pendulum-v1", "DDPG", -200, 13_000),
    "recall_drqn": Row("Recall", "DRQN", 1, 8_000),
    "lunarlander_dqn": Row("LunarLander-v3", "DQN", 200, 200_000, eval_every=5000),
    "lunarlander_ppo": Row("LunarLander-v3", "PPO", 200, 500_000, eval_every=5000),
}


def steps_to_threshold(name: str, seed: int) -> float:
    """Environment steps until the threshold is first reached; infinity if it is not.

    Raises:
        RuntimeError: If the run failed, with its last words.
    """
    row = ROWS[name]
    with tempfile.TemporaryDirectory() as folder:
        words = {
            "task": f"rl/{name}",
            "seed": seed,
            "train_steps": int(_LIMIT * row.floor),
            "eval_every": row.eval_every,
            "eval_episodes": 20,
            "save_every": 10**9,
            "device": "cpu",
            "plot": "false",
            "progress": "false",
            "path": folder + "/run",
        }
        command = [sys.executable, str(_RUN), *(f"{k}={v}" for k, v in words.items())]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        rows: list[dict[str, float]] = []
        # Output goes to a file: a pipe that nobody reads would fill up.
        with open(folder + "/output", "w+") as output:
            run = subprocess.Popen(
                command, stdout=output, stderr=subprocess.STDOUT, cwd=folder, env=environment
            )
            try:
                over = False
                while not over:
                    over = run.poll() is not None  # Looked at before the last rows are read.
                    rows = read_csv(Path(folder, "run", "eval.csv"))
                    for evaluation in rows:
                        if evaluation["return"] >= row.threshold:
                            return evaluation["step"]
                    time.sleep(0.2)
            finally:
                if run.poll() is None:
                    run.send_signal(signal.SIGTERM)
                    run.wait()
            if run.returncode:
                output.seek(0)
                raise RuntimeError(f"{name}, seed {seed}:\n{output.read()[-2000:]}")
    return math.inf


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    quick = [name for name in ROWS if not name.startswith("lunarlander")]
    parser.add_argument(
        "--rows", nargs="*", default=quick, choices=list(ROWS), help="all but LunarLander"
    )
    parser.add_argument("--seeds", type=int, help="default: 5, or 3 with --untuned")
    parser.add_argument("--jobs", type=int, default=1, help="runs at once, a core each")
    parser.add_argument("--untuned", action="store_true", help="defaults, beside Stable-Baselines3")
    parser.add_argument(
        "--tasks", nargs="*", default=list(untuned.TASKS), choices=list(untuned.TASKS)
    )
    parser.add_argument("--results", type=Path, help="a file of lines of JSON, of --untuned")
    arguments = parser.parse_args()
    if arguments.untuned:
        given = {"jobs": arguments.jobs, "results": arguments.results}
        sys.exit(not untuned.compare(arguments.tasks, seeds=arguments.seeds or 3, **given))
    print(f"{'preset':<18}{'env':<16}{'agent':<8}{'threshold':>9}  ", end="")
    print(f"{'steps by seed':<48}{'median':>9}{'at most':>9}")
    seeds = range(arguments.seeds or 5)
    failed = False
    with ThreadPoolExecutor(arguments.jobs) as pool:
        runs = {
            name: [pool.submit(steps_to_threshold, name, seed) for seed in seeds]
            for name in arguments.rows
        }
        for name, futures in runs.items():
            row = ROWS[name]
            try:
                steps = [future.result() for future in futures]
            except RuntimeError as error:
                failed = True
                print(f"{name:<18}FAIL: {error}", flush=True)
                continue
            median = statistics.median(steps)
            failed |= median > row.floor
            listed = " ".join("never" if math.isinf(s) else f"{s:,.0f}" for s in steps)
            print(
                f"{name:<18}{row.env:<16}{row.agent:<8}{row.threshold:>9g}  {listed:<48}"
                f"{median:>9,.0f}{row.floor:>9,}  {'FAIL' if median > row.floor else 'pass'}",
                flush=True,
            )
    sys.exit(failed)


if __name__ == "__main__":
    main()
