"""`metrics=`: names of torchmetrics, classes, instances and functions, measured on all held-out rows."""

from __future__ import annotations

import importlib.util
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sklearn.metrics
import torch
import torchmetrics
from torch import Tensor

from antelope import ConfigError, Run, ml

from .toys import Net

pytestmark = pytest.mark.usefixtures("workdir")  # Every test in a folder of its own.

QUIET: dict[str, Any] = {"plot": False, "progress": False, "train_steps": 3, "path": "run"}
RANDOM = np.random.RandomState(0)
ROWS = RANDOM.randn(150, 4).astype(np.float32)
THREE = np.array(["ape", "bee", "cat"])[ROWS[:, :3].argmax(1)]
TWO = (ROWS[:, 0] > 0.3).astype(np.int64)
VALUES = (3 * ROWS[:, 0] + 50).astype(np.float32)


class Kept:
    """A metric that keeps what it receives."""

    def __init__(self) -> None:
        self.seen: list[tuple[Tensor, Tensor]] = []

    def __call__(self, output: Tensor, label: Tensor) -> float:
        self.seen.append((output, label))
        return 0.0


def learn(metrics: Any, dataset: Any = (ROWS, THREE), *words: str, **settings: Any) -> Run:
    return ml(*words, model=Net, dataset=dataset, metrics=metrics, **{**QUIET, **settings})


def probabilities(output: Tensor) -> np.ndarray:
    return output.double().softmax(1).numpy()


# --------------------------------------------------------------------------------- what is measured


def test_metrics_by_name_equal_scikit_learns_of_the_same_outputs() -> None:
    kept = Kept()
    metrics = learn(["f1", "AUROC", "average_precision", kept]).metrics
    output, label = kept.seen[-1]
    assert len(label) == 30  # All held-out rows at once.
    f1 = sklearn.metrics.f1_score(label, output.argmax(1), average="macro")
    assert metrics["f1"] == pytest.approx(f1, abs=1e-6)
    auroc = sklearn.metrics.roc_auc_score(label, probabilities(output), multi_class="ovr")
    assert metrics["auroc"] == pytest.approx(auroc, abs=1e-6)
    ap = sklearn.metrics.average_precision_score(np.eye(3)[label], probabilities(output))
    assert metrics["average_precision"] == pytest.approx(ap, abs=1e-6)


def test_of_two_classes_the_second_is_the_positive_one() -> None:
    kept = Kept()
    names = ["f1", "auroc", "specificity", "balanced_accuracy", kept]
    metrics = learn(names, (ROWS, TWO)).metrics
    output, label = kept.seen[-1]
    chosen, score = output.argmax(1), probabilities(output)[:, 1]
    assert metrics["f1"] == pytest.approx(sklearn.metrics.f1_score(label, chosen), abs=1e-6)
    assert metrics["auroc"] == pytest.approx(sklearn.metrics.roc_auc_score(label, score), abs=1e-6)
    specificity = sklearn.metrics.recall_score(1 - label, 1 - chosen)
    assert metrics["specificity"] == pytest.approx(specificity, abs=1e-6)
    balanced = sklearn.metrics.balanced_accuracy_score(label, chosen)
    assert metrics["balanced_accuracy"] == pytest.approx(balanced, abs=1e-6)


def test_metrics_of_values_equal_scikit_learns_and_the_built_in_ones() -> None:
    metrics = learn(["mean_absolute_error", "r2_score", "rmse"], (ROWS, VALUES)).metrics
    assert metrics["mean_absolute_error"] == pytest.approx(metrics["mae"], rel=1e-6)
    assert metrics["r2_score"] == pytest.approx(metrics["r2"], rel=1e-6)
    assert metrics["rmse"] == pytest.approx(math.sqrt(metrics["mse"]), rel=1e-6)


def test_several_columns_of_values_are_measured_together_or_each() -> None:
    metrics = learn(["mean_absolute_error", "pearson"], (ROWS, ROWS[:, :2])).metrics
    assert metrics["mean_absolute_error"] == pytest.approx(metrics["mae"], rel=1e-6)
    assert {"pearson/0", "pearson/1"} <= metrics.keys()


