"""Rows 16 and 45: whatever becomes NaN or infinite ends the run with 3, by name, and is never saved."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from antelope import Diverged, Run, ml
from antelope.launcher.record.checkpoint import Checkpoints
from antelope.launcher.record.divergence import Rollback

NAN, INFINITE = math.nan, math.inf
# 40 rows of 4 classes, of which a fifth is held out.
DATA = (np.random.default_rng(0).normal(size=(40, 4)).astype("float32"), np.arange(40) % 4)
SHORT = {
    "dataset": DATA,
    "batch_size": 8,
    "train_steps": 40,
    "save_every": 10,
    "log_every": 5,
    "path": "run",
    "plot": False,
    "progress": False,
}


class Plain(nn.Module):
    """Classifies; `bad` is true at the steps at which a fault is wished for."""

    at: tuple[int, ...] = (20,)
    calls = 0  # Of the class: a rolled-back model must not meet the same fault again.

    def __init__(self, in_features: int, out_features: int):
        super().__init__()
        self.layer = nn.Linear(in_features, out_features)
        self.norm = nn.BatchNorm1d(in_features)

    def forward(self, obs: Tensor) -> Tensor:
        return self.layer(self.norm(obs))

    def loss(self, replay: Any) -> Tensor:
        batch = next(replay)
        return F.cross_entropy(self(batch.obs), batch.label)

    @property
    def bad(self) -> bool:
        Plain.calls += 1
        return Plain.calls in self.at

    def learn(self, replay: Any) -> Tensor:
        return self.loss(replay)


class BadLoss(Plain):
    def learn(self, replay: Any) -> Tensor:
        return self.loss(replay) * (NAN if self.bad else 1)


class InfiniteLoss(Plain):
    def learn(self, replay: Any) -> Tensor:
        return self.loss(replay) / (0 if self.bad else 1)


class BadGradient(Plain):
    """A finite loss whose gradient is NaN."""

    def learn(self, replay: Any) -> Tensor:
        loss = self.loss(replay)
        return loss + (self.layer.bias * 0).sum().abs().sqrt() if self.bad else loss


class BadBuffer(Plain):
    """NaN in a statistic that only predictions use, so that the loss never shows it."""

    def learn(self, replay: Any) -> Tensor:
        if self.bad:
            self.norm.running_var.fill_(NAN)
        return self.loss(replay)


class Silent(Plain):
    """Updates itself, and logs nothing."""

    def __init__(self, in_features: int, out_features: int):
        super().__init__(in_features, out_features)
        self.optimizer = torch.optim.SGD(self.parameters(), 0.1)

    def learn(self, replay: Any) -> None:
        loss = self.loss(replay) * (NAN if self.bad else 1)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()


class BadLog(Plain):
    """Updates itself by a finite loss, and logs another that is not."""

    def learn(self, replay: Any, log: Any) -> None:
        next(replay)
        log["critic/loss"] = INFINITE if self.bad else 1.0


class BadOutput(Plain):
    """Finite weights whose predictions are NaN."""

    def forward(self, obs: Tensor) -> Tensor:
        late = not self.training and Plain.calls >= self.at[0]
        return super().forward(obs) * (NAN if late else 1)

    def learn(self, replay: Any) -> Tensor:
        assert self.bad in (True, False)
        return self.loss(replay)


class At:
    """Does something to the live run at a step."""

    def __init__(self, step: int, do: Any):
        self.step, self.do = step, do

    def on_step(self, run: Any) -> Any:
        return self.do(run) if run.step == self.step else None


@pytest.fixture(autouse=True)
def _afresh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Plain, "calls", 0)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def diverging(**settings: Any) -> Diverged:
    """How a run diverges that leaves only good checkpoints behind."""
    with pytest.raises(Diverged) as raised:
        ml(**{**SHORT, **settings})
    status = json.loads(Path("run/status.json").read_text())
    assert status["status"] == "diverged"
    assert status["tensor"] == raised.value.tensor
    only_good()
    return raised.value


def only_good() -> None:
    state, problems = Checkpoints(Path("run/checkpoints")).newest()
    assert not problems
    if state is None:
        return
    learner = state["learner"]
    held = [*learner["agent"].values(), *learner.get("average", {}).get("average", {}).values()]
    held += (
        [x for each in learner["optimizer"]["state"].values() for x in each.values()]
        if ("optimizer" in learner)
        else []
    )
    assert all(torch.isfinite(x).all() for x in held if isinstance(x, Tensor))


def finished(**settings: Any) -> Run:
    run = ml(**{**SHORT, **settings})
    assert all(torch.isfinite(x).all() for x in run.agent.state_dict().values())
    return run


# ----------------------------------------------------------------------------------- on_nan=stop


@pytest.mark.row(16)
@pytest.mark.parametrize(
    ("model", "word", "tensor", "step"),
    [
        (BadLoss, "loss became NaN at learning step 20", "loss", 20),
        (InfiniteLoss, "loss became infinite at learning step 20", "loss", 20),
        (BadGradient, "`layer.bias` became NaN in learning steps 16 to 20", "layer.bias", 20),
        (BadBuffer, "buffer `norm.running_var` became NaN", "norm.running_var", 20),
        (Silent, "weight `layer.weight` became NaN", "layer.weight", 20),
        (BadLog, "`critic/loss` became infinite", "critic/loss", 20),
        (BadOutput, "metric `loss` became NaN in the evaluation at step 24", "loss", 24),
    ],
)
def test_row_16_the_run_stops_within_a_row_and_names_what_is_bad(
    model: type[Plain], word: str, tensor: str, step: int
) -> None:
    error = diverging(model=model, eval_every=12)
    assert word in str(error)
    assert (error.step, error.tensor) == (step, tensor)
    rates = {Silent: 0.1, BadLog: None}
    assert error.lr == rates.get(model, 1e-3)
    assert "The last good checkpoint is" in str(error)
    newest = Checkpoints(Path("run/checkpoints")).newest()[0]
    assert newest is not None
    assert newest["progress"]["step"] in (10, 20)


@pytest.mark.row(45)
@pytest.mark.parametrize("model", [BadLoss, BadGradient, BadBuffer, Silent])
def test_row_45_the_last_step_counts_too(model: type[Plain]) -> None:
    error = diverging(model=model, train_steps=20, log_every=1000, save_every=1000)
    assert error.step == 20
    assert "There is no checkpoint yet" in str(error)


@pytest.mark.row(45)
def test_row_45_the_update_by_what_is_left_of_accumulated_gradients_counts_too() -> None:
    class Worse(BadGradient):
        at = (18,)

    error = diverging(model=Worse, train_steps=18, accumulate=4, log_every=1000, save_every=1000)
    assert error.tensor == "layer.bias"


def ruin_moments(run: Any) -> None:
    next(iter(run.optimizer.state.values()))["exp_avg_sq"].fill_(INFINITE)


def ruin_average(run: Any) -> None:
    run._session.learner.average.average[0].fill_(NAN)


def ruin_gradient(run: Any) -> None:
    run.agent.layer.weight.grad.fill_(NAN)


@pytest.mark.row(16)
@pytest.mark.parametrize(
    ("ruin", "what", "settings"),
    [
        (ruin_moments, "optimiser's exp_avg_sq of `layer.weight` became infinite", {}),
        (ruin_average, "average (ema) of `layer.weight` became NaN", {"ema": 0.9}),
        (ruin_gradient, "gradient of `layer.weight` became NaN", {"accumulate": 3}),
    ],
)
def test_row_16_what_trains_the_weights_is_not_saved_either(
    ruin: Any, what: str, settings: dict[str, Any]
) -> None:
    error = diverging(model=Plain, callbacks=[At(20, ruin)], **settings)
    assert what in str(error)


@pytest.mark.row(16)
@pytest.mark.parametrize("do", [lambda run: run.save() and None, lambda _: "stop"])
def test_row_16_a_callback_saves_nothing_that_is_bad(do: Any) -> None:
    calls = [At(22, do)]
    error = diverging(model=BadBuffer, callbacks=calls, log_every=1000, save_every=1000)
    assert error.tensor == "norm.running_var"
    assert not Path("run/checkpoints").exists()


@pytest.mark.row(16)
def test_row_16_in_a_later_task_with_a_strategy() -> None:
    error = diverging(model=BadGradient, tasks=2, strategy=["er"], train_steps=15)
    assert error.step == 20


@pytest.mark.row(16)
def test_row_16_in_a_task_that_is_added_to_a_finished_run() -> None:
    more = (DATA[0] + 1, DATA[1])
    run = ml(**{**SHORT, "model": BadBuffer, "train_steps": 10})
    with pytest.raises(Diverged, match=r"norm\.running_var"):
        run.learn_task(more, name="later")
    assert json.loads(Path("run/status.json").read_text())["status"] == "diverged"
    only_good()


def ruin_weights(run: Any) -> None:
    with torch.no_grad():
        next(run.agent.parameters()).fill_(NAN)


def ruin_statistics(run: Any) -> None:
    run._session.world.normalizer.moments[""].squares[1] = INFINITE


ENV = {
    "dataset": None,
    "batch_size": None,
    "env": "CartPole-v1",
    "train_steps": 400,
    "eval_episodes": 0,
}


@pytest.mark.row(16)
@pytest.mark.parametrize("agent", ["PPO", "DQN"])
def test_row_16_with_reinforcement_learning(agent: str) -> None:
    settings = {**ENV, "seed_steps": 0, "callbacks": [At(303, ruin_weights)]}
    error = diverging(agent=agent, **settings)
    assert error.step is not None
    assert 303 <= error.step <= 310
    assert "weight" in str(error)


@pytest.mark.row(16)
def test_row_16_an_environments_statistics() -> None:
    error = diverging(agent="PPO", callbacks=[At(303, ruin_statistics)], **ENV)
    assert "running variance of `observations` became infinite" in str(error)


class Diverges(gymnasium.Env[Any, Any]):
    """Refuses actions that are NaN, as simulators do."""

    observation_space = gymnasium.spaces.Box(-1, 1, (2,))
    action_space = gymnasium.spaces.Box(-1, 1, (1,))

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        return self.np_random.uniform(-1, 1, 2).astype("float32"), {}

    def step(self, action: Any) -> Any:
        if np.isnan(action).any():
            raise RuntimeError("the simulator exploded")
        return self.np_random.uniform(-1, 1, 2).astype("float32"), 0.0, False, False, {}


class Steers(nn.Module):
    def __init__(self, in_features: int, out_features: int):
        super().__init__()
        self.layer = nn.Linear(in_features, out_features)

    def act(self, obs: Tensor) -> Tensor:
        return self.layer(obs).tanh()

    def learn(self, replay: Any) -> Tensor:
        return self.layer(next(replay).obs).square().mean()


@pytest.mark.row(16)
def test_row_16_what_fails_because_weights_are_nan_is_a_divergence() -> None:
    settings = {**ENV, "env": Diverges, "time_limit": 20, "seed_steps": 0, "train_steps": 80}
    settings |= {"log_every": 1000, "save_every": 1000, "learn_every": 50}
    error = diverging(model=Steers, callbacks=[At(53, ruin_weights)], **settings)
    assert "It then raised DataError: Diverges raised RuntimeError: the simulator" in str(error)
    assert "exploded" in str(error)
    assert error.step == 53


@pytest.mark.row(16)
def test_row_16_steps_that_a_loss_scaler_skips_are_no_divergence() -> None:
    class Large(Plain):
        """Gradients that overflow float16 until the scale has fallen."""

        def learn(self, replay: Any) -> Tensor:
            return self.loss(replay) * 100

    scales: list[float] = []

    def keep(run: Any) -> None:
        scales.append(run._session.learner.updates.scaler.get_scale())

    finished(model=Large, precision=16, callbacks=[At(40, keep)])
    assert scales[0] < 2**16  # Where it began: it falls only when it skips a step.


@pytest.mark.row(16)
def test_row_16_gradients_that_are_bad_at_every_scale_are_a_divergence() -> None:
    class Worse(BadGradient):
        at = tuple(range(1, 200))

    error = diverging(model=Worse, precision=16, train_steps=100, log_every=1000)
    assert "loss scaler" in str(error)


@pytest.mark.row(16)
def test_row_16_what_is_infinite_on_purpose_is_left_alone() -> None:
    class Masked(Plain):
        def __init__(self, in_features: int, out_features: int):
            super().__init__(in_features, out_features)
            self.register_buffer("mask", torch.full((3, 3), -INFINITE).triu(1))
            self.register_buffer("lowest", torch.tensor(NAN))

        def learn(self, replay: Any) -> Tensor:
            self.register_buffer("made_later", torch.full((2,), -INFINITE))
            return self.loss(replay)

    assert ml(**SHORT, model=Masked).metrics["loss"] < 10


@pytest.mark.row(16)
def test_row_16_a_metric_that_is_undefined_from_the_start_is_left_alone() -> None:
    def undefined(output: Tensor, label: Tensor) -> float:
        return NAN

    with pytest.warns(UserWarning, match="metrics=undefined is NaN"):
        finished(model=Plain, metrics=[undefined])


@pytest.mark.row(16)
def test_row_16_one_that_was_finite_is_not() -> None:
    values = iter([1.0, 1.0, NAN, NAN])

    def later(output: Tensor, label: Tensor) -> float:
        return next(values)

    with pytest.warns(UserWarning, match="metrics=later is NaN"):
        error = diverging(model=Plain, metrics=[later], eval_every=10)
    assert error.tensor == "later"


@pytest.mark.row(16)
@pytest.mark.row(45)
def test_row_16_from_the_console_it_exits_with_3_and_says_it_once(tmp_path: Path) -> None:
    (tmp_path / "model.py").write_text(SILENT)
    words = (
        "model=Silent dataset=Digits train_steps=500 save_every=30 log_every=5 plot=false path=run"
    )
    code = "from antelope.launcher.ml import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, *words.split()],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 3, done.stderr
    assert done.stderr.count("NaN") == 1
    assert "`a.weight` became NaN in learning steps 41 to 45 (lr=0.1)" in done.stderr
    assert "checkpoints/000001" in done.stderr
    assert "Traceback" not in done.stderr


SILENT = """\
import torch
from torch import nn
from torch.nn import functional as F


