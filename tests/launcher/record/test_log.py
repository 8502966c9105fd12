"""Scalars are averaged between rows; CSV files are cut and continued to the byte."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from antelope.launcher.record.csv_file import CSV, read_csv
from antelope.launcher.record.log import Journal, Log, is_number
from antelope.replay import ConfigError


class TestLog:
    def test_by_attribute_and_by_item(self) -> None:
        log = Log()
        log.loss = 1.5
        log["critic/loss"] = torch.tensor(2.5)
        assert (log.loss, float(log["critic/loss"])) == (1.5, 2.5)
        assert log.take() == {"loss": 1.5, "critic/loss": 2.5}

    def test_a_row_holds_the_mean_since_the_row_before(self) -> None:
        log = Log()
        for value in (1, torch.tensor(2.0), np.float64(6)):
            log.loss = value
        assert log.take() == {"loss": 3}
        assert log.take() == {}
        log.loss = 8
        assert log.take() == {"loss": 8}

    def test_tensors_are_detached_and_not_changed_afterwards(self) -> None:
        log = Log()
        weight = torch.tensor([3.0], requires_grad=True)
        log.loss = weight * 2
        with torch.no_grad():
            log.weight = weight
            weight.fill_(9)
        assert not torch.as_tensor(log.loss).requires_grad
        assert log.take() == {"loss": 6, "weight": 3}

    @pytest.mark.parametrize(
        ("value", "message"),
        [
            (torch.zeros(2), r"log\.x records a scalar.*shape \[2\].*mean"),
            (torch.zeros(0), r"shape \[0\]"),
            ("high", "number or a 0-d tensor, but received str 'high'"),
            (None, "NoneType"),
            ([1, 2], "list"),
        ],
    )
    def test_refuses_what_is_no_scalar(self, value: Any, message: str) -> None:
        log = Log()
        with pytest.raises(ConfigError, match=message):
            log.x = value

    def test_large_counts_are_exact(self) -> None:
        log = Log()
        log.frames = torch.tensor(2**24 + 1)  # The first integer that float32 does not hold.
        log.value = torch.tensor(1 / 3, dtype=torch.float64)
        assert log.take() == {"frames": 2**24 + 1, "value": 1 / 3}

    def test_the_mean_of_infinities_is_what_ieee_says(self) -> None:
        log = Log()
        for value in (math.inf, -math.inf):
            log.both = value
        for _ in range(2):
            log.one = math.inf
            log.large = 1.7e308
        means = log.take()
        assert math.isnan(means["both"])
        assert means["one"] == math.inf

    def test_what_was_not_logged_says_so(self) -> None:
        with pytest.raises(AttributeError, match="Nothing was logged as 'loss'"):
            _ = Log().loss
        assert Log().last("loss") is None

    def test_continues_from_its_state(self) -> None:
        log, resumed = Log(), Log()
        log.loss = torch.tensor(1.0)
        log.loss = 2
        resumed.load_state_dict(copy.deepcopy(log.state_dict()))
        for one in (log, resumed):
            one.loss = 6
        assert log.take() == resumed.take() == {"loss": 3}

    def test_can_be_copied(self) -> None:
        log = Log()
        log.loss = 1
        assert copy.deepcopy(log).take() == {"loss": 1}


NAMES = ("loss", "accuracy", "a/b", 'odd, "name"')
rows = st.lists(
    st.dictionaries(
        st.sampled_from(NAMES),
        st.floats() | st.integers(-(2**40), 2**40),
        max_size=3,
    ),
    min_size=1,
    max_size=6,
)


def written(path: Path, rows: list[dict[str, Any]], first: int = 0) -> CSV:
    """A CSV file after `rows`, the first of which is of step `first`."""
    file = CSV(path, mode="train")
    for step, values in enumerate(rows, first):
        file.write({"mode": "train", "step": step, **values})
    return file


class TestCSV:
    @settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
    @given(rows)
    def test_numbers_are_read_back_exactly(
        self, tmp_path: Path, rows: list[dict[str, Any]]
    ) -> None:
        path = tmp_path / "train.csv"
        path.unlink(missing_ok=True)
        written(path, rows).close()
        expected = [{"mode": "train", "step": i, **values} for i, values in enumerate(rows)]
        assert [_sorted(row) for row in read_csv(path)] == [_sorted(row) for row in expected]

    @settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
    @given(rows, st.data())
    def test_cut_and_continued_it_is_the_same_file(
        self, tmp_path: Path, rows: list[dict[str, Any]], data: st.DataObject
    ) -> None:
        path = tmp_path / "train.csv"
        path.unlink(missing_ok=True)
        written(path, rows).close()
        whole = path.read_bytes()
        keep = data.draw(st.integers(0, len(rows)))
        with path.open("a") as file:  # The process was killed in the middle of a line.
            file.write(data.draw(st.sampled_from(["", "trai", "train,9,"])))
        resumed = CSV(path, mode="train")
        resumed.cut(keep)
        assert resumed.count == keep
        for step, values in enumerate(rows[keep:], keep):
            resumed.write({"mode": "train", "step": step, **values})
        resumed.close()
        assert path.read_bytes() == whole

    def test_a_new_name_widens_the_header(self, tmp_path: Path) -> None:
        path = tmp_path / "train.csv"
        written(path, [{"loss": 0.5}, {"loss": 0.25, "lr": 1}, {"lr": 2}]).close()
        assert path.read_text() == ("mode,step,loss,lr\ntrain,0,0.5,\ntrain,1,0.25,1\ntrain,2,,2\n")

    def test_a_row_is_on_disk_when_it_is_written(self, tmp_path: Path) -> None:
        file = written(tmp_path / "train.csv", [{"loss": 1}, {"loss": 2}])
        assert (tmp_path / "train.csv").read_text().count("\n") == 3
        file.sync()
        file.close()

    def test_rows_of_another_mode_are_left_out(self, tmp_path: Path) -> None:
        file = CSV(tmp_path / "train.csv", mode="train")
        file.write({"mode": "eval", "step": 1})
        assert not file.path.exists()

    def test_cut_to_nothing_leaves_no_file(self, tmp_path: Path) -> None:
        path = tmp_path / "train.csv"
        written(path, [{"loss": 1}]).close()
        CSV(path, mode="train").cut(0)
        assert not path.exists()

    def test_what_is_not_there_has_no_rows(self, tmp_path: Path) -> None:
        assert read_csv(tmp_path / "none.csv") == []


def _sorted(row: dict[str, Any]) -> str:
    return repr(sorted(row.items()))  # repr: NaN equals itself, and 1 is not 1.0.


class TestJournal:
    def test_keeps_every_row_in_order_and_each_file_its_own(self, tmp_path: Path) -> None:
        files = [CSV(tmp_path / f"{mode}.csv", mode=mode) for mode in ("train", "eval")]
        journal = Journal(list(files), print)
        journal.write("train", step=1, loss=0.5)
        journal.write("eval", step=1, accuracy=0.9)
        journal.write("train", step=2, loss=0.25)
        journal.close()
        assert [(row["mode"], row["step"]) for row in journal.history] == [
            ("train", 1),
            ("eval", 1),
            ("train", 2),
        ]
        assert [len(read_csv(tmp_path / f"{mode}.csv")) for mode in ("train", "eval")] == [2, 1]

    def test_resumed_it_forgets_what_came_after_its_state(self, tmp_path: Path) -> None:
        def journal() -> Journal:
            return Journal([CSV(tmp_path / f"{m}.csv", mode=m) for m in ("train", "eval")], print)

        first = journal()
        for step in (1, 2):
            first.write("train", step=step, loss=0.5)
            first.write("eval", step=step, accuracy=0.9)
        history, state = list(first.history), first.state_dict()
        first.write("train", step=3, loss=0.1)
        first.close()
        second = journal()
        second.load_state_dict(state)
        assert second.history == history
        second.write("train", step=3, loss=0.2)
        second.close()
        assert [row["loss"] for row in read_csv(tmp_path / "train.csv")] == [0.5, 0.5, 0.2]


@pytest.mark.parametrize(
    ("value", "expected"),
    [(1, True), (0.5, True), (np.float32(1), True), (True, False), ("1", False), (None, False)],
)
def test_is_number(value: Any, expected: bool) -> None:
    assert is_number(value) is expected
