"""The console: exit codes, and what a person reads when something is wrong."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from antelope.launcher.ml import main

ROOT = Path(__file__).resolve().parents[3]
QUIET = ("plot=false", "progress=false")

MODEL = """\
import torch
from torch import nn
from torch.nn import functional as F


class Model(nn.Module):
    def __init__(self, in_features, out_features, fails_at=0, nan_at=0):
        super().__init__()
        self.layer = nn.Linear(in_features, out_features)
        self.fails_at, self.nan_at = fails_at, nan_at

    def forward(self, obs):
        return self.layer(obs.flatten(1))

    def learn(self, replay):
        batch = next(replay)
        if replay.step == self.fails_at:
            self.fail(batch)
        loss = F.cross_entropy(self(batch.obs), batch.label)
        return loss * float("nan") if replay.step == self.nan_at else loss

    def fail(self, batch):
        raise IndexError("no head for this task")
"""


@pytest.fixture(autouse=True)
def _model(workdir: Path) -> None:
    (workdir / "model.py").write_text(MODEL)


def console(*words: str) -> subprocess.CompletedProcess[str]:
    """`ml WORDS` as a person runs it, in the working directory."""
    return subprocess.run(
        [sys.executable, "-B", str(ROOT / "run.py"), *words],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
    )


def code(*words: str) -> Any:
    """The exit code of `ml WORDS`, without a process of its own."""
    with pytest.raises(SystemExit) as exit:
        main(list(words))
    return exit.value.code


def test_mistakes_are_all_that_is_printed() -> None:
    done = console("lrr=1e-3", "epochs=0", "model=Model")
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.splitlines() == [
        "Unknown setting `lrr`. Did you mean `lr`? `ml --help` lists them all.",
        "epochs=0: expected int >= 1.",
    ]
    assert not Path("runs").exists()


@pytest.mark.slow
def test_error_in_learn_shows_the_person_s_own_frames() -> None:
    done = console("model=Model", "model.fails_at=3", *QUIET)
    assert done.returncode == 1
    assert done.stdout == ""
    lines = done.stderr.splitlines()
    assert [line.split(", in ")[1] for line in lines if line.startswith("  File ")] == [
        "learn",
        "fail",
    ]
    assert 'raise IndexError("no head for this task")' in done.stderr
    assert "site-packages" not in done.stderr
    assert "launcher" not in done.stderr
    assert lines[-3] == "IndexError: no head for this task"
    assert lines[-2].startswith("In Model.learn, learning step 3. Batch: obs float32 [32, 1, 8, 8]")


@pytest.mark.slow
def test_loss_that_turns_nan_exits_with_three() -> None:
    done = console("model=Model", "model.nan_at=6", "save_every=2", *QUIET)
    assert done.returncode == 3
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert "The loss became NaN at learning step 6 (lr=0.001)" in line
    assert f"The last good checkpoint is {Path.cwd()}/runs/default/Model/Digits/0/checkp" in line


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["model=Modle"], "Did you mean `Model`?"),
        (["model=Model", "dataset=Digit"], "Did you mean `Digits`"),
        (["model=Model", "model.fails=3"], "Did you mean `fails_at`?"),
        (["model=Model", "load=nowhere"], "Cannot load nowhere"),
        (["model=Model", "path=model.py"], "Set another path="),
        (["modles"], "Did you mean `models`?"),
        (["lr"], "`lr` is neither a setting (key=value) nor a command."),
        (["--hepl"], "Did you mean `--help`?"),
        (["--cfg"], "--cfg job"),
        (["--cfg", "jbo"], "--cfg job"),
        (["--cfg", "job", "lrr=1"], "Did you mean `lr`?"),
        (["models", "resnet"], "accepts no further words"),
        (["-m", "lrr=1,2"], "Did you mean `lr`?"),
        (["plot", "nowhere"], "nowhere"),
    ],
)
def test_user_s_mistake_exits_with_two_and_the_message(
    words: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    quiet = QUIET if "=" in words[0] else ()
    assert code(*words, *quiet) == 2
    out, err = capsys.readouterr()
    assert says in err
    assert "Traceback" not in err
    assert out == ""
    assert [p.name for p in Path.cwd().iterdir()] == ["model.py"]


@pytest.mark.parametrize("words", [["model=Model", "model.hiden=3"], ["lrr=1"]])
def test_debug_shows_the_whole_traceback(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert code(*words, "debug=true", *QUIET) == 2
    err = capsys.readouterr().err
    assert "Traceback (most recent call last)" in err
    assert "ConfigError" in err


def test_frames_of_a_model_in_a_file_of_any_name_are_shown(
    capsys: pytest.CaptureFixture[str],
) -> None:
    Path("model.py").rename("run.py")
    assert code("model=Model", "model.fails_at=1", *QUIET) == 1
    assert "in fail" in capsys.readouterr().err


def test_finished_run_exits_with_zero() -> None:
    assert code("model=Model", "train_steps=2", *QUIET) == 0
