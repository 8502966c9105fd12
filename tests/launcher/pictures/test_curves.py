import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from antelope.launcher.pictures.curves import draw_run, task_borders, thinned

TRAIN = [{"mode": "train", "step": 50 * i, "task": 0, "loss": 2.0 / i} for i in range(1, 5)]
EVAL = [{"mode": "eval", "step": 100 * i, "task": 0, "accuracy": 0.4 * i} for i in (1, 2)]
TWO_TASKS = [[1.0, 0.0], [0.25, 0.875]]


def drawn(path: Path) -> set[str]:
    return {found.name for found in (path / "plots").glob("*")}


def texts(svg: Path) -> list[str]:
    return re.findall(r"<text[^>]*>([^<]*)</text>", svg.read_text())


def test_the_curves_of_a_run_are_drawn_as_png_and_svg(tmp_path):
    draw_run(tmp_path, TRAIN + EVAL, matrix=[[0.8]])
    assert drawn(tmp_path) == {"learning_curve.png", "learning_curve.svg"}
    assert {"loss", "accuracy", "step", "training", "evaluation"} <= set(
        texts(tmp_path / "plots" / "learning_curve.svg")
    )


def test_the_png_is_a_picture_with_the_colours_of_both_lines(tmp_path):
    draw_run(tmp_path, TRAIN + EVAL, matrix=[[0.8]])
    with Image.open(tmp_path / "plots" / "learning_curve.png") as image:
        colours = {colour for _, colour in image.convert("RGB").getcolors(maxcolors=1 << 24)}
    assert {(0x00, 0x72, 0xB2), (0x90, 0x90, 0x90), (255, 255, 255)} <= colours


def test_several_tasks_also_get_the_matrix_and_a_curve_per_task(tmp_path):
    history = [*EVAL, {"mode": "eval", "step": 400, "task": 1, "accuracy": 0.5625}]
    draw_run(tmp_path, history, matrix=TWO_TASKS)
    stems = ("learning_curve", "accuracy_matrix", "tasks")
    assert drawn(tmp_path) == {f"{stem}.{end}" for stem in stems for end in ("png", "svg")}
    matrix = texts(tmp_path / "plots" / "accuracy_matrix.svg")
    assert {"1.00", "0.00", "0.25", "0.88", "after learning task", "on task"} <= set(matrix)
    tasks = texts(tmp_path / "plots" / "tasks.svg")
    assert {"task 1", "task 2", "mean of seen", "tasks learnt"} <= set(tasks)
    curve = texts(tmp_path / "plots" / "learning_curve.svg")
    assert "evaluation, mean of the tasks seen" in curve


def test_regression_shows_its_squared_error_apart_from_the_training_loss(tmp_path):
    evals = [{"mode": "eval", "step": i, "mse": 900.0, "loss": 900.0, "r2": 0.5} for i in (1, 2)]
    draw_run(tmp_path, TRAIN + evals, matrix=[[0.5]])
    labels = texts(tmp_path / "plots" / "learning_curve.svg")
    assert {"loss", "mse", "r2"} <= set(labels)
    draw_run(tmp_path, evals, matrix=[[0.5]])
    labels = texts(tmp_path / "plots" / "learning_curve.svg")
    assert {"mse", "r2"} <= set(labels)
    assert "loss" not in labels


@pytest.mark.parametrize(
    ("history", "matrix"),
    [
        ([], []),
        ([{"mode": "train", "step": 1, "lr": 0.1}], [[float("nan")]]),
        ([{"mode": "eval", "step": 1, "accuracy": float("nan")}], [[float("nan")] * 2] * 2),
        ([{"mode": "note", "step": 1, "loss": 1.0}, {"mode": "train", "loss": 1.0}], [[]]),
    ],
)
def test_without_data_nothing_is_written(tmp_path, history, matrix):
    draw_run(tmp_path, history, matrix=matrix)
    assert list(tmp_path.iterdir()) == []


