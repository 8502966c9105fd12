"""Rows of tables after training: their types may differ from those in training, their meaning not."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

import antelope
from antelope import DataError, Run, ml
from antelope.launcher.inference.loaded_world import LoadedData
from antelope.replay.tree import leaves

QUIET: dict[str, Any] = {"plot": False, "progress": False, "epochs": 1, "batch_size": 16}
N = 60


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    """Two numbers, a date, two categories of different sizes, and a class."""
    stream = np.random.default_rng(0)
    days = pd.to_timedelta(stream.integers(0, 900, N), unit="D")
    return pd.DataFrame(
        {
            "age": stream.integers(18, 90, N),
            "since": pd.Timestamp("2020-01-01") + days,
            "zone": stream.choice(["01", "02", "2A", "2B", "71"], N),
            "sex": pd.Categorical(stream.choice(["f", "m"], N)),
            "group": np.where(np.arange(N) % 3, "10", "1B"),
        }
    )


@pytest.fixture(scope="module")
def run(table: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> Run:
    path = tmp_path_factory.mktemp("runs") / "run"
    return ml(dataset=table, target="group", path=path, **QUIET)


def test_categories_of_different_sizes_are_loaded(run: Run, table: pd.DataFrame) -> None:
    again = antelope.load(run.path)
    assert (again.predict_proba(table) == run.predict_proba(table)).all()


def test_random_rows_of_a_loaded_run_hold_categories_of_their_columns(run: Run) -> None:
    rows = LoadedData("rows", run.spec, []).example(500, torch.device("cpu"))
    sizes = [space.nvec for space in leaves(run.spec.obs)]
    assert any(sizes)
    for size, column in zip(sizes, leaves(rows), strict=True):
        assert not size or (column.amax(0) + 1).tolist() == list(size)


def test_words_of_a_text_file_stay_words_where_all_of_them_read_as_numbers(
    run: Run, table: pd.DataFrame, tmp_path: Path
) -> None:
    file = tmp_path / "rows.csv"
    some = table[table["zone"].isin(["01", "02"]) & (table["group"] == "10")]
    some.to_csv(file, index=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert (run.predict_proba(file) == run.predict_proba(some)).all()
    assert run.evaluate(file) == run.evaluate(some)
    table.to_csv(tmp_path / "train.csv", index=False)
    held_out = [
        ml(dataset=tmp_path / "train.csv", test_dataset=rows, target="group", **QUIET).metrics
        for rows in (file, some)
    ]
    assert held_out[0] == held_out[1]


def test_dates_may_be_written_as_words_but_not_as_numbers(run: Run, table: pd.DataFrame) -> None:
    expected = run.predict_proba(table)
    for form in ("%Y-%m-%d", "%Y-%m-%dT%H:%M:%S.000", "%Y-%m-%dT%H:%M:%SZ"):
        written = table.assign(since=table["since"].dt.strftime(form))
        assert (run.predict_proba(written) == expected).all()
    with pytest.raises(DataError, match="`since` of the table holds int64, and held dates in tr"):
        run.predict(table.assign(since=table["since"].astype("int64") // 10**6))
    with pytest.raises(DataError, match="`age` of the table holds dates, and held numbers in tr"):
        run.predict(table.assign(age=table["since"]))


def test_a_column_without_a_known_category_is_named(run: Run, table: pd.DataFrame) -> None:
    with pytest.warns(UserWarning, match="No value in `sex` of the table occurred in training"):
        run.predict(table.assign(sex="male"))


def test_rows_may_hold_the_numbers_and_times_of_numpy_and_torch(
    run: Run, table: pd.DataFrame
) -> None:
    expected = run.predict_proba(table[:2])
    for unit in ("D", "us", "ns"):
        rows = [
            row | {"age": torch.tensor(row["age"]), "since": np.datetime64(row["since"], unit)}
            for row in table[:2].to_dict("records")
        ]
        assert (run.predict_proba(rows) == expected).all()
        assert (run.predict_proba(rows[0]) == expected[:1]).all()