def test_metrics_of_several_labels_equal_scikit_learns() -> None:
    kept = Kept()
    functions = [sklearn.metrics.hamming_loss, sklearn.metrics.label_ranking_loss]
    labels = (ROWS[:, ::-1] > 0).astype(np.int64)
    metrics = learn(["auroc", *functions, kept], (ROWS, labels)).metrics
    output, label = kept.seen[-1]
    score = output.double().sigmoid().numpy()
    assert metrics["auroc"] == pytest.approx(sklearn.metrics.roc_auc_score(label, score), abs=1e-6)
    assert metrics["hamming_loss"] == pytest.approx(1 - metrics["accuracy"])
    ranking = sklearn.metrics.label_ranking_loss(label, score)
    assert metrics["label_ranking_loss"] == pytest.approx(ranking)


def test_the_parts_of_a_dict_are_not_taken_for_tasks() -> None:
    def parts(output: Tensor, label: Tensor) -> dict[str, float]:
        return {"task_0": 1.0, "all": 2.0}

    metrics = learn([parts]).metrics
    assert (metrics["parts/class task_0"], metrics["parts/all"]) == (1, 2)


def test_functions_of_scikit_learn_receive_label_and_prediction_by_name() -> None:
    kept = Kept()
    functions = [sklearn.metrics.f1_score, sklearn.metrics.roc_auc_score]
    metrics = learn([*functions, kept]).metrics
    output, label = kept.seen[-1]
    chosen = output.argmax(1)
    expected = sklearn.metrics.f1_score(label, chosen, average="macro")
    assert metrics["f1_score"] == pytest.approx(expected)
    expected = sklearn.metrics.roc_auc_score(label, probabilities(output), multi_class="ovr")
    assert metrics["roc_auc_score"] == pytest.approx(expected)
    # Not symmetric: exchanged arguments would give another number.
    metrics = learn([sklearn.metrics.explained_variance_score, kept], (ROWS, VALUES)).metrics
    output, label = kept.seen[-1]
    expected = sklearn.metrics.explained_variance_score(label, output)
    assert metrics["explained_variance_score"] == pytest.approx(expected, rel=1e-5)


def test_a_function_of_torchmetrics_is_told_the_task() -> None:
    metrics = learn(["specificity", torchmetrics.functional.recall]).metrics
    assert 0 < metrics["recall"] < 1
    assert metrics["recall"] == learn(["recall"]).metrics["recall"]


def test_a_function_that_names_the_label_first_receives_it_first() -> None:
    def first(target: Tensor, preds: Tensor) -> float:
        assert target.dtype == torch.int64
        return float(len(target) + preds.shape[1])

    assert learn([first]).metrics["first"] == 33


def test_classes_and_objects_with_update_and_compute_begin_each_evaluation_afresh() -> None:
    class Rows:
        def __init__(self, num_classes: int, times: int = 1):
            self.classes, self.times, self.rows = num_classes, times, 0

        def update(self, output: Tensor, label: Tensor) -> None:
            self.rows += len(label)

        def compute(self) -> int:
            return self.rows * self.times * self.classes

    mine, theirs = Rows(3), torchmetrics.classification.MulticlassRecall(3)
    theirs.update(torch.tensor([0]), torch.tensor([1]))
    named = {"_target_": Rows, "times": 2}
    first = learn([mine, theirs], eval_every=1).metrics
    assert first["rows"] == 90
    assert mine.rows == 0
    assert first["multiclass_recall"] == learn(["recall"]).metrics["recall"]
    assert float(theirs.compute()) == 0
    assert learn(named).metrics["rows"] == 180


def test_a_collection_measures_each_of_its_metrics_by_its_name() -> None:
    many = torchmetrics.MetricCollection(
        {
            "macro": torchmetrics.classification.MulticlassF1Score(3),
            "micro": torchmetrics.classification.MulticlassF1Score(3, average="micro"),
        }
    )
    metrics = learn([many]).metrics
    assert metrics["micro"] == pytest.approx(metrics["accuracy"])
    assert metrics["macro"] == learn(["f1"]).metrics["f1"]


def test_arguments_are_sub_keys_in_words_and_beside_objects() -> None:
    def half(output: Tensor, label: Tensor, share: float = 0.5) -> float:
        return share

    run = learn(["f1", half], (ROWS, THREE), "metrics.f1.average=micro", "metrics.half.share=0.25")
    assert run.metrics["f1"] == pytest.approx(run.metrics["accuracy"])
    assert run.metrics["half"] == 0.25
    words = ["metrics=[f1,auroc]", "metrics.f1.average=micro"]
    assert learn(None, (ROWS, THREE), *words).metrics["f1"] == run.metrics["f1"]
    with pytest.raises(ConfigError, match=r"metrics.half.shrae.*Did you mean `share`"):
        learn([half], (ROWS, THREE), "metrics.half.shrae=0.25")


