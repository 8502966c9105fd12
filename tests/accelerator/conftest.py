"""Devices to run on: the pretend one, and the machine's own accelerator where it has one."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from .pretend import Machine, NotHere, compiled
from .runs import learn


def own_accelerators() -> list[Any]:
    """The kind of accelerator that this machine has, as a parameter of tests."""
    if not torch.accelerator.is_available():
        none = pytest.mark.skip(reason="this machine has no accelerator")
        return [pytest.param("none", marks=none)]
    kind = torch.accelerator.current_accelerator().type  # type: ignore[union-attr]
    return [pytest.param(kind, marks=pytest.mark.accelerator)]


@pytest.fixture(scope="session")
def built(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pretend device, compiled once for each version of torch, where pytest keeps its cache."""
    cache = getattr(request.config, "cache", None)
    folder = cache.mkdir("pretend") if cache is not None else tmp_path_factory.mktemp("pretend")
    try:
        return compiled(folder)
    except NotHere as error:
        pytest.skip(str(error))


def machine_with(name: str, built: Path | None) -> Iterator[Machine]:
    machine = Machine(name, built)
    yield machine
    machine.close()


@pytest.fixture(scope="session")
def pretend(built: Path) -> Iterator[Machine]:
    """A process with the pretend device."""
    yield from machine_with("pretend", built)


@pytest.fixture(scope="session")
def pretend_without_float64(built: Path) -> Iterator[Machine]:
    """Another one, for runs on a device like Apple's."""
    yield from machine_with("pretend", built)


@pytest.fixture(scope="session")
def report(pretend: Machine, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Any]:
    """What a run of `runs.py` did on the pretend device; each is made once, for all tests of it."""

    @functools.cache
    def made(kind: str, name: str) -> Any:
        return pretend.run(learn, kind, name, "pretend", tmp_path_factory.mktemp("run"))

    return made


@pytest.fixture(scope="session", params=own_accelerators())
def own(request: pytest.FixtureRequest) -> Iterator[Machine]:
    """A process with the accelerator of this machine, if it has one."""
    yield from machine_with(request.param, None)


@pytest.fixture(scope="session", params=["pretend", *own_accelerators()])
def machine(request: pytest.FixtureRequest) -> Machine:
    """A process with the pretend device, and one with what this machine has."""
    found: Machine = request.getfixturevalue("pretend" if request.param == "pretend" else "own")
    return found
