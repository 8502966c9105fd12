"""The pictures of a run's last predictions, and what is kept for them."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import sklearn.metrics
from matplotlib.figure import Figure
from sklearn.datasets import load_digits

from antelope import ml
from antelope.launcher.pictures.predictions import (
    ClassPredictions,
    LabelPredictions,
    Mistake,
    ValuePredictions,
)
from antelope.launcher.pictures.results import curves, draw_results

RANDOM = np.random.RandomState(0)


def no_images(places: np.ndarray) -> None:
    """These rows are not pictures."""


def classes(n: int, rows: int, names: Sequence[str] | None = None) -> ClassPredictions:
    found = ClassPredictions(n, names)
    label = RANDOM.randint(n, size=rows)
    found.add(RANDOM.randn(rows, n) + 2 * np.eye(n)[label], label, no_images)
    return found


def table(folder: Path) -> list[dict[str, str]]:
    with open(folder / "classes.csv", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures that are drawn, instead of written."""
    drawn: list[Figure] = []
    monkeypatch.setattr(
        "antelope.launcher.pictures.results.save", lambda figure, _: drawn.append(figure)
    )
    return drawn


# ------------------------------------------------------------------------------- what is counted


def test_counts_and_the_table_are_scikit_learns() -> None:
    label, output = RANDOM.randint(4, size=200), RANDOM.randn(200, 5)
    found = ClassPredictions(5)
    for part in (slice(0, 50), slice(50, 200)):  # Tasks of a sequence are counted together.
        found.add(output[part], label[part], no_images)
    chosen = output.argmax(1)
    expected = sklearn.metrics.confusion_matrix(label, chosen, labels=range(5))
    assert (found.counts == expected).all()
    report = sklearn.metrics.classification_report(
        label, chosen, labels=range(5), output_dict=True, zero_division=0
    )
    for row in found.table():
        theirs = report[row["class"]]
        assert row["support"] == theirs["support"]
        assert row["f1"] == pytest.approx(theirs["f1-score"])
        assert row["recall"] == pytest.approx(theirs["recall"])
        assert row["precision"] == pytest.approx(theirs["precision"])


def test_ignored_pixels_are_not_counted_and_pixels_have_an_iou() -> None:
    label = np.array([[[0, 1], [1, 255]]])  # [1, H, W]
    output = np.zeros((1, 2, 2, 2))
    output[0, 1, 0] = 1  # The first row of pixels is predicted as 1, the second as 0.
    found = ClassPredictions(2, ignored=255)
    found.add(output, label, no_images)
    assert found.counts is not None
    assert found.counts.tolist() == [[0, 1], [1, 1]]
    assert [row["iou"] for row in found.table()] == [0, pytest.approx(1 / 3)]


def test_several_labels_are_counted_each() -> None:
    found = LabelPredictions(2, ["sun", "rain"])
    found.add(np.array([[0.3, -0.3], [2.0, 3.0]]), np.array([[1.0, 1.0], [0.0, 1.0]]), no_images)
    sun, rain = found.table()
    assert (sun["precision"], sun["recall"], sun["support"]) == (0.5, 1, 1)
    assert (rain["precision"], rain["recall"], rain["support"]) == (1, 0.5, 2)


def test_the_most_confident_mistakes_are_kept_with_their_pictures() -> None:
    asked: list[int] = []

    def images(places: np.ndarray) -> np.ndarray:
        asked.extend(places)
        return np.zeros((len(places), 4, 4, 1))

    output = np.zeros((100, 3))
    output[:, 1] = np.arange(100) / 20  # All say 1, the later ones with more confidence.
    found = ClassPredictions(3)
    found.add(output[:50], np.zeros(50, int), images)
    found.add(output[50:], np.array([1, 2] * 25), images)
    assert len(asked) == 48  # No more than can be drawn are read.
    assert len(found.mistakes) == 24
    first = found.mistakes[0]
    assert (first.label, first.predicted, first.confidence) == (
        2,
        1,
        pytest.approx(0.986, abs=1e-3),
    )
    assert {mistake.label for mistake in found.mistakes} == {2}