class Silent(nn.Module):
    def __init__(self, in_features, out_features):
        super().__init__()
        self.a = nn.Linear(in_features, out_features)
        self.o = torch.optim.SGD(self.parameters(), 0.1)
        self.n = 0

    def forward(self, obs):
        return self.a(obs.flatten(1))

    def learn(self, replay):
        batch = next(replay)
        self.n += 1
        loss = F.cross_entropy(self(batch.obs), batch.label) * (float("nan") if self.n == 42 else 1)
        self.o.zero_grad()
        loss.backward()
        self.o.step()
"""


# ----------------------------------------------------------------------------------- on_nan=skip


@pytest.mark.row(16)
@pytest.mark.parametrize(
    ("model", "accumulate"),
    [(BadLoss, 1), (BadGradient, 1), (Silent, 1), (BadLoss, 4), (BadGradient, 4)],
)
def test_row_16_skip_skips_the_update_and_says_it_once(
    model: type[Plain], accumulate: int, capsys: pytest.CaptureFixture[str]
) -> None:
    class Twice(model):  # type: ignore[misc, valid-type]
        at = (20, 30)

    with pytest.warns(UserWarning, match="update of learning step 20 was skipped") as said:
        run = finished(model=Twice, on_nan="skip", accumulate=accumulate)
    assert len([1 for each in said if "was skipped" in str(each.message)]) == 1
    assert "on_nan=skip skipped 2 updates." in capsys.readouterr().err
    assert all(math.isfinite(row.get("loss", 0.0)) for row in run.history)


@pytest.mark.row(16)
def test_row_16_skip_changes_nothing_but_the_order_of_data() -> None:
    """A skipped step leaves weights, moments and buffers as they were before it."""
    before: dict[str, Tensor] = {}

    def keep(run: Any) -> None:
        moments = [x["exp_avg"] for x in run.optimizer.state.values()]
        now = {**run.agent.state_dict(), **dict(zip("abcd", moments, strict=True))}
        if not before:
            before.update({name: x.clone() for name, x in now.items()})
            return
        assert all(torch.equal(x, before[name]) for name, x in now.items())
        before.clear()

    with pytest.warns(UserWarning, match="was skipped"):
        finished(model=BadLoss, on_nan="skip", callbacks=[At(19, keep), At(20, keep)])
    assert not before


@pytest.mark.row(16)
@pytest.mark.parametrize("model", [BadLoss, BadGradient, Silent])
@pytest.mark.filterwarnings("ignore:on_nan=skip")
def test_row_16_skip_has_an_end(model: type[Plain]) -> None:
    class Always(model):  # type: ignore[misc, valid-type]
        at = tuple(range(20, 500))

    error = diverging(model=Always, on_nan="skip")
    assert "10 updates in a row were skipped (on_nan=skip)" in str(error)
    assert error.step == 29


@pytest.mark.row(16)
@pytest.mark.filterwarnings("ignore:on_nan=skip")
def test_row_16_skip_has_an_end_where_a_second_optimiser_goes_on() -> None:
    class Two(Plain):
        def __init__(self, in_features: int, out_features: int):
            super().__init__(in_features, out_features)
            self.other = nn.Linear(in_features, out_features)
            parts = self.other, self.layer
            self.optimizers = [torch.optim.SGD(part.parameters(), 0.1) for part in parts]

        def learn(self, replay: Any) -> None:
            batch = next(replay)
            factors = (NAN if self.bad else 1), 1
            for part, factor, optimizer in zip(
                (self.other, self.layer), factors, self.optimizers, strict=True
            ):
                loss = F.cross_entropy(part(batch.obs), batch.label) * factor
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()

    class Always(Two):
        at = tuple(range(20, 500))

    error = diverging(model=Always, on_nan="skip")
    assert "10 updates in a row were skipped" in str(error)
    assert (error.step, error.tensor) == (29, "other.weight")


@pytest.mark.row(16)
@pytest.mark.filterwarnings("ignore:on_nan=skip")
@pytest.mark.parametrize("first", ["stop", "skip", "rollback"])
def test_row_16_a_run_that_diverged_is_resumed_with_skip(
    first: str, capsys: pytest.CaptureFixture[str]
) -> None:
    class Twice(BadLoss):
        at = (12, 13, 14, 15, 30) if first == "rollback" else (15, 35)

    if first == "skip":
        finished(model=Twice, on_nan="skip", train_steps=30)
    else:
        diverging(model=Twice, on_nan=first, train_steps=30)
    finished(model=Twice, on_nan="skip", resume=True)
    assert f"skipped {2 if first == 'skip' else 1} update" in capsys.readouterr().err


@pytest.mark.row(16)
@pytest.mark.filterwarnings("ignore:on_nan=skip")
def test_row_16_skip_has_an_end_where_no_update_is_ever_whole() -> None:
    class EveryThird(BadLoss):
        at = tuple(range(2, 500, 3))

    assert "in a row" in str(diverging(model=EveryThird, on_nan="skip", accumulate=4))


# ------------------------------------------------------------------------------- on_nan=rollback


@pytest.mark.row(16)
@pytest.mark.parametrize("model", [BadLoss, BadGradient, BadBuffer, Silent])
def test_row_16_rollback_goes_back_and_says_it_once(
    model: type[Plain], capsys: pytest.CaptureFixture[str]
) -> None:
    class Twice(model):  # type: ignore[misc, valid-type]
        at = (20, 30)

    finished(model=Twice, on_nan="rollback")
    said = capsys.readouterr().err
    assert said.count("back to the weights of step 11, and on with the data after step 20") == 1
    assert "on_nan=rollback went back 2 times." in said
    only_good()


@pytest.mark.row(16)
def test_row_16_rollback_restores_the_checkpoint_and_the_schedule_goes_on() -> None:
    seen: dict[str, Any] = {}

    def keep(run: Any) -> None:
        seen.update({name: x.clone() for name, x in run.agent.state_dict().items()})

    def compare(run: Any) -> None:
        assert not torch.equal(run.agent.layer.weight, seen["layer.weight"])
        (moments, *_) = run.optimizer.state.values()
        seen["count"] = float(moments["step"])

    calls = [At(11, keep), At(21, compare)]
    run = finished(
        model=BadLoss,
        on_nan="rollback",
        callbacks=calls,
        scheduler="LinearLR",
        scheduler_every="step",
        **{"scheduler.total_iters": 40},
    )
    assert seen["count"] == 12  # Eleven steps of the checkpoint, and the one after the rollback.
    # Of 25 learning steps, the one that diverged has not stepped the schedule, and the last not yet.
    (rate,) = (row["lr"] for row in run.history if row["mode"] == "train" and row["step"] == 25)
    assert rate == pytest.approx(1e-3 * (1 + 2 * 23 / 40) / 3)
    assert [row["step"] for row in run.history if row["mode"] == "train"] == [
        5,
        10,
        15,
        25,
        30,
        35,
        40,
    ]


@pytest.mark.row(16)
@pytest.mark.parametrize("model", [BadLoss, BadBuffer, Silent])
def test_row_16_rollback_has_an_end(model: type[Plain]) -> None:
    class Always(model):  # type: ignore[misc, valid-type]
        at = tuple(range(20, 500))

    error = diverging(model=Always, on_nan="rollback")
    assert "on_nan=rollback went back 3 times to" in str(error)
    assert "diverged again" in str(error)


@pytest.mark.row(16)
@pytest.mark.parametrize(
    ("settings", "step"),
    [
        ({"model": BadGradient, "tasks": 2, "strategy": ["ewc"], "train_steps": 15}, 20),
        ({**ENV, "agent": "DQN", "seed_steps": 0, "callbacks": [At(303, ruin_weights)]}, 304),
    ],
)
def test_row_16_rollback_in_a_later_task_and_with_reinforcement_learning(
    settings: dict[str, Any], step: int, capsys: pytest.CaptureFixture[str]
) -> None:
    finished(on_nan="rollback", **settings)
    said = capsys.readouterr().err
    assert f"on with the data after step {step}." in said
    assert "on_nan=rollback went back 1 time." in said


@pytest.mark.row(16)
def test_row_16_rollbacks_before_a_resume_count(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Bad(BadLoss):
        at = (15, 35, 45)

    monkeypatch.setattr(Rollback, "MOST", 2)
    settings: dict[str, Any] = {"model": Bad, "on_nan": "rollback"}
    finished(**settings, train_steps=20)
    assert "on_nan=rollback went back 1 time." in capsys.readouterr().err
    error = diverging(**settings, train_steps=60, resume=True)
    assert "on_nan=rollback went back 2 times, and the run diverged again" in str(error)
    assert error.step == 45