def test_values_that_cannot_be_drawn_are_passed_over(tmp_path):
    history, matrix = list(TRAIN), [[0.5, -3.0]]
    for odd in (float("nan"), float("inf"), -float("inf"), 1e308, None, "", "x"):
        history += [
            {"mode": "train", "step": 250, "task": odd, "loss": odd},
            {"mode": "train", "step": odd, "task": 0, "loss": 1.0},
            {"mode": "eval", "step": 300, "accuracy": odd, "return": 3.0},
        ]
        matrix.append([odd, -1500.0])
    draw_run(tmp_path, history, matrix=matrix)  # Any warning is an error in tests.
    assert len(drawn(tmp_path)) == 6
    assert "return" in texts(tmp_path / "plots" / "learning_curve.svg")
    assert "accuracy" not in texts(tmp_path / "plots" / "learning_curve.svg")


def test_the_same_run_gives_the_same_bytes(tmp_path):
    for name in ("one", "other"):
        draw_run(tmp_path / name, TRAIN + EVAL, matrix=TWO_TASKS)
    for path in sorted((tmp_path / "one" / "plots").iterdir()):
        assert path.read_bytes() == (tmp_path / "other" / "plots" / path.name).read_bytes()


def test_drawing_leaves_matplotlib_as_it_was(tmp_path):
    import matplotlib

    def settings():
        # The backend is found out when it is first looked at.
        return {
            name: matplotlib.rcParams[name] for name in matplotlib.rcParams if name != "backend"
        }

    before = settings()
    draw_run(tmp_path, TRAIN + EVAL, matrix=[])
    assert settings() == before


def test_fifty_tasks_fit_into_their_pictures(tmp_path):
    draw_run(tmp_path, EVAL, matrix=np.eye(50).tolist())
    with Image.open(tmp_path / "plots" / "accuracy_matrix.png") as image:
        assert max(image.size) < 3000
    assert len([t for t in texts(tmp_path / "plots" / "tasks.svg") if t.startswith("task ")]) <= 12


def test_borders_are_the_last_steps_of_all_tasks_but_the_last():
    rows = [(0, 50), (0, 90), (1, 100), (1, 180), (2, 200)]
    assert task_borders([{"mode": "train", "task": t, "step": s} for t, s in rows]) == [90, 180]
    assert task_borders(TRAIN) == []


def test_a_long_line_is_thinned_by_means_of_neighbours():
    steps, values = thinned(np.arange(900.0), np.tile([0.0, 3.0, 6.0], 300))
    assert len(steps) == 300
    np.testing.assert_allclose(steps[:2], [1.0, 4.0])
    np.testing.assert_allclose(values, 3.0)
    short = thinned(np.array([1.0, 2.0]), np.array([5.0, 7.0]))
    np.testing.assert_array_equal(short, [[1.0, 2.0], [5.0, 7.0]])


def test_where_the_task_is_told_that_accuracy_is_drawn(tmp_path):
    evals = [{**row, "task_il_accuracy": 0.9} for row in EVAL]
    draw_run(tmp_path, TRAIN + evals, matrix=[[0.8]], told=True)
    labels = texts(tmp_path / "plots" / "learning_curve.svg")
    assert "task_il_accuracy" in labels
    assert "accuracy" not in labels


def test_where_the_task_is_told_the_loss_beside_the_training_s_is_told_too(tmp_path):
    def ticks(told: bool, **losses: float) -> list[str]:
        evals = [{**row, "task_il_accuracy": 0.9, **losses} for row in EVAL]
        draw_run(tmp_path, TRAIN + evals, matrix=[[0.8]], told=told)
        return texts(tmp_path / "plots" / "learning_curve.svg")

    expected = ticks(True, loss=0.5)
    assert ticks(True, loss=40.0, task_il_loss=0.5) == expected
    assert ticks(True, loss=40.0) != expected
    assert "task_il_loss" not in expected