@pytest.mark.parametrize("n", [3, 30])
def test_the_matrix_shows_the_share_of_each_true_class_in_its_row(
    n: int, tmp_path: Path, figures: list[Figure]
) -> None:
    label, chosen = np.array([0, 0, 0, 0, 1, 2]), np.array([0, 1, 1, 2, 1, 2])
    found = ClassPredictions(n)
    found.add(np.eye(n)[chosen], label, no_images)
    draw_results(tmp_path, found)
    matrix, *others = figures[0].axes
    shares = matrix.images[0].get_array()
    assert shares is not None
    expected = [[0.25, 0.5, 0.25], [0, 1, 0], [0, 0, 1]]
    assert np.asarray(shares)[:3, :3].tolist() == expected
    assert (matrix.get_xlabel(), matrix.get_ylabel()) == ("predicted", "true")
    if n == 30:  # No room for numbers: the most frequent confusions are listed, the worst first.
        listed = others[0].texts[0].get_text().splitlines()
        assert [line.split() for line in listed] == [["2", "0", "→", "1"], ["1", "0", "→", "2"]]
    else:
        numbers = [text.get_text() for text in matrix.texts]
        assert numbers == ["1", "2", "1", "0", "1", "0", "0", "0", "1"]


def test_long_names_that_begin_alike_stay_apart(tmp_path: Path, figures: list[Figure]) -> None:
    names = ["cat", "tomato leaf, early blight", "tomato leaf, early\nmould"]
    draw_results(tmp_path, classes(3, 60, names))
    labels = [label.get_text() for label in figures[0].axes[0].get_yticklabels()]
    assert labels == ["cat", "1: tomato leaf,...", "2: tomato leaf,..."]


@pytest.mark.parametrize("shape", [(8, 40), (40, 8), (20, 20)])
def test_mistakes_of_any_shape_have_room_for_their_text(
    shape: tuple[int, int], tmp_path: Path, figures: list[Figure]
) -> None:
    found = ClassPredictions(2)
    found.add(np.eye(2)[[0] * 24], np.ones(24, int), lambda rows: np.zeros((len(rows), *shape, 1)))
    draw_results(tmp_path, found)
    mistakes = figures[1]
    (ax,) = mistakes.axes
    pixels = ax.images[0].get_array()
    assert pixels is not None
    inch = pixels.shape[1] / mistakes.get_figwidth()  # In pixels of the images.
    black = np.flatnonzero((pixels[:, :, 0] == 0).any(1))  # Rows of pixels that belong to images.
    above = np.diff(black, prepend=-1) - 1
    assert (above > 0).sum() == 4
    assert (above[above > 0] / inch > 0.25).all()  # Two lines of 6 points are 0.2 inches.
    assert mistakes.get_figheight() < 10


def test_columns_that_are_not_drawn_are_counted_in_the_title(
    tmp_path: Path, figures: list[Figure]
) -> None:
    for columns in (6, 9):
        found = ValuePredictions()
        found.add(RANDOM.randn(5, columns), RANDOM.randn(5, columns), no_images)
        draw_results(tmp_path, found, title="Net")
    titles = [figure.get_suptitle() for figure in figures]
    assert titles == [
        "Predicted against true values: Net",
        "Predicted against true values (6 of 9 columns): Net",
    ]
    assert [len(figure.axes) for figure in figures] == [6, 6]


def test_few_values_of_many_rows_are_kept() -> None:
    found = ValuePredictions()
    for _ in range(3):
        found.add(np.ones((30_000, 1)), np.zeros(30_000), no_images)
    assert len(found.output) == len(found.label) <= 4000


def test_the_score_of_two_classes_is_the_probability_of_the_second() -> None:
    logits, label = RANDOM.randn(20, 2), RANDOM.randint(2, size=20)
    found = ClassPredictions(2)
    found.add(logits, label, no_images)
    assert found.scores is not None
    assert np.allclose(found.scores[0], 1 / (1 + np.exp(logits[:, 0] - logits[:, 1])))
    assert np.array_equal(found.scores[1], label)


def test_curves_are_scikit_learns() -> None:
    label, scores = RANDOM.randint(2, size=300), RANDOM.rand(300).round(2)  # With ties.
    false, true, precision = curves(scores, label)
    theirs = sklearn.metrics.roc_curve(label, scores, drop_intermediate=False)
    assert np.allclose(false, theirs[0])
    assert np.allclose(true, theirs[1])
    average = ((true[1:] - true[:-1]) * precision[1:]).sum()
    assert average == pytest.approx(sklearn.metrics.average_precision_score(label, scores))


