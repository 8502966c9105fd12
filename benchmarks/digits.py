"""Every strategy on the embedded digits with no other settings: `benchmarks/continual.py --digits`.

Five tasks of two digits, the default agent, ten epochs per task. Each figure is the scenario's mean
accuracy over the tasks after the last one, in percent, averaged over seeds. It fails if a strategy, in a
scenario that it supports,

- is more than `_BELOW` points below naive learning, or
- is less than `_ABOVE` points above it in class-IL; this holds for the upper bounds, and for all that
  rehearse except A-GEM.
"""

from __future__ import annotations

import statistics
import tempfile
import time

from antelope import ConfigError, ml
from antelope.agents.continual import NAMES

SCENARIOS = {"class": "accuracy", "task": "task_il_accuracy", "domain": "accuracy"}
_BELOW, _ABOVE = 3.0, 30.0
_REHEARSE = ("joint", "cumulative", "er", "er_ace", "der", "derpp", "gem", "gdumb", "icarl")


def digits(seeds: list[int], names: list[str] | None = None) -> bool:
    """Print a table; returns whether no strategy fails."""
    print("| strategy | class-IL | task-IL | domain-IL | CPU s |\n|---|---|---|---|---|")
    found: dict[str, dict[str, float | None]] = {}
    for name in ("naive", *(n for n in NAMES["strategy"] if n != "naive")):
        if names and name not in ("naive", *names):
            continue
        began = time.process_time()
        found[name] = {scenario: _mean(name, scenario, seeds) for scenario in SCENARIOS}
        cells = ["-" if x is None else f"{x:.1f}" for x in found[name].values()]
        cpu = (time.process_time() - began) / len(seeds) / len(SCENARIOS)
        print(f"| `{name}` | {' | '.join(cells)} | {cpu:.0f} |", flush=True)
    wrong = [
        f"{name}, {scenario}-IL: {value:.1f}"
        for name, row in found.items()
        for scenario, value in row.items()
        if value is not None and value < _least(name, scenario, found["naive"][scenario])
    ]
    print("\n".join(f"FAIL: {line}" for line in wrong))
    return not wrong


def _least(name: str, scenario: str, naive: float | None) -> float:
    assert naive is not None
    return naive + _ABOVE if scenario == "class" and name in _REHEARSE else naive - _BELOW


def _mean(name: str, scenario: str, seeds: list[int]) -> float | None:
    """The mean accuracy over seeds, in percent; None if the strategy does not support the scenario."""
    words = ("dataset=Digits", "tasks=5", f"strategy={name}", f"scenario={scenario}")
    values = []
    for seed in seeds:
        with tempfile.TemporaryDirectory() as folder:
            quiet = {"plot": False, "progress": False, "device": "cpu", "threads": 1}
            try:
                run = ml(*words, seed=seed, path=folder + "/run", save_every=10**9, **quiet)
            except ConfigError as error:
                if f"strategy={name} is for scenario=" not in str(error):
                    raise
                return None
        values.append(100 * run.metrics[SCENARIOS[scenario]])
    return statistics.mean(values)
