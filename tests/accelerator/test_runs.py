"""Everything that runs on the CPU runs on an accelerator, with or without float64, and learns the same."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from .runs import DATA, ENVIRONMENTS, learn


def check(report: dict[str, Any]) -> None:
    assert all(math.isfinite(value) for value in report["metrics"].values()), report["metrics"]


@pytest.mark.parametrize("name", DATA)
def test_a_data_set_is_learnt(name: str, report: Any) -> None:
    check(report("data", name))


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_an_environment_is_learnt(name: str, report: Any) -> None:
    check(report("environments", name))


@pytest.mark.parametrize("name", DATA)
def test_a_data_set_is_learnt_here(name: str, own: Any, tmp_path: Path) -> None:
    check(own.run(learn, "data", name, own.name, tmp_path))


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_an_environment_is_learnt_here(name: str, own: Any, tmp_path: Path) -> None:
    check(own.run(learn, "environments", name, own.name, tmp_path))


@pytest.mark.parametrize("name", ["mlp", "strategy icarl", "strategy packnet", "updates itself"])
def test_the_second_device_will_do_as_well(name: str, pretend: Any, tmp_path: Path) -> None:
    check(pretend.run(learn, "data", name, "pretend:1", tmp_path))


@pytest.mark.parametrize("name", DATA)
def test_no_data_set_needs_float64(name: str, pretend_without_float64: Any, tmp_path: Path) -> None:
    check(pretend_without_float64.run(learn, "data", name, "pretend", tmp_path, float64=False))


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_no_environment_needs_float64(
    name: str, pretend_without_float64: Any, tmp_path: Path
) -> None:
    report = pretend_without_float64.run(
        learn, "environments", name, "pretend", tmp_path, float64=False
    )
    check(report)