def test_a_number_per_class_has_a_column_per_class() -> None:
    run = learn({"_target_": "f1", "average": "none"})
    columns = [name for name in run.metrics if name.startswith("f1")]
    assert columns == ["f1/ape", "f1/bee", "f1/cat"]
    assert columns == [name for name in run.history[-1] if name.startswith("f1")]
    mean = np.mean([run.metrics[name] for name in columns])
    assert mean == pytest.approx(learn("f1").metrics["f1"], abs=1e-6)


def test_names_of_antelopes_own_metrics_need_no_torchmetrics(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *a: None if name == "torchmetrics" else find(name)
    )
    assert "accuracy" in learn(["accuracy", "loss"]).metrics
    with pytest.raises(
        ConfigError, match=r"f1: .*not installed: pip install 'antelope-ml\[metrics"
    ):
        learn(["f1"])


# -------------------------------------------------------------------------------------- sequences


def test_in_a_sequence_each_task_is_measured_by_its_own_rows_and_classes() -> None:
    kept = Kept()
    settings = {"tasks": 3, "strategy": "er", "class_order": [0, 1, 2]}
    with pytest.warns(UserWarning, match="metrics=auroc is NaN for task") as said:
        run = learn(["auroc", "f1", kept], (ROWS, THREE), **settings)
    assert len(said) == 1
    assert math.isnan(run.metrics["auroc"])
    each = [run.history[-1][f"f1/task_{i}"] for i in range(3)]
    assert run.metrics["f1"] == pytest.approx(np.mean(each))
    # With one class a task has no negatives, and the other classes no rows: no ranking, said once.
    assert all(label.unique().tolist() == [i] for i, (_, label) in enumerate(kept.seen[-3:]))


def test_a_ranking_is_averaged_over_the_classes_of_the_task() -> None:
    kept = Kept()
    many = np.arange(160) % 4
    x = np.eye(4)[many] + np.random.RandomState(1).randn(160, 4)
    run = learn(["auroc", kept], (x.astype(np.float32), many), tasks=2)
    output, label = kept.seen[-1]
    each = [sklearn.metrics.roc_auc_score(label == i, probabilities(output)[:, i]) for i in (2, 3)]
    assert run.history[-1]["auroc/task_1"] == pytest.approx(np.mean(each), abs=1e-6)


def test_held_out_rows_of_one_class_have_no_ranking() -> None:
    held_out = {"test_dataset": (ROWS[TWO == 1], TWO[TWO == 1])}
    with pytest.warns(UserWarning, match="metrics=auroc is NaN for task 0"):
        run = learn(["auroc"], (ROWS, TWO), **held_out)
    assert math.isnan(run.metrics["auroc"])


def test_where_the_task_is_told_the_classes_of_others_cannot_be_chosen() -> None:
    kept = Kept()
    settings = {"tasks": 2, "scenario": "task"}
    run = learn(["multiclass_accuracy", kept], (ROWS, ROWS[:, :4].argmax(1)), **settings)
    output, _ = kept.seen[-1]
    assert output[:, :2].isinf().all()
    assert output[:, 2:].isfinite().all()
    told = run.history[-1]["task_il_accuracy/task_1"]
    exact = (output.argmax(1) == kept.seen[-1][1]).float().mean()
    assert float(exact) == pytest.approx(told)


# --------------------------------------------------------------------------- what follows a metric


def test_early_stopping_follows_a_metric_by_name() -> None:
    def worse(output: Tensor, label: Tensor) -> float:
        worse.calls += 1  # type: ignore[attr-defined]
        return float(worse.calls)  # type: ignore[attr-defined]

    worse.calls = 0  # type: ignore[attr-defined]
    watch = {"metric": "worse", "mode": "min", "patience": 2}
    run = learn([worse], early_stopping=watch, train_steps=40, eval_every=2)
    assert run.history[-1]["step"] == 6
    with pytest.raises(ConfigError, match=r"more or less.*mode=max or min"):
        learn([worse], early_stopping={"metric": "worse", "patience": 2}, eval_every=1)
    with pytest.raises(ConfigError, match=r"f11: not measured.*Did you mean `f1`"):
        learn(["f1"], early_stopping={"metric": "f11", "patience": 2}, eval_every=1)
    worse.higher_is_better = True  # type: ignore[attr-defined]
    run = learn([worse], early_stopping={"metric": "worse", "patience": 2}, eval_every=1)
    assert run.history[-1]["step"] == 3


