"""Early stopping judges the task that is being learnt, alone, and can go back to its best weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from antelope import Run, ml
from antelope.launcher.record.checkpoint import Checkpoints

DIGITS: dict[str, Any] = {
    "dataset": "Digits",
    "tasks": 2,
    "epochs": 8,
    "batch_size": 16,
    "lr": 0.05,
    "eval_every": 3,
    "validation": 0.3,
    "plot": False,
    "progress": False,
}


class Net(nn.Module):
    """Overfits, has buffers, and counts."""

    def __init__(self, in_features: int, out_features: int):
        super().__init__()
        self.network = nn.Sequential(
            nn.Flatten(),
            nn.Linear(in_features, 32),
            nn.BatchNorm1d(32),
            nn.ReLU(),
            nn.Linear(32, out_features),
        )
        self.calls = 0

    def forward(self, obs: Tensor) -> Tensor:
        return self.network(obs)

    def learn(self, replay: Any) -> Tensor:
        batch = next(replay)
        self.calls += 1
        return F.cross_entropy(self(batch.obs), batch.label)


@pytest.fixture(autouse=True)
def _here(workdir: Path) -> None:
    """Every test in a folder of its own."""


def run(*words: str, model: Any = Net, **settings: Any) -> Run:
    given = {k: v for k, v in (DIGITS | settings).items() if v is not None}
    return ml(*words, model=model, **given)


def restored(*words: str, model: Any = Net, **settings: Any) -> Run:
    both = ["early_stopping.patience=4", "early_stopping.restore=true"]
    return run(*both, *words, model=model, path="restored", **settings)


def best_step(finished: Run, metric: str = "validation_loss") -> int:
    """The step of the first task's best evaluation."""
    rows = [row for row in finished.history if row["mode"] == "eval" and row["task"] == 0]
    rows = [row for row in rows if metric in row]
    return int(rows[int(np.argmin([row[metric] for row in rows]))]["step"])


# ------------------------------------------------------------------------------- when a task ends


class Forgets(nn.Module):
    """Learns one class per task at a known pace, and forgets the others as fast."""

    def __init__(self, out_features: int):
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(out_features))

    def forward(self, obs: Tensor) -> Tensor:
        return self.bias.expand(len(obs), -1)

    def learn(self, replay: Any) -> None:
        label = next(replay).label
        with torch.no_grad():
            share = F.one_hot(label, len(self.bias)).float().mean(0)
            self.bias += share - self.bias.softmax(0)


def test_a_task_is_learnt_for_as_long_as_it_improves_itself() -> None:
    """The mean over the tasks seen only falls from the second task on."""
    finished = run("early_stopping.patience=2", model=Forgets, tasks=5, train_steps=60)
    steps = [task["steps"] for task in finished.tasks]
    assert min(steps[1:]) > 20  # Judged by the mean, they end after 9 steps.


@pytest.mark.parametrize("validation", [None, 0.3])
@pytest.mark.parametrize("scenario", ["class", "task", "domain"])
def test_what_is_known_of_a_sequence_is_there_however_a_task_ended(
    validation: float | None, scenario: str
) -> None:
    finished = run("early_stopping.patience=2", validation=validation, scenario=scenario)
    assert finished.tasks[-1]["steps"] < 8 * 15  # The last task was ended early.
    assert {"forgetting", "bwt", "fwt", "learning_accuracy"} <= finished.metrics.keys()
    ends = [row for row in finished.history if "learning_accuracy" in row]
    assert [row["task"] for row in ends] == [0, 1]


def test_one_row_is_written_for_a_step() -> None:
    finished = run("early_stopping.patience=2", validation=None)
    places = [(r["step"], r["task"]) for r in finished.history if r["mode"] == "eval"]
    assert len(places) == len(set(places))


def test_tasks_of_a_sequence_are_looked_at_each_epoch_unless_it_is_said_when() -> None:
    finished = run("early_stopping.patience=2", eval_every=None, epochs=30, lr=0.1)
    assert max(task["steps"] for task in finished.tasks) < 30 * 15
    looks = [row["step"] for row in finished.history if "validation_loss" in row]
    assert looks[1] == 2 * looks[0]


def test_where_nothing_is_ever_looked_at_it_is_said() -> None:
    with pytest.warns(UserWarning, match="early_stopping has no effect .* Set eval_every"):
        run("early_stopping.patience=2", eval_every=None, epochs=1)


