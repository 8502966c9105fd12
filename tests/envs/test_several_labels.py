"""Several labels per row, end to end: learnt, measured, predicted, resumed, and in sequences of tasks."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from antelope import ConfigError, DataError, load, ml
from antelope.launcher.metrics.macro_f1 import macro_f1

pytestmark = pytest.mark.usefixtures("workdir")  # Every test in a folder of its own.

QUICK: dict[str, Any] = {"plot": False, "progress": False, "train_steps": 20}


def rows(seed: int = 0, n: int = 80) -> tuple[np.ndarray, np.ndarray]:
    """Inputs float32 `[n, 6]`, and 4 labels of 0 and 1 for each."""
    drawn = np.random.default_rng(seed)
    inputs = drawn.normal(size=(n, 6)).astype(np.float32)
    return inputs, (inputs @ np.random.default_rng(9).normal(size=(6, 4)) > 0.5).astype(np.int64)


class Net(nn.Module):
    def __init__(self, in_features: int, num_classes: int):
        super().__init__()
        self.last = nn.Linear(in_features, num_classes)

    def forward(self, obs: Tensor) -> Tensor:
        return self.last(obs)


class Learns(Net):
    weight: Tensor | None = None

    def learn(self, replay: Any) -> Tensor:
        batch = next(replay)
        assert (batch.label.dtype, batch.label.shape[1:]) == (torch.float32, (4,))
        return F.binary_cross_entropy_with_logits(
            self(batch.obs), batch.label, pos_weight=self.weight
        )


def trained(*words: str, **settings: Any) -> Any:
    return ml(
        *words, **QUICK | {"dataset": rows(), "test_dataset": rows(1), "model": Net} | settings
    )


def same_weights(one: Any, other: Any) -> bool:
    states = one.agent.state_dict(), other.agent.state_dict()
    return all(map(torch.equal, states[0].values(), states[1].values()))


def test_the_usual_loss_is_that_of_a_plain_learn_and_metrics_are_those_of_scikit_learn() -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    run = trained(path="usual")
    assert same_weights(run, trained(model=Learns, path="own"))
    inputs, truth = rows(1)
    chosen, p = run.predict(inputs), run.predict_proba(inputs)
    assert np.array_equal(chosen, (p > 0.5).astype(np.int64))
    assert run.metrics == pytest.approx(
        {
            "accuracy": 1 - metrics.hamming_loss(truth, chosen),
            "subset_accuracy": metrics.accuracy_score(truth, chosen),
            "f1": metrics.f1_score(truth, chosen, average="macro", zero_division=0),
            "loss": -np.log(np.where(truth, p, 1 - p)).mean(),
        },
        abs=1e-6,
    )
    again = load("usual", model=Net)
    assert again.spec.action.kind == "labels"
    assert np.array_equal(again.predict_proba(inputs), p)
    found = again.evaluate(dataset=(inputs[:2], truth[:2].astype(np.float32)))
    assert found["accuracy"] == pytest.approx((chosen[:2] == truth[:2]).mean())
    with pytest.raises(DataError, match=r"have shape \[1\]\. The run was trained on \[4\]"):
        again.evaluate(dataset=(inputs, truth[:, 0]))


def test_a_label_that_is_nowhere_has_an_f1_of_0() -> None:
    assert macro_f1(torch.tensor([[1.0, -1.0]]), torch.tensor([[1, 0]])) == 0.5


def test_positive_weights_balance_the_ones_of_each_column() -> None:
    ones = torch.from_numpy(rows()[1]).double().sum(0)
    Learns.weight = ((80 - ones) / ones).float()
    try:
        expected = trained(model=Learns, path="own")
    finally:
        Learns.weight = None
    words = "loss=BCEWithLogitsLoss", "loss.pos_weight=balanced"
    assert same_weights(trained(*words, path="by loss"), expected)


def test_a_single_column_of_0_and_1_is_learnt_with_one_output_where_the_loss_says_so() -> None:
    inputs, truth = rows()
    held_out = rows(1)[0], rows(1)[1][:, 0]
    data: dict[str, Any] = {"dataset": (inputs, truth[:, 0]), "test_dataset": held_out}
    run = trained("loss=BCEWithLogitsLoss", **data)
    assert run.spec.action.shape == (1,)
    chosen = run.predict(held_out[0])
    assert chosen.shape == (80,)
    assert run.metrics["accuracy"] == pytest.approx((chosen == held_out[1]).mean())


def test_a_loss_of_values_learns_0_and_1_as_values() -> None:
    run = trained("loss=MSELoss")
    assert run.spec.action.kind == "values"
    assert "r2" in run.metrics


def test_few_held_out_rows_are_what_the_training_rows_are() -> None:
    values = np.linspace(0, 1, 160, dtype=np.float32).reshape(80, 2)
    ones = np.array([[0, 1], [1, 1]], np.float32)
    run = trained(dataset=(rows()[0], values), test_dataset=(rows()[0][:2], ones))
    assert run.spec.action.kind == "values"
    one_hot = np.eye(4, dtype=int)
    assert "f1" in trained(test_dataset=(rows()[0][:4], one_hot)).metrics


def test_a_run_resumes_to_the_bit() -> None:
    whole = trained(model=None, path="whole")
    trained(model=None, path="parts", train_steps=8)
    assert same_weights(trained(model=None, path="parts", resume=True), whole)


@pytest.mark.parametrize("strategy", ["er", "derpp", "ewc", "si", "mas", "agem", "cumulative"])
def test_a_sequence_of_data_sets_shares_its_labels(strategy: str) -> None:
    run = trained(
        f"strategy={strategy}", dataset=[rows(), rows(2)], test_dataset=[rows(1), rows(3)]
    )
    assert run.accuracy_matrix.shape == (2, 2)
    assert "forgetting" in run.metrics


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["tasks=2"], ["tasks=2 splits classes", "several labels per row"]),
        (["num_classes=9"], ["counts classes", "several labels per row"]),
        (["rl=true"], ["one per row"]),
        (["loss=CrossEntropyLoss"], ["one class per row", "BCEWithLogitsLoss"]),
        (["loss=BCELoss"], ["probabilities", "loss=BCEWithLogitsLoss", "sigmoid"]),
        (["loss=BCEWithLogitsLoss", "loss.weight=balanced"], ["loss.pos_weight=balanced"]),
        (["loss=BCEWithLogitsLoss", "loss.pos_weight=[1,2]"], ["shape [2]", "4 labels"]),
    ],
)
def test_what_needs_classes_says_so(words: list[str], says: list[str]) -> None:
    model = None if "rl=true" in words else Net
    with pytest.raises(ConfigError) as raised:
        trained(*words, model=model)
    for part in says:
        assert part in str(raised.value)


@pytest.mark.parametrize("strategy", ["lwf", "er_ace", "pnn", "packnet", "cwr"])
def test_strategies_for_classes_are_refused(strategy: str) -> None:
    with pytest.raises(ConfigError, match=r"is for classes, .* several labels per row"):
        trained(f"strategy={strategy}", dataset=[rows(), rows(2)], test_dataset=None)


@pytest.mark.parametrize("dtype", [np.int64, np.float32, bool])
def test_one_hot_rows_are_classes_unless_the_loss_says_otherwise(dtype: Any) -> None:
    one_hot = np.eye(4, dtype=dtype)[np.arange(80) % 4]
    with pytest.raises(DataError, match=r"targets.argmax\(1\)"):
        trained(dataset=(rows()[0], one_hot), test_dataset=None)
    run = trained("loss=BCEWithLogitsLoss", dataset=(rows()[0], one_hot), test_dataset=None)
    assert run.spec.action.kind == "labels"
