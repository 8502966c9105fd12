import math
from pathlib import Path

import numpy as np

from antelope.launcher.pictures.groups import (
    choose,
    different_settings,
    find_runs,
    mean_of_last,
    mean_over_seeds,
    name_groups,
    read_rows,
    recorded,
)


def write_run(
    path: Path, values: list[float], *, metric: str = "accuracy", config: str = ""
) -> Path:
    path.mkdir(parents=True)
    (path / "config.yaml").write_text(config or f"seed: {path.name}\n")
    rows = "".join(f"eval,{10 * (i + 1)},{value}\n" for i, value in enumerate(values))
    (path / "eval.csv").write_text(f"mode,step,{metric}\n{rows}")
    return path


def curve(*points):
    steps, values = zip(*points, strict=True)
    return np.array(steps, dtype=float), np.array(values, dtype=float)


def test_mean_and_deviation_of_three_seeds():
    seeds = [curve((10, 1), (20, 4)), curve((10, 2), (20, 4)), curve((10, 3), (20, 4))]
    steps, mean, stddev = mean_over_seeds(seeds)
    assert steps.tolist() == [10, 20]
    assert mean.tolist() == [2, 4]
    assert stddev.tolist() == [1, 0]  # sqrt((1 + 0 + 1) / 2)


def test_a_seed_counts_between_its_own_steps_and_not_beyond_them():
    steps, mean, stddev = mean_over_seeds([curve((0, 0), (20, 4)), curve((10, 6))])
    assert steps.tolist() == [0, 10, 20]
    assert mean.tolist() == [0, 4, 4]  # At 10: (2 + 6) / 2.
    np.testing.assert_allclose(stddev, [0, math.sqrt(8), 0])


def test_one_seed_has_no_deviation():
    _, mean, stddev = mean_over_seeds([curve((1, 0.5), (2, 0.75))])
    assert (mean.tolist(), stddev.tolist()) == ([0.5, 0.75], [0, 0])
    assert mean_of_last([curve((1, 0.5), (2, 0.75))]) == (0.75, 0.0)


def test_the_last_value_is_each_seeds_own():
    assert mean_of_last([curve((1, 9), (2, 1)), curve((1, 9), (5, 3))]) == (2.0, math.sqrt(2))


def test_runs_are_grouped_by_folder_without_those_set_aside(tmp_path):
    group = tmp_path / "default" / "Model" / "Digits"
    runs = [write_run(group / seed, [0.5]) for seed in ("0", "1")]
    write_run(group / "0.1", [0.5])
    other = write_run(tmp_path / "lr=0.1" / "Model" / "Digits" / "0", [0.5])
    (group / "2").mkdir()
    (group / "2" / "eval.csv").write_text("mode,step\n")  # No config.yaml: no run.
    assert find_runs(tmp_path) == {group: runs, other.parent: [other]}


def test_names_say_only_what_differs():
    def names(*paths):
        return list(name_groups({Path(path): [] for path in paths}).values())

    assert names("/r/a/M/D") == [""]
    assert names("/r/a/M/D", "/r/a/M/E") == ["", ""]
    assert names("/r/a/M/D", "/r/a/N/D") == ["M", "N"]
    assert names("/r/a/M/D", "/r/b/M/D") == ["a", "b"]
    assert names("/r/a/M/D", "/r/a/lr=1/N/D") == ["a, M", "lr=1, N"]


def test_a_group_is_drawn_by_the_first_usual_metric_that_it_has(tmp_path):
    digits = write_run(tmp_path / "x" / "M" / "Digits" / "0", [0.5, 0.75])
    pole = write_run(tmp_path / "x" / "M" / "CartPole-v1" / "0", [20], metric="return")
    empty = write_run(tmp_path / "x" / "M" / "Noise" / "0", [float("nan")], metric="loss")
    (empty / "train.csv").write_text("mode,step,loss\ntrain,50,0.5\n")
    pictures = choose(find_runs(tmp_path), None)
    assert {name: list(curves) for name, curves in pictures.items()} == {
        "accuracy": [digits.parent],
        "return": [pole.parent],
        "train/loss": [empty.parent],
    }
    ((steps, values),) = pictures["accuracy"][digits.parent]
    assert (steps.tolist(), values.tolist()) == ([10, 20], [0.5, 0.75])
    assert recorded(find_runs(tmp_path)) == ["return", "accuracy", "loss", "train/loss"]


def test_a_line_that_is_still_being_written_is_left_out(tmp_path):
    (tmp_path / "eval.csv").write_text("mode,step,loss\neval,1,0.5\neval,2,0.")
    assert read_rows(tmp_path / "eval.csv") == [{"mode": "eval", "step": "1", "loss": "0.5"}]
    assert read_rows(tmp_path / "train.csv") == []


def test_runs_that_differ_in_more_than_their_seed_are_noticed(tmp_path):
    configs = ["seed: 0\nlr: null\ntasks: 5\n", "seed: 1\nlr: 0.1\ntasks: 5\n"]
    runs = [write_run(tmp_path / str(i), [0.5], config=text) for i, text in enumerate(configs)]
    assert different_settings(runs) == ["lr"]
    assert different_settings(runs[:1]) == []
