import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from antelope.launcher.pictures import parameters, style
from antelope.launcher.pictures.parameters import draw_parameters


def draw(folder: Path, used, total) -> set[str]:
    with style.context():
        draw_parameters(folder, used, total)
    return {found.name for found in folder.glob("*")}


def drawn(monkeypatch, tmp_path: Path, used, total):
    """The panel, before it is written."""
    figures = []
    monkeypatch.setattr(parameters, "save", lambda figure, path: figures.append(figure))
    draw(tmp_path, used, total)
    (axes,) = figures[0].axes
    return axes


def texts(svg: Path) -> list[str]:
    return re.findall(r"<text[^>]*>([^<]*)</text>", svg.read_text())


def test_each_task_and_what_is_free_are_named_with_their_number_and_share(tmp_path):
    assert draw(tmp_path, [50_000, 25_000], 100_000) == {"parameters.png", "parameters.svg"}
    found = texts(tmp_path / "parameters.svg")
    assert {"50k (50.0%)", "25k (25.0%)", "1", "2", "free", "task", "parameters"} <= set(found)
    assert found.count("25k (25.0%)") == 2


def test_bars_follow_one_another_up_to_the_total(tmp_path, monkeypatch):
    axes = drawn(monkeypatch, tmp_path, [50, 30, 15], 100)
    bars = [
        (bar.get_x(), bar.get_width(), bar.get_y() + bar.get_height() / 2) for bar in axes.patches
    ]
    np.testing.assert_allclose(bars, [(0, 50, 0), (50, 30, 1), (80, 15, 2), (95, 5, 3)], atol=1e-9)
    assert axes.get_xlim() == (0, 100)
    assert axes.yaxis_inverted()  # The first task on top.


def test_what_is_free_is_grey_and_what_is_used_is_not(tmp_path, monkeypatch):
    from matplotlib.colors import to_rgba

    *used, free = drawn(monkeypatch, tmp_path, [50, 25], 100).patches
    assert free.get_facecolor() == to_rgba(style.GREY)
    assert len({bar.get_facecolor() for bar in (*used, free)}) == 3


def test_a_model_that_grows_has_nothing_free(tmp_path, monkeypatch):
    axes = drawn(monkeypatch, tmp_path, [100, 120, 140], 360)
    assert len(axes.patches) == 3
    assert [label.get_text() for label in axes.get_yticklabels()] == ["1", "2", "3"]


def test_a_part_too_small_for_its_decimals_is_not_called_nothing(tmp_path):
    draw(tmp_path, [999_990, 10, 0], 1_000_000)
    assert {"10 (&lt;0.1%)", "0 (0.0%)"} <= set(texts(tmp_path / "parameters.svg"))


@pytest.mark.parametrize("count", [1, 5, 20, 21, 50, 200])
def test_names_have_room_however_many_tasks_there_are(tmp_path, monkeypatch, count):
    axes = drawn(monkeypatch, tmp_path, [10] * count, 10 * count + 5)
    assert len(axes.patches) == count + 1
    rows = axes.get_yticks()
    inches = axes.figure.get_size_inches()[1] - 0.6
    room = np.diff(rows) * inches / (count + 1)
    assert (room > 0.15).all()  # Of text of 8 points, which is 0.11 inches.
    assert axes.get_yticklabels()[-1].get_text() == "free"
    assert axes.figure.get_size_inches()[1] < 6


@pytest.mark.parametrize("count", [2, 5, 20, 50])
def test_everything_is_inside_the_picture(tmp_path, count):
    draw(tmp_path, (5e8 * 0.5 ** np.arange(count)).tolist(), 1e9)
    with Image.open(tmp_path / "parameters.png") as image:
        pixels = np.asarray(image.convert("L"))
    edges = pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]
    assert all((edge == 255).all() for edge in edges)


@pytest.mark.parametrize(
    ("used", "total"),
    [([], 100), ([0, 0], 100), ([], 0), ([float("nan"), 5], 100), ([5], float("nan"))],
)
def test_without_numbers_nothing_is_written(tmp_path, used, total):
    assert draw(tmp_path, used, total) == set()


def test_the_same_numbers_give_the_same_bytes(tmp_path):
    for name in ("one", "other"):
        draw(tmp_path / name, [5, 3], 10)
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "other" / path.name).read_bytes()
