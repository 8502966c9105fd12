"""Rows 18, 20 to 25 and 35: models and data that do not fit, in the console, in Python and in a sweep."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from antelope import ConfigError, DataError, ml
from antelope.launcher.ml import _main

QUIET: dict[str, Any] = {"plot": False, "progress": False}
WORDS = ["train_steps=2", "plot=false", "progress=false"]
MODELS = """
from torch import nn

class Bare(nn.Module):
    pass

class Typo(nn.Module):
    def __init__(self, in_feature, out_features):
        super().__init__()

class Mismatch(nn.Module):
    def __init__(self, out_features):
        super().__init__()
        self.first = nn.Linear(10, out_features)

    def forward(self, obs):
        return self.first(obs.flatten(1))

class Unlucky(nn.Module):
    def __init__(self, in_features, out_features, width=1):
        super().__init__()
        if width == 13:
            raise ValueError("no thirteen")
        self.layer = nn.Linear(in_features, out_features)

    def forward(self, obs):
        return self.layer(obs.flatten(1))
"""
INPUTS = np.random.default_rng(0).normal(size=(1025, 4)).astype(np.float32)
LABELS = np.arange(1025) % 3


@pytest.fixture(autouse=True)
def _models(workdir: Path) -> None:
    (workdir / "bad_models.py").write_text(MODELS)


class Norm(nn.Module):
    """BatchNorm cannot learn from a batch of one row; `sizes` has those of the batches learnt from."""

    def __init__(self, in_features: int, out_features: int):
        super().__init__()
        self.norm = nn.BatchNorm1d(in_features)
        self.layer = nn.Linear(in_features, out_features)
        self.sizes: list[int] = []

    def forward(self, obs: Tensor) -> Tensor:
        if self.training:
            self.sizes.append(len(obs))
        return self.layer(self.norm(obs.flatten(1)))


@pytest.mark.row(18)
@pytest.mark.row(20)
@pytest.mark.row(21)
@pytest.mark.parametrize(
    ("model", "says"),
    [
        ("Bare", ["none of `forward`, `act` and `learn`", "def learn(self, replay, log):"]),
        ("Typo", ["needs `in_feature`", "Did you mean `in_features`", "in_features=64"]),
        ("Typo", ["num_classes=10", "in_shape=(1, 8, 8)"]),
        ("Mismatch", ["in first: Linear", "given obs float32 [2, 1, 8, 8]", "2x64 and 10x10"]),
        ("Bear", ["No model `Bear`", "Did you mean `Bare`"]),
    ],
)
def test_a_model_that_does_not_fit_exits_with_2_before_there_is_a_run(
    model: str, says: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert _main([f"model={model}", *WORDS]) == 2
    error = capsys.readouterr().err
    for part in says:
        assert part in error
    assert not Path("runs").exists()


@pytest.mark.row(18)
@pytest.mark.parametrize("model", [5, lambda obs: obs], ids=["number", "function"])
def test_what_is_not_a_model_is_named(model: Any) -> None:
    with pytest.raises(ConfigError, match="model"):
        ml(model=model, **QUIET)


@pytest.mark.row(22)
@pytest.mark.parametrize("labels", [LABELS + 1, LABELS - 1, LABELS * 500_000_000])
def test_labels_may_start_anywhere_and_have_gaps(labels: Any) -> None:
    run = ml(model=Norm, dataset=(INPUTS, labels), epochs=1, **QUIET)
    assert run.spec.action.n == 3
    assert run.spec.action.names == tuple(str(label) for label in labels[:3])


class Declared(torch.utils.data.Dataset[Any]):
    """Ten classes, and a label that is none of them."""

    classes = tuple("abcdefghij")

    def __init__(self, label: int):
        self.label = label

    def __len__(self) -> int:
        return 50

    def __getitem__(self, i: int) -> tuple[Tensor, int]:
        return torch.zeros(4), self.label if i == 7 else i % 10


@pytest.mark.row(22)
@pytest.mark.parametrize("label", [10, -1, 10**9])
def test_a_label_beyond_the_declared_classes_is_named(label: int) -> None:
    with pytest.raises(DataError, match=rf"label {label}.*10 classes \(0 to 9\)"):
        ml(model=Norm, dataset=Declared(label), **QUIET)


@pytest.mark.row(22)
def test_a_missing_label_is_named() -> None:
    with pytest.raises(DataError, match="item 2 has None"):
        ml(model=Norm, dataset=(INPUTS[:4], [0, 1, None, 1]), **QUIET)


@pytest.mark.row(23)
def test_no_batch_of_one_reaches_batch_norm_and_every_row_is_evaluated() -> None:
    data = {"dataset": (INPUTS, LABELS), "test_dataset": (INPUTS, LABELS)}
    run = ml(model=Norm, **data, batch_size=64, epochs=1, **QUIET)
    sizes = run.agent.sizes
    assert sum(sizes[-17:]) == 1025
    assert min(sizes[-17:]) == 2
    right = run.metrics["accuracy"] * 1025  # A whole number, if all rows were evaluated.
    assert right == pytest.approx(round(right))


@pytest.mark.row(24)
def test_data_smaller_than_a_batch_is_learnt_from() -> None:
    run = ml(model=Norm, dataset=(INPUTS[:5], LABELS[:5]), batch_size=64, epochs=1, **QUIET)
    assert run.history[-1]["step"] == 1


@pytest.mark.row(24)
@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"dataset": (INPUTS[:0], LABELS[:0])}, "is empty"),
        ({"dataset": (INPUTS[:1], LABELS[:1])}, "1 row"),
        (
            {
                **{"dataset": (INPUTS[:60], LABELS[:60] % 2), "tasks": 2},
                **{"test_dataset": (INPUTS[:9], 0 * LABELS[:9])},
            },
            r"Task 1 \(classes 1\) has no held-out data",
        ),
    ],
    ids=["empty", "one row", "task without rows"],
)
def test_data_without_rows_is_refused(settings: dict[str, Any], says: str) -> None:
    with pytest.raises(DataError, match=says):
        ml(model=Norm, **settings, **QUIET)


@pytest.mark.row(24)
def test_a_single_class_is_warned_about() -> None:
    with pytest.warns(UserWarning, match=r"the same class \(0\)"):
        ml(model=Norm, dataset=(INPUTS[:60], 0 * LABELS[:60]), train_steps=1, **QUIET)


@pytest.mark.row(25)
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_value_that_is_not_finite_is_named_by_its_row(value: float) -> None:
    inputs = INPUTS.copy()
    inputs[7, 2] = value
    with pytest.raises(DataError, match="first: row 7"):
        ml(model=Norm, dataset=(inputs, LABELS), **QUIET)


@pytest.mark.row(25)
def test_objects_and_ragged_rows_are_refused() -> None:
    objects = np.array([["a", object()]] * 50, object)
    with pytest.raises(DataError, match=r"row 0|item 0|not numbers"):
        ml(model=Norm, dataset=(objects, LABELS[:50]), **QUIET)
    ragged = [(torch.zeros(3, 4 - (i == 9)), int(LABELS[i])) for i in range(50)]
    with pytest.raises(DataError, match=r"at 0, .* at 9"):
        ml(model=Norm, dataset=ragged, **QUIET)


@pytest.mark.row(25)
def test_grey_and_coloured_pictures_are_all_read_in_colour() -> None:
    for i in range(12):
        folder = Path(f"photos/{'cat' if i % 2 else 'dog'}")
        folder.mkdir(parents=True, exist_ok=True)
        mode, value = ("L", 20 * i) if i % 3 else ("RGB", (20 * i, 0, 0))
        Image.new(mode, (6, 6), value).save(folder / f"{i}.png")
    run = ml(model=Norm, dataset="photos", train_steps=1, **QUIET)
    assert run.spec.obs.shape == (3, 6, 6)


@pytest.mark.row(35)
def test_where_a_run_of_a_sweep_fails_the_others_go_on_and_a_table_names_it(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert _main(["-m", "model=Unlucky", "model.width=3,13,4", *WORDS]) == 2
    assert len(list(Path("runs").rglob("status.json"))) == 2
    assert capsys.readouterr().err.splitlines()[-2:] == [
        "1 of 3 runs failed:",
        "  model.width=13  failed: Unlucky(in_features=64, out_features=10, width=13) "
        "raised ValueError: no thirteen (bad_models.py, line 23, in __init__)",
    ]
