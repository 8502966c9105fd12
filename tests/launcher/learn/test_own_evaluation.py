"""A module's own `evaluate(batch)`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from antelope import ConfigError, Run, ml
from antelope.replay import Batch

from .toys import Net

pytestmark = pytest.mark.usefixtures("workdir")  # Every test in a folder of its own.

QUIET: dict[str, Any] = {"plot": False, "progress": False, "train_steps": 3, "path": "run"}
ROWS = np.random.RandomState(0).randn(5200, 3).astype(np.float32)
CLASSES = ROWS.argmax(1)


class Own(Net):
    """Measures what Antelope does, and more."""

    def evaluate(self, batch: Batch) -> dict[str, Any]:
        assert not self.training
        output = self(batch.obs)
        assert not output.requires_grad
        right = output.argmax(1) == batch.label
        return {
            "loss": F.cross_entropy(output, batch.label),
            "accuracy": right.float().mean(),
            "each": right,
            "index": batch.index.double().mean(),
            "task_number": batch.task.float(),
            "constant": 2,
        }


def learn(model: Any, **settings: Any) -> Run:
    return ml(model=model, dataset=(ROWS, CLASSES), **{**QUIET, **settings})


def with_evaluate(evaluate: Callable[..., Any], name: str = "evaluate") -> type[Net]:
    return type("Mine", (Net,), {name: evaluate})


def test_it_is_averaged_over_the_rows_of_batches_of_different_sizes() -> None:
    own, plain = learn(Own), learn(Net)
    # 1,040 held-out rows are a batch of 1,000 and one of 40.
    assert own.metrics["accuracy"] == pytest.approx(plain.metrics["accuracy"], abs=1e-6)
    assert own.metrics["each"] == plain.metrics["accuracy"]
    assert own.metrics["loss"] == pytest.approx(plain.metrics["loss"], rel=1e-5)
    assert own.metrics["constant"] == 2
    assert list(own.metrics) == ["loss", "accuracy", "each", "index", "task_number", "constant"]
    assert all(map(torch.equal, own.agent.parameters(), plain.agent.parameters()))


def test_in_a_sequence_its_numbers_are_written_for_each_task() -> None:
    run = learn(Own, tasks=3, strategy="er", eval_rows=50)
    row = run.history[-1]
    assert [row[f"task_number/task_{i}"] for i in range(3)] == [0, 1, 2]
    assert run.accuracy_matrix[2].tolist() == [row[f"accuracy/task_{i}"] for i in range(3)]
    assert "forgetting" in run.metrics


def test_early_stopping_may_follow_one_of_its_numbers() -> None:
    watch = {"metric": "constant", "mode": "max", "patience": 2}
    run = learn(Own, early_stopping=watch, eval_every=1, train_steps=9)
    assert run.history[-1]["step"] == 3


def test_a_model_without_forward_or_labels_may_evaluate() -> None:
    class Centre(nn.Module):
        def __init__(self, in_features: int):
            super().__init__()
            self.centre = nn.Parameter(torch.ones(in_features))

        def learn(self, replay: Any) -> Tensor:
            return (next(replay).obs - self.centre).square().mean()

        def evaluate(self, batch: Batch) -> dict[str, Tensor]:
            return {"distance": (batch.obs - self.centre).square().sum(1)}

    assert learn(Centre).metrics["distance"] > 0


@pytest.mark.parametrize(
    ("evaluate", "message"),
    [
        (lambda self, batch: 3, r"returned the int 3. Return a dict of numbers"),
        (lambda self, batch: None, "returned nothing"),
        (lambda self, batch: {"a": "x"}, "returned the str 'x' as `a`"),
        (lambda self, batch: {"a": 1j}, "complex number as `a`; return a real one"),
        (lambda self, batch: {"a": torch.ones(2, 2)}, r"one for each of the 64 rows"),
        (lambda self, batch: {"step": 1}, "returned 'step' as the name"),
        (lambda self, batch: {"a/task_1": 1}, "marks one task's value"),
        (lambda self, batch: {"forgetting": 1}, "which Antelope itself computes"),
        (lambda self, batch: (yield), "not a plain method"),
        (lambda self: {}, r"cannot be called.*evaluate\(self, batch\)"),
        (lambda self, loader, steps: {}, r"cannot be called.*evaluate\(self, batch\)"),
        (
            lambda self, batch: batch.lable,
            r"raised AttributeError.*test_own_evaluation.py.*Batch: obs",
        ),
    ],
)
def test_a_wrong_one_is_an_error_before_training(
    evaluate: Callable[..., Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=rf"(?s)Mine.evaluate.*{message}"):
        learn(with_evaluate(evaluate))
    assert not Path("run").exists()


def test_a_misspelt_one_is_an_error_and_another_librarys_a_warning() -> None:
    with pytest.raises(ConfigError, match=r"`evalaute`.*Did you mean `evaluate\(self, batch\)`"):
        learn(with_evaluate(lambda self, batch: {}, "evalaute"))
    with pytest.warns(UserWarning, match="validation_step` is Lightning's"):
        learn(with_evaluate(lambda self, batch, number: {}, "validation_step"))
    assert "accuracy" in learn(with_evaluate(lambda self: {}, "evaluated")).metrics


def test_what_it_would_hide_is_said() -> None:
    with pytest.raises(ConfigError, match="replaces all metrics"):
        learn(Own, metrics="f1")
    with pytest.warns(UserWarning, match=r"strategy=icarl decides how outputs are read"):
        learn(Own, tasks=3, strategy="icarl")
