"""A search over real runs, one after another: what it finds, prunes, refuses and continues."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import antelope
from antelope import ConfigError, ml
from antelope.launcher.ml import _main, main
from antelope.launcher.settings.compose import compose
from antelope.launcher.sweep import console
from antelope.launcher.sweep.search import Search
from antelope.launcher.sweep.search_words import Wanted, read_wanted
from antelope.launcher.sweep.spaces import Choice, Range, Space
from antelope.launcher.sweep.standing import done
from antelope.launcher.sweep.study import open_study
from antelope.launcher.sweep.trial import Outcome, Trial, run_trial
from antelope.launcher.sweep.words import read_words

optuna = pytest.importorskip("optuna")
pytestmark = [
    pytest.mark.usefixtures("workdir"),
    pytest.mark.filterwarnings("ignore:This search judges its trials"),
]

ROWS = np.random.RandomState(0).randn(240, 4).astype(np.float32)
DATA: dict[str, Any] = {"dataset": (ROWS, ROWS.argmax(1)), "batch_size": 20, "epochs": 3}
QUIET: dict[str, Any] = {"plot": False, "progress": False}
LR = Range("lr", 1e-5, 1.0, log=True)


def search(
    wanted: Wanted, spaces: list[Space] | None = None, *, resume: bool = False, **settings: Any
) -> Search:
    """A search over runs on `ROWS`, whose keywords are `settings`."""

    def make(swept: Mapping[str, str]) -> Trial:
        words = tuple(f"{key}={value}" for key, value in swept.items())
        path = Path("runs", ",".join(words)).absolute()
        return Trial(words, path, swept, Path.cwd(), {**DATA, **QUIET, **settings})

    chosen = [LR] if spaces is None else spaces
    return Search(
        wanted,
        chosen,
        about=["epochs=3"],
        constant=["epochs=3"],
        composed=compose([f"resume={resume}"], {}),
        folder=Path("runs").absolute(),
        make=make,
    )


def run(searching: Search) -> list[tuple[Trial, Outcome]]:
    """Run all trials that have not ended, one after another."""
    ended = []
    while (trial := searching.ask()) is not None:
        if (outcome := done(trial)) is None:
            outcome = run_trial(trial)
            ended.append((trial, outcome))
        searching.tell(trial, outcome)
    return ended


def first(searching: Search) -> Trial:
    """The trial that comes next."""
    trial = searching.ask()
    assert trial is not None
    return trial


def trials(folder: str = "runs") -> list[Any]:
    found: list[Any] = open_study(Path(folder, "study.jsonl").absolute(), more=True).get_trials()
    return found


def test_it_finds_the_learning_rate_that_learns_and_says_how_to_run_it() -> None:
    searching = search(Wanted("tpe", 5, "accuracy", more=True))
    ended = run(searching)
    assert len(ended) == 5
    best = max(ended, key=lambda pair: pair[1].metrics["accuracy"])
    found = searching.best()
    assert found[0] == (dict(best[0].swept), best[1].metrics["accuracy"])
    assert len(found) == 5
    assert f"  ml epochs=3 lr={best[0].swept['lr']}\n" in searching.summary()
    assert [trial.swept for trial in searching.ranked([t for t, _ in ended])] == [
        s for s, _ in found
    ]
    assert float(best[0].swept["lr"]) > 1e-3


def test_a_run_of_a_search_is_the_same_as_one_on_its_own() -> None:
    ((trial, _),) = run(search(Wanted("random", 1, "accuracy", more=True, prune=True)))
    alone = ml(*trial.words, **DATA, **QUIET, path="alone")
    for name in ("train.csv", "eval.csv"):
        assert (trial.path / name).read_bytes() == Path("alone", name).read_bytes()
    again = ml(*trial.words, **DATA, **QUIET, path=str(trial.path), resume=True)
    assert all(map(torch.equal, again.agent.parameters(), alone.agent.parameters()))
    assert "\ncallbacks: null\n" in (trial.path / "config.yaml").read_text()


def test_each_evaluation_is_reported_to_the_journal() -> None:
    ((trial, _),) = run(search(Wanted("random", 1, "accuracy", more=True)))
    rows = (trial.path / "eval.csv").read_text().splitlines()
    column = rows[0].split(",").index("accuracy")
    reported = {n: float(row.split(",")[column]) for n, row in enumerate(rows[1:], 1)}
    assert trials()[0].intermediate_values == reported
    assert list(reported) == [1, 2, 3]


@pytest.mark.parametrize(("sampler", "prune"), [("tpe", True), ("asha", False)])
def test_bad_trials_are_stopped_with_a_checkpoint_and_continue_to_the_bit(
    sampler: str, prune: bool
) -> None:
    searching = search(Wanted(sampler, 12, "accuracy", more=True, prune=prune), epochs=5)
    ended = run(searching)
    stopped = [trial for trial, outcome in ended if outcome.status == "stopped"]
    assert 0 < len(stopped) < 12
    status = json.loads((stopped[0].path / "status.json").read_text())
    assert (status["status"], status["reason"]) == ("stopped", "the search (pruned)")
    assert [t.state.name for t in trials()].count("PRUNED") == len(stopped)
    assert f"{len(stopped)} stopped early" in searching.summary()
    words, settings = stopped[0].words, {**DATA, **QUIET, "epochs": 5}
    on = ml(*words, **settings, path=str(stopped[0].path), resume=True)
    alone = ml(*words, **settings, path="alone")
    assert all(map(torch.equal, on.agent.parameters(), alone.agent.parameters()))


def test_a_search_that_is_started_again_goes_on_as_it_would_have() -> None:
    wanted = Wanted("tpe", 6, "accuracy", more=True, prune=True)
    whole = [(trial.words, outcome) for trial, outcome in run(search(wanted, epochs=1))]
    Path("runs").rename("whole")
    searching = search(wanted, epochs=1)
    for _ in range(3):
        trial = first(searching)
        searching.tell(trial, run_trial(trial))
    run_trial(first(searching))  # The driver dies before it knows how this one has ended.
    again = run(search(wanted, epochs=1, resume=True))
    assert [(trial.words, outcome) for trial, outcome in again] == whole[4:]
    assert [t.state.name for t in trials()] == ["COMPLETE"] * 6
    assert [t.value for t in trials()] == [outcome.metrics["accuracy"] for _, outcome in whole]


def test_an_interrupted_trial_stays_open() -> None:
    wanted = Wanted("random", 2, "accuracy", more=True)
    searching = search(wanted)
    trial = first(searching)
    searching.tell(trial, Outcome("interrupted", {}, "SIGTERM", 143))
    again = first(search(wanted, resume=True))
    assert again.words == trial.words


def test_equal_values_are_one_run_with_one_result() -> None:
    spaces: list[Space] = [Choice("lr", ("1e-3", "1e-1")), Choice("weight_decay", ("0.1", "0.2"))]
    ended = run(search(Wanted("random", 3, "accuracy", more=True), spaces, epochs=1))
    again = search(Wanted("random", 3, "accuracy", more=True), spaces, resume=True)
    assert run(again) == []
    # Two in progress at once, with equal values: the second waits for the first's result.
    values = [trial.value for trial in trials()]
    assert len(values) == 3
    assert len({trial.path for trial, _ in ended}) == len(ended)


def test_failed_trials_are_tried_once_more_by_a_search_that_is_continued() -> None:
    wanted = Wanted("random", 2, "accuracy", more=True)
    searching = search(wanted)
    failed = first(searching)
    searching.tell(failed, Outcome("failed", {}, "OSError: no room", 1))
    other = first(searching)
    searching.tell(other, run_trial(other))
    assert searching.ask() is None
    assert "1 ended, 1 failed" in searching.summary().replace(
        "1 failed, 1 ended", "1 ended, 1 failed"
    )
    again = run(search(wanted, resume=True))
    assert [trial.words for trial, _ in again] == [failed.words]
    assert sorted(t.state.name for t in trials()) == ["COMPLETE", "COMPLETE", "FAIL"]


def test_a_diverged_trial_tells_the_search_to_look_elsewhere() -> None:
    searching = search(Wanted("random", 1, "accuracy", more=True))
    trial = first(searching)
    searching.tell(trial, Outcome("diverged", {}, "The loss is NaN", 3))
    assert trials()[0].state.name == "PRUNED"
    assert searching.summary() == "No trial has a result (1 diverged)."


def test_a_search_whose_first_trials_all_fail_ends_with_their_reason() -> None:
    searching = search(Wanted("random", 9, "accuracy", more=True))
    for _ in range(3):
        trial = first(searching)
        searching.tell(trial, Outcome("failed", {}, "TypeError: no such width", 1))
    with pytest.raises(ConfigError, match=r"its first 3 trials have all failed.*no such width"):
        searching.ask()


def test_a_metric_that_the_runs_lack_ends_the_search_with_its_first_trial() -> None:
    searching = search(Wanted("random", 9, "r2", more=True))
    trial = first(searching)
    outcome = run_trial(trial)
    assert outcome.status == "failed"
    searching.tell(trial, outcome)
    with pytest.raises(ConfigError, match="no metric `r2`; they have accuracy, loss"):
        searching.ask()


def test_a_sequence_is_judged_by_held_out_rows_of_its_first_tasks() -> None:
    wanted = Wanted("random", 1, "validation_accuracy", more=True, tasks=2)
    settings: dict[str, Any] = {"tasks": 4, "validation": 0.2, "strategy": "er", "epochs": 2}
    ((trial, outcome),) = run(search(wanted, [Range("lr", 1e-3, 3e-2)], **settings))
    assert outcome.status == "stopped"
    status = json.loads((trial.path / "status.json").read_text())
    assert (status["reason"], status["task"]) == ("the search (enough tasks)", 2)
    (found,) = trials()
    assert found.state.name == "COMPLETE"
    assert found.value == found.intermediate_values[2]
    assert found.value != outcome.metrics["accuracy"]

    # Judged by the means over the rows that the first two tasks hold out.
    class Looks:
        def on_task(self, live: Any) -> None:
            seen.append(live.validate())

    seen: list[dict[str, float]] = []
    whole = ml(*trial.words, **{**DATA, **QUIET, **settings}, callbacks=Looks(), path="whole")
    assert found.value == seen[1]["accuracy"]
    # The trial can be continued to the end of the sequence.
    on = ml(*trial.words, **{**DATA, **QUIET, **settings}, path=str(trial.path), resume=True)
    assert all(map(torch.equal, on.agent.parameters(), whole.agent.parameters()))


def test_another_search_in_the_same_folder_is_refused() -> None:
    wanted = Wanted("random", 1, "accuracy", more=True)
    run(search(wanted, epochs=1))
    with pytest.raises(ConfigError, match="Continue it with resume=true, or begin another"):
        search(wanted)
    with pytest.raises(ConfigError, match=r"spaces: \['lr=log\(1e-05,1\)'\], now"):
        search(wanted, [Range("lr", 1e-4, 1.0, log=True)], resume=True)


@pytest.mark.parametrize(
    ("spaces", "advice"),
    [
        ([], "nothing to choose"),
        ([Choice("seed", ("0", "1"))], "does not choose a seed"),
        ([Choice("lr", ("0.1", "0.2"))], "only 2 combinations, for trials=9. Without search="),
    ],
)
def test_what_cannot_be_searched_is_refused(spaces: list[Space], advice: str) -> None:
    with pytest.raises(ConfigError, match=advice):
        search(Wanted("tpe", 9, "accuracy", more=True), spaces)


@pytest.fixture
def composed() -> Any:
    return lambda *words: compose(words, {}).values


@pytest.mark.parametrize(
    ("words", "settings", "advice"),
    [
        ({"search": "bayes"}, [], "Did you mean tpe?"),
        ({"search": "grid"}, [], "without search=, every combination is run"),
        ({"search": "tpe", "maximize": "loss"}, [], "Write minimize=loss"),
        ({"search": "tpe", "maximize": "acuracy"}, [], "Did you mean `accuracy`"),
        ({"search": "tpe", "maximize": "accuracy", "minimize": "loss"}, [], "are both given"),
        ({"search": "tpe", "maximize": "val_acc"}, [], "Did you mean `accuracy`?"),
        ({"search": "tpe", "maximize": "return"}, [], "only measured in environments"),
        ({"search": "tpe", "maximize": "accuracy"}, ["env=CartPole-v1"], "only measured on data"),
        ({"search": "tpe", "minimize": "forgetting"}, [], "measured in a sequence of tasks"),
        ({"search": "tpe", "maximize": "validation_accuracy"}, [], "validation=0.1, say"),
        ({"search": "tpe", "search_tasks": "3"}, [], "needs a sequence of tasks"),
        ({"search": "tpe", "search_tasks": "6"}, ["tasks=5"], "there are only 5 tasks"),
    ],
)
def test_every_bad_word_is_refused_with_what_to_write(
    words: dict[str, str], settings: list[str], advice: str, composed: Any
) -> None:
    mistakes: list[str] = []
    assert read_wanted(words, composed(*settings), mistakes) is None
    assert any(advice in mistake for mistake in mistakes), mistakes


@pytest.mark.parametrize(
    ("settings", "metric"),
    [
        ([], "accuracy"),
        (["validation=0.1"], "validation_accuracy"),
        (["tasks=5", "scenario=task"], "task_il_accuracy"),
        (["env=CartPole-v1"], "return"),
    ],
)
def test_a_search_is_judged_by_the_runs_score(
    settings: list[str], metric: str, composed: Any
) -> None:
    found = read_wanted({"search": "tpe"}, composed(*settings), [])
    assert found == Wanted("tpe", 20, metric, more=True)


def test_a_journal_whose_last_line_is_unfinished_goes_on() -> None:
    wanted = Wanted("random", 1, "accuracy", more=True)
    run(search(wanted, epochs=1))
    journal = Path("runs/study.jsonl")
    journal.write_bytes(journal.read_bytes()[:-20])  # The disk was full.
    assert len(run(search(Wanted("random", 2, "accuracy", more=True), epochs=1, resume=True))) == 1
    assert [trial.state.name for trial in trials()] == ["COMPLETE", "COMPLETE"]
    journal.write_bytes(b"{broken\n" + journal.read_bytes())
    with pytest.raises(ConfigError, match=r"study\.jsonl is damaged"):
        search(wanted, resume=True)


def test_a_journal_that_cannot_be_written_does_not_end_a_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    searching = search(Wanted("random", 1, "accuracy", more=True, prune=True))
    trial = first(searching)
    monkeypatch.setattr(optuna.Trial, "report", full)
    with pytest.warns(UserWarning, match="could not be read or written.*No space left"):
        outcome = run_trial(trial)
    searching.tell(trial, outcome)
    assert trials()[0].value == outcome.metrics["accuracy"]


class Net(torch.nn.Module):
    def __init__(self, in_features: int, out_features: int, hidden: int = 8):
        super().__init__()
        layers = torch.nn.Linear(in_features, hidden), torch.nn.Linear(hidden, out_features)
        self.layers = torch.nn.Sequential(torch.nn.Flatten(), *layers)

    def forward(self, obs: torch.Tensor) -> torch.Tensor:
        return self.layers(obs)


def test_a_search_from_python_chooses_objects_and_returns_the_best_run_first() -> None:
    asked: dict[str, Any] = {**DATA, **QUIET, "model": Net, "lr": "log(1e-4,1)", "epochs": 2}
    asked |= {"search": "random", "trials": 8, "optim": [torch.optim.SGD, torch.optim.Adam]}
    runs = antelope.sweep("model.hidden=int(2,8)", prune=True, **asked)
    values = [trial.value for trial in trials("runs/default") if trial.state.name == "COMPLETE"]
    assert 0 < len(values) < 8
    assert runs[0].metrics["accuracy"] == max(values)
    assert len(runs) == 8
    best = Path("runs/default", runs[0].path.parts[-4])
    assert best.name.startswith("lr=")
    assert ",model.hidden=" in best.name
    # Objects are data too, so runs are resumed to see whether they are the same: pruned ones stay so.
    before = {run.path: (run.path / "train.csv").read_bytes() for run in runs}
    again = antelope.sweep("model.hidden=int(2,8)", prune=True, resume=True, **asked)
    assert {run.path: (run.path / "train.csv").read_bytes() for run in again} == before


def test_words_are_checked_before_anything_starts() -> None:
    with pytest.raises(ConfigError) as caught:
        antelope.sweep(
            "lr=log(1e-3,1)", "ema=interval(0,2)", "optim=SGD,Adma", search="tpe", trials=99
        )
    assert "ema=2.0: expected float 0..1" in str(caught.value)
    with pytest.raises(ConfigError, match="No optimiser `Adma`"):
        antelope.sweep("lr=log(1e-3,1)", "optim=SGD,Adma", search="tpe", progress=False)
    with pytest.raises(ConfigError, match="path= would be the same for all trials"):
        antelope.sweep("lr=log(1e-3,1)", "path=here", search="tpe")
    assert not list(Path("runs").rglob("config.yaml"))


KILLED = """
import os, signal
from pathlib import Path
from torch import nn

