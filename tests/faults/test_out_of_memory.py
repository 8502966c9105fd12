"""Row 36: a step that needs more memory than there is; row 22: labels that are far out of range."""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import nn

from antelope import ConfigError, ml

ROWS = (torch.randn(128, 3), torch.arange(128) % 2)
RUN: dict[str, Any] = {
    "dataset": ROWS,
    "test_dataset": ROWS,
    "epochs": 2,
    "plot": False,
    "progress": False,
}
# A module whose step needs a gigabyte for each 16 rows, of which the limit leaves four.
HUNGRY = """
import resource, sys, torch, yaml
from torch import nn
import antelope
class Hungry(nn.Linear):
    def __init__(self): super().__init__(3, 2)
    def forward(self, obs):
        if self.training: torch.empty(len(obs) * 2**26, dtype=torch.uint8)
        return super().forward(obs)
rows = torch.randn(128, 3), torch.arange(128) % 2
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 4 * 2**30, resource.RLIM_INFINITY))
antelope.ml(model=Hungry, dataset=rows, test_dataset=rows, epochs=1, plot=False, progress=False,
            path="run", batch_size=yaml.safe_load(sys.argv[1]), resume=len(sys.argv) > 2)
"""


class Small(nn.Linear):
    """Has memory for 8 rows."""

    rows = 8
    error: Any = MemoryError

    def __init__(self) -> None:
        super().__init__(3, 2)
        self.seen = 0

    def learn(self, replay: Any) -> torch.Tensor:
        batch = next(replay)
        self.seen += len(batch)
        if len(batch) > self.rows:
            raise self.error
        return nn.functional.cross_entropy(self(batch.obs), batch.label)


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.row(36)
@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1 GiB."),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried ..."),
    ],
    ids=lambda error: type(error).__name__,
)
def test_it_names_the_batch_size_and_a_smaller_one(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Small, "error", error)
    with pytest.raises(type(error)) as raised:
        ml(model=Small, batch_size=64, accumulate=2, **RUN)
    assert "with batch_size=64. Try batch_size=32 accumulate=4" in str(raised.value.__notes__)


@pytest.mark.row(36)
def test_auto_halves_until_it_fits_and_keeps_the_rows_of_an_update() -> None:
    with pytest.warns(UserWarning, match=r"batches of 32 rows do not fit.*batches of 8 .*after 4"):
        auto = ml(model=Small, batch_size="auto", path="auto", save_every=10, **RUN)
    said = ml(model=Small, batch_size=8, accumulate=4, path="said", save_every=10, **RUN)
    assert torch.equal(auto.agent.weight, said.agent.weight)
    assert auto.agent.seen == 256  # Nothing of the trials is left in the model.
    config = yaml.safe_load(Path("auto/config.yaml").read_text())
    assert (config["batch_size"], config["accumulate"]) == (8, 4)


@pytest.mark.row(36)
def test_a_resumed_run_does_not_search_again(monkeypatch: pytest.MonkeyPatch) -> None:
    half = RUN | {"epochs": 1, "path": "run", "batch_size": "auto:64"}
    with pytest.warns(UserWarning, match="after 8"):
        ml(model=Small, **half)
    monkeypatch.setattr(Small, "rows", 1000)  # More memory now: another size would fit.
    resumed = ml(model=Small, **half | {"epochs": 2, "resume": True})
    whole = ml(model=Small, **RUN, batch_size=8, accumulate=8, path="whole")
    assert torch.equal(resumed.agent.weight, whole.agent.weight)


def test_what_fits_is_left_as_it_is() -> None:
    auto = ml(model=Small, batch_size="auto:8", **RUN)
    assert torch.equal(auto.agent.weight, ml(model=Small, batch_size=8, **RUN).agent.weight)


@pytest.mark.row(36)
def test_auto_that_cannot_be_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="needs a data set"):
        ml(model="DQN", env="CartPole-v1", batch_size="auto")
    with pytest.raises(ConfigError, match=r"not even batches of 9 fit.*as far as 36 can be halved"):
        ml(model=Small, batch_size="auto:36", **RUN)
    with pytest.raises(ConfigError, match="expected int >= 1, or auto"):
        ml(model=Small, batch_size="automatic", **RUN)


@pytest.mark.row(36)
@pytest.mark.skipif(sys.platform != "linux", reason="the limit of a process's memory")
def test_under_a_limit_of_the_system() -> None:
    command = [sys.executable, "-W", "ignore", "-c", HUNGRY]
    fails = subprocess.run([*command, "128"], capture_output=True, text=True, timeout=100)
    assert fails.returncode == 1
    assert "with batch_size=128. Try batch_size=64 accumulate=2" in fails.stderr
    fits = subprocess.run([*command, "auto:128"], capture_output=True, text=True, timeout=100)
    assert fits.returncode == 0, fits.stderr
    config = yaml.safe_load(Path("run/config.yaml").read_text())
    assert config["batch_size"] * config["accumulate"] == 128
    assert config["batch_size"] <= 64


@pytest.mark.row(22)
@pytest.mark.parametrize("label", [10**9, 2**40])
def test_a_label_of_a_billion_allocates_nothing(label: int) -> None:
    labels = torch.arange(128) % 2
    labels[5] = label
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    run = ml(model=nn.Linear, **RUN | {"dataset": (ROWS[0], labels)})
    assert run.spec.action.names == ("0", "1", str(label))  # Numbered from 0, as its gaps are.
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500_000  # In kB.
