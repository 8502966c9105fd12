"""A `DataLoader` stands for its data set; what it does beside that is heeded, said, or refused."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    RandomSampler,
    SubsetRandomSampler,
    TensorDataset,
    WeightedRandomSampler,
)

from antelope import ConfigError, Run, ml

pytestmark = pytest.mark.usefixtures("workdir")

X = torch.randn(100, 4, generator=torch.Generator().manual_seed(0))
DATA = TensorDataset(X, (X[:, 0] > 0).long())


def run(**settings: Any) -> Run:
    return ml(**{"epochs": 1, "plot": False, "progress": False, "path": "run", **settings})


def loader(**options: Any) -> DataLoader[Any]:
    return DataLoader(DATA, **{"batch_size": 16, "shuffle": True, **options})


def test_a_loader_is_its_data_set_in_batches_of_its_size(
    capsys: pytest.CaptureFixture[str],
) -> None:
    plain = run(dataset=DATA, batch_size=16)
    loaded = run(dataset=loader(), progress=True)
    assert loaded.history == plain.history
    assert loaded.replay.batch_size == 16
    assert "batches of 16, the batch size of its DataLoader" in capsys.readouterr().out


def test_a_size_that_is_given_wins_and_is_said() -> None:
    with pytest.warns(UserWarning, match="batch_size=16; this run uses batch_size=50"):
        assert run(dataset=loader(), batch_size=50).replay.batch_size == 50


def test_loaders_make_a_sequence_and_hold_rows_out() -> None:
    found = run(dataset=[loader(), loader()], test_dataset=[loader(batch_size=50), DATA])
    assert found.accuracy_matrix.shape == (2, 2)
    assert found.replay.batch_size == 16
    with pytest.raises(ConfigError, match=r"batch sizes .8 and 16.*batch_size="):
        run(dataset=[loader(), loader(batch_size=8)])


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"shuffle": False}, "shuffle=False, which is ignored"),
        ({"drop_last": True}, "uses every row"),
    ],
)
def test_what_a_run_does_otherwise_is_said(options: dict[str, Any], said: str) -> None:
    with pytest.warns(UserWarning, match=said):
        run(dataset=loader(**options))


def test_a_sampler_of_a_part_gives_that_part() -> None:
    part = SubsetRandomSampler(range(50))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = run(dataset=DataLoader(DATA, batch_size=16, sampler=part), test_dataset=DATA)
    assert len(found.replay) == 50


class Doubling(DataLoader[Any]):
    def __iter__(self) -> Any:
        return ((2 * x, y) for x, y in super().__iter__())


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (loader(collate_fn=lambda rows: rows), r"custom collate_fn \(<lambda>\)"),
        (
            DataLoader(DATA, sampler=WeightedRandomSampler(torch.ones(100), 100)),
            "samples rows with WeightedRandomSampler",
        ),
        (
            DataLoader(DATA, sampler=RandomSampler(DATA, replacement=True)),
            r"RandomSampler\(replacement=True\)",
        ),
        (
            DataLoader(DATA, batch_sampler=BatchSampler(RandomSampler(DATA), 4, drop_last=True)),
            "a custom batch_sampler",
        ),
        (DataLoader(DATA, batch_size=None), "batch_size=None"),
        (Doubling(DATA, shuffle=True), "Doubling overrides DataLoader.__iter__"),
    ],
)
def test_a_loader_that_changes_what_is_seen_is_refused(wrong: Any, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        run(dataset=wrong)
    with pytest.raises(ConfigError, match=said):
        run(dataset=DATA, test_dataset=wrong)
    assert not Path("run").exists()
