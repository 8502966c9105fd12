"""`run.learn_task(data, name)`: data that comes after a run has ended is one more task of it."""

from __future__ import annotations

import copy
import json
import os
import signal
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from antelope import ConfigError, DataError, Run, ml

pytestmark = pytest.mark.usefixtures("workdir")

GENERATOR = torch.Generator().manual_seed(0)
LABELS = torch.arange(600) % 6
INPUTS = torch.randn(600, 8, generator=GENERATOR) + 2 * torch.eye(6, 8)[LABELS]


class Net(nn.Module):
    steps, stop = 0, -1

    def __init__(self, in_features: int, out_features: int):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(in_features, 16), nn.ReLU(), nn.Dropout(0.1))
        self.head = nn.Linear(16, out_features)

    def forward(self, obs: torch.Tensor) -> torch.Tensor:
        return self.head(self.body(obs))

    def learn(self, replay: Any) -> torch.Tensor:
        batch = next(replay)
        Net.steps += 1
        if Net.steps == Net.stop:
            os.kill(os.getpid(), signal.SIGINT)
        return nn.functional.cross_entropy(self(batch.obs), batch.label)


def part(*classes: int) -> TensorDataset:
    rows = torch.isin(LABELS, torch.tensor(classes))
    return TensorDataset(INPUTS[rows], LABELS[rows])


def words(*classes: int) -> tuple[Any, list[str]]:
    rows = torch.isin(LABELS, torch.tensor(classes))
    return INPUTS[rows].numpy(), [["ant", "bee", "cat", "dog"][i] for i in LABELS[rows].tolist()]


def run(data: Any = None, **settings: Any) -> Run:
    data = part(0, 1) if data is None else data
    quiet = {"epochs": 2, "plot": False, "progress": False, "path": "run"}
    return ml(**{"model": Net, "dataset": data, **quiet, **settings})


def weights(run: Run) -> list[torch.Tensor]:
    return list(run.agent.state_dict().values())


def status() -> str:
    return json.loads(Path("run/status.json").read_text())["status"]


@pytest.mark.parametrize(
    "settings",
    [
        {"strategy": "er", "ema": 0.9},
        {"strategy": ["ewc"], "scheduler": "OneCycleLR", "scheduler.max_lr": 0.1},
        {"strategy": "cumulative", "validation": 0.2, "eval_every": 3},
        {"accumulate": 2, "optim": "SGD", "lr": 0.1, "lr_decay_epochs": 2},
    ],
    ids=["er", "ewc", "cumulative", "none"],
)
def test_tasks_that_come_one_by_one_are_learnt_as_a_list_of_them(settings: dict[str, Any]) -> None:
    # With outputs of their own accord, and inputs that no statistics of other tasks have touched.
    settings |= {"scenario": "domain", "standardize": False}
    parts = [part(0, 1), part(2, 3, 4), part(5)]
    known = run(parts, path="known", **settings)
    found = run(parts[0], num_classes=6, **settings)
    for number, data in enumerate(parts[1:], 1):
        torch.rand(3)  # Whatever the caller does in between.
        row = found.learn_task(data, f"part {number}")
        assert row.items() >= found.metrics.items()
    assert all(map(torch.equal, weights(known), weights(found)))
    lower = [np.nan_to_num(r.accuracy_matrix)[np.tril_indices(3)] for r in (known, found)]
    assert np.array_equal(*lower)
    assert found.metrics["forgetting"] == known.metrics["forgetting"]
    assert len(found.tasks) == 3
    assert (found.path / "eval.csv").read_text().count("\n") == len(
        [row for row in found.history if row["mode"] == "eval"]
    ) + 1
    assert status() == "finished"


