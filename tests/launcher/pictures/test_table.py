"""`ml table` and `antelope.table`: the runs below folders, over seeds, ranked."""

from __future__ import annotations

import csv
import io
import json
import math
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from scipy import stats

import antelope
from antelope import ConfigError, ml
from antelope.launcher.pictures.statistics import interquartile_mean, summarize
from antelope.launcher.pictures.table_command import _in_latex, table_command

ADAM, SGD = "torch.optim.adamw.AdamW", "torch.optim.sgd.SGD"


@pytest.fixture
def folder(workdir: Path) -> Path:
    """A working directory with `runs`: two optimisers and two rates on Digits, and a CartPole."""
    for seed, accuracy in enumerate([0.8, 0.9, 0.7, 0.85]):
        write("digits/sgd", seed, accuracy=accuracy, optim={"_target_": SGD, "lr": 0.1}, lr=0.1)
    for seed, accuracy in enumerate([0.9, 0.95]):
        write("digits/adam", seed, accuracy=accuracy, optim={"_target_": ADAM}, device="cuda")
    pole = {"env": "CartPole-v1", "dataset": None, "strategy": None}
    write("pole", 0, **{"return": 150.0}, optim={"_target_": ADAM}, **pole)
    return workdir


def write(group: str, seed: int, status: str = "finished", **values: Any) -> Path:
    run = Path("runs", group, str(seed))
    run.mkdir(parents=True)
    scores = {key: values.pop(key) for key in ("accuracy", "loss", "return") if key in values}
    config = {"dataset": {"_target_": "antelope.envs.embedded.Digits"}, "seed": seed, **values}
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    names, last = ",".join(scores), ",".join(map(str, scores.values()))
    (run / "eval.csv").write_text(
        f"mode,step,{names}\neval,1,{','.join('0' * len(scores))}\neval,2,{last}\n"
    )
    (run / "status.json").write_text(json.dumps({"status": status}))
    return run