class Killed:
    "Kills the process in the middle of its third run, once."
    def on_begin(self, run):
        with open("begun", "a") as file:
            file.write("x")
        self.third = len(Path("begun").read_text()) == 3 and Path("kill").exists()
    def on_step(self, run):
        if self.third and run.step == 20:
            os.kill(os.getpid(), signal.SIGKILL)

class Net(nn.Sequential):
    def __init__(self, in_features, out_features):
        super().__init__(nn.Flatten(), nn.Dropout(0.2), nn.Linear(in_features, out_features))
"""


def test_a_search_killed_in_mid_run_ends_with_the_bits_of_an_undisturbed_one(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["search=tpe", "trials=5", "lr=log(1e-4,1)", "prune=true", "model=model.py:Net"]
    words += [
        "dataset=Digits",
        "epochs=2",
        "save_every=10",
        "callbacks=model.py:Killed",
        "plot=false",
    ]
    for folder in ("whole", "killed"):
        Path(folder).mkdir()
        Path(folder, "model.py").write_text(KILLED)
    Path("killed/kill").touch()
    command = [sys.executable, "-m", "antelope", "-m", *words]
    assert subprocess.run(command, cwd="killed", capture_output=True).returncode == -9
    here = Path.cwd()
    for folder, more in (("whole", []), ("killed", ["resume=true"])):
        monkeypatch.chdir(here / folder)
        with pytest.raises(SystemExit) as ended:
            main(["-m", *words, *more])
        assert ended.value.code == 0
    monkeypatch.chdir(here)
    said = capsys.readouterr().out
    assert "5 trials (3 of them begun earlier)" in said
    found = {folder: trials(f"{folder}/runs/default") for folder in ("whole", "killed")}
    assert [t.user_attrs["swept"] for t in found["killed"]] == [
        t.user_attrs["swept"] for t in found["whole"]
    ]
    assert [(t.state, t.values) for t in found["killed"]] == [
        (t.state, t.values) for t in found["whole"]
    ]
    files = list(Path("whole/runs").rglob("*.csv"))
    assert len(files) == 10
    for path in files:
        assert Path("killed", path.relative_to("whole")).read_bytes() == path.read_bytes()


def test_words_that_were_mended_begin_a_new_search(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["-m", "search=random", "trials=1", "lr=log(1e-3,1)", "plot=false"]
    words += ["validation=0.1", "train_steps=20"]
    # Names are only looked up once everything else is right.
    assert _main([*words, "optim=Adma", "resume=true"]) == 2
    assert "No optimiser `Adma`" in capsys.readouterr().err
    assert not Path("runs/default/study.jsonl").exists()
    assert _main([*words, "optim=Adam", "minimize=validation_loss", "resume=true"]) == 0
    assert "Best of 1 trial (1 ended): validation_loss" in capsys.readouterr().out


def test_two_processes_may_run_one_search_at_once() -> None:
    wanted = Wanted("random", 3, "accuracy", more=True)
    one = search(wanted, epochs=1)
    mine = first(one)
    other = search(wanted, epochs=1, resume=True)
    assert first(other).path == mine.path  # Its driver waits for the run, which is locked.
    theirs = first(other)
    last = first(one)
    assert len({mine.path, theirs.path, last.path}) == 3
    for trial, asked in ((mine, (one, other)), (theirs, (other,)), (last, (one,))):
        outcome = run_trial(trial)
        for each in asked:
            each.tell(trial, outcome)
    assert (one.ask(), other.ask()) == (None, None)
    assert [trial.state.name for trial in trials()] == ["COMPLETE"] * 3


def test_a_search_whose_first_trials_have_no_result_ends() -> None:
    searching = search(Wanted("random", 9, "accuracy", more=True))
    for _ in range(3):
        searching.tell(first(searching), Outcome("finished"))
    with pytest.raises(ConfigError, match="the last with: It has no accuracy"):
        searching.ask()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "the accuracy on the test rows.*validation=0.1"),
        (["tasks=5", "search_tasks=3"], "the accuracy on the test rows.*validation=0.1"),
        (["validation=0.1", "maximize=accuracy"], "name validation_accuracy"),
        (["validation=0.1"], ""),
        (["env=CartPole-v1"], ""),
    ],
)
def test_a_search_that_is_judged_by_test_rows_says_so(words: list[str], said: str) -> None:
    read = read_words(["search=tpe", "lr=log(1e-3,1)", *words])
    with pytest.warns(UserWarning, match=said) if said else contextlib.nullcontext():
        console.search(read, words, {})


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("search=tpe engine=slurm", "Add jobs=N"),
        ("search=tpe engine=slurm slurm.print=true", "not known before it starts"),
    ],
)
def test_on_slurm_a_search_says_how_many_trials_it_queues(
    words: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _main(["-m", "lr=log(1e-3,1)", "validation=0.1", *words.split()]) == 2
    assert said in capsys.readouterr().err
    assert not Path("runs").exists()
