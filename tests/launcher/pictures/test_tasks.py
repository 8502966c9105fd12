import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from antelope.launcher.pictures import style
from antelope.launcher.pictures.curves import draw_run
from antelope.launcher.pictures.tasks import draw_tasks, task_colours

CLASS_IL = [[0.99, 0.0, 0.0], [0.41, 0.97, 0.0], [0.12, 0.33, 0.96]]
TASK_IL = [[0.99, 0.51, 0.48], [0.94, 0.98, 0.52], [0.91, 0.93, 0.95]]
EVAL = [{"mode": "eval", "step": 10 * i, "task": i - 1, "accuracy": 0.5} for i in (1, 2, 3)]


def draw(folder: Path, matrix, metric="accuracy", *, task_il=None) -> set[str]:
    with style.context():
        draw_tasks(folder, matrix, metric, task_il=task_il)
    return {found.name for found in folder.glob("*")}


def names(*stems: str) -> set[str]:
    return {f"{stem}.{end}" for stem in stems for end in ("png", "svg")}


def texts(svg: Path) -> list[str]:
    return re.findall(r"<text[^>]*>([^<]*)</text>", svg.read_text())


def test_told_the_task_there_is_a_second_heat_map(tmp_path):
    written = draw(tmp_path, CLASS_IL, task_il=TASK_IL)
    assert written == names("accuracy_matrix", "task_il_matrix", "tasks")
    one, other = (texts(tmp_path / f"{stem}_matrix.svg") for stem in ("accuracy", "task_il"))
    assert {"0.41", "0.12", "class-IL accuracy"} <= set(one)
    assert {"0.94", "0.91", "task-IL accuracy"} <= set(other)
    assert "0.94" not in one
    assert "0.41" not in other


def test_told_the_task_there_are_two_panels_and_one_legend(tmp_path):
    draw(tmp_path, CLASS_IL, task_il=TASK_IL)
    found = texts(tmp_path / "tasks.svg")
    assert found.count("class-IL accuracy") == found.count("task-IL accuracy") == 1
    assert found.count("tasks learnt") == 2
    for name in ("task 1", "task 2", "task 3", "mean of seen"):
        assert found.count(name) == 1


def test_not_told_the_task_it_stays_one_panel(tmp_path):
    assert draw(tmp_path, CLASS_IL) == names("accuracy_matrix", "tasks")
    found = texts(tmp_path / "tasks.svg")
    assert found.count("tasks learnt") == found.count("accuracy") == 1


def test_the_curves_are_those_of_the_numbers(tmp_path, monkeypatch):
    kept = []
    from antelope.launcher.pictures import tasks

    monkeypatch.setattr(tasks, "save", lambda figure, path: kept.append((path.name, figure)))
    draw(tmp_path, CLASS_IL, task_il=TASK_IL)
    for ax, matrix in zip(dict(kept)["tasks"].axes, (CLASS_IL, TASK_IL), strict=True):
        *each, mean = ax.get_lines()
        for j, line in enumerate(each):
            np.testing.assert_array_equal(line.get_xdata(), range(j + 1, 4))
            np.testing.assert_array_equal(line.get_ydata(), np.array(matrix)[j:, j])
        seen = [np.mean(row[: i + 1]) for i, row in enumerate(matrix)]
        np.testing.assert_allclose(mean.get_ydata(), seen)
        assert ax.get_ylim() == (-0.03, 1.03)


@pytest.mark.parametrize("count", [5, 20, 50])
def test_everything_is_inside_the_picture(tmp_path, count):
    """White borders: nothing is cut off by the edge."""
    scores = np.tril(np.full((count, count), 0.9)) + 0.1
    written = draw(tmp_path, scores.tolist(), task_il=scores.tolist())
    for name in (name for name in written if name.endswith(".png")):
        with Image.open(tmp_path / name) as image:
            pixels = np.asarray(image.convert("L"))
        edges = pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]
        assert all((edge == 255).all() for edge in edges), name
        assert max(pixels.shape) < 3000


def test_a_matrix_without_numbers_is_left_out(tmp_path):
    nothing = [[float("nan")] * 3] * 3
    assert draw(tmp_path / "one", CLASS_IL, task_il=nothing) == names("accuracy_matrix", "tasks")
    assert draw(tmp_path / "other", nothing, task_il=TASK_IL) == names("task_il_matrix", "tasks")
    assert draw(tmp_path / "neither", nothing, task_il=nothing) == set()


def test_numbers_stand_out_from_their_colour(tmp_path):
    """Half and less are black, most are white: contrast of 4 and more by WCAG 2."""
    draw(tmp_path, [[0.5, 0.69], [0.71, 1.0]])
    svg = (tmp_path / "accuracy_matrix.svg").read_text()
    white = re.findall(r'<text style="[^"]*fill: #ffffff[^>]*>([^<]*)</text>', svg)
    assert sorted(white) == ["0.71", "1.00"]


def test_tasks_have_colours_of_their_own():
    assert len({tuple(colour) for colour in task_colours(20)}) == 20
    assert len(task_colours(0)) == 0


def test_a_run_is_drawn_with_all_of_its_pictures(tmp_path):
    parameters = {"used": [50, 25, 12], "total": 100}
    draw_run(tmp_path, EVAL, matrix=CLASS_IL, task_il=TASK_IL, parameters=parameters)
    assert {found.name for found in (tmp_path / "plots").glob("*")} == names(
        "learning_curve", "accuracy_matrix", "task_il_matrix", "tasks", "parameters"
    )


def test_a_single_task_has_no_picture_of_tasks(tmp_path):
    draw_run(tmp_path, EVAL, matrix=[[0.9]], task_il=[[0.9]])
    assert {found.name for found in (tmp_path / "plots").glob("*")} == names("learning_curve")


def test_what_the_run_is_about_comes_first(tmp_path):
    with style.context():
        draw_tasks(tmp_path, CLASS_IL, "accuracy", task_il=TASK_IL, told=True)
    found = texts(tmp_path / "tasks.svg")
    assert found.index("task-IL accuracy") < found.index("class-IL accuracy")