@pytest.mark.parametrize(
    ("scenario", "metric"),
    [("class", "loss"), ("domain", "loss"), ("task", "task_il_loss")],
)
def test_the_loss_is_judged_and_with_the_task_told_that_among_its_classes(
    scenario: str, metric: str
) -> None:
    finished = run("early_stopping.patience=3", scenario=scenario, seed=1, lr=0.02)
    rows = [row for row in finished.history if row["task"] == 0 and f"validation_{metric}" in row]
    best, waited, ended = float("inf"), 0, None
    for row in rows:
        value = row[f"validation_{metric}"]
        best, waited = (value, 0) if value < best else (best, waited + 1)
        if waited == 3:
            ended = row["step"]
            break
    assert ended is not None
    assert finished.tasks[0]["steps"] == ended


def test_a_later_task_of_icarl_has_a_loss_to_judge_before_it_has_exemplars() -> None:
    finished = run("early_stopping.patience=2", strategy="icarl", lr=0.003, eval_every=15)
    losses = [row["validation_loss"] for row in finished.history if "validation_loss" in row]
    assert max(losses) < 100
    assert finished.tasks[1]["steps"] > 100


# ---------------------------------------------------------------------------------- going back


def same_weights(one: Run, other: Run) -> bool:
    state, expected = one.agent.state_dict(), other.agent.state_dict()
    return all(torch.equal(state[name], expected[name]) for name in expected)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"validation": None},
        {"ema": 0.9},
        {"optim": "Adagrad", "scheduler": "StepLR", "scheduler.step_size": 4},
        {"accumulate": 3},
        {"strategy": "si", "tasks": 2, "class_order": list(range(10))},
    ],
    ids=str,
)
def test_a_task_ends_with_the_weights_of_its_best_evaluation(settings: dict[str, Any]) -> None:
    settings = {"tasks": None} | settings
    finished = restored(**settings)
    metric = "loss" if settings.get("validation", 0) is None else "validation_loss"
    best = best_step(finished, metric)
    assert best < finished.tasks[0]["steps"]
    stopped = run(path="stopped", train_steps=best, epochs=None, **settings)
    first, expected = finished.accuracy_matrix[0], stopped.accuracy_matrix[0]
    assert np.array_equal(first, expected, equal_nan=True)
    if len(first) == 1:
        assert same_weights(finished, stopped)
        assert finished.agent.calls == best
        assert finished.metrics["loss"] == stopped.metrics["loss"]


@pytest.mark.parametrize("held", [False, True])
def test_the_optimiser_goes_back_before_the_task_ends(held: bool) -> None:
    class Holds(Net):
        def __init__(self, in_features: int, out_features: int):
            super().__init__(in_features, out_features)
            self.optim = torch.optim.Adam(self.parameters(), lr=0.05)

    class AtTheEnd:
        steps: list[int] = []  # noqa: RUF012

        def end_task(self, agent: nn.Module, replay: Any) -> None:
            states = self.context.optimizer.state.values()  # type: ignore[attr-defined]
            self.steps[:] = [int(state["step"]) for state in states]

    settings = {"model": Holds, "lr": None} if held else {}
    finished = restored(tasks=None, strategy=AtTheEnd, **settings)
    best = best_step(finished)
    assert best < finished.tasks[0]["steps"]
    assert AtTheEnd.steps == [best] * len(list(finished.agent.parameters()))


class Scripted(nn.Module):
    """As sure of the right answer after each step as its script says, for all classes or for each.

    Its loss falls as that rises.
    """

    def __init__(self, script: list[Any], grows_at: int = 0):
        super().__init__()
        self.script, self.grows_at, self.steps = script, grows_at, 0
        self.level = nn.Parameter(torch.zeros_like(torch.tensor(script[0], dtype=torch.float32)))

    def forward(self, obs: Tensor) -> Tensor:
        return self.level * obs

    def learn(self, replay: Any) -> None:
        next(replay)
        self.level.data.copy_(torch.tensor(self.script[self.steps]))
        self.steps += 1
        if self.steps == self.grows_at:
            self.more = nn.Parameter(torch.zeros(2))


def scripted(
    *words: str, script: list[Any], grows_at: int = 0, classes: int = 2, **more: Any
) -> Run:
    labels = torch.arange(40) % classes
    rows = (F.one_hot(labels).float(), labels)
    return ml(
        *["early_stopping.restore=true", "standardize=false", "plot=false", "progress=false"],
        *words,
        model=Scripted(script, grows_at),
        dataset=rows,
        test_dataset=rows,
        **{"train_steps": len(script), "eval_every": 2, **more},
    )


