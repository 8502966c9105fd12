"""Fixtures shared by all tests, and how hypothesis searches: seeded, without a clock."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import settings

settings.register_profile("antelope", deadline=None, derandomize=True, database=None)
settings.load_profile("antelope")
torch.set_num_threads(1)  # Small tensors: a second thread only waits for the first.


@pytest.fixture(scope="session")
def mnist_dir() -> Path:
    """The root that torchvision reads the real MNIST from."""
    folder = Path(__file__).resolve().parents[1].parent / "shared" / "data"
    if not (folder / "MNIST" / "raw").is_dir():
        pytest.skip(f"needs the real MNIST in {folder}")
    return folder


@pytest.fixture
def workdir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty working directory; what is imported from it is forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield tmp_path
    for name, module in list(sys.modules.items()):
        if str(getattr(module, "__file__", None)).startswith(str(tmp_path)):
            del sys.modules[name]
