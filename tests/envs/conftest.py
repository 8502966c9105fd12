"""Runs of a second, in a directory of the test."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from antelope import Run, ml

from .toys import SHORT


@pytest.fixture
def quick(tmp_path: Path) -> Any:
    """`ml` with few steps, that shows nothing."""

    def run(*words: str, **settings: Any) -> Run:
        return ml(*words, **{"path": tmp_path / "run", "train_steps": 60, **SHORT, **settings})

    return run
