"""The one list of metrics, and what reads it."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

import antelope.launcher.metrics
from antelope.envs.finals import metric as name_in_the_logs
from antelope.launcher.metrics import METRICS, better, metrics_of, score_names
from antelope.launcher.metrics.scores import (
    by_task,
    mean_over_tasks,
    objective,
    score,
    transfer,
)


def test_each_name_is_there_once_for_each_subject() -> None:
    names = [(metric.of, metric.name) for metric in METRICS]
    assert len(set(names)) == len(names)


def test_each_metric_has_a_file_with_its_function() -> None:
    folder = Path(antelope.launcher.metrics.__file__).parent
    for metric in METRICS:
        function = metric.function
        assert f"def {function.__name__}(" in (folder / f"{function.__name__}.py").read_text()


def test_what_replaces_a_score_where_the_task_is_told_goes_the_same_way() -> None:
    for metric in METRICS:
        assert not metric.told or better(metric.told) == metric.better is not None


@pytest.mark.parametrize("name", [metric.name for metric in metrics_of("episodes")])
def test_a_field_of_info_is_not_taken_for_a_metric_of_episodes(name: str) -> None:
    assert name_in_the_logs(name) == f"info/{name}"


def test_a_score_is_the_first_that_there_is() -> None:
    assert score({"loss": 1.0, "r2": 0.5, "mse": 1.0}) == 0.5
    assert score({"loss": 1.0, "accuracy": 0.25, "return": 9.0}) == 9.0
    assert math.isnan(score({"mae": 1.0}))


def test_a_model_that_is_told_the_task_is_scored_with_the_task_known() -> None:
    metrics = {"loss": 1.0, "accuracy": 0.25, "task_il_accuracy": 0.75}
    assert score(metrics, told=True) == 0.75
    assert score(metrics) == 0.25
    assert score({"accuracy": 0.25}, told=True) == 0.25


def test_a_sweep_looks_at_the_score_but_at_the_loss_of_values() -> None:
    assert objective({"accuracy": 0.25, "loss": 1.0}) == 0.25
    assert objective({"mse": 4.0, "mae": 2.0, "r2": 0.5, "loss": 4.0}) == 4.0
    assert objective({"mae": 2.0}) is None


def test_early_stopping_looks_at_the_loss_first() -> None:
    assert score_names(loss_first=True)[0] == "loss"
    assert score_names(told=True, loss_first=True)[:3] == [
        "task_il_loss",
        "task_il_accuracy",
        "loss",
    ]


def test_tasks_have_columns_of_their_own_for_some_metrics() -> None:
    assert by_task([{"accuracy": 0.5, "mae": 1.0}, {"task_il_accuracy": 0.75}]) == {
        "accuracy/task_0": 0.5,
        "task_il_accuracy/task_1": 0.75,
    }


def test_a_mean_is_of_what_all_tasks_have() -> None:
    assert mean_over_tasks([{"loss": 1.0, "r2": 0.0}, {"loss": 3.0}]) == {"loss": 2.0}


def test_transfer_of_one_task_is_how_well_it_was_learnt() -> None:
    assert transfer([[0.5, math.nan]], [], returns=False) == {"learning_accuracy": 0.5}
    assert transfer([[-9.0, math.nan]], [], returns=True) == {"learning_return": -9.0}


def test_transfer_between_tasks_needs_a_baseline_to_go_forward() -> None:
    matrix = [[0.75, 0.5], [0.5, 0.75]]
    without = {"learning_accuracy": 0.75, "forgetting": 0.25, "bwt": -0.25}
    assert transfer(matrix, [], returns=False) == without
    assert transfer(matrix, [0.25, 0.25], returns=False) == {**without, "fwt": 0.25}