def test_the_matrices_grow_by_a_row_and_a_column() -> None:
    found = run(num_classes=6, strategy="er")
    assert found.accuracy_matrix.shape == (1, 1)
    assert found.spec.action.n == 6
    assert not len(found.task_il_matrix)
    row = found.learn_task(DataLoader(part(3), shuffle=True, batch_size=32), "three")
    assert found.accuracy_matrix.shape == found.task_il_matrix.shape == (2, 2)
    assert np.isnan(found.accuracy_matrix[0, 1])
    # With one class in the task, to tell the task is to tell the class.
    assert found.task_il_matrix[1, 1] == 1
    assert row["task_il_accuracy/task_1"] == 1
    assert row["accuracy/task_0"] == found.accuracy_matrix[1, 0]


def test_later_data_is_standardised_as_the_first_was() -> None:
    found = run(num_classes=6)
    mean = found.spec.obs.mean
    found.learn_task(TensorDataset(INPUTS + 100, LABELS), "far")
    assert torch.equal(found.spec.obs.mean, mean)
    assert next(found.replay).obs.mean() > 50


def test_names_keep_their_numbers_and_new_ones_follow() -> None:
    found = run(words(1, 3), num_classes=4)
    assert found.spec.action.names == ("bee", "dog", "output 2", "output 3")
    found.learn_task(words(0, 1), "more")
    assert found.spec.action.names == ("bee", "dog", "ant", "output 3")
    assert set(found.replay.storage.columns["label"].tolist()) == {0, 1, 2}  # type: ignore[union-attr]
    with pytest.raises(DataError, match=r"numbers as labels.*started with strings"):
        found.learn_task(part(2))


@pytest.mark.parametrize("first", [4, 13])
def test_a_run_killed_in_a_later_task_goes_on_with_the_same_calls(first: int) -> None:
    def script(**settings: Any) -> Run:
        found = run(num_classes=6, strategy=["er", "ewc"], save_every=3, **settings)
        found.learn_task(part(2, 3), "two")
        found.learn_task(part(4, 5), "three")
        return found

    Net.steps, Net.stop = 0, -1
    whole = script(path="whole")
    steps = Net.steps // 3
    Net.steps, Net.stop = 0, steps + first
    with pytest.raises(KeyboardInterrupt):
        script()
    assert status() == "interrupted"
    Net.stop = -1
    waiting = run(num_classes=6, strategy=["er", "ewc"], save_every=3, resume=True)
    assert status() == "interrupted"
    with pytest.raises(DataError, match="not the data that this run learnt next: two"):
        waiting.learn_task(part(4, 5), "two")
    Net.steps = 0
    resumed = script(resume=True)
    assert Net.steps == 3 * steps - (steps + first)
    assert all(map(torch.equal, weights(whole), weights(resumed)))
    for mode in ("train", "eval"):
        texts = [(r.path / f"{mode}.csv").read_text() for r in (whole, resumed)]
        assert texts[0] == texts[1]
    assert np.array_equal(whole.task_il_matrix, resumed.task_il_matrix, equal_nan=True)
    again = script(resume=True)  # Nothing is left to learn.
    assert again.metrics == whole.metrics
    assert Net.steps == 3 * steps - (steps + first)
    assert status() == "finished"


@pytest.mark.parametrize(
    ("settings", "data", "said"),
    [
        ({}, part(2), r"label 2, but this run's model has 2 outputs.*num_classes=3 or more"),
        ({"num_classes": 4}, part(5), "num_classes=6 or more"),
        ({"num_classes": 6}, (torch.zeros(20, 3), torch.arange(20) % 2), r"\[8\], arrays of \[3\]"),
        ({"num_classes": 6}, (INPUTS, INPUTS[:, 0]), "has classes as targets, arrays has values"),
        ({"num_classes": 6}, (INPUTS > 0, LABELS), "no one standardisation fits both"),
        ({"num_classes": 6}, words(2), "string labels"),
        ({"num_classes": 6}, [part(2), part(3)], "one data set at a time, and received 2"),
        (
            {"num_classes": 6, "strategy": "gem"},
            part(2),
            "strategy=gem must know the number of tasks",
        ),
        ({"num_classes": 6, "strategy": "lwf"}, part(1, 2), "has class 1 again"),
        ({"num_classes": 6, "online": True, "epochs": 1}, part(2), "online=true"),
    ],
)
def test_data_that_cannot_be_learnt_leaves_the_run_as_it_was(
    settings: dict[str, Any], data: Any, said: str
) -> None:
    found = run(**settings)
    before = copy.deepcopy(weights(found)), found.metrics
    with pytest.raises((ConfigError, DataError), match=said):
        found.learn_task(data)
    assert all(map(torch.equal, before[0], weights(found)))
    assert (found.metrics, status()) == (before[1], "finished")
    assert not Path("run/.lock").exists()
    if "strategy" not in settings and "online" not in settings:
        found.learn_task(part(0, 1), "fits")