@pytest.mark.parametrize(
    ("script", "best"),
    [
        ([1, 3, 1, 2, 1, 2, 1], 3),  # Looked at are steps 2, 4, 6, and the end.
        ([1, 2, 1, 3, 1, 2, 1], 3),
        ([1, 2, 1, 2, 1, 3, 1], 3),  # The end is worse than the last look.
        ([1, 3, 1, 2, 1, 2, 4], 4),  # The end is better than any.
        ([5, 1, 5, 1, 5, 1, 1], 1),  # What nobody has looked at does not count.
    ],
)
def test_the_best_of_the_looks_and_of_the_end_is_kept(script: list[float], best: float) -> None:
    finished = scripted(script=script)
    assert finished.agent.level == best
    assert finished.metrics["loss"] == pytest.approx(np.log1p(np.exp(-best)), abs=1e-6)


def test_patience_counts_from_the_best_look() -> None:
    script = [1, 1, 1, 3, 2, 2, 2, 2.5, 9, 9, 9, 9]
    finished = scripted("early_stopping.patience=2", script=script)
    assert finished.tasks[0]["steps"] == 8
    assert finished.agent.level == 3


def test_joint_is_judged_by_all_that_it_learns() -> None:
    script = [[3.0, 3, 0, 0]] * 2 + [[2.0, 2, 1, 1]] * 2 + [[2.0, 2, 3, 3]] * 2
    words = ["early_stopping.patience=1", "strategy=joint", "tasks=2"]
    finished = scripted(*words, script=script, classes=4)
    assert finished.agent.level.tolist() == [2, 2, 3, 3]


def test_without_patience_a_task_is_learnt_to_its_end() -> None:
    finished = run("early_stopping.restore=true", tasks=None, epochs=4)
    best = best_step(finished)
    assert finished.history[-1]["step"] > best
    assert finished.agent.calls == best


def test_strategies_go_back_too() -> None:
    """What is rehearsed in the second task was seen before the best evaluation of the first."""
    finished = restored("strategy.capacity=2000", strategy="er", eval_every=2, lr=0.2)
    best, (one, two) = best_step(finished), finished.tasks
    assert best < one["steps"]
    # The memory holds no more rows than were given until the best evaluation of each task.
    bytes_of_a_row = 64 * 4 + 3 * 8
    assert one["memory_bytes"] < (16 * best + 16) * bytes_of_a_row + 4000
    assert two["memory_bytes"] > one["memory_bytes"]


def test_a_model_that_has_grown_is_judged_from_then_on() -> None:
    finished = scripted(script=[9, 9, 1, 1, 2, 2, 1, 1], grows_at=4)
    assert finished.agent.level == 2
    assert "more" in finished.agent.state_dict()


@pytest.mark.parametrize(("strategy", "task"), [("er", 0), ("er", 1), ("ewc", 1), (None, 0)])
def test_a_resumed_run_goes_back_to_the_same_weights(
    strategy: str | None, task: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Crash(Exception):
        pass

    class Crashes(Net):
        at = 0
        steps = 0

        def learn(self, replay: Any) -> Tensor:
            Crashes.steps += 1
            if Crashes.steps == Crashes.at:
                raise Crash
            return super().learn(replay)

    words = ["early_stopping.patience=4", "early_stopping.restore=true"]
    settings = {"strategy": strategy, "model": Crashes, "save_every": 5, "eval_every": 6}
    whole = run(*words, path="whole", **settings)
    at = sum(t["steps"] for t in whole.tasks[:task]) + int(0.8 * whole.tasks[task]["steps"])
    Crashes.at, Crashes.steps = at, 0
    with pytest.raises(Crash):
        run(*words, path="broken", **settings)
    Crashes.at = 0
    state, _ = Checkpoints(Path("broken/checkpoints")).newest()
    assert state is not None
    assert state["progress"]["best_state"] is not None  # The best weights are in it.
    resumed = run(*words, path="broken", resume=True, **settings)
    assert same_weights(whole, resumed)
    assert np.array_equal(whole.accuracy_matrix, resumed.accuracy_matrix, equal_nan=True)
    for name in ("train.csv", "eval.csv"):
        assert (whole.path / name).read_bytes() == (resumed.path / name).read_bytes()


def test_an_environments_policy_goes_back_with_its_statistics() -> None:
    settings = {"train_steps": 1200, "eval_every": 200, "eval_episodes": 2, "seed": 3}
    finished = ml(
        *["early_stopping.restore=true", "early_stopping.patience=3"],
        **{"env": "CartPole-v1", "agent": "A2C", "normalize_obs": True, "plot": False},
        **{"progress": False, **settings},
    )
    returns = [row["return"] for row in finished.history if row["mode"] == "eval"]
    assert finished.metrics["return"] == max(returns) > returns[0]
