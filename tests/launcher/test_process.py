"""A run leaves the caller's process as it was, also when it fails."""

from __future__ import annotations

import copy
import gc
import random
import signal
import sys
import warnings
import weakref
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from antelope import ConfigError, ml
from antelope.launcher.settings.compose import compose

pytestmark = pytest.mark.usefixtures("workdir")

SHORT: dict[str, Any] = {"epochs": 1, "batch_size": 512, "progress": False, "plot": False}

MEDDLER = """\
import random
import warnings

import numpy as np
import torch

torch.manual_seed(99)
np.random.seed(99)
random.seed(99)
warnings.filterwarnings("ignore", "of the model")


class Meddler(torch.nn.Module):
    def __init__(self, in_features, out_features):
        super().__init__()
        self.layer = torch.nn.Linear(in_features, out_features)
        torch.set_default_dtype(torch.float64)

    def forward(self, obs):
        return self.layer(obs.flatten(1))
"""


def draws() -> tuple[Any, ...]:
    return random.random(), random.gauss(0, 1), np.random.randn(), torch.randn(()).item()


class Fails(nn.Module):
    def __init__(self, in_features: int, out_features: int):
        super().__init__()
        self.layer = nn.Linear(in_features, out_features)

    def forward(self, obs: torch.Tensor) -> torch.Tensor:
        return self.layer(obs.flatten(1))

    def learn(self, replay: Any) -> torch.Tensor:
        raise IndexError("no head for this task")


@pytest.mark.parametrize(
    ("settings", "raises"),
    [
        ({}, None),
        ({"tasks": 2, "plot": True}, None),
        ({"env": "CartPole-v1", "train_steps": 40, "seed_steps": 20, "eval_episodes": 1}, None),
        ({"optim.lr": "fast"}, ConfigError),
        ({"model": Fails}, IndexError),
    ],
)
@pytest.mark.row(34)
def test_random_streams_go_on_where_they_were(settings: Any, raises: Any) -> None:
    def seeded() -> tuple[Any, ...]:
        random.seed(7)
        np.random.seed(7)
        torch.manual_seed(7)
        return draws()  # Half of a pair of normal numbers is waiting then.

    seeded()
    expected = draws()
    seeded()
    known = {
        k: v for k, v in SHORT.items() if k not in ("epochs", "batch_size") or "env" not in settings
    }
    if raises is None:
        ml(**known | settings)
    else:
        with pytest.raises(raises):
            ml(**known | settings)
    assert draws() == expected
    assert torch.initial_seed() == 7


def test_the_run_does_not_depend_on_the_caller_s_streams() -> None:
    torch.manual_seed(1)
    first = ml(**SHORT)
    torch.manual_seed(2)
    second = ml(**SHORT)
    assert first.metrics == second.metrics


def test_what_a_model_s_file_changes_is_put_back(workdir: Path) -> None:
    (workdir / "meddler_file.py").write_text(MEDDLER)
    path, filters, dtype = list(sys.path), list(warnings.filters), torch.get_default_dtype()
    torch.manual_seed(7)
    expected = torch.get_rng_state()
    ml(model="meddler_file.py:Meddler", **SHORT)
    assert torch.equal(torch.get_rng_state(), expected)
    assert sys.path == path
    assert warnings.filters == filters
    assert torch.get_default_dtype() == dtype


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_a_run_learns_within(mode: Any) -> None:
    expected = ml(**SHORT).metrics
    with mode():
        assert ml(**SHORT).metrics == expected
        assert not torch.is_grad_enabled()


def test_a_run_learns_where_another_device_is_the_default() -> None:
    expected = ml(**SHORT).metrics
    with torch.device("meta"):
        assert ml(**SHORT).metrics == expected
        assert torch.empty(()).device.type == "meta"


def test_signal_handlers_threads_and_hydra() -> None:
    from hydra.core.global_hydra import GlobalHydra

    handlers = [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)]
    before = torch.get_num_threads(), GlobalHydra.instance().hydra
    ml(threads=2, **SHORT)
    assert [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)] == handlers
    assert (torch.get_num_threads(), GlobalHydra.instance().hydra) == before


def test_composing_draws_nothing() -> None:
    random.seed(7)
    state = random.getstate()
    compose(["lr=1e-3"], {})
    assert random.getstate() == state


@pytest.mark.parametrize("by_task", [False, True])
@pytest.mark.row(34)
def test_runs_in_several_threads_are_those_of_one(by_task: bool) -> None:
    x = torch.randn(60, 4, generator=torch.Generator().manual_seed(0))

    def learnt(model: nn.Module, path: str) -> torch.Tensor:
        settings: dict[str, Any] = {"dataset": (x, torch.arange(60) % 4), "tasks": 2, "epochs": 4}
        settings |= {
            "model": model,
            "path": path,
            "strategy": "er",
            "plot": False,
            "progress": False,
        }
        if not by_task:
            ml(**settings)
        else:
            for task in ml.tasks(**settings):
                task.learn()
        return model[0].weight

    models = [nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.5), nn.Linear(8, 4)) for _ in range(4)]
    twins = copy.deepcopy(models)
    alone = [learnt(model, f"alone-{i}") for i, model in enumerate(models)]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(learnt, twins, [f"together-{i}" for i in range(4)]))
    assert all(map(torch.equal, alone, together))


class Plain(nn.Module):
    def __init__(self, in_features: int, out_features: int):
        super().__init__()
        self.layer = nn.Linear(in_features, out_features)

    def forward(self, obs: torch.Tensor) -> torch.Tensor:
        return self.layer(obs.flatten(1))


@pytest.mark.parametrize(
    "settings",
    [{}, {"tasks": 2, "strategy": "ewc"}, {"tasks": 2, "strategy": "gem", "precision": "bf16"}],
    ids=["plain", "ewc", "gem"],
)
def test_a_run_that_is_dropped_gives_its_memory_back_at_once(settings: dict[str, Any]) -> None:
    """Otherwise models, and what strategies keep, pile up until Python looks for circles."""
    gc.collect()
    gc.disable()
    try:
        run = ml(model=Plain, dataset="Digits", **SHORT | settings)
        held = [weakref.ref(run.agent), weakref.ref(run.replay)]
        del run
        assert [ref() for ref in held] == [None, None]
    finally:
        gc.enable()
