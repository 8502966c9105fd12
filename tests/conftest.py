"""Fixtures shared by all tests, and how hypothesis searches: seeded, without a clock."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import settings

settings.register_profile("antelope", deadline=None, derandomize=True, database=None)
# More and other examples, for an hour of looking: --hypothesis-profile=thorough
settings.register_profile("thorough", deadline=None, database=None, max_examples=1500)
settings.load_profile("antelope")
# Small tensors: a second thread only waits for the first, in processes that tests start too.
torch.set_num_threads(1)
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Workers of xdist ignore SIGINT, and nohup SIGHUP: the processes that tests start would ignore them too.
for _number, _usual in (
    (signal.SIGINT, signal.default_int_handler),
    (signal.SIGHUP, signal.SIG_DFL),
    (signal.SIGTERM, signal.SIG_DFL),
):
    if signal.getsignal(_number) is signal.SIG_IGN:
        signal.signal(_number, _usual)
# Whatever the machine has, runs are on the CPU: there they are the same to the bit. What is about
# accelerators names its device, in tests/accelerator.
os.environ.setdefault("ANTELOPE_DEVICE", "cpu")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """One worker takes all tests of a file, which share fixtures, and all of the simulated device."""
    from xdist.scheduler import LoadFileScheduling

    class Together(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.split("::")[0]
            return "accelerator" if file.startswith("tests/accelerator/") else file

    return Together(config, log)


@pytest.fixture(scope="session")
def mnist_dir() -> Path:
    """The root that torchvision reads the real MNIST from."""
    folder = Path(__file__).resolve().parents[1].parent / "shared" / "data"
    if not (folder / "MNIST" / "raw").is_dir():
        pytest.skip(f"needs the real MNIST in {folder}")
    return folder


@pytest.fixture(autouse=True)
def forget_modules(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Modules that a test imports from its own folder are forgotten after it."""
    # Not all of /tmp: the libraries themselves may be installed there.
    folder = str(tmp_path_factory.getbasetemp())
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", None)).startswith(folder):
            del sys.modules[name]


@pytest.fixture
def workdir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    # Bytecode of a module that a test writes twice within a second would be that of the first.
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    return tmp_path
