"""Columns are read by index; lazy ones are decoded at each reading."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from antelope.replay import LazyColumn, Table


@given(st.lists(st.integers(0, 4), max_size=10))
def test_gather_gives_the_rows_asked_for_in_that_order(picks: list[int]) -> None:
    table = Table(obs=torch.arange(10, dtype=torch.uint8).view(5, 2), label=torch.arange(5) * 7)
    rows = table.gather(torch.tensor(picks, dtype=torch.int64))
    assert rows["obs"].dtype == torch.uint8
    assert rows["obs"].tolist() == [[2 * i, 2 * i + 1] for i in picks]
    assert rows["label"].tolist() == [7 * i for i in picks]


def test_rows_are_copies() -> None:
    table = Table(obs=torch.zeros(3, 2))
    table.gather(torch.tensor([1]))["obs"].fill_(9)
    assert table.columns["obs"].sum() == 0


def test_strided_columns_are_read_right() -> None:
    table = Table(obs=torch.arange(6).view(2, 3).t())
    assert table.gather(torch.tensor([2, 0]))["obs"].tolist() == [[2, 5], [0, 3]]


def test_lazy_columns_decode_at_each_reading() -> None:
    read: list[str] = []

    def convert(word: str) -> torch.Tensor:
        read.append(word)
        return torch.tensor([len(word)])

    column = LazyColumn(["a", "bb", "ccc"], convert, shape=(1,), dtype=torch.int64)
    table = Table(obs=column, label=torch.tensor([0, 1, 2]))
    assert len(table) == 3
    assert column.shape == (3, 1)
    for _ in range(2):
        rows = table.gather(torch.tensor([2, 0]))
        assert rows["obs"].tolist() == [[3], [1]]
        assert rows["label"].tolist() == [2, 0]
    assert read == ["ccc", "a"] * 2


def test_rows_move_together_or_stay_where_one_of_them_is_decoded() -> None:
    column = LazyColumn([1, 2], torch.tensor, shape=(), dtype=torch.int64)
    meta = torch.device("meta")
    assert Table(obs=torch.zeros(2), label=torch.zeros(2)).to(meta).columns["label"].device == meta
    # One index serves all columns of a table, so they must be in one place.
    table = Table(obs=column, label=torch.zeros(2)).to(meta)
    assert table.columns["label"].device.type == "cpu"
    assert table.gather(torch.tensor([1]))["obs"].tolist() == [2]
