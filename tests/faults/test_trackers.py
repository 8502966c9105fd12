"""Row 39: a tracker that raises, hangs, or is not installed changes nothing but what it has received."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from antelope import ml
from antelope.launcher.record import trackers

from .console import MAIN, ROOT, finished

SHORT: dict[str, Any] = {"train_steps": 60, "log_every": 5, "plot": False, "path": "run"}
STEPS = [*range(5, 60, 5), 60, 60]  # Twelve rows of train.csv, one of eval.csv.


class Net(nn.Module):
    def __init__(self, in_features: int, out_features: int):
        super().__init__()
        self.layer = nn.Linear(in_features, out_features)

    def forward(self, obs: Tensor) -> Tensor:
        return self.layer(obs.flatten(1))


class WandB:
    """Weights & Biases as far as a run calls it.

    Args:
        fault: Where it fails: "init", "log" or "finish"; "log 3 6": from its third call to its sixth; "row":
            always, but only at the row of step 20.
        hangs: Whether it does not answer, instead of raising.
    """

    def __init__(self, fault: str, *, hangs: bool = False):
        self.fault, *self.calls = fault.split()
        self.hangs, self.tries = hangs, 0
        self.received: list[int] = []

    def init(self, **settings: Any) -> WandB:
        self.tries += 1
        if self.fault == "init":
            self.fail()
        return self

    def log(self, row: dict[str, Any]) -> None:
        self.tries += 1
        first, last = self.calls or (0, 1000)
        if self.fault == "log" and int(first) < self.tries <= int(last):
            self.fail()
        if self.fault == "row" and row["step"] == 20:
            raise ValueError("not this row")
        self.received.append(row["step"])

    def finish(self) -> None:
        if self.fault == "finish":
            self.fail()

    def fail(self) -> None:
        while self.hangs:
            try:
                time.sleep(600)
            except Exception:  # As libraries do that try again.
                continue
        raise ConnectionError("the tracker is down")


@pytest.fixture(autouse=True)
def _short_patience(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("_OPEN_SECONDS", "_WRITE_SECONDS", "_CLOSE_SECONDS"):
        monkeypatch.setattr(trackers, name, 0.05)


def said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], wandb: WandB | None
) -> str:
    """What a run with this tracker says; it must end as it does without."""
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    run = ml(model=Net, loggers=["csv", "wandb"], **SHORT)
    assert json.loads(Path("run/status.json").read_text())["status"] == "finished"
    assert len(Path("run/train.csv").read_text().splitlines()) == 13
    text = "".join(capsys.readouterr())
    alone = ml(model=Net, **SHORT | {"path": "alone"})
    pairs = zip(run.agent.parameters(), alone.agent.parameters(), strict=True)
    assert all(torch.equal(one, other) for one, other in pairs)
    return text


@pytest.mark.row(39)
@pytest.mark.parametrize("hangs", [False, True])
@pytest.mark.parametrize("fault", ["init", "log", "finish"])
def test_a_tracker_that_fails_is_named_once_and_the_run_finishes(
    fault: str, hangs: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    wandb = WandB(fault, hangs=hangs)
    text = said(monkeypatch, capsys, wandb)
    reason = "TimeoutError: no answer for 0 s" if hangs else "ConnectionError: the tracker is down"
    assert text.count(reason) == 1
    if fault == "finish":
        assert wandb.received == STEPS
        assert text.count("wandb: ") == 1
    else:
        assert text.count("wandb: ") == 2
        assert "wandb: RuntimeError: 13 rows were not logged" in text


@pytest.mark.row(39)
def test_a_tracker_that_does_not_answer_is_not_waited_for_at_every_row(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(trackers, "_SHARE", 1e-6)
    wandb = WandB("log", hangs=True)
    said(monkeypatch, capsys, wandb)
    assert wandb.tries == 3  # Its opening, the first row, and once more at the end.


@pytest.mark.row(39)
def test_the_error_of_a_tracker_that_is_left_alone_does_not_grow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its traceback holds the frame, and so the row, of each of its raises."""
    monkeypatch.setitem(sys.modules, "wandb", WandB("log"))
    monkeypatch.setattr(trackers, "_SHARE", 1e-6)
    tracker = trackers.Tracker("wandb", tmp_path, {"experiment": "default"})
    lengths = []
    for step in range(5):
        with pytest.raises(ConnectionError) as raised:
            tracker.write({"mode": "train", "step": step})
        lengths.append(len(raised.traceback))
    assert lengths[1:] == lengths[1:2] * 4


@pytest.mark.row(39)
def test_rows_that_a_tracker_refused_for_a_while_are_logged_later(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    wandb = WandB("log 3 6")
    text = said(monkeypatch, capsys, wandb)
    assert wandb.received == STEPS
    assert text.count("the tracker is down") == 1
    assert text.count("wandb: a row could not be written: solved after ") == 1


@pytest.mark.row(39)
def test_a_row_that_a_tracker_always_refuses_does_not_hold_up_the_others(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    wandb = WandB("row")
    text = said(monkeypatch, capsys, wandb)
    assert sorted(wandb.received) == [step for step in STEPS if step != 20]
    assert "wandb: RuntimeError: 1 row was not logged" in text


@pytest.mark.row(39)
def test_a_tracker_that_is_not_installed_is_done_without(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.warns(
        UserWarning, match=r"wandb\] needs a package that is not installed"
    ) as warned:
        said(monkeypatch, capsys, None)
    (only,) = [str(w.message) for w in warned if "loggers=" in str(w.message)]
    assert "pip install 'antelope-ml[wandb]'" in only


@pytest.mark.row(39)
def test_a_hanging_tracker_does_not_keep_a_process_alive(tmp_path: Path) -> None:
    (tmp_path / "wandb.py").write_text(
        "import time\n\nclass Run:\n    def log(self, row):\n        pass\n\n"
        "    def finish(self):\n        time.sleep(600)\n\n\ndef init(**settings):\n    return Run()\n"
    )
    code = f"from antelope.launcher.record import trackers; trackers._CLOSE_SECONDS = 0.1; {MAIN}"
    words = ["loggers=[csv,wandb]", "train_steps=6", "plot=false", "path=run"]
    path = os.pathsep.join((str(ROOT), str(tmp_path)))
    ended = finished(*words, code=code, PYTHONPATH=path)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert "wandb: TimeoutError: no answer for " in ended.stdout
    assert json.loads(Path("run/status.json").read_text())["status"] == "finished"
