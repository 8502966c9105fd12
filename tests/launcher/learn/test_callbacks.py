"""Callbacks: when each hook is called, with which run, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from antelope import CheckpointError, ConfigError, Run, ml
from antelope.launcher.live_run import LiveRun

from .toys import Net

pytestmark = pytest.mark.usefixtures("workdir")  # Every test in a folder of its own.

QUIET: dict[str, Any] = {"plot": False, "progress": False, "train_steps": 4, "path": "run"}
ROWS = np.random.RandomState(0).randn(80, 4).astype(np.float32)


class Notes:
    """Notes every hook with the step and the task."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, int, int]] = []

    def on_begin(self, run: LiveRun) -> None:
        self.seen.append(("begin", run.step, run.task))

    def on_step(self, run: LiveRun) -> None:
        self.seen.append(("step", run.step, run.task))

    def on_evaluation(self, run: LiveRun) -> None:
        assert "accuracy" in run.metrics
        self.seen.append(("evaluation", run.step, run.task))

    def on_task(self, run: LiveRun) -> None:
        self.seen.append(("task", run.step, run.task))

    def on_end(self, run: LiveRun) -> None:
        self.seen.append(("end", run.step, run.task))


def learn(callbacks: Any, *words: str, **settings: Any) -> Run:
    data = (ROWS, ROWS.argmax(1))
    return ml(*words, model=Net, dataset=data, callbacks=callbacks, **{**QUIET, **settings})


def mine(**methods: Any) -> Any:
    return type("Mine", (), methods)()


# -------------------------------------------------------------------------------------- when


def test_each_hook_is_called_at_its_time() -> None:
    notes = Notes()
    learn(notes, train_steps=2, tasks=2, eval_every=3)
    assert notes.seen == [
        ("begin", 0, 0),
        *(("step", 1, 0), ("step", 2, 0), ("evaluation", 2, 0), ("task", 2, 0)),
        *(("step", 3, 1), ("evaluation", 3, 1), ("step", 4, 1)),
        *(("evaluation", 4, 1), ("task", 4, 1), ("end", 4, 1)),
    ]


def test_a_run_with_callbacks_learns_what_one_without_does() -> None:
    first, second = learn(Notes()), learn(None)
    assert all(map(torch.equal, first.agent.parameters(), second.agent.parameters()))
    assert first.history == second.history


def test_callbacks_are_called_in_environments_and_task_by_task() -> None:
    notes = Notes()
    notes.on_evaluation = lambda run: None  # type: ignore[method-assign]
    settings = {**QUIET, "train_steps": 20, "seed_steps": 10, "eval_episodes": 0}
    ml(env="CartPole-v1", agent="DQN", callbacks=notes, **settings)
    assert [name for name, *_ in notes.seen] == ["begin", *["step"] * 20, "task", "end"]
    notes = Notes()
    data = (ROWS, ROWS.argmax(1))
    for task in ml.tasks(model=Net, dataset=data, tasks=2, callbacks=[notes], **QUIET):
        task.learn()
    names = [name for name, *_ in notes.seen]
    assert [name for name in names if name != "step"] == (
        ["begin", *["evaluation", "task"] * 2, "end"]
    )


def test_the_live_run_has_what_the_finished_one_has() -> None:
    kept: dict[str, Any] = {}

    def on_step(self: object, run: LiveRun) -> None:
        run.log.twice = 2 * run.step
        kept.update(run=run, training=run.agent.training, lr=run.optimizer.param_groups[0]["lr"])
        kept.update(epoch=run.epoch, rows=len(run.replay), shape=run.spec.action.shape)

    run = learn(mine(on_step=on_step), lr=0.5, log_every=4)
    live = kept["run"]
    assert (kept["training"], kept["lr"], kept["rows"], kept["shape"]) == (True, 0.5, 64, (4,))
    assert live.agent is run.agent
    assert (live.path, live.metrics, live.history) == (run.path, run.metrics, run.history)
    assert run.history[0]["twice"] == 5
    assert repr(live) == f"<live run at step 4, path={str(run.path)!r}>"
    with pytest.raises(AttributeError, match=r"no `model`. Did you mean `agent`\?"):
        _ = live.model
    with pytest.raises(AttributeError, match='return "stop" from a callback'):
        live.should_stop = True


def test_what_is_logged_after_the_last_row_has_a_row_of_its_own() -> None:
    def logs(self: object, run: LiveRun) -> None:
        run.log.late = run.step

    for hook in ("on_evaluation", "on_task", "on_end"):
        *_, row = learn(mine(**{hook: logs}), train_steps=2).history
        assert row == {"mode": "train", "step": 2, "epoch": 0, "task": 0, "late": 2, "lr": 1e-3}


def test_a_file_that_on_begin_writes_stays_in_the_run_directory() -> None:
    def on_begin(self: object, run: LiveRun) -> None:
        (run.path / "mine.txt").write_text("hello")

    learn(None)
    run = learn(mine(on_begin=on_begin))
    assert (run.path / "mine.txt").exists()