def printed(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[str, str]:
    table_command(list(words))
    found = capsys.readouterr()
    return found.out, found.err


def test_rows_are_what_differs_beside_the_seed_ranked_within_their_data(folder: Path) -> None:
    rows = antelope.table()
    assert [(row["data"], row["rank"], row["optim"], row["n"]) for row in rows] == [
        ("CartPole-v1", 1, "AdamW", 1),
        ("Digits", 1, "AdamW", 2),
        ("Digits", 2, "SGD", 4),
    ]
    sgd = rows[2]
    assert sgd["optim.lr"] == 0.1
    assert "lr" not in sgd  # The same as `optim.lr`.
    assert "device" not in sgd  # Changes no result.
    assert sgd["mean"] == pytest.approx(0.8125)
    assert sgd["iqm"] == pytest.approx(0.825)
    assert sgd["low"] < sgd["iqm"] < sgd["high"]


def test_markdown_has_a_table_for_each_metric(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, err = printed(capsys)
    pole, digits = out.strip().split("\n\n")
    assert pole.splitlines()[0].split("|")[1:-1] == [
        *(" rank ", " data        ", " n ", " return ", " IQM ", " 95 % interval ")
    ]
    cells = [cell.strip() for cell in digits.splitlines()[2].split("|")[1:-1]]
    assert cells[:4] == ["1", "Digits", "AdamW", "-"]
    assert cells[4:] == ["2", "0.925 ± 0.035", "0.925", "0.9 to 0.95"]
    assert len({len(line) for line in digits.splitlines()}) == 1
    assert err == ""


def test_csv_keeps_all_digits(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, _ = printed(capsys, "format=csv", "runs/digits")
    rows = list(csv.DictReader(io.StringIO(out)))
    assert [row["optim"] for row in rows] == ["AdamW", "SGD"]
    assert float(rows[1]["stddev"]) == np.std([0.8, 0.9, 0.7, 0.85], ddof=1)


def test_latex_escapes_what_it_would_read_as_commands(
    workdir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for i, name in enumerate(["a_b & 50%", "x^2 ~ {y}"]):
        write(str(i), 0, accuracy=0.5, precision=name)
    out, _ = printed(capsys, "format=latex")
    assert r"a\_b \& 50\%" in out
    assert r"x\textasciicircum{}2 \textasciitilde{} \{y\}" in out
    assert r"95 \% interval \\" in out
    # `\\` and `\midrule` would read a bracket or a star that follows them as an argument.
    rows = _in_latex(["hidden", "n"], [["[64]", "1"], ["*", "1"], ["a|b", "1"]]).splitlines()
    assert rows[4:7] == [r"{}[64] & 1 \\", r"{}* & 1 \\", r"a\textbar{}b & 1 \\"]


def test_less_is_better_for_losses(workdir: Path) -> None:
    write("a", 0, loss=0.1, lr=1.0)
    write("b", 0, loss=0.3, lr=2.0)
    write("c", 0, loss=math.nan, lr=3.0)
    assert [row["lr"] for row in antelope.table("runs", metric="loss")] == [1.0, 2.0, 3.0]


def test_equal_means_share_a_rank(workdir: Path) -> None:
    for name, accuracy in {"a": 0.5, "b": 0.9, "c": 0.5, "d": 0.1}.items():
        write(name, 0, accuracy=accuracy, model={"_target_": name})
    assert [(row["rank"], row["model"]) for row in antelope.table()] == [
        (1, "b"),
        (2, "a"),
        (2, "c"),
        (4, "d"),
    ]


def test_a_training_metric_is_read_from_train_csv_and_ranked_likewise(workdir: Path) -> None:
    for i, losses in enumerate(["1,9\n2,0.3", "1,8\n2,0.1"]):
        run = write(f"{i}", 0, loss=0.5, lr=float(i))
        (run / "train.csv").write_text(f"step,loss\n{losses}\n")
    rows = antelope.table(metric="train/loss")
    assert [(row["lr"], row["mean"]) for row in rows] == [(1.0, 0.1), (0.0, 0.3)]


def test_a_run_below_two_of_the_folders_counts_once(folder: Path) -> None:
    assert [row["n"] for row in antelope.table("runs", "runs/digits")] == [1, 2, 4]


def test_one_and_true_are_different_values(workdir: Path) -> None:
    for seed, value in enumerate([1, 1.0, True]):
        write("one", seed, accuracy=0.5, online_steps=value)
    assert sorted(row["n"] for row in antelope.table()) == [1, 2]


def test_markdown_escapes_what_ends_a_cell(
    workdir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for i, name in enumerate(["a|b", "c"]):
        write(str(i), 0, accuracy=0.5, precision=name)
    assert r"| a\|b " in printed(capsys)[0]


def test_lists_of_strategies_are_short(workdir: Path) -> None:
    own = "antelope.agents.continual."
    write(
        "a",
        0,
        accuracy=0.1,
        strategy=[f"{own}er.ER", {"_target_": f"{own}ewc.EWC", "importance": 9}],
    )
    write("b", 0, accuracy=0.2, strategy={"_target_": f"{own}er.ER"})
    assert [row["strategy"] for row in antelope.table()] == ["ER", "ER+EWC(importance=9)"]


def test_names_are_short_unless_two_would_look_the_same(workdir: Path) -> None:
    for seed, (model, accuracy) in enumerate(
        [("a.py:Net", 0.1), ("b.py:Net", 0.2), ("c.py:Own", 0.3)]
    ):
        write("one", seed, accuracy=accuracy, model={"_target_": model})
    assert [row["model"] for row in antelope.table()] == ["Own", "b.py:Net", "a.py:Net"]


def test_each_file_and_class_of_data_has_rows_of_its_own(workdir: Path) -> None:
    names = ["data/one.csv", "data/two.csv", "a.Pets", "b.Pets", "mine.Birds"]
    for seed, name in enumerate(names):
        write("one", seed, accuracy=0.1 * seed, dataset={"_target_": name})
    found = {row["data"]: row["n"] for row in antelope.table()}
    assert found == dict.fromkeys(["data/one.csv", "data/two.csv", "a.Pets", "b.Pets", "Birds"], 1)


def test_notes_say_what_the_rows_hide(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write("digits/adam", 2, "stopped", accuracy=0.1, optim={"_target_": ADAM})
    (Path("runs/pole/0/config.yaml")).write_text("[broken")
    _, err = printed(capsys)
    assert "Stopped, with their last evaluation: runs/digits/adam/2." in err
    assert "Left out, without any metric: runs/pole/0." in err
    write("digits/again", 0, accuracy=0.9, optim={"_target_": ADAM})
    _, err = printed(capsys, "runs/digits")
    assert "Runs of one row have the same seed: runs/digits/adam/0" in err


def test_rows_may_be_told_apart_by_chosen_settings(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write("digits/sgd-other", 9, accuracy=0.1, optim={"_target_": SGD, "lr": 0.5}, lr=0.5)
    out, err = printed(capsys, "runs/digits", "by=optim", "format=csv")
    assert [row["n"] for row in csv.DictReader(io.StringIO(out))] == ["2", "5"]
    assert "Runs of one row differ in more than their seed: optim.lr." in err


@pytest.mark.parametrize("setting", ["seed", "device"])
def test_settings_that_never_tell_rows_apart_unasked_may_be_asked_for(
    workdir: Path, setting: str
) -> None:
    for seed, device in enumerate(["cpu", "cuda"]):
        write("one", seed, accuracy=0.5, device=device)
    assert [row["n"] for row in antelope.table()] == [2]
    values = [0, 1] if setting == "seed" else ["cpu", "cuda"]
    assert [row[setting] for row in antelope.table(by=setting)] == values


@pytest.mark.parametrize(
    ("words", "match"),
    [
        (["metric=acuracy"], "Did you mean `accuracy`"),
        (["by=optm"], "by=optm: no run has this setting. Did you mean `optim`"),
        (["rums"], "No folder `rums`. Did you mean `runs`"),
        (["format=text"], "expected one of md, csv, tex. Did you mean `tex`"),
        (["by="], "`by=` has no value"),
        (["metrik=loss"], r"(?s)not understood. Did you mean `metric`.*Usage: ml table"),
    ],
)
def test_a_mistake_is_answered(folder: Path, words: list[str], match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        table_command(words)


def test_without_runs_it_says_so(workdir: Path) -> None:
    Path("runs").mkdir()
    with pytest.raises(ConfigError, match="No runs below `runs`"):
        antelope.table()


def test_real_runs_are_found_by_their_data_whatever_their_path(workdir: Path) -> None:
    quick: dict[str, Any] = {"train_steps": 2, "plot": False, "progress": False}
    for seed in (0, 1):
        ml(dataset="Digits", tasks=2, strategy="er", seed=seed, path=f"mine/{seed}", **quick)
    ml(dataset="Digits", tasks=2, path="mine/x", **quick)
    rows = antelope.table("mine", metric="forgetting")
    assert {(row["data"], row["strategy"], row["n"]) for row in rows} == {
        ("Digits, tasks=2", "ER", 2),
        ("Digits, tasks=2", None, 1),
    }


def test_a_run_that_has_not_finished_is_in_no_statistics_and_named(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """An interrupted run of a sequence may score best: it knows the first tasks alone."""
    for seed, status in enumerate(["interrupted", "failed", "diverged", "running"], start=4):
        write("digits/sgd", seed, status, accuracy=1.0, optim={"_target_": SGD, "lr": 0.1}, lr=0.1)
    status = Path("runs/digits/sgd/5/status.json")
    status.write_text(
        json.dumps({"status": "failed", "reason": "ValueError: first line\nsecond line"})
    )
    out, err = printed(capsys, "runs/digits", "format=csv")
    sgd = list(csv.DictReader(io.StringIO(out)))[1]
    assert (sgd["n"], float(sgd["mean"])) == ("4", pytest.approx(0.8125))
    assert "Interrupted, left out: runs/digits/sgd/4." in err
    assert "Failed, left out:\n  runs/digits/sgd/5  ValueError: first line\n" in err
    assert "second" not in err
    assert "Diverged, left out:\n  runs/digits/sgd/6\n" in err
    assert "Died, left out: runs/digits/sgd/7." in err  # Nothing holds its lock.


def test_a_row_without_a_finished_run_comes_last_and_has_no_rank(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write("digits/new", 0, "interrupted", accuracy=1.0, optim={"_target_": ADAM, "lr": 7.0})
    assert [row["rank"] for row in antelope.table("runs/digits")] == [1, 2, None]
    out, err = printed(capsys, "runs/digits")
    assert out.splitlines()[-1].startswith("| -    |")
    assert "Interrupted, with their last evaluation: runs/digits/new/0." in err


def test_runs_that_ended_before_an_evaluation_are_named(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    early = Path("runs/digits/early/0")
    early.mkdir(parents=True)
    (early / "config.yaml").write_text("seed: 0\n")
    (early / "status.json").write_text('{"status": "failed", "reason": "KeyError: 3"}')
    before = {"path": str(Path("runs/digits/before/1").absolute()), "swept": {}, "words": []}
    fine = {"path": str(Path("runs/digits/adam/0").absolute()), "status": "finished"}
    sweep = {"runs": [{**before, "status": "failed", "reason": "No such layer."}, fine]}
    Path("runs/digits/sweep.json").write_text(json.dumps(sweep))
    _, err = printed(capsys, "runs/digits")
    assert err.splitlines() == [
        "Failed, left out:",
        "  runs/digits/early/0  KeyError: 3",
        "  runs/digits/before/1  No such layer.",
    ]
    shutil.rmtree("runs/digits/sgd")
    shutil.rmtree("runs/digits/adam")
    with pytest.raises(ConfigError, match=r"(?s)none of those .* evaluated.*KeyError: 3.*layer"):
        antelope.table("runs/digits")


@pytest.mark.parametrize("text", ["", "[]", '{"runs": 3}', '{"runs": [{"status": "failed"}]}'])
def test_a_damaged_file_of_a_sweep_is_passed_over(folder: Path, text: str) -> None:
    Path("runs/digits/sweep.json").write_text(text)
    assert len(antelope.table("runs/digits")) == 2


@pytest.mark.parametrize(("name", "whole"), [("md", "markdown"), ("tex", "latex")])
def test_formats_have_a_short_name(
    folder: Path, capsys: pytest.CaptureFixture[str], name: str, whole: str
) -> None:
    assert printed(capsys, f"format={name}") == printed(capsys, f"format={whole}")


# What rliable 1.2.0 (arch 7.2, NumPy 2.4) says after numpy.random.seed(0).
RLIABLE = [
    ([0.3, 0.4], 0.35, 0.3, 0.4),
    ([0.81, 0.9, 0.72], 0.81, 0.7200000000000001, 0.9),
    (
        [1.5, -2.25, 100.0, 3.0, 7.0, 8.5, 9.0, 2.0, 4.0, 30.0],
        *(5.583333333333333, 2.3333333333333335, 26.916666666666668),
    ),
]


class TestStatistics:
    @pytest.mark.parametrize(("values", "iqm", "low", "high"), RLIABLE)
    def test_mean_and_interval_are_those_of_rliable(
        self, values: list[float], iqm: float, low: float, high: float
    ) -> None:
        found = summarize(values)
        assert (found.low, found.high) == (low, high)
        assert found.iqm == pytest.approx(iqm, rel=1e-15)

    def test_many_runs_are_resampled_in_parts_as_if_at_once(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        values = np.random.default_rng(0).normal(size=30).tolist()
        whole = summarize(values)
        monkeypatch.setattr("antelope.launcher.pictures.statistics._AT_ONCE", 700)
        assert summarize(values) == whole

    @pytest.mark.parametrize("n", [1, 3, 4, 7, 10])
    def test_the_interquartile_mean_is_scipys_trimmed_mean(self, n: int) -> None:
        values = np.random.default_rng(n).normal(size=n)
        assert interquartile_mean(values) == pytest.approx(stats.trim_mean(values, 0.25))

    def test_the_interval_covers_the_true_mean_as_often_as_it_says(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("antelope.launcher.pictures.statistics._RESAMPLES", 2000)
        draw = np.random.default_rng(0)
        found = [summarize(draw.normal(size=20).tolist()) for _ in range(200)]
        inside = np.mean([one.low < 0 < one.high for one in found])
        assert 0.88 < inside < 0.99

    def test_one_run_has_no_spread(self) -> None:
        one = summarize([0.5])
        assert (one.n, one.mean, one.iqm) == (1, 0.5, 0.5)
        assert math.isnan(one.stddev)
        assert math.isnan(one.low)


def test_torch_is_not_imported(folder: Path) -> None:
    code = (
        "import sys\nfrom antelope.launcher.pictures.table_command import table_command\n"
        "table_command([])\nassert not {'torch', 'matplotlib'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
