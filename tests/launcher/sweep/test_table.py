"""The tables of a sweep: live while it runs, here or in another process, and ranked at its end."""

from __future__ import annotations

import io
import json
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from filelock import FileLock
from rich.console import Console

from antelope.launcher.commands import command
from antelope.launcher.ml import main
from antelope.launcher.sweep import table
from antelope.launcher.sweep.table import (
    Line,
    lines,
    live,
    ranked,
    runs_below,
    said,
    searched,
    watch,
)
from antelope.launcher.sweep.trial import Outcome, Trial

pytestmark = pytest.mark.usefixtures("workdir")  # Every test in a folder of its own.


def trial(**swept: object) -> Trial:
    path = Path("runs", *(f"{k}={v}" for k, v in swept.items() if k != "seed"), str(swept["seed"]))
    return Trial((), path.absolute(), {k: str(v) for k, v in swept.items()}, Path.cwd())


def write(run: Trial, status: str, *, accuracy: float | None = None, **fields: Any) -> None:
    """What a run would have written."""
    run.path.mkdir(parents=True, exist_ok=True)
    metrics = {} if accuracy is None else {"accuracy": accuracy, "loss": 1.0}
    (run.path / "status.json").write_text(
        json.dumps({"status": status, "metrics": metrics, **fields})
    )
    settings = {key: yaml.safe_load(value) for key, value in run.swept.items()}
    (run.path / "config.yaml").write_text(yaml.safe_dump({"dataset": "Digits", **settings}))
    if accuracy is not None:
        (run.path / "eval.csv").write_text(f"step,accuracy\n1,{accuracy}\n")


def terminal(height: int = 20) -> Console:
    """A terminal of 80 columns that keeps what is drawn on it."""
    return Console(
        file=io.StringIO(), force_terminal=True, width=80, height=height, _environ={"TERM": "xterm"}
    )


