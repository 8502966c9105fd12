"""Console commands in processes of their own, as a person or a cluster starts them."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import pytest

ROOT = Path(__file__).resolve().parents[2]
MAIN = "from antelope.launcher.ml import main; main()"
# The beginning of a model's file; the tests add the `learn` that they need.
NET = """\
import os
import time

from torch import nn
from torch.nn import functional as F


class Net(nn.Module):
    def __init__(self, in_features, out_features):
        super().__init__()
        self.layer = nn.Linear(in_features, out_features)

    def forward(self, obs):
        return self.layer(obs.flatten(1))

"""


class Console:
    """A command in the background.

    Args:
        words: After `ml`.
        code: The Python that is run.
        stdout: As for `subprocess.Popen`.
        environment: Added to that of this process.
    """

    def __init__(
        self, *words: str, code: str = MAIN, stdout: Any = subprocess.PIPE, **environment: str
    ):
        self.process = subprocess.Popen(
            [sys.executable, "-B", "-c", code, *words],
            stdout=stdout,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            env=_environment(environment),
        )

    def wait_until(self, reached: Callable[[], bool]) -> Self:
        end = time.monotonic() + 120
        while True:
            over = self.process.poll() is not None or time.monotonic() > end
            if reached():
                return self
            if over:
                self.process.kill()
                pytest.fail(f"It did not come so far: {self.end()}")
            time.sleep(0.01)

    def send(self, *signals: int, pause_s: float = 0.0) -> Self:
        """Send signals, as long as the process lives."""
        for signum in signals:
            if self.process.poll() is None:
                self.process.send_signal(signum)
            time.sleep(pause_s)
        return self

    def end(self) -> tuple[int, str, str]:
        """Exit code, output and errors."""
        out, err = self.process.communicate(timeout=120)
        return self.process.returncode, out, err


def finished(
    *words: str, code: str = MAIN, cwd: Path | None = None, **environment: str
) -> subprocess.CompletedProcess[str]:
    """A command that has ended. Arguments as for `Console`; `cwd` is its working directory."""
    return subprocess.run(
        [sys.executable, "-B", "-c", code, *words],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=cwd,
        env=_environment(environment),
    )


def _environment(more: dict[str, str]) -> dict[str, str]:
    usual = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    return {**os.environ, **usual, **more}