def test_a_class_is_constructed_with_its_arguments_also_from_words() -> None:
    Path("mine.py").write_text(
        "class Every:\n"
        "    def __init__(self, every, num_classes):\n"
        "        self.every, self.classes = every, num_classes\n"
        "    def on_step(self, run):\n"
        "        run.log.noted = self.every + 100 * self.classes\n"
    )
    words = ("callbacks=[mine.py:Every]", "callbacks.Every.every=3")
    run = learn(None, *words, log_every=1)
    assert run.history[0]["noted"] == 403
    text = (run.path / "config.yaml").read_text()
    assert "callbacks:\n- _target_: mine.py:Every\n  every: 3\n" in text


# -------------------------------------------------------------------------------------- errors


def pass_by(self: object, run: LiveRun) -> None:
    """A hook that does nothing."""


async def waits(self: object, run: LiveRun) -> None:
    """A coroutine, which nobody awaits."""


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("on_epoch_end", r"on_evaluation\(self, run\)`, by default once an epoch"),
        ("on_train_begin", "nearest here is `on_begin"),
        ("on_fit_end", "nearest here is `on_end"),
        ("on_train_batch_end", "nearest here is `on_step"),
        ("on_validation_epoch_end", "nearest here is `on_evaluation"),
        ("on_stepp", "Did you mean `on_step"),
        ("on_tasks", "Did you mean `on_task"),
        ("on_test", "nearest here is `on_evaluation"),
        ("on_start", "nearest here is `on_begin"),
        ("on_stop", "nearest here is `on_end"),
        ("on_evaluate", "Did you mean `on_evaluation"),
        ("on_foo", "Hooks are on_begin, on_step"),
        ("before_training_exp", "nearest here is `on_task"),
        ("step", "none of the methods on_begin"),
    ],
)
def test_a_method_that_is_no_hook_is_an_error_that_names_the_nearest(
    name: str, message: str
) -> None:
    with pytest.raises(ConfigError, match=f"callbacks=Mine has .*{message}"):
        learn(mine(**{name: pass_by}))


def test_helpers_of_a_callback_are_its_own() -> None:
    called = []
    helper = lambda self, *_: called.append(self)  # noqa: E731
    learn(mine(on_step=pass_by, step=helper, only=helper, _on_epoch=helper))
    assert not called


def test_what_is_no_callback_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"on_step\(a, b\) cannot be called"):
        learn(mine(on_step=lambda self, a, b: None))
    with pytest.raises(ConfigError, match=r"pass_by is a function. When should it be called"):
        learn([pass_by])
    for unusual in (lambda self, run: (yield), waits):
        with pytest.raises(ConfigError, match="on_step is not a plain method"):
            learn(mine(on_step=unusual))
    with pytest.raises(ConfigError, match="Notes is already constructed, so `every` cannot be set"):
        learn(Notes(), "callbacks.Notes.every=3")
    with pytest.raises(ConfigError, match=r"no `load_state_dict`. Write both, or neither"):
        learn(mine(on_step=pass_by, state_dict=lambda self: {}))
    keras = type("Callback", (), {"__module__": "keras.callbacks", "on_epoch_end": pass_by})
    with pytest.raises(ConfigError, match="Mine is a callback of Keras"):
        learn(type("Mine", (keras,), {})())
    with pytest.raises(ConfigError, match=r"(?s)on_foo.*on_bar"):
        learn([mine(on_foo=pass_by), mine(on_bar=pass_by)])


@pytest.mark.parametrize("returned", [True, "halt", 0])
def test_only_stop_may_be_returned(returned: object) -> None:
    with pytest.raises(ConfigError, match='Return "stop" to end the run, or nothing'):
        learn(mine(on_step=lambda self, run: returned))


@pytest.mark.parametrize("hook", ["on_begin", "on_step", "on_evaluation", "on_task", "on_end"])
def test_an_error_in_a_hook_fails_the_run_and_says_where(hook: str) -> None:
    def broken(self: object, run: LiveRun) -> None:
        raise KeyError("missing")

    with pytest.raises(KeyError) as caught:
        learn(mine(**{hook: broken}))
    assert f"In Mine.{hook} at step" in caught.value.__notes__[0]
    assert '"failed"' in Path("run/status.json").read_text()


def test_properties_of_a_callback_are_not_read() -> None:
    def read(self: object) -> Any:
        raise AssertionError("read")

    learn(mine(on_step=pass_by, on_epoch_end=property(read)))


@pytest.mark.parametrize("name", ["step", "epoch", "task", "mode"])
def test_a_column_that_says_where_a_row_belongs_cannot_be_logged(name: str) -> None:
    def on_step(self: object, run: LiveRun) -> None:
        run.log[name] = 1

    with pytest.raises(ConfigError, match=f"log.{name}: train.csv has a column of that name"):
        learn(mine(on_step=on_step))


def test_a_state_that_no_checkpoint_can_hold_names_the_callback() -> None:
    states = {"state_dict": lambda self: {"file": object()}, "load_state_dict": pass_by}
    with pytest.raises(CheckpointError, match="callbacks=Mine: state_dict"):
        learn(mine(on_step=pass_by, **states))
