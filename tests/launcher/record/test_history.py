"""A history behaves as the list of its rows, of which long runs keep only the newest in memory."""

from __future__ import annotations

import copy
import pickle
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from antelope.launcher.record import csv_file, history
from antelope.launcher.record.csv_file import CSV, read_csv
from antelope.launcher.record.history import History
from antelope.launcher.record.log import Journal

opened: list[Journal] = []


def journal_in(folder: Path) -> Journal:
    files = [CSV(folder / f"{m}.csv", mode=m) for m in ("train", "eval")]
    opened.append(Journal(list(files), print))
    return opened[-1]


@pytest.fixture(autouse=True)
def closed() -> Iterator[None]:
    yield
    while opened:
        opened.pop().close()


def fill(journal: Journal, steps: int, first: int = 0) -> list[dict[str, Any]]:
    rows = []
    for step in range(first, first + steps):
        rows.append(journal.write("train", step=step, task=step // 50, loss=1 / (step + 1)))
        if step % 7 == 0:
            rows.append(journal.write("eval", step=step, task=step // 50, accuracy=step / 3))
    return rows


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history, "_IN_MEMORY", 20)
    monkeypatch.setattr(history, "_READ", 8)


@pytest.mark.usefixtures("few")
class TestOfALongRun:
    def test_it_is_the_list_of_its_rows(self, tmp_path: Path) -> None:
        journal = journal_in(tmp_path)
        rows, found = fill(journal, 100), journal.history
        assert found.num_older > 50
        assert len(found) == len(rows)
        assert list(found) == rows
        assert found == rows
        assert found != rows[1:]
        assert [found[i] for i in range(-len(rows), len(rows))] == rows + rows
        for cut in (slice(3, 90, 4), slice(None, None, -3), slice(-5, None), slice(5, 5)):
            assert found[cut] == rows[cut]
        assert next(reversed(found)) == rows[-1]
        with pytest.raises(IndexError):
            found[len(rows)]

    def test_it_can_be_copied_and_pickled(self, tmp_path: Path) -> None:
        journal = journal_in(tmp_path)
        rows = fill(journal, 60)
        assert copy.deepcopy(journal.history) == pickle.loads(pickle.dumps(journal.history)) == rows

    def test_a_resumed_run_has_the_rows_up_to_its_checkpoint(self, tmp_path: Path) -> None:
        first = journal_in(tmp_path)
        rows, state = fill(first, 70), first.state_dict()
        fill(first, 30, first=70)
        first.close()
        second = journal_in(tmp_path)
        second.load_state_dict(state)
        assert second.history == rows
        rows += fill(second, 30, first=70)
        assert second.history == rows

    def test_rows_that_could_not_be_written_stay_in_memory(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        journal = journal_in(tmp_path)
        rows = fill(journal, 30)

        def full(*_: object) -> None:
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as patch:
            patch.setattr(journal.writers[0], "_write_waiting", full)
            rows += fill(journal, 60, first=30)
            assert journal.history == rows
            journal.sync()
            state = journal.state_dict()
            assert state["train"] == 30
            waiting = [row for row in rows if row["mode"] == "train" and row["step"] >= 30]
            assert state["waiting"] == {"train": waiting}
        journal.sync()
        assert journal.state_dict()["train"] == 90
        rows += fill(journal, 60, first=90)
        assert journal.history == rows

    def test_rows_that_could_not_be_written_are_in_the_checkpoint(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        first = journal_in(tmp_path)
        rows = fill(first, 20)

        def full(*_: object) -> None:
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as patch:
            patch.setattr(first.writers[0], "_write_waiting", full)
            rows += fill(first, 20, first=20)
            state = first.state_dict()
            first.close()
        second = journal_in(tmp_path)
        second.load_state_dict(state)
        assert second.history == rows
        second.close()
        assert [row["step"] for row in read_csv(tmp_path / "train.csv")] == list(range(40))

    def test_more_rows_than_are_kept_are_counted(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setattr(csv_file, "_MOST_WAITING", 5)
        journal = journal_in(tmp_path)

        def full(*_: object) -> None:
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as patch:
            patch.setattr(journal.writers[0], "_write_waiting", full)
            rows = fill(journal, 9)
        rows += fill(journal, 1, first=9)
        assert journal.history == rows
        journal.close()
        journal.close()
        # The row that came when there was room has pushed out one more.
        assert [row["step"] for row in read_csv(tmp_path / "train.csv")] == [5, 6, 7, 8, 9]
        assert capsys.readouterr().out.count("5 of 10 rows could not be written") == 1

    def test_pictures_are_drawn_from_means_that_do_not_cross_tasks(self, tmp_path: Path) -> None:
        journal = journal_in(tmp_path)
        rows = fill(journal, 100)
        few_rows = journal.history.condensed(30)
        assert journal.history.condensed(1000) == rows
        assert len(few_rows) <= 40
        losses = [row for row in few_rows if row["mode"] == "train"]
        assert {row["task"] for row in losses} == {0, 1}
        assert losses[0]["loss"] == pytest.approx(sum(1 / (i + 1) for i in range(4)) / 4)
        assert [row["step"] for row in losses if row["task"] == 0][-1] == 49


@pytest.mark.row(50)
def test_memory_is_flat_however_many_rows_are_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history, "_IN_MEMORY", 500)
    journal = journal_in(tmp_path)
    tracemalloc.start()
    try:
        fill(journal, 2000)
        before, _ = tracemalloc.get_traced_memory()
        for first in range(2000, 8000, 500):
            fill(journal, 500, first=first)
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert after - before < 500_000  # The rows themselves hold 2 MB.
    assert len(journal.history) == 8000 + len(range(0, 8000, 7))


def test_a_row_that_was_half_written_is_cut_off_and_written_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import os

    file = CSV(tmp_path / "train.csv", mode="train")
    rows: list[dict[str, Any]] = [{"mode": "train", "step": i, "loss": i / 2} for i in range(4)]
    file.write(rows[0])
    file.write(rows[1])
    write, calls = os.write, []

    def half(at: int, data: bytes) -> int:
        calls.append(at)
        if len(calls) > 1:
            raise OSError(28, "No space left on device")
        return write(at, data[: len(data) // 2])

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", half)
        with pytest.raises(OSError, match="No space left"):
            file.write(rows[2])
    assert (tmp_path / "train.csv").read_text().count("\n") == 3
    assert file.count == 2
    file.write(rows[3])
    file.close()
    again = CSV(tmp_path / "whole.csv", mode="train")
    for row in rows:
        again.write(row)
    again.close()
    assert (tmp_path / "train.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()


def test_without_files_all_rows_are_kept() -> None:
    found = History({})
    for step in range(20_000):
        found.append({"mode": "train", "step": step}, in_file=True)
    assert len(found) == 20_000
    assert found[0]["step"] == 0
