"""A kind of model or of data is found by its method, and its wing imported only then."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from antelope import ConfigError, ml
from antelope.launcher.settings import kinds
from antelope.launcher.settings.kinds import (
    DataKind,
    ModelKind,
    data_kind,
    model_kind,
    register_data_kind,
    register_model_kind,
)

X, Y = np.eye(8, dtype=np.float32), np.arange(8) % 2


class Memorises:
    """A model of a kind that nobody but this test knows."""

    def __init__(self, weight: float):
        self.weight = weight

    def memorise(self, obs: Tensor) -> Tensor:
        return obs * self.weight


class Memoriser(nn.Module):
    """Learns in its place."""

    def __init__(self, model: Memorises):
        super().__init__()
        self.model, self.head = model, nn.Linear(8, 2)

    @property
    def own(self) -> nn.Module:
        return self

    def forward(self, obs: Tensor) -> Tensor:
        out: Tensor = self.head(self.model.memorise(obs))
        return out


def mistakes(target: object, arguments: Mapping[str, object]) -> list[str]:
    return [] if "weight" in arguments else ["Memorises needs `weight`."]


def build(target: Any, arguments: Any, *run: Any, **ways: Any) -> nn.Module:
    return Memoriser(target(**arguments))


@pytest.fixture(autouse=True)
def forgotten_kinds() -> Iterator[None]:
    yield
    kinds._MODELS.pop("memorise", None)
    kinds._DATA.pop("stream", None)


def test_a_model_of_a_registered_kind_is_built_by_it() -> None:
    register_model_kind("memorise", ModelKind(mistakes, build))
    run = ml(
        model={"_target_": Memorises, "weight": 2.0},
        dataset=(X, Y),
        train_steps=2,
        batch_size=4,
        plot=False,
        progress=False,
    )
    assert isinstance(run.agent, Memoriser)
    assert run.agent.model.weight == 2.0


def test_its_kind_checks_its_arguments() -> None:
    register_model_kind("memorise", ModelKind(mistakes, build))
    with pytest.raises(ConfigError, match="Memorises needs `weight`"):
        ml(model=Memorises, dataset=(X, Y), train_steps=1, plot=False, progress=False)


def test_a_model_that_also_learns_is_of_no_kind() -> None:
    class Both:
        def observe(self) -> None: ...
        def learn(self) -> None: ...

    assert model_kind(Both) is None
    assert model_kind(nn.Linear(1, 1)) is None


def test_an_attribute_that_is_no_method_says_nothing() -> None:
    module = nn.Linear(1, 1)
    module.observe = nn.GELU()
    assert model_kind(module) is None


def test_a_data_set_that_its_kind_does_not_include_is_of_none() -> None:
    class Loaders:
        def get_data_loaders(self) -> None: ...

    assert data_kind(Loaders) is None
    assert data_kind(torch.ones(2)) is None


def test_a_data_set_of_a_registered_kind_is_found_by_its_method() -> None:
    class Streams:
        def stream(self) -> None: ...

    kind = DataKind(lambda target: True, lambda *run: None)  # type: ignore[arg-type, return-value]
    register_data_kind("stream", kind)
    assert data_kind(Streams) is kind is data_kind(Streams())


def test_a_wing_is_imported_when_something_of_its_kind_is_named() -> None:
    code = (
        "import sys\n"
        "from antelope.launcher.settings.kinds import data_kind, model_kind\n"
        "def wing(): return {name for name in sys.modules if '.mammoth' in name}\n"
        "assert model_kind(dict) is None and data_kind([1]) is None and not wing(), wing()\n"
        "class Model:\n"
        "    def observe(self, inputs, labels): ...\n"
        "assert model_kind(Model).mistakes(Model, {'size': 1}) and wing()\n"
        "assert not any('backbones' in name for name in wing()), wing()\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
