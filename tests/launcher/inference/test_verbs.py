"""ml eval, ml predict and ml resume, in a console."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torch import nn

import antelope
from antelope.launcher.ml import main

MODEL = """
from torch import nn


class Model(nn.Module):
    def __init__(self, in_features, out_features):
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(in_features, out_features))

    def forward(self, obs):
        return self.layers(obs)
"""


def ml(*words: str) -> int:
    """The exit code of `ml WORDS`."""
    with pytest.raises(SystemExit) as ended:
        main(list(words))
    return int(ended.value.code or 0)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with a model and its finished run on Digits."""
    monkeypatch.chdir(tmp_path)
    Path("model.py").write_text(MODEL)
    words = ("model=model.py:Model", "dataset=Digits", "epochs=1", "path=run", "plot=false")
    assert ml(*words, "progress=false") == 0
    return tmp_path


def test_eval_prints_the_metrics_and_names_what_must_be_named(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert ml("eval", "run") == 2
    assert "model=model.py:Model in a console" in capsys.readouterr().err
    assert ml("eval", "run", "model=Model") == 0
    metrics = json.loads(Path("run/status.json").read_text())["metrics"]
    printed = dict(line.split() for line in capsys.readouterr().out.splitlines())
    assert printed == {name: f"{value:.6g}" for name, value in metrics.items()}
    assert ml("eval", "run", "model=Model", "metrix=[f1]") == 2
    assert ml("eval") == 2


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_predict_leaves_nothing_behind_when_it_is_stopped(
    signum: int,
    code: int,
    here: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def stopped(*_: object, **__: object) -> Iterator[dict[str, np.ndarray]]:
        yield {"prediction": np.zeros(3)}
        os.kill(os.getpid(), signum)

    monkeypatch.setattr("antelope.launcher.inference.prediction_files._parts", stopped)
    np.save("inputs.npy", np.zeros((3, 8, 8), np.uint8))
    capsys.readouterr()
    before = signal.getsignal(signal.SIGTERM)
    # A shell's background jobs ignore SIGINT, and so would this process.
    interrupt = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        assert ml("predict", "run", "inputs.npy", "model=Model") == code
    finally:
        signal.signal(signal.SIGINT, interrupt)
    assert sorted(here.glob("*.partial")) == sorted(here.glob(".*partial")) == []
    assert "Resume with" not in capsys.readouterr().err
    assert signal.getsignal(signal.SIGTERM) is before


def test_predict_writes_whole_files_a_part_at_a_time(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("antelope.launcher.inference.predicting.rows_at_once", lambda *_: 7)
    images = np.random.default_rng(0).integers(0, 17, (40, 8, 8), dtype=np.uint8)
    np.save("images.npy", images)
    run = antelope.load("run", trust=True)
    Path("found.csv").write_text("of another run")
    for ending in ("csv", "parquet", "npy"):
        assert ml("predict", "run", "images.npy", "model=Model", f"out=found.{ending}") == 0
    assert np.array_equal(np.load("found.npy"), run.predict(images))
    with open("found.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["index"]) for row in rows] == list(range(40))
    assert [int(row["prediction"]) for row in rows] == run.predict(images).tolist()
    written = [[float(row[f"probability_{i}"]) for i in range(10)] for row in rows]
    assert np.array_equal(np.array(written, np.float32), run.predict_proba(images))
    texts = [row["probability_0"] for row in rows]
    assert texts == [str(np.float32(text)) for text in texts]  # No more digits than they have.
    Path("folder.csv").mkdir()
    before = sorted(os.listdir())
    np.save("wrong.npy", np.concatenate([images, images]).astype(np.float64))
    assert ml("predict", "run", "wrong.npy", "model=Model", "out=found.csv") == 2
    assert ml("predict", "run", "images.npy", "model=Model", "out=found.txt") == 2
    assert ml("predict", "run", "images.npy", "model=Model", "out=no/found.csv") == 2
    assert ml("predict", "run", "images.npy", "model=Model", "out=./images.npy") == 2
    capsys.readouterr()
    assert ml("predict", "run", "images.npy", "model=Model", "out=folder.csv") == 2
    assert "out=folder.csv is a folder" in capsys.readouterr().err
    assert np.array_equal(np.load("images.npy"), images)
    assert sorted(os.listdir()) == sorted([*before, "wrong.npy"])
    with open("found.csv", newline="") as file:  # The earlier one is untouched.
        assert list(csv.DictReader(file)) == rows


def test_predictions_of_files_stand_beside_their_paths(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("antelope.launcher.inference.predicting.rows_at_once", lambda *_: 3)
    Path("photos").mkdir()
    files = [f"photos/{number}.png" for number in range(8)]
    for number, path in enumerate(files):
        Image.fromarray(np.full((8, 8), 30 * number, np.uint8)).save(path)
    assert ml("predict", "run", "photos", "model=Model") == 0
    with open("predictions.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["file"] for row in rows] == files
    predicted = antelope.load("run", trust=True).predict(files)
    assert [int(row["prediction"]) for row in rows] == predicted.tolist()


def test_resume_continues_from_the_runs_own_settings(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ml("resume", "run", "model=model.py:Model") == 2
    assert "ml resume run model=model.py:Model epochs=2 (it had 1)" in capsys.readouterr().err
    assert ml("resume", "run", "epochs=2") == 2
    assert "ml resume run epochs=2 model=model.py:Model" in capsys.readouterr().err
    assert ml("resume", "run", "epochs=2", "model=model.py:Model") == 0
    again = ("model=model.py:Model", "dataset=Digits", "epochs=2", "path=once", "plot=false")
    assert ml(*again, "progress=false") == 0
    one, other = (antelope.load(path, trust=True) for path in ("run", "once"))
    for name, weight in one.agent.state_dict().items():
        assert weight.equal(other.agent.state_dict()[name])


def test_an_interrupted_run_is_resumed_to_the_bit(here: Path) -> None:
    words = ["model=model.py:Model", "epochs=3", "plot=false", "progress=false", "optim.lr=1e-2"]
    start = "import sys; from antelope.launcher.ml import main; main(sys.argv[1:])"
    stopping = MODEL.replace(
        "        return self.layers(obs)",
        "        import os, signal\n"
        "        self.calls = getattr(self, 'calls', 0) + 1\n"
        "        if self.calls == 60 and os.environ.get('STOP'):\n"
        "            os.kill(os.getpid(), signal.SIGINT)\n"
        "        return self.layers(obs)",
    )
    Path("model.py").write_text(stopping)
    for path, stop in (("whole", ""), ("stopped", "yes")):
        command = [sys.executable, "-W", "ignore", "-c", start, *words, f"path={path}"]
        ended = subprocess.run(command, env={**os.environ, "STOP": stop}, capture_output=True)
        assert ended.returncode == (128 + signal.SIGINT if stop else 0), ended.stderr
    assert ml("resume", "stopped", "model=model.py:Model") == 0
    one, other = (antelope.load(path, trust=True) for path in ("whole", "stopped"))
    assert one.metrics == other.metrics


@pytest.mark.parametrize("words", [["model=Model"], ["trust=true"]])
def test_a_model_that_is_named_again_keeps_the_arguments_of_its_run(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    Path("named_again.py").write_text(
        MODEL.replace("out_features):", "out_features, act=nn.ReLU, width=1):").replace(
            "nn.Flatten(), ", "nn.Flatten(), act(), nn.Dropout(width / 10), "
        )
    )
    words = [word.replace("=Model", "=named_again.py:Model") for word in words]
    model = "named_again.py:Model"
    plain = ("epochs=1", "plot=false", "progress=false")
    assert ml(f"model={model}", "model.width=3", "path=run", *plain) == 0
    assert ml("resume", "run", "epochs=2", *words) == 0
    found = antelope.load("run", trust=True).agent.layers
    assert found[2].p == 0.3
    sys.modules.pop("named_again", None)
    import named_again

    given = {"_target_": named_again.Model, "act": nn.Tanh}
    antelope.ml(*plain, model=given, path="object")
    assert ml("resume", "object", "epochs=2", *words) == 0
    assert isinstance(antelope.load("object", trust=True).agent.layers[1], nn.Tanh)
