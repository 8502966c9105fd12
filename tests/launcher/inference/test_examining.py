"""run.evaluate and run.outputs: held-out rows, and other data with labels matched to the run's classes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.utils.data import TensorDataset

import antelope
from antelope import ConfigError, DataError, Run, ml

QUIET: dict[str, Any] = {"plot": False, "progress": False, "epochs": 1, "batch_size": 16}
RNG = np.random.default_rng(0)
X = RNG.normal(size=(60, 4)).astype(np.float32)
Y = RNG.integers(0, 3, 60) * 2  # 0, 2, 4.


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return ml(dataset=(X, Y), path=tmp_path_factory.mktemp("run") / "run", **QUIET)


def test_an_evaluation_of_held_out_rows_repeats_the_last_one_of_the_run(run: Run) -> None:
    assert run.evaluate() == run.metrics
    assert antelope.load(run.path, dataset=(X, Y)).evaluate() == run.metrics


def test_outputs_are_those_of_the_held_out_rows_in_order(run: Run) -> None:
    found = run.outputs()
    assert sorted(found) == ["index", "label", "output", "task"]
    assert found["index"].tolist() == list(range(12))
    assert not found["task"].any()
    accuracy = (found["output"].argmax(1) == found["label"]).mean()
    assert accuracy == run.metrics["accuracy"]


def test_other_data_is_measured_as_a_whole(run: Run) -> None:
    accuracy = (run.predict(X) == Y).mean()
    for labels in (Y, Y.tolist(), torch.from_numpy(Y)):
        assert run.evaluate((X, labels))["accuracy"] == pytest.approx(accuracy)
    only = Y == 4  # One class alone keeps its number.
    assert run.evaluate((X[only], Y[only]))["accuracy"] == (run.predict(X[only]) == 4).mean()


def test_metrics_of_the_users_are_added(run: Run) -> None:
    def wrong(output: torch.Tensor, label: torch.Tensor) -> float:
        return float((output.argmax(1) != label).double().mean())

    found = run.evaluate(metrics=[wrong])
    assert found["wrong"] == pytest.approx(1 - found["accuracy"])


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ((X, Y + 1), r"holds the class 1. The run was trained on 0, 2, 4"),
        ((X, Y / 3), "targets of arrays are values. The run was trained on classes"),
        ((X[:, :3], Y), r"have shape \[60, 3\]"),
        ((X > 0, Y), "are bool"),
        ((X, np.array(["a", "b"])[Y // 4]), "holds the class 'a'"),
    ],
)
def test_data_that_the_run_does_not_know_is_refused(run: Run, data: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        run.evaluate(data)


def test_a_loaded_run_asks_for_data_that_was_an_object(run: Run) -> None:
    with pytest.raises(ConfigError, match=r"which the directory does not hold. Give the data"):
        antelope.load(run.path).evaluate()
    with pytest.raises(DataError, match="labels of the training rows have changed"):
        antelope.load(run.path, dataset=(X, Y[::-1].copy())).outputs()


def test_a_loaded_run_tells_other_inputs_with_the_same_labels_and_statistics(
    tmp_path: Path,
) -> None:
    train, test = np.random.default_rng(1).integers(0, 256, (2, 60, 4), dtype=np.uint8)
    ml(dataset=(train, Y), test_dataset=(test, Y), path=tmp_path / "run", **QUIET)
    for one, other in ((train[::-1].copy(), test), (train, test[::-1].copy())):
        given: dict[str, Any] = {"dataset": (one, Y), "test_dataset": (other, Y)}
        with pytest.raises(DataError, match=r"inputs of the .* rows have changed"):
            antelope.load(tmp_path / "run", **given).evaluate()


def test_a_loaded_run_says_that_it_does_not_repeat_the_metrics_of_the_user(
    tmp_path: Path,
) -> None:
    ml(dataset=(X, Y), metrics=["f1"], path=tmp_path / "run", **QUIET)
    loaded = antelope.load(tmp_path / "run", dataset=(X, Y))
    with pytest.warns(UserWarning, match="does not repeat that: give metrics="):
        assert "f1" not in loaded.evaluate()
    assert "f1" in loaded.evaluate(metrics=["f1"])


def test_a_loaded_run_leaves_out_a_loss_that_it_cannot_compute(tmp_path: Path) -> None:
    run = ml(dataset=(X, Y), loss="CrossEntropyLoss", path=tmp_path / "run", **QUIET)
    loaded = antelope.load(run.path, dataset=(X, Y)).evaluate()
    assert loaded == {name: value for name, value in run.metrics.items() if name != "loss"}
    assert run.evaluate() == run.metrics


class Noisy(nn.Module):
    def __init__(self, in_features: int, num_classes: int):
        super().__init__()
        self.layer = nn.Linear(in_features, num_classes)

    def forward(self, obs: torch.Tensor) -> torch.Tensor:
        output: torch.Tensor = self.layer(obs)
        return output + torch.randn_like(output)


def test_a_model_that_draws_random_numbers_draws_those_of_the_last_evaluation(
    tmp_path: Path,
) -> None:
    run = ml(model=Noisy, dataset=(X, Y), path=tmp_path / "run", **QUIET)
    assert run.evaluate() == run.metrics
    assert antelope.load(run.path, model=Noisy, dataset=(X, Y)).evaluate() == run.metrics


def test_other_data_of_a_task_is_also_measured_among_the_classes_of_that_task(
    tmp_path: Path,
) -> None:
    run = ml(dataset=(X, Y), tasks=3, path=tmp_path / "run", **QUIET)
    rows = Y == 2
    assert run.evaluate((X[rows], Y[rows]), task=1)["task_il_accuracy"] == 1
    assert "task_il_accuracy" not in run.evaluate((X[rows], Y[rows]))


def test_folders_match_their_classes_by_name(tmp_path: Path) -> None:
    for name in ("cat", "dog", "eel"):
        (tmp_path / "all" / name).mkdir(parents=True)
        for i in range(4):
            picture = Image.fromarray(RNG.integers(0, 256, (8, 8, 3), dtype=np.uint8))
            picture.save(tmp_path / "all" / name / f"{i}.png")
    run = ml(dataset=str(tmp_path / "all"), path=tmp_path / "run", **QUIET)
    (tmp_path / "some").mkdir()
    for name in ("eel", "dog"):
        (tmp_path / "some" / name).symlink_to(tmp_path / "all" / name)
    predicted = run.predict(tmp_path / "some")  # dog, then eel.
    accuracy = (predicted == np.repeat(["dog", "eel"], 4)).mean()
    assert run.evaluate(tmp_path / "some")["accuracy"] == accuracy
    assert antelope.load(run.path).evaluate() == run.metrics
    (tmp_path / "all" / "cat" / "0.png").unlink()
    with pytest.raises(DataError, match="files were added, removed, renamed"):
        antelope.load(run.path).evaluate()
    (tmp_path / "some" / "yak").symlink_to(tmp_path / "all" / "cat")
    with pytest.raises(DataError, match="holds the class 'yak'"):
        run.evaluate(tmp_path / "some")


def test_a_sequence_reports_each_task_and_its_mean() -> None:
    run = ml(dataset="Digits", tasks=2, **QUIET)
    found = run.evaluate()
    assert found["accuracy"] == pytest.approx(
        (found["accuracy/task_0"] + found["accuracy/task_1"]) / 2
    )
    assert set(run.outputs()["task"].tolist()) == {0, 1}
    with pytest.raises(ConfigError, match="give dataset= too"):
        run.evaluate(task=1)


def test_values_of_other_data_are_compared_in_the_precision_of_their_source(
    tmp_path: Path,
) -> None:
    values = 1e5 + 100 * RNG.normal(size=60)  # float32 rounds these to multiples of 1/128.
    run = ml(dataset=(X, values), test_dataset=(X, values), path=tmp_path / "run", **QUIET)
    assert run.evaluate((X, values)) == run.metrics
    error = np.abs(run.predict(X).astype(np.float64) - values).mean()
    assert run.evaluate((X, values))["mae"] == pytest.approx(error, rel=1e-9)


class Signs(TensorDataset):
    """Rows as they are, then with another sign."""

    def alterations(self, tasks: int = 2, seed: int = 0) -> Any:
        return [lambda rows: rows, lambda rows: -rows][:tasks]


def test_other_data_of_a_task_that_alters_rows_is_altered(tmp_path: Path) -> None:
    rows = torch.from_numpy(X + 1)
    run = ml(dataset=Signs(rows, torch.from_numpy(Y)), path=tmp_path / "run", **QUIET)
    assert np.array_equal(run.predict_proba(rows, task=1), run.predict_proba(-rows, task=0))
    assert not np.array_equal(run.predict_proba(rows, task=1), run.predict_proba(rows, task=0))
    found = run.evaluate((rows, Y), task=1)
    turned = run.evaluate((-rows, Y), task=0)
    assert found["loss"] == pytest.approx(turned["loss"])
    assert found["loss"] != pytest.approx(run.evaluate((rows, Y), task=0)["loss"])
