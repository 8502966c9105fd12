"""What is evaluated when: tasks seen and the next one, a sample of rows, all of them at the end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from antelope import Run, ml
from antelope.launcher.metrics.bwt import bwt
from antelope.launcher.metrics.forgetting import forgetting
from antelope.launcher.metrics.learning_accuracy import learning_accuracy
from antelope.launcher.record.console import Console
from antelope.launcher.record.csv_file import CSV, read_csv
from antelope.launcher.record.progress import Progress

DIGITS: dict[str, Any] = {
    "dataset": "Digits",
    "tasks": 5,
    "train_steps": 6,
    "lr": 0.01,
    "plot": False,
    "progress": False,
}


class Looks(nn.Module):
    """Remembers which rows it was evaluated on, in how many forwards."""

    def __init__(self, in_features: int, out_features: int):
        super().__init__()
        self.layer = nn.Linear(in_features, out_features)
        self.seen: list[Tensor] = []

    def forward(self, obs: Tensor) -> Tensor:
        if not self.training and len(obs) > 2:  # Two are the run's own trial.
            self.seen.append(obs.flatten(1).clone())
        return self.layer(obs.flatten(1))


@pytest.fixture(autouse=True)
def _here(workdir: Path) -> None:
    """Every test in a folder of its own."""


def run(*words: str, model: Any = Looks, **settings: Any) -> Run:
    return ml(*words, model=model, **DIGITS | settings)


# ------------------------------------------------------------------------------------ which tasks


def test_the_tasks_seen_and_the_next_one_are_scored() -> None:
    finished = run()
    for matrix in (finished.accuracy_matrix, finished.task_il_matrix):
        assert np.array_equal(np.isnan(matrix), ~np.tri(5, 5, 1, dtype=bool))
    # Before learning each task once, for forward transfer; then two, three, four, five, five.
    assert len(finished.agent.seen) == 5 + 2 + 3 + 4 + 5 + 5
    assert {"forgetting", "bwt", "fwt", "learning_accuracy"} <= finished.metrics.keys()


def test_all_tasks_are_scored_where_that_is_asked_for() -> None:
    finished, bounded = run("eval_future=true"), run(path="bounded")
    full = finished.accuracy_matrix
    assert np.isfinite(full).all()
    scored = np.tri(5, 5, 1, dtype=bool)
    assert np.array_equal(full[scored], bounded.accuracy_matrix[scored])
    assert finished.metrics == bounded.metrics


def test_eval_future_is_of_no_use_to_a_single_task() -> None:
    with pytest.warns(UserWarning, match="`eval_future` has no effect .* there is one task"):
        run("eval_future=true", tasks=1)


def test_of_the_environments_to_come_the_next_one_is_played() -> None:
    finished = ml(
        env=["CartPole-v1"] * 3, agent="A2C", train_steps=100, eval_episodes=1,
        plot=False, progress=False,
    )  # fmt: skip
    assert np.array_equal(np.isnan(finished.accuracy_matrix), ~np.tri(3, 3, 1, dtype=bool))
    assert {"forgetting", "bwt", "fwt", "learning_return"} <= finished.metrics.keys()


# ------------------------------------------------------------------------------------- which rows


def test_a_fixed_sample_is_looked_at_and_in_the_end_all_rows() -> None:
    finished = run("eval_rows=7", tasks=2)
    before, after_one, last = (finished.agent.seen[i : i + 2] for i in (0, 2, 4))
    assert [len(rows) for rows in before] == [7, 7]
    for task in (0, 1):
        assert torch.equal(before[task], after_one[task])  # The very same rows.
        assert len(last[task]) > 70
        rows = {tuple(row) for row in last[task].tolist()}
        assert {tuple(row) for row in before[task].tolist()} <= rows
    whole = run(tasks=2, path="whole")
    assert np.array_equal(finished.accuracy_matrix[1], whole.accuracy_matrix[1])
    assert finished.metrics["accuracy"] == finished.accuracy_matrix[-1].mean()
    matrix = finished.accuracy_matrix
    assert finished.metrics["forgetting"] == forgetting(matrix)
    assert finished.metrics["bwt"] == bwt(matrix)
    assert finished.metrics["learning_accuracy"] == learning_accuracy(matrix)
    assert torch.equal(finished.agent.layer.weight, whole.agent.layer.weight)


def test_the_sample_is_the_seeds() -> None:
    one, same, other = (
        run("eval_rows=9", tasks=1, seed=seed, path=f"{i}") for i, seed in enumerate([0, 0, 1])
    )
    assert len(one.agent.seen) == 1  # A single task: nothing but the end, which is of all rows.
    words = ["eval_rows=9", "eval_every=3"]
    one, same, other = (
        run(*words, tasks=1, seed=seed, path=f"r{i}").agent.seen for i, seed in enumerate([0, 0, 1])
    )
    assert len(one[0]) == 9
    assert torch.equal(one[0], same[0])
    assert not torch.equal(one[0], other[0])


def test_rows_set_aside_are_sampled_too() -> None:
    finished = run("eval_rows=5", "validation=0.2", "eval_every=2", tasks=1)
    assert [len(rows) for rows in finished.agent.seen] == [5, 5, len(finished.agent.seen[-1])]
    assert torch.equal(finished.agent.seen[0], finished.agent.seen[1])
    assert len(finished.agent.seen[-1]) > 300


def test_fewer_rows_than_are_asked_for_are_all() -> None:
    finished, whole = run("eval_rows=100000"), run(path="whole")
    assert np.array_equal(finished.accuracy_matrix, whole.accuracy_matrix, equal_nan=True)


@pytest.mark.parametrize("step", [4, 9])
def test_a_resumed_run_looks_at_the_same_rows(step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    class Crash(Exception):
        pass

    class Crashes(Looks):
        at = steps = 0

        def learn(self, replay: Any) -> Tensor:
            Crashes.steps += 1
            if Crashes.steps == Crashes.at:
                raise Crash
            batch = next(replay)
            return F.cross_entropy(self(batch.obs), batch.label)

    words = ["eval_rows=11", "eval_every=2", "save_every=1"]
    whole = run(*words, model=Crashes, path="whole", tasks=2)
    Crashes.at, Crashes.steps = step, 0
    with pytest.raises(Crash):
        run(*words, model=Crashes, path="broken", tasks=2)
    Crashes.at = 0
    resumed = run(*words, model=Crashes, path="broken", tasks=2, resume=True)
    for name in ("train.csv", "eval.csv"):
        assert (whole.path / name).read_bytes() == (resumed.path / name).read_bytes()
    assert np.array_equal(whole.accuracy_matrix, resumed.accuracy_matrix, equal_nan=True)
    assert whole.metrics == resumed.metrics


def test_environments_have_no_rows() -> None:
    with pytest.warns(UserWarning, match="`eval_rows` has no effect .* an environment"):
        ml("eval_rows=5", env="CartPole-v1", agent="A2C", train_steps=50, eval_episodes=1,
           plot=False, progress=False)  # fmt: skip


# ---------------------------------------------------------------------------------- while it lasts


def shown(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int, str]]:
    """What the console is told of the evaluations of runs to come."""
    told: list[tuple[int, int, str]] = []
    monkeypatch.setattr(Console, "evaluating", lambda _, *what: told.append(what))
    return told


def test_rows_are_counted_to_the_last(monkeypatch: pytest.MonkeyPatch) -> None:
    told = shown(monkeypatch)
    monkeypatch.setattr("antelope.envs.held_out._ROWS", 20)
    run("eval_rows=50", tasks=2, train_steps=1)
    assert told[:7] == [(n, 100, "rows") for n in (0, 20, 40, 50, 70, 90, 100)]
    assert [done for done, _, _ in told[:7]] == sorted(done for done, _, _ in told[:7])
    assert told[-1][0] == told[-1][1] > 100  # The last one is of all rows.


def test_episodes_are_counted_and_their_steps_move(monkeypatch: pytest.MonkeyPatch) -> None:
    told = shown(monkeypatch)
    ml(env="CartPole-v1", agent="A2C", train_steps=20, eval_episodes=2, plot=False, progress=False)
    assert all(total == 2 for _, total, _ in told)
    assert told[0] == (0, 2, "episodes (1 steps)")
    assert told[-1][0] == 2
    assert len({what for _, _, what in told}) > 5


# ------------------------------------------------------------------------------ of a long sequence


def many_tasks(**settings: Any) -> Run:
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(60).repeat_interleave(4)
    inputs = torch.randn(240, 5, generator=generator)
    return run(
        dataset=(inputs, labels),
        test_dataset=(inputs + 0.1, labels),
        tasks=30,
        train_steps=2,
        **settings,
    )


def test_a_long_sequence_is_not_saved_after_every_task_and_has_one_header(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    saves, rewrites = [], []
    original = CSV._rewrite
    monkeypatch.setattr(
        "antelope.launcher.record.checkpoint.Checkpoints.save",
        lambda _, state, model: saves.append(state),
    )
    monkeypatch.setattr(CSV, "_rewrite", lambda self: (rewrites.append(self.mode), original(self)))
    clock = [0.0]

    def a_hundredth() -> float:
        clock[0] += 0.01
        return clock[0]

    monkeypatch.setattr("antelope.launcher.record.supervisor.time.monotonic", a_hundredth)
    finished = many_tasks()
    assert 1 < len(saves) < 30  # A save takes as long as anything here: each twentieth look.
    assert saves[-1]["progress"]["task"] == 30  # The end is saved in any case.
    assert isinstance(saves[-1]["progress"]["matrix"], np.ndarray)
    assert rewrites.count("eval") == 1
    header = (finished.path / "eval.csv").read_text().split("\n", 1)[0].split(",")
    assert [f"accuracy/task_{i}" for i in range(30)] == [h for h in header if "accuracy/" in h][:30]
    rows = read_csv(finished.path / "eval.csv")
    assert len(rows) == 30
    assert "accuracy/task_3" not in rows[2]
    assert rows[-1]["accuracy/task_29"] == finished.accuracy_matrix[-1, -1]


def test_progress_keeps_its_matrices_as_arrays() -> None:
    nan = float("nan")
    at = Progress(matrix=[[0.5, nan], [0.25, 1.0]], task_il=[[0.5, nan], [0.25, 1.0]])
    state = at.state_dict()
    assert state["matrix"].dtype == np.float64
    again = Progress()
    again.load_state_dict(state)
    assert again.matrix == again.task_il  # NaN and all.
    assert again.matrix[1] == [0.25, 1.0]
    again.load_state_dict({**state, "matrix": [[0.5, 0.1]], "evaluated": [1, 0, False]})
    assert again.matrix == [[0.5, 0.1]]  # Of a checkpoint before 0.5.0.
