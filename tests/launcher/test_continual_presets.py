"""The presets of continual learning: each composes, names arguments that its strategy has, and learns."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import pytest
from torch import nn
from torchvision.datasets import MNIST

from antelope import ml
from antelope.agents import continual
from antelope.launcher.settings.compose import compose
from antelope.launcher.settings.presets import presets

PRESETS = [name for name in presets() if name.startswith("continual/")]


class MLP(nn.Sequential):
    def __init__(self, in_features: int, out_features: int):
        super().__init__(
            nn.Flatten(), nn.Linear(in_features, 8), nn.ReLU(), nn.Linear(8, out_features)
        )


def test_there_are_some() -> None:
    assert {"continual/split_mnist", "continual/split_mnist_er"} < set(PRESETS)


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_names_a_strategy_and_its_arguments(name: str) -> None:
    settings = compose([f"task={name}"], {})
    assert settings.tasks in (5, 20)
    assert settings.epochs
    if name.endswith("language"):  # No publication to follow.
        assert settings.strategy is None
        return
    assert settings.standardize is False
    assert settings.optim["lr"] > 0
    if name.rpartition("/")[2] in ("split_mnist", "split_mnist_task", "permuted_mnist"):
        assert settings.strategy is None
        return
    arguments = dict(settings.strategy)
    short = arguments.pop("_target_")
    assert name.endswith("_" + short)
    strategy = getattr(continual, continual.NAMES["strategy"][short])
    assert set(arguments) <= set(inspect.signature(strategy).parameters)


def test_a_preset_builds_on_another_and_words_change_it() -> None:
    settings = compose(["task=continual/split_mnist_er", "strategy.capacity=200", "lr=0.01"], {})
    assert settings.dataset == {"_target_": "MNIST"}
    assert settings.batch_size == 10
    assert settings.strategy == {"_target_": "er", "capacity": 200, "batch_size": 10}
    assert settings.lr == 0.01
    assert settings.optim == {"_target_": "SGD"}


@pytest.fixture(scope="module")
def some(mnist_dir: Path) -> dict[str, Any]:
    """A part of the real MNIST, to be read once and evaluated quickly."""
    whole = MNIST(str(mnist_dir), train=False)
    images, labels = whole.data[:, None], whole.targets
    return {
        "dataset": (images[:1000], labels[:1000]),
        "test_dataset": (images[1000:1500], labels[1000:1500]),
    }


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_runs(name: str, some: dict[str, Any], mnist_dir: Path, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"tasks": 2, "data_dir": mnist_dir} if "permuted" in name else some
    if name.endswith("gdumb"):
        settings = settings | {"strategy.passes": 1}
    run = ml(
        task=name,
        model=MLP,
        train_steps=2,
        device="cpu",
        plot=False,
        progress=False,
        path=tmp_path / "run",
        **settings,
    )
    assert run.accuracy_matrix.shape == ((2, 2) if "permuted" in name else (5, 5))
    assert 0 < run.metrics["accuracy"] <= 1


def test_a_preset_reads_the_real_mnist(mnist_dir: Path, tmp_path: Path) -> None:
    run = ml(
        task="continual/split_mnist_derpp",
        model=MLP,
        train_steps=20,
        data_dir=mnist_dir,
        device="cpu",
        plot=False,
        progress=False,
        path=tmp_path / "run",
    )
    assert len(run.replay.storage) == 60_000
    assert run.metrics["accuracy"] > 0.15
