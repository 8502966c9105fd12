"""Runs continue on the device they were saved on, to the bit, and on another one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from .runs import DATA, ENVIRONMENTS, MLP, STRATEGIES, Holder, Noisy, continued, holder_continued

_DIGITS = {"dataset": "Digits", "train_steps": 40}

MODELS: dict[str, dict[str, Any]] = {
    "draws on its device": {"model": Noisy, **_DIGITS},
    "draws, and is evaluated": {"model": Noisy, "eval_every": 7, **_DIGITS},
    "cnn, aug, ema": {
        **{"model": "CNN", "aug": "RandomCrop", "aug.padding": 1, "ema": 0.99, "clip_grad": 1.0},
        **_DIGITS,
    },
    "fp16": {"model": Noisy, "precision": "16", **_DIGITS},
    "fp16, clipped": {"model": MLP, "precision": "16", "clip_grad": 0.1, **_DIGITS},
    "bf16": {"model": "CNN", "precision": "bf16", "channels_last": True, **_DIGITS},
    "holds things": {"model": Holder, **_DIGITS},
    "rows in RAM": {"model": Noisy, "data": "ram", **_DIGITS},
    "grows": {**DATA["grows, lwf"], "train_steps": 20},
    "vae": {"model": "VAE", **_DIGITS},
    "dcgan": {"model": "DCGAN", "dataset": "Digits", "train_steps": 40},
}

AGENTS = (
    *("dqn", "dqn, prioritised, 3 steps, gpu", "dqn, stacked, gpu", "drqn", "drqn, gpu", "sac"),
    *("sac, normalised, gpu", "td3", "ppo", "ppo, normalised", "default agent, fp16", "errand"),
)


def _crash(strategy: str) -> int:
    """A learning step of the second task; of the first, where there is nothing to learn after it."""
    return 11 if strategy == "joint" else 17


def check_exact(ends: dict[str, Any], device: str) -> None:
    assert torch.equal(ends["weights"], ends["expected"])
    assert ends["metrics"] == ends["expected_metrics"]
    assert ends["devices"] == [device]


@pytest.mark.parametrize("name", MODELS)
def test_a_model_continues_to_the_bit(name: str, pretend: Any, tmp_path: Path) -> None:
    settings = MODELS[name]
    ends = pretend.run(continued, settings, tmp_path, at=25, saved="pretend", now="pretend")
    check_exact(ends, "pretend:0")


@pytest.mark.parametrize("name", STRATEGIES)
def test_a_strategy_continues_to_the_bit(name: str, pretend: Any, tmp_path: Path) -> None:
    settings = DATA[f"strategy {name}"]
    at = _crash(name)
    ends = pretend.run(continued, settings, tmp_path, at=at, saved="pretend:1", now="pretend:1")
    check_exact(ends, "pretend:1")


@pytest.mark.parametrize("name", AGENTS)
def test_an_agent_continues_to_the_bit(name: str, pretend: Any, tmp_path: Path) -> None:
    settings = {**ENVIRONMENTS[name], "seed_steps": 30}
    ends = pretend.run(continued, settings, tmp_path, at=45, saved="pretend", now="pretend")
    check_exact(ends, "pretend:0")


# The kernels are the same ones, so that nothing is rounded otherwise on the other device: whatever
# differs was not continued.
ELSEWHERE = [("cpu", "pretend"), ("pretend", "cpu"), ("pretend:1", "pretend:0")]


@pytest.mark.parametrize(("saved", "now"), ELSEWHERE)
@pytest.mark.parametrize("name", STRATEGIES)
def test_a_strategy_continues_on_another_device(
    name: str, saved: str, now: str, pretend: Any, tmp_path: Path
) -> None:
    settings = DATA[f"strategy {name}"]
    ends = pretend.run(continued, settings, tmp_path, at=_crash(name), saved=saved, now=now)
    check_exact(ends, "pretend:0" if now == "pretend" else now)


@pytest.mark.parametrize(("saved", "now"), ELSEWHERE)
@pytest.mark.parametrize("name", ["dqn", "drqn", "sac", "sac, normalised, gpu", "ppo"])
def test_an_agent_continues_on_another_device(
    name: str, saved: str, now: str, pretend: Any, tmp_path: Path
) -> None:
    settings = {**ENVIRONMENTS[name], "seed_steps": 30}
    ends = pretend.run(continued, settings, tmp_path, at=45, saved=saved, now=now)
    assert ends["devices"] == ["pretend:0" if now == "pretend" else now]
    assert torch.isfinite(ends["weights"]).all()


@pytest.mark.parametrize("saved", ["cpu", "it"])
@pytest.mark.parametrize("now", ["cpu", "it"])
@pytest.mark.parametrize("name", ["strategy er", "strategy ewc", "strategy packnet"])
def test_a_run_continues_wherever_there_is_a_device(
    name: str, saved: str, now: str, machine: Any, tmp_path: Path
) -> None:
    saved, now = (machine.name if where == "it" else where for where in (saved, now))
    ends = machine.run(continued, DATA[name], tmp_path, at=17, saved=saved, now=now)
    assert [device.split(":")[0] for device in ends["devices"]] == [now]
    assert torch.allclose(ends["weights"], ends["expected"], atol=1e-3)


@pytest.mark.parametrize(("saved", "now"), [*ELSEWHERE, ("pretend", "pretend")])
def test_what_a_model_holds_comes_back_where_it_was(
    saved: str, now: str, pretend: Any, tmp_path: Path
) -> None:
    ends = pretend.run(holder_continued, tmp_path, saved=saved, now=now)
    there = now.split(":")[0]
    learnt = dict.fromkeys(("mean", "count", "rebound", "labels", "memory"), there)
    assert ends["places"] == {**learnt, "host": "cpu"}


@pytest.mark.parametrize(("saved", "now"), ELSEWHERE[:2])
def test_streams_that_cannot_be_continued_are_named(
    saved: str, now: str, pretend: Any, tmp_path: Path
) -> None:
    said = pretend.run(holder_continued, tmp_path, saved=saved, now=now)["said"]
    assert f"The checkpoint was written on {saved}, this run is on {now}" in said
    assert "`generator`" in said