def test_classes_that_subset_chose_are_known_by_their_numbers() -> None:
    def digits(*classes: int) -> dict[str, Any]:
        return {"_target_": "Digits", "subset": list(classes)}

    plain = run(digits(0, 1), model=None, epochs=1, num_classes=10)
    plain.learn_task(digits(7, 8), "later")
    assert set(plain.replay.storage.columns["label"].tolist()) == {0, 1, 7, 8}  # type: ignore[union-attr]
    assert plain.spec.action.names is None
    chosen = run(digits(3, 4), model=None, epochs=1, num_classes=10)
    chosen.learn_task(digits(7, 4), "later")
    assert chosen.spec.action.names[:3] == ("3", "4", "7")
    other = run(part(0, 1), num_classes=6)
    with pytest.raises(DataError, match="renumbered from 0 by subset="):
        other.learn_task({"_target_": Named, "subset": [1]})


class Named(TensorDataset):
    classes = ("ant", "bee", "cat")

    def __init__(self) -> None:
        super().__init__(INPUTS[:90], torch.arange(90) % 3)


def test_labels_are_the_numbers_of_outputs_where_there_are_more_to_come() -> None:
    found = run(part(1, 4), num_classes=6)
    assert set(found.replay.storage.columns["label"].tolist()) == {1, 4}  # type: ignore[union-attr]
    with pytest.raises(ConfigError, match=r"labels 1 to 4, but num_classes=3"):
        run(part(1, 4), num_classes=3)
    with pytest.raises(ConfigError, match="targets of arrays are values"):
        run((INPUTS, INPUTS[:, :1]), num_classes=3)
    split = run(part(0, 1, 2, 3), tasks=2, num_classes=6)
    assert split.accuracy_matrix.shape == (2, 2)
    assert split.spec.action.n == 6


def test_a_run_that_is_no_longer_in_its_directory_is_not_gone_on_with() -> None:
    found = run(num_classes=6)
    run(num_classes=6)
    with pytest.raises(ConfigError, match="no longer holds this run"):
        found.learn_task(part(2))
    with pytest.raises(ConfigError, match="a copy and holds only results"):
        copy.deepcopy(found).learn_task(part(2))


def test_values_and_loops_go_on_too() -> None:
    values = run((INPUTS, INPUTS[:, :1] * 2), model=None)
    assert values.learn_task((INPUTS + 1, INPUTS[:, 1:2]), "other")["r2/task_1"] < 1
    tasks = ml.tasks(
        model=Net, dataset=part(0, 1), num_classes=6, path="loop", plot=False, progress=False
    )
    for task in tasks:
        assert task.classes == [0, 1]
        task.learn()
    tasks.run.learn_task(part(2), "two")
    assert len(tasks) == 1
    assert tasks.run.accuracy_matrix.shape == (2, 2)


def test_environments_learn_no_data() -> None:
    settings = {"env": "CartPole-v1", "train_steps": 20, "seed_steps": 10, "eval_episodes": 1}
    with pytest.raises(ConfigError, match="learns from an environment"):
        ml(path="run", plot=False, progress=False, **settings).learn_task(part(2))


def test_a_loader_of_other_batches_is_said() -> None:
    found = run(num_classes=6)
    with pytest.warns(UserWarning, match="batch_size=8; this run uses batch_size=32"):
        found.learn_task(DataLoader(part(2), batch_size=8, shuffle=True))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found.learn_task(DataLoader(part(3), batch_size=32, shuffle=True))