def test_nan_of_a_users_metric_is_said_once_and_ends_nothing() -> None:
    def nothing(output: Tensor, label: Tensor) -> float:
        return math.nan

    with pytest.warns(UserWarning, match="metrics=nothing is NaN for task 0") as said:
        run = learn([nothing], eval_every=1)
    assert len(said) == 1
    assert math.isnan(run.metrics["nothing"])


def test_a_resumed_run_measures_what_an_uninterrupted_one_does() -> None:
    class Stop:
        def on_step(self, run: Any) -> str | None:
            return "stop" if run.step == 2 else None

    whole = learn(["f1", "auroc"], eval_every=1, path="whole")
    learn(["f1", "auroc"], eval_every=1, callbacks=Stop())
    resumed = learn(["f1", "auroc"], eval_every=1, resume=True)
    assert resumed.history == whole.history


# ------------------------------------------------------------------------------------------ errors


def one(output: Tensor) -> float:
    return 1.0


def broken(output: Tensor, label: Tensor) -> float:
    return output.missing  # type: ignore[no-any-return, attr-defined]


def matrix(output: Tensor, label: Tensor) -> Tensor:
    return torch.zeros(3, 3)


def words(output: Tensor, label: Tensor) -> str:
    return "good"


def rows(output: Tensor, label: Tensor) -> Tensor:
    return output.argmax(1) == label


def imaginary(output: Tensor, label: Tensor) -> complex:
    return 1j


def nothing(output: Tensor, label: Tensor) -> dict[str, float]:
    return {}


def step(output: Tensor, label: Tensor) -> float:
    return 1.0


def in_place(output: Tensor, label: Tensor) -> Tensor:
    return (output.zero_() + label.zero_()[:, None]).sum()


def loss(output: Tensor, label: Tensor) -> float:
    return 1.0


class Neither:
    """Neither a function nor a metric."""


@pytest.mark.parametrize(
    ("metrics", "message"),
    [
        ("f1scor", "Did you mean `F1Score`"),
        ("rouge", "No metric `rouge`. Names are those of torchmetrics"),
        (["mse"], "not measured here, where targets are classes"),
        (["f1", "f1"], "2 metrics named `f1`"),
        ([one], r"Write one\(output, label\)"),
        ([broken], r"broken raised AttributeError.*test_own_metrics.py.*output float32 \[30, 3\]"),
        ([matrix], r"returned values \[3, 3\]; a metric is a number"),
        ([words], "returned str; a metric is a number"),
        ([rows], "returned a number for each of 30 rows; return their mean"),
        ([imaginary], "returned complex"),
        ([nothing], "returned an empty dict"),
        ([loss], "Antelope's own metric has that name"),
        ([step], "eval.csv has a column of that name"),
        (["confusion_matrix"], "drawn in plots/"),
        ([Neither], "neither a function"),
        ([lambda output, label: 1.0], "use def"),
        (["BinaryF1Score"], "is for two classes, and this data has 3"),
        (["mean_absolute_error"], "is for values, but this run's targets are classes"),
        ({"_target_": "accuracy", "average": "micro"}, "without arguments"),
    ],
)
def test_a_metric_that_cannot_be_measured_is_an_error_before_training(
    metrics: Any, message: str
) -> None:
    with pytest.raises(ConfigError, match=f"(?s){message}"):
        learn(metrics)
    assert not Path("run").exists()


def test_a_metric_that_works_in_place_changes_no_other() -> None:
    expected = learn(["f1"], path="alone").metrics["f1"]
    assert learn([in_place, "f1"]).metrics["f1"] == expected


def test_metrics_of_classes_are_refused_for_values() -> None:
    with pytest.raises(ConfigError, match=r"f1 is for classes.*mean_absolute_error"):
        learn(["f1"], (ROWS, VALUES))


def test_environments_have_no_labels_to_measure() -> None:
    with pytest.raises(ConfigError, match="metrics= needs labels"):
        ml(env="CartPole-v1", metrics="f1", **QUIET)


def test_mistakes_in_metrics_are_reported_together() -> None:
    with pytest.raises(ConfigError, match=r"(?s)metrics=mse.*metrics=broken.*metrics=words"):
        learn(["mse", broken, words])