def text(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def drawn(found: Sequence[Line], height: int = 20) -> list[str]:
    console = Console(file=io.StringIO(), width=80)
    console.print(table.drawn(found, height=height, seconds=3725.0))
    return [line.rstrip() for line in text(console).splitlines()]


def test_what_ended_is_an_outcome_what_is_locked_runs_and_the_others_wait() -> None:
    a, b, c, d, e = (trial(seed=seed) for seed in range(5))
    write(b, "running", step=7, accuracy=0.5)
    write(c, "interrupted", step=9)  # Of an earlier start: it has not been resumed yet.
    write(d, "running")  # Killed: its engine starts it again.
    ended = {a.path: Outcome("failed", {}, "ValueError: no", 1)}
    with FileLock(b.path / ".lock"):
        found = lines([a, b, c, d, e], ended)
    assert [(line.name, line.status) for line in found] == [
        ("seed=0", "failed"),
        ("seed=1", "running"),
        ("seed=2", "waiting"),
        ("seed=3", "died"),
        ("seed=4", "waiting"),
    ]
    assert (found[0].reason, found[1].step) == ("ValueError: no", 7)
    assert lines([c], None)[0].status == "interrupted"  # Of a sweep that is only watched.


def test_those_that_run_come_first_and_the_best_before_the_others() -> None:
    found = [
        Line("a", "finished", 10, {"loss": 1.0, "accuracy": 0.5}),
        Line("b", "finished", 10, {"loss": 2.0, "accuracy": 0.75}),
        Line("c", "waiting"),
        Line("d", "failed", 3, {}, "KeyError: [red]"),
        Line("e", "running", 1234, {"loss": 3.0, "accuracy": float("nan")}, silent_s=600.0),
    ]
    head, _, titles, _, *rows = drawn(found)
    assert head == "3 of 5 runs have ended: 1 failed, 2 finished; 1 running, 1 waiting  (1:02:05)"
    assert titles.split() == ["run", "status", "step", "accuracy"]
    assert [" ".join(row.split()) for row in rows if row] == [
        "e running 1,234 nan silent for 10 min",
        "d failed 3 KeyError: [red]",
        "b finished 10 0.75",
        "a finished 10 0.5",
    ]
    assert len(drawn(found * 10, height=12)) <= 12


def test_a_live_table_follows_the_runs_and_leaves_what_is_printed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(table, "_REDRAWN_PER_S", 50)
    first, second = trial(seed=0), trial(seed=1)
    trials, outcomes, console = [first], {}, terminal()
    with live(trials, outcomes, console=console):
        trials.append(second)
        outcomes[first.path] = Outcome("finished", {"accuracy": 0.625})
        print("a line of the sweep")
        until(lambda: "1 of 2 runs" in text(console))
    assert "0.625" in text(console)
    assert "a line of the sweep" in text(console)


def test_where_there_is_no_terminal_nothing_is_drawn() -> None:
    console = Console(file=io.StringIO())
    with live([trial(seed=0)], {}, console=console):
        pass
    with live([trial(seed=0)], {}, console=terminal(), enabled=False):
        pass
    assert text(console) == ""


def until(is_true: Any) -> None:
    end = time.monotonic() + 20
    while not is_true():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_the_ranked_table_is_over_seeds_by_what_is_swept() -> None:
    trials = [trial(lr=lr, seed=seed) for lr in (0.1, 0.01) for seed in (0, 1)]
    for one, accuracy in zip(trials, [0.5, 0.6, 0.8, 0.9], strict=True):
        write(one, "finished", accuracy=accuracy)
    failed = trial(lr=7, seed=0)
    write(failed, "failed", reason="no")
    rows = [
        [cell.strip() for cell in row.split("|")] for row in ranked([*trials, failed]).split("\n")
    ]
    assert rows[0][1:5] == ["rank", "lr", "n", "accuracy"]
    assert [row[1:5] for row in rows[2:]] == [
        ["1", "0.01", "2", "0.85 ± 0.071"],
        ["2", "0.1", "2", "0.55 ± 0.071"],
    ]
    assert "| lr " in ranked(trials[:2])  # A single row says what it is, too.
    assert ranked([failed]) == ""


def test_a_sweep_of_another_process_is_watched_until_nothing_runs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(table, "_REDRAWN_PER_S", 50)
    monkeypatch.setattr(table, "_QUIET_S", 0.1)
    one, other, later = (trial(seed=seed) for seed in range(3))
    write(one, "running", accuracy=0.1)
    write(other, "failed", reason="ValueError: no")
    entries = [{"path": str(run.path)} for run in (one, other, later)]
    Path("runs/sweep.json").write_text(json.dumps({"runs": entries}))
    lock = FileLock(one.path / ".lock", thread_local=False)
    lock.acquire()
    shown = command(["table", "watch=true"])
    assert shown is not None
    watching = threading.Thread(target=shown)
    watching.start()
    until(lambda: "running     runs/0" in out(capsys))
    write(one, "finished", accuracy=0.75)
    lock.release()
    watching.join(20)
    assert not watching.is_alive()
    left = out(capsys)
    assert "finished    runs/0" in left
    assert "| 1    | 1 | 0.75" in left
    assert [run.name for run in runs_below([Path("runs")])] == ["runs/0", "runs/1", "runs/2"]


def out(capsys: pytest.CaptureFixture[str]) -> str:
    return capsys.readouterr().out


def test_a_search_is_ranked_by_its_own_results() -> None:
    best, worse, pruned = (trial(lr=lr, seed=0) for lr in (0.1, 0.01, 7))
    write(pruned, "stopped", accuracy=1.0)
    found = searched([(best, 0.75), (worse, 0.5), (pruned, None)], "return")
    assert [[cell.strip() for cell in row.split("|")[1:-1]] for row in found.splitlines()] == [
        ["rank", "lr", "seed", "return"],
        ["------", "------", "------", "--------"],
        ["1", "0.1", "0", "0.75"],
        ["2", "0.01", "0", "0.5"],
        ["-", "7", "0", "-"],
    ]
    assert searched([], "return") == ""


NET = """
from torch import nn

class Net(nn.Module):
    def __init__(self, in_features, out_features):
        super().__init__()
        self.layer = nn.Linear(in_features, out_features)

    def forward(self, obs):
        return self.layer(obs.flatten(1))
"""


def test_a_sweep_ends_with_its_ranked_table(capsys: pytest.CaptureFixture[str]) -> None:
    Path("net.py").write_text(NET)
    words = ["model=net.py:Net", "lr=1e-6,1e-2", "seed=0,1", "train_steps=20", "plot=false"]
    with pytest.raises(SystemExit, match="0"):
        main(["-m", *words])
    *_, first, second = [[c.strip() for c in row.split("|")] for row in out(capsys).splitlines()]
    assert (first[1:4], second[1:4]) == (["1", "0.01", "2"], ["2", "1e-06", "2"])


def test_where_nothing_runs_there_is_nothing_to_watch(capsys: pytest.CaptureFixture[str]) -> None:
    write(trial(seed=0), "finished", accuracy=0.5)
    watch([Path("runs")])
    assert out(capsys) == ""


def test_a_sweep_that_has_not_begun_says_so() -> None:
    assert said([Line("a", "waiting")], seconds=0) == "0 of 1 runs have ended; 1 waiting  (0:00:00)"
