"""Sweeps from a console and from Python: what runs, what is skipped, and what is said at the end."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import antelope
from antelope import ConfigError, SweepFailed
from antelope.launcher.ml import _main
from antelope.launcher.record.directory import _locked
from antelope.launcher.sweep.checks import check_trials
from antelope.launcher.sweep.keywords import combined, product
from antelope.launcher.sweep.trial import Trial, run_trial

QUIET = ("train_steps=4", "plot=false", "progress=false")
KEYWORDS: dict[str, Any] = {"train_steps": 4, "plot": False, "progress": False}


class Small(nn.Module):
    def __init__(self, in_features: int, out_features: int, width: int = 8):
        super().__init__()
        if width == 13:
            raise ValueError("no thirteen")
        self.body = nn.Sequential(
            nn.Flatten(), nn.Linear(in_features, width), nn.Linear(width, out_features)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.body(x)


class Other(Small):
    pass


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def status(path: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((Path("runs/default") / path / "status.json").read_text())
    return found


def record() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(Path("runs/default/sweep.json").read_text())
    return found


def test_a_run_of_a_sweep_is_that_of_its_own_words() -> None:
    assert _main(["-m", "seed=0,1", "lr=1e-3,1e-2", *QUIET]) == 0
    assert _main(["seed=1", "lr=1e-2", "path=alone", *QUIET]) == 0
    for name in ("train.csv", "eval.csv"):
        swept = Path("runs/default/lr=0.01/AC2Agent/Digits/1", name)
        assert swept.read_bytes() == Path("alone", name).read_bytes()
    runs = record()["runs"]
    assert [run["swept"] for run in runs] == [
        {"seed": seed, "lr": lr} for seed in "01" for lr in ("0.001", "0.01")
    ]
    assert {run["status"] for run in runs} == {"finished"}


def test_only_what_is_not_finished_runs_again(capsys: pytest.CaptureFixture[str]) -> None:
    loud = ["seed=0,1", "train_steps=4", "plot=false"]
    assert _main(["-m", *loud]) == 0
    before = status("AC2Agent/Digits/1")
    again = [sys.executable, "-c", "import sys; from antelope.launcher.ml import _main\n"
             "assert _main(sys.argv[1:]) == 0 and 'torch' not in sys.modules"]  # fmt: skip
    subprocess.run([*again, "-m", *loud, "resume=true"], check=True)
    assert status("AC2Agent/Digits/1") == before
    capsys.readouterr()
    assert _main(["-m", "seed=0,1,2", *loud[1:], "resume=true"]) == 0
    said = capsys.readouterr().out
    assert said.startswith("3 runs, 2 finished earlier.")
    assert status("AC2Agent/Digits/2")["status"] == "finished"


def test_what_a_callback_has_stopped_continues() -> None:
    Path("stop.py").write_text(
        "class Stop:\n    def on_step(self, run):\n        return 'stop' if run.step == 2 else None\n"
    )
    words = ["-m", "seed=0,1", "callbacks=[stop.py:Stop]", *QUIET]
    assert _main(words) == 0
    assert [run["status"] for run in record()["runs"]] == ["stopped"] * 2
    assert _main([*words, "resume=true"]) == 0
    assert [run["status"] for run in record()["runs"]] == ["finished"] * 2


def test_other_settings_are_not_taken_for_what_is_finished() -> None:
    assert _main(["-m", "seed=0,1", *QUIET]) == 0
    assert _main(["-m", "seed=0,1", "train_steps=8", *QUIET[1:], "resume=true"]) == 0
    assert status("AC2Agent/Digits/0")["step"] == 8
    assert _main(["-m", "seed=0,1", "train_steps=8", "batch_size=16", *QUIET[1:], "resume=true"])
    assert "batch_size: 32 -> 16" in record()["runs"][0]["reason"]


def test_a_sweep_that_starts_over_moves_earlier_runs_aside(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert _main(["-m", "seed=0,1", *QUIET]) == 0
    before = Path("runs/default/AC2Agent/Digits/0/eval.csv").read_bytes()
    capsys.readouterr()
    assert _main(["-m", "seed=0,1", "lr=0.5", "train_steps=4", "plot=false"]) == 0
    assert "2 earlier runs were moved aside" in capsys.readouterr().out
    assert Path("runs/default/AC2Agent/Digits/0.1/eval.csv").read_bytes() == before
    assert Path("runs/default/AC2Agent/Digits/0/eval.csv").read_bytes() != before


def test_a_run_that_goes_on_elsewhere_is_neither_started_nor_moved(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _main(["-m", "seed=0,1", *QUIET]) == 0
    run = Path("runs/default/AC2Agent/Digits/1")
    lock = _locked(run / ".lock")
    text = (run / "status.json").read_text()
    (run / "status.json").write_text(text.replace("finished", "running"))
    assert _main(["-m", "seed=0,1", *QUIET]) == 2
    assert "going on in another process" in capsys.readouterr().err
    assert not Path("runs/default/AC2Agent/Digits/0.1").exists()

    def end(_: float) -> None:
        (run / "status.json").write_text(text)
        lock.release()

    monkeypatch.setattr("antelope.launcher.sweep.driver.time.sleep", end)
    tables = (run / "eval.csv").read_bytes()
    assert _main(["-m", "seed=0,1", *QUIET, "resume=true"]) == 0
    assert [entry["status"] for entry in record()["runs"]][1] == "finished"
    assert (run / "eval.csv").read_bytes() == tables
    # That of other settings is not taken for one of this sweep.
    lock = _locked(run / ".lock")
    (run / "status.json").write_text(text.replace("finished", "running"))
    assert _main(["-m", "seed=1", "batch_size=16", *QUIET, "resume=true"])
    assert "batch_size: 32 -> 16" in record()["runs"][0]["reason"]


def test_a_run_that_fails_does_not_stop_the_others(
    capsys: pytest.CaptureFixture[str],
) -> None:
    model = "class Net(Small):\n    pass\n"
    Path("net.py").write_text(Path(__file__).read_text().split("class Other")[0] + model)
    words = ["-m", "model=net.py:Net", "model.width=3,13,4", *QUIET]
    assert _main(words) == 2
    assert capsys.readouterr().err.splitlines()[-2] == "1 of 3 runs failed:"
    bad = record()["runs"][1]
    assert (bad["status"], "no thirteen" in bad["reason"]) == ("failed", True)
    words = ["-m", "model=net.py:Net", "lr=1e30", "optim=SGD", "seed=0,1", *QUIET]
    assert _main(words) == 3
    assert {run["status"] for run in record()["runs"]} == {"diverged"}


def test_a_trial_never_raises(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def trial(**settings: object) -> Trial:
        return Trial(QUIET, tmp_path / "run", {}, tmp_path, {**settings})

    assert run_trial(trial(model="Nothing")).exit_code == 2
    outcome = run_trial(trial(model=lambda: 1 / 0))
    assert (outcome.status, outcome.exit_code) == ("failed", 2)

    class Leaves(Small):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            sys.exit(0)

    outcome = run_trial(trial(model=Leaves))
    assert (outcome.status, outcome.exit_code) == ("failed", 1)
    assert "SystemExit" in outcome.reason
    assert os.getcwd() == str(tmp_path)


class TestFromPython:
    def test_lists_of_keywords_are_the_values_of_the_runs(self) -> None:
        runs = antelope.sweep("seed=0,1", model=[Small, Other], lr=[1e-3, 1e-2], **KEYWORDS)
        assert [type(run.agent).__name__ for run in runs] == [*["Small"] * 2, *["Other"] * 2] * 2
        assert all(run.metrics["accuracy"] >= 0 for run in runs)
        assert "lr=0.001,model=Small" in str(runs[0].path)
        again = antelope.sweep(
            "seed=0,1", model=[Small, Other], lr=[1e-3, 1e-2], resume=True, **KEYWORDS
        )
        assert [run.metrics for run in again] == [run.metrics for run in runs]

    def test_each_run_has_an_instance_of_its_own(self) -> None:
        model = Small(64, 10)
        before = [p.detach().clone() for p in model.parameters()]
        first, second = antelope.sweep(model=model, seed=range(2), **KEYWORDS)
        assert all(torch.equal(p, q) for p, q in zip(model.parameters(), before, strict=True))
        alone = antelope.ml(model=Small, seed=1, path="alone", **KEYWORDS)
        assert first.agent is not second.agent
        assert alone.metrics.keys() == second.metrics.keys()

    def test_a_failed_run_is_raised_at_the_end_with_the_others(self) -> None:
        with pytest.raises(SweepFailed, match="1 of 3 runs failed") as raised:
            antelope.sweep("model.width=3,13,4", model=Small, **KEYWORDS)
        assert len(raised.value.runs) == 2

    @pytest.mark.parametrize(
        ("keywords", "count"),
        [
            ({"lr": [1e-3, 1e-2], "seed": range(3)}, 6),
            ({"strategy": [["er"], ["ewc"]], "lr": (1, 2)}, 4),
            ({"strategy": [["er", "ewc"]]}, 1),
            ({"dataset": (np.zeros((4, 2)), np.zeros(4))}, 1),
            ({"model.hidden": [[64], [64, 32]]}, 2),
            ({"lr": 1e-3, "strategy": "er"}, 1),
            ({"lr": list(np.logspace(-3, -1, 3))}, 3),
        ],
    )
    def test_which_keywords_list_values(self, keywords: dict[str, Any], count: int) -> None:
        assert len(product(keywords)) == count

    @pytest.mark.parametrize(
        ("keywords", "said"),
        [
            ({"strategy": ["er", "ewc"]}, r"strategy=\[\['er', 'ewc'\]\]"),
            ({"dataset": ["MNIST", "KMNIST"]}, r"\[\[MNIST\], ...\]"),
            ({"model.hidden": [64, 32]}, "'model.hidden=A,B'"),
            ({"lr": []}, "no values"),
            ({"lr": [1, 1]}, "1 twice"),
            ({"lr": np.logspace(-3, -1, 3)}, r"lr=list\("),
            ({"seed": range(10**9)}, "more than 100,000"),
            ({"seed": range(1000), "lr": [0.1 + n for n in range(1000)]}, "1,000,000 runs"),
            ({"num_jobs": 4}, "num_jobs"),
            ({"jobs": 0}, "at least 1"),
            ({"seed": range(2), "path": "x"}, "same directory"),
        ],
    )
    def test_what_is_unclear_is_refused(self, keywords: dict[str, Any], said: str) -> None:
        with pytest.raises(ConfigError, match=said):
            antelope.sweep(**keywords)
        assert not Path("runs").exists()

    def test_a_word_wins_over_its_keyword(self) -> None:
        found = combined(["lr=0.1"], {"lr": [1, 2], "seed": range(2)})
        assert [(c.swept, settings) for c, settings in found] == [
            ({"seed": str(n)}, {"seed": n}) for n in range(2)
        ]

    def test_an_iterator_is_refused(self) -> None:
        with pytest.raises(ConfigError, match="use up"):
            antelope.sweep(model=Small, dataset=iter([(1, 2)]), seed=range(2), **KEYWORDS)


def test_the_check_names_the_run_that_cannot_work(tmp_path: Path) -> None:
    trials = [
        Trial((f"optim={name}",), tmp_path, {"optim": name}, tmp_path) for name in ("SGD", "SDG")
    ]
    with pytest.raises(ConfigError, match=r"SDG(.|\n)*In the run optim=SDG"):
        check_trials(trials)


def test_code_that_exits_when_it_is_imported_is_no_interruption(tmp_path: Path) -> None:
    (tmp_path / "leave.py").write_text("import sys\nsys.exit(3)\n")
    with pytest.raises(ConfigError, match=r"sys\.exit"):
        check_trials([Trial(("model=leave.py:Net",), tmp_path, {}, tmp_path)])
