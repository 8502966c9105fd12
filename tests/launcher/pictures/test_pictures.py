"""No picture, and no metric that is not a number, spoils a finished run."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from antelope import ConfigError, ml
from antelope.agents.traits import Traits
from antelope.launcher import report
from antelope.launcher.pictures.compare import plot_runs

pytestmark = pytest.mark.usefixtures("workdir")

ROOT = Path(__file__).resolve().parents[3]
SHORT: dict[str, Any] = {"epochs": 1, "batch_size": 512, "progress": False}


def status(run: Any) -> dict[str, Any]:
    """What `status.json` says, by a reader that takes JSON alone (RFC 8259)."""
    text = (run.path / "status.json").read_text()
    found: dict[str, Any] = json.loads(text, parse_constant=pytest.fail)
    return found


def test_a_metric_that_is_not_a_number_is_null_in_json() -> None:
    inputs = torch.randn(100, 3, generator=torch.Generator().manual_seed(0))
    run = ml(dataset=(inputs, torch.full((100,), 3.0)), **SHORT)
    assert math.isnan(run.metrics["r2"])
    assert status(run)["metrics"]["r2"] is None
    assert status(run)["metrics"]["mse"] == run.metrics["mse"]
    assert "nan" in (run.path / "eval.csv").read_text()
    for state in run.path.glob("checkpoints/*/state.json"):
        json.loads(state.read_text(), parse_constant=pytest.fail)
    again = ml(dataset=(inputs, torch.full((100,), 3.0)), resume=True, **SHORT)
    assert math.isnan(again.metrics["r2"])


def test_a_backend_that_does_not_exist() -> None:
    words = ["epochs=1", "batch_size=512", "path=here"]
    done = subprocess.run(
        [sys.executable, "-B", str(ROOT / "run.py"), *words],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), "MPLBACKEND": "nonsense"},
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("No pictures of the run: ") == 1
    assert json.loads(Path("here/status.json").read_text())["status"] == "finished"


def test_curves_that_cannot_be_written(capsys: pytest.CaptureFixture[str]) -> None:
    Path("here/plots").parent.mkdir()
    Path("here/plots").write_text("A file.")
    run = ml(path="here", **SHORT)
    assert "No pictures of the run: " in capsys.readouterr().err
    assert status(run)["status"] == "finished"
    assert run.metrics["accuracy"] > 0.1


def test_what_fails_at_every_evaluation_is_said_once(
    capsys: pytest.CaptureFixture[str],
) -> None:
    class Generator(nn.Module):
        antelope_traits = Traits(generates=True)

        def __init__(self, in_features: int):
            super().__init__()
            self.mean = nn.Parameter(torch.zeros(in_features))

        def learn(self, replay: Any) -> Tensor:
            return (next(replay).obs.flatten(1) - self.mean).square().mean()

        def sample(self, n: int) -> Tensor:
            raise RuntimeError("no samples today")

    run = ml(model=Generator, **{**SHORT, "epochs": 3})
    said = capsys.readouterr().err
    assert said.count("No pictures of samples: RuntimeError: no samples today") == 1
    assert status(run)["status"] == "finished"


def test_a_picture_of_the_model_that_fails(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: Any) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(report, "draw_model", fails)
    run = ml(render_model=True, plot=False, **SHORT)
    assert "No picture of the model: OSError: disk full" in capsys.readouterr().err
    assert status(run)["status"] == "finished"


class Dark(gymnasium.Env[Any, Any]):
    """Its screen goes dark after the first frames."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}  # noqa: RUF012
    observation_space = gymnasium.spaces.Box(-1, 1, (2,))
    action_space = gymnasium.spaces.Discrete(2)

    def __init__(self, render_mode: str | None = None):
        self.render_mode, self.count = render_mode, 0

    def reset(self, *, seed: Any = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.count = 0
        return np.zeros(2, np.float32), {}

    def step(self, action: Any) -> Any:
        self.count += 1
        return np.zeros(2, np.float32), 1.0, self.count == 6, False, {}

    def render(self) -> Any:
        if self.count > 2:
            raise OSError("no screen")
        return np.zeros((32, 48, 3), np.uint8)


def test_a_film_that_breaks_off() -> None:
    pytest.importorskip("moviepy")
    settings: dict[str, Any] = {"train_steps": 10, "seed_steps": 5, "eval_episodes": 2}
    with pytest.warns(UserWarning, match="could not be recorded .OSError: no screen"):
        run = ml(agent="Random", env=Dark, video=True, progress=False, plot=False, **settings)
    assert run.metrics["return"] == 6
    assert status(run)["status"] == "finished"


def test_every_picture_says_of_which_run_it_is() -> None:
    run = ml(tasks=2, strategy="packnet", seed=3, **SHORT)
    for svg in sorted((run.path / "plots").glob("*.svg")):
        text = " ".join(svg.read_text().split())
        assert "AC2Agent" in text, svg.name
        assert "seed 3" in text.replace("</text> ", ""), svg.name


def test_ml_plot_says_why_it_cannot_draw(monkeypatch: pytest.MonkeyPatch) -> None:
    ml(plot=False, **SHORT)
    for name in [name for name in sys.modules if name.split(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setenv("MPLBACKEND", "nonsense")
    with pytest.raises(ConfigError, match=r"Cannot draw: importing matplotlib failed: .*nonsense"):
        plot_runs([])
