"""How often a run waits for its device: a new `.item()` on the path of a learning step fails here."""

from __future__ import annotations

from typing import Any

import pytest

from .runs import DATA, ENVIRONMENTS

# Each stops the host until the device has done all it was given.
WAITS = ("wait", "download", "upload")

# Methods that must know a number on the host in every step, and how often they ask for it.
ASKING = {
    "strategy gem": 1,  # A quadratic problem in as many unknowns as tasks is solved on the host.
    "strategy gdumb": 1,  # A balanced memory decides by the labels what to keep.
    "sequences on the device, er": 2,  # The longest of the batch, and of the rehearsed rows.
    "updates itself": 3,  # The model says `.cpu()`.
    "observes": 1,  # The model says `.item()`.
    "permuted, jointly": 0,
    "decoded as read": 0,
}
ASKING_IN_ENVIRONMENTS = {
    "dqn, prioritised": 1,  # The priorities.
    "dqn, prioritised, 3 steps, gpu": 1,
}
# They learn from whole rollouts, and first count which of their steps are real.
BY_ROLLOUT = ("ppo", "ppo, normalised", "ppo, gpu", "a2c", "recurrent policy", "errand", "workshop")
BY_ROLLOUT += ("workshop, gpu", "dicts", "dicts, gpu", "truncated policy", "prior")


def per_step(report: dict[str, Any], phase: str) -> dict[str, float]:
    counts = report["counts"].get(phase, {})
    return {event: counts.get(event, 0.0) for event in (*WAITS, "upload_async")}


def waits(report: dict[str, Any], phase: str) -> float:
    return sum(per_step(report, phase)[event] for event in WAITS)


@pytest.mark.parametrize("name", DATA)
def test_no_learning_step_waits_for_the_device(name: str, report: Any) -> None:
    found = report("data", name)
    assert waits(found, "learn") <= ASKING.get(name, 0), found["places"]


def test_losses_are_looked_at_together(report: Any) -> None:
    assert per_step(report("data", "mlp"), "check")["download"] <= 1


@pytest.mark.parametrize("name", sorted(set(ENVIRONMENTS) - {*BY_ROLLOUT, "random"}))
def test_no_learning_step_in_environments_waits(name: str, report: Any) -> None:
    found = report("environments", name)
    assert waits(found, "learn") <= ASKING_IN_ENVIRONMENTS.get(name, 0), found["places"]


@pytest.mark.parametrize("name", BY_ROLLOUT)
def test_a_rollout_is_counted_once(name: str, report: Any) -> None:
    found = report("environments", name)
    assert waits(found, "learn") < 0.8, found["places"]


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_a_batch_and_an_action_cross_in_one_copy(name: str, report: Any) -> None:
    found = report("environments", name)
    learning, acting = per_step(found, "learn"), per_step(found, "act")
    # What was stored since, the rows to gather, and statistics or weights that go with them.
    assert learning["upload_async"] <= (2 if "gpu" in name else 1), found["places"]
    assert acting["download"] <= 1, found["places"]
    assert acting["wait"] == acting["upload"] == 0, found["places"]
    assert acting["upload_async"] <= 1.3, found["places"]  # And where episodes begin, of states.


@pytest.mark.parametrize(
    "name", ["rows in RAM", "rows in RAM, aug", "dict in RAM, aug", "decoded as read"]
)
def test_rows_in_ram_cross_in_one_copy(name: str, report: Any) -> None:
    found = report("data", name)
    assert per_step(found, "learn")["upload_async"] <= 1.1, found["places"]