# --------------------------------------------------------------------------------- what is drawn


@pytest.mark.parametrize(
    ("found", "written"),
    [
        (classes(3, 60, ["cat", "dog", "a very long name of a class"]), ["classes.csv", "confusion_matrix"]),
        (classes(30, 200), ["classes.csv", "confusion_matrix"]),
        (classes(2, 60), ["classes.csv", "confusion_matrix", "roc"]),
        (classes(1200, 60), ["classes.csv"]),
        (classes(1, 20), ["classes.csv"]),
        (LabelPredictions(3), ["classes.csv"]),
        (ValuePredictions(), []),
    ],
)  # fmt: skip
def test_what_suits_the_predictions_is_written(
    found: ClassPredictions | LabelPredictions | ValuePredictions,
    written: list[str],
    tmp_path: Path,
) -> None:
    draw_results(tmp_path / "plots", found, title="Net on data")
    names = {
        path.name.removesuffix(".png").removesuffix(".svg") for path in tmp_path.glob("plots/*")
    }
    assert sorted(names) == written


def test_a_large_matrix_lists_the_most_frequent_confusions(tmp_path: Path) -> None:
    found = ClassPredictions(25, [f"kind {i}" for i in range(25)])
    label = np.arange(25).repeat(4)
    said = np.where(label == 3, 17, label)
    found.add(np.eye(25)[said], label, no_images)
    draw_results(tmp_path, found)
    text = (tmp_path / "confusion_matrix.svg").read_text()
    assert "4  kind 3 \N{RIGHTWARDS ARROW} kind 17" in text


def test_a_run_draws_its_last_evaluation_of_all_tasks(workdir: Path) -> None:
    settings = {"tasks": 2, "train_steps": 3, "eval_rows": 20, "progress": False, "path": "run"}
    run = ml(dataset="Digits", **settings)
    plots = run.path / "plots"
    rows = table(plots)
    assert [row["class"] for row in rows] == list("0123456789")
    # All held-out rows of all tasks, also with eval_rows.
    assert sum(int(row["support"]) for row in rows) == 359
    recalls = np.array([float(row["recall"]) for row in rows])
    support = np.array([int(row["support"]) for row in rows])
    of_tasks = [
        (recalls * support)[task].sum() / support[task].sum() for task in (slice(5), slice(5, 10))
    ]
    assert run.metrics["accuracy"] == pytest.approx(np.mean(of_tasks))
    assert (plots / "mistakes.png").exists()
    assert (plots / "confusion_matrix.svg").exists()


def test_the_pictures_of_mistakes_are_those_of_their_rows(
    workdir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[Mistake] = []
    monkeypatch.setattr(
        "antelope.launcher.pictures.results._draw_mistakes",
        lambda path, mistakes, *_: drawn.extend(mistakes),
    )
    ml(dataset="Digits", train_steps=3, progress=False, path="run")
    images, labels = load_digits(return_X_y=True)
    images /= images.max(1, keepdims=True)
    assert len(drawn) == 24
    for mistake in drawn:
        image = mistake.image.reshape(-1)
        (row,) = np.flatnonzero(np.isclose(images, image / image.max(), atol=1e-3).all(1))
        assert labels[row] == mistake.label
        assert image.max() <= 1


def test_a_regression_draws_predicted_against_true(workdir: Path) -> None:
    run = ml(dataset="Diabetes", train_steps=3, progress=False, path="run")
    assert (run.path / "plots" / "predictions.png").exists()
    assert not (run.path / "plots" / "classes.csv").exists()


def test_a_metric_of_the_users_has_a_panel(workdir: Path) -> None:
    def mine(output: object, label: object) -> float:
        return 0.5

    run = ml(dataset="Digits", metrics=[mine], train_steps=3, progress=False, path="run")
    assert ">mine<" in (run.path / "plots" / "learning_curve.svg").read_text()


def test_a_picture_that_fails_ends_no_run(
    workdir: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(self: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(ClassPredictions, "table", broken)
    run = ml(dataset="Digits", train_steps=3, progress=False, path="run")
    assert run.metrics
    assert "No pictures of the predictions: OSError: disk full" in capsys.readouterr().err
    assert (run.path / "plots" / "learning_curve.png").exists()
