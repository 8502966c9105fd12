"""What is read from an accuracy matrix, against answers worked out by hand."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import antelope.launcher.metrics
from antelope.launcher.metrics.bwt import bwt
from antelope.launcher.metrics.forgetting import forgetting
from antelope.launcher.metrics.fwt import fwt
from antelope.launcher.metrics.learning_accuracy import learning_accuracy

# Task 1 gets better before it gets worse, task 2 only better; task 3 was known before it was learnt.
FOUR = [
    [0.90, 0.20, 0.78, 0.10],
    [0.95, 0.80, 0.40, 0.20],
    [0.50, 0.85, 0.70, 0.30],
    [0.60, 0.90, 0.30, 0.75],
]
UNTRAINED = [0.50, 0.10, 0.25, 0.35]


FOLDER = Path(antelope.launcher.metrics.__file__).parent
FILES = ("matrix", "forgetting", "bwt", "fwt", "learning_accuracy")


def together(right: str = "", wrong: str = "") -> ModuleType:
    """The four functions and what they share, in one module, with one piece of the source replaced."""
    source = "\n".join((FOLDER / f"{name}.py").read_text() for name in FILES)
    assert right in source
    source = re.sub(r"from (__future__|\.).*\n", "", source)
    module = ModuleType("together")
    exec(compile(source.replace(right, wrong), wrong, "exec"), module.__dict__)
    return module


def forgetting_is_the_fall_from_the_best_before_the_last_task(of: ModuleType) -> None:
    falls = [0.95 - 0.60, 0.85 - 0.90, 0.70 - 0.30]
    assert of.forgetting(FOUR) == pytest.approx(sum(falls) / 3)


def bwt_is_the_change_since_each_was_learnt(of: ModuleType) -> None:
    changes = [0.60 - 0.90, 0.90 - 0.80, 0.30 - 0.70]
    assert of.bwt(FOUR) == pytest.approx(sum(changes) / 3)


def fwt_is_the_lead_over_the_untrained_just_before_each_is_learnt(of: ModuleType) -> None:
    leads = [0.20 - 0.10, 0.40 - 0.25, 0.30 - 0.35]
    assert of.fwt(FOUR, UNTRAINED) == pytest.approx(sum(leads) / 3)


def learning_accuracy_is_the_mean_just_after_each_was_learnt(of: ModuleType) -> None:
    assert of.learning_accuracy(FOUR) == pytest.approx((0.90 + 0.80 + 0.70 + 0.75) / 4)


Check = Callable[[ModuleType], None]
CHECKS: tuple[Check, ...] = (
    forgetting_is_the_fall_from_the_best_before_the_last_task,
    bwt_is_the_change_since_each_was_learnt,
    fwt_is_the_lead_over_the_untrained_just_before_each_is_learnt,
    learning_accuracy_is_the_mean_just_after_each_was_learnt,
)
OF_FORGETTING, OF_BWT, OF_FWT, OF_LEARNING = CHECKS

# What it would be if the heart of each were another, and the check that must object.
MUTANTS: dict[str, tuple[str, str, Check]] = {
    "the last row counts as best": ("[j:last, j].max()", "[j : last + 1, j].max()", OF_FORGETTING),
    "without the diagonal": ("[j:last, j].max()", "[j + 1 : last + 1, j].max()", OF_FORGETTING),
    "only the diagonal": ("[j:last, j].max()", "[j, j]", OF_FORGETTING),
    "also before it was learnt": ("[j:last, j].max()", "[:last, j].max()", OF_FORGETTING),
    "mean for best": ("[j:last, j].max()", "[j:last, j].mean()", OF_FORGETTING),
    "row for column": ("[j:last, j].max()", "[j, j:last].max()", OF_FORGETTING),
    "the last task counts as well": ("for j in range(last))", "for j in range(last + 1))", OF_BWT),
    "divided by all tasks": ("/ len(values)", "/ (len(values) + 1)", OF_BWT),
    "forgetting for transfer": ("[last, j] - scores[j, j]", "[j, j] - scores[last, j]", OF_BWT),
    "from the row before": ("[last, j] - scores[j, j]", "[last, j] - scores[last - 1, j]", OF_BWT),
    "no baseline": (" - baseline[j] for", " for", OF_FWT),
    "the baseline of the task before": ("baseline[j] for", "baseline[j - 1] for", OF_FWT),
    "after it was learnt": ("scores[j - 1, j] - base", "scores[j, j] - base", OF_FWT),
    "after the first task only": ("scores[j - 1, j] - base", "scores[0, j] - base", OF_FWT),
    "the task before on itself": ("scores[j - 1, j] - base", "scores[j - 1, j - 1] - base", OF_FWT),
    "the end for the diagonal": (".diagonal())", "[-1])", OF_LEARNING),
    "everything for the diagonal": (".diagonal())", ".ravel())", OF_LEARNING),
}


@pytest.mark.parametrize("check", CHECKS)
def test_by_hand(check: Check) -> None:
    check(together())


@pytest.mark.parametrize("mutant", MUTANTS)
def test_another_formula_would_be_noticed(mutant: str) -> None:
    right, wrong, check = MUTANTS[mutant]
    with pytest.raises(AssertionError):
        check(together(right, wrong))


def test_the_tasks_seen_are_enough_for_all_but_forward_transfer() -> None:
    seen = [row[: i + 1] for i, row in enumerate(FOUR)]
    assert forgetting(seen) == forgetting(FOUR)
    assert bwt(seen) == bwt(FOUR)
    assert learning_accuracy(seen) == learning_accuracy(FOUR)
    assert math.isnan(fwt(seen, UNTRAINED))


@pytest.mark.parametrize("rows", [2, 3])
def test_a_sequence_in_progress_counts_as_one_of_the_tasks_learnt(rows: int) -> None:
    done, whole = FOUR[:rows], np.array(FOUR)[:rows, :rows]
    for metric in (forgetting, bwt, learning_accuracy):
        assert metric(done) == metric(whole)
    assert fwt(done, UNTRAINED) == fwt(whole, UNTRAINED[:rows])


def test_one_task_has_nothing_to_forget_or_transfer() -> None:
    assert learning_accuracy([[0.9, 0.1]]) == 0.9
    assert math.isnan(forgetting([[0.9, 0.1]]))
    assert math.isnan(bwt([[0.9, 0.1]]))
    assert math.isnan(fwt([[0.9, 0.1]], [0.1, 0.1]))


def test_without_tasks_there_is_no_number() -> None:
    values = forgetting([]), bwt([]), fwt([], []), learning_accuracy([])
    assert all(map(math.isnan, values))


def test_a_missing_score_that_is_needed_is_not_passed_over() -> None:
    holed = np.array(FOUR)
    holed[1, 0] = np.nan  # Task 1 after task 2: only forgetting looks there.
    assert math.isnan(forgetting(holed))
    assert bwt(holed) == bwt(FOUR)
    assert fwt(holed, UNTRAINED) == fwt(FOUR, UNTRAINED)
    assert learning_accuracy(holed) == learning_accuracy(FOUR)


def test_a_baseline_of_too_few_tasks_is_refused() -> None:
    with pytest.raises(ValueError, match="on each of the 4 tasks learnt, not on 1"):
        fwt(FOUR, [0.1])


def test_what_is_given_stays_as_it_was() -> None:
    matrix, baseline = np.array(FOUR), np.array(UNTRAINED)
    for metric in (forgetting, bwt, learning_accuracy):
        metric(matrix)
    fwt(matrix, baseline)
    np.testing.assert_array_equal(matrix, FOUR)
    np.testing.assert_array_equal(baseline, UNTRAINED)


@st.composite
def matrices(draw: st.DrawFn) -> np.ndarray:
    """Accuracies `[tasks, tasks]` of two to six tasks."""
    tasks = draw(st.integers(2, 6))
    cells = st.lists(st.floats(0.0, 1.0), min_size=tasks**2, max_size=tasks**2)
    return np.array(draw(cells)).reshape(tasks, tasks)


@given(matrices())
def test_the_end_is_what_was_learnt_and_what_later_tasks_did_to_it(matrix: np.ndarray) -> None:
    tasks = len(matrix)
    end = learning_accuracy(matrix) + bwt(matrix) * (tasks - 1) / tasks
    assert end == pytest.approx(matrix[-1].mean(), abs=1e-12)


@given(matrices())
def test_the_best_is_at_least_what_it_was_when_learnt(matrix: np.ndarray) -> None:
    assert -bwt(matrix) - 1e-12 <= forgetting(matrix) <= 1.0


@given(matrices())
def test_of_two_tasks_forgetting_is_backward_transfer_turned_round(matrix: np.ndarray) -> None:
    assert forgetting(matrix[:2]) == pytest.approx(-bwt(matrix[:2]), abs=1e-12)


@given(matrices(), st.floats(-1.0, 1.0))
def test_a_shift_of_all_scores_moves_only_the_learning_accuracy(
    matrix: np.ndarray, shift: float
) -> None:
    baseline = matrix[0]
    assert forgetting(matrix + shift) == pytest.approx(forgetting(matrix), abs=1e-12)
    assert bwt(matrix + shift) == pytest.approx(bwt(matrix), abs=1e-12)
    assert fwt(matrix + shift, baseline + shift) == pytest.approx(fwt(matrix, baseline), abs=1e-12)
    moved = learning_accuracy(matrix) + shift
    assert learning_accuracy(matrix + shift) == pytest.approx(moved, abs=1e-12)


@given(matrices())
def test_a_model_that_never_changes_forgets_and_transfers_nothing(matrix: np.ndarray) -> None:
    frozen = np.tile(matrix[0], (len(matrix), 1))
    assert (forgetting(frozen), bwt(frozen), fwt(frozen, frozen[0])) == (0.0, 0.0, 0.0)
