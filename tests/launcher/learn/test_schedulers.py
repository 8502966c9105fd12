"""Learning rates over a run, each compared with a loop of plain PyTorch on the same batches."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import SGD
from torch.optim.lr_scheduler import (
    ChainedScheduler,
    CosineAnnealingLR,
    CyclicLR,
    ExponentialLR,
    LambdaLR,
    LinearLR,
    OneCycleLR,
    ReduceLROnPlateau,
    SequentialLR,
    StepLR,
)

from antelope import CheckpointError, ConfigError, Run, ml
from antelope.launcher.assembly.schedule import Duration
from antelope.launcher.learn.schedulers import Scheduler

Step = tuple[
    Tensor, Tensor, float
]  # Inputs, labels, and the learning rate that they were learnt at.
seen: list[Step] = []
BATCHES = 4  # In an epoch of 40 rows, a fifth of 50 being held out; the last one is smaller.


class Net(nn.Module):
    """Remembers what it learns from, and at which rate."""

    def __init__(self, in_features: int, out_features: int):
        super().__init__()
        self.layer = nn.Linear(in_features, out_features)

    def forward(self, obs: Tensor) -> Tensor:
        return self.layer(obs)

    def learn(self, replay: Any) -> Tensor:
        batch = next(replay)
        seen.append((batch.obs.clone(), batch.label.clone(), 0.0))
        return F.cross_entropy(self(batch.obs), batch.label)


def rows(n: int = 50) -> tuple[Tensor, Tensor]:
    x = torch.randn(n, 3, generator=torch.Generator().manual_seed(1))
    return x, (x[:, 0] > 0).long()


@pytest.fixture
def quick(tmp_path: Path) -> Callable[..., Run]:
    def run(*words: str, **settings: Any) -> Run:
        seen.clear()
        usual = {"model": Net, "dataset": rows(), "batch_size": 11, "optim": "SGD"}
        if not isinstance(settings.get("optim"), torch.optim.Optimizer):
            usual["lr"] = 0.1
        files = {"path": tmp_path / "run", "plot": False, "progress": False}
        return ml(*words, **{**usual, **files, "log_every": 1, "seed": 3, **settings})

    return run


def rates(run: Run) -> list[float]:
    """The learning rate of every update."""
    return [row["lr"] for row in run.history if row["mode"] == "train" and "lr" in row]


def start(seed: int = 3) -> Net:
    torch.manual_seed(seed)
    return Net(3, 2)


def by_hand(
    schedule: Callable[[Any], Any], *, each: str, epochs: int, tasks: int = 1, **optim: Any
) -> tuple[list[float], Net]:
    """The loop that anybody would write, on the batches that the run has seen."""
    model, used = start(), []
    batches = iter(list(seen))
    optimizer: Any = None
    for _ in range(tasks):
        optimizer = (
            SGD(model.parameters(), **{"lr": 0.1, **optim})
            if tasks == 1 or optimizer is None
            else optimizer
        )
        for group in optimizer.param_groups:
            group["lr"] = {"lr": 0.1, **optim}["lr"]
            group.pop("initial_lr", None)
        scheduler = schedule(optimizer)
        for _ in range(epochs):
            for _ in range(BATCHES):
                obs, label, _ = next(batches)
                optimizer.zero_grad()
                F.cross_entropy(model(obs), label).backward()
                used.append(optimizer.param_groups[0]["lr"])
                optimizer.step()
                if each == "step":
                    scheduler.step()
            if each == "epoch":
                scheduler.step()
    return used, model


def warmed_up(optimizer: Any) -> SequentialLR:
    parts = [LinearLR(optimizer, 0.1, total_iters=2), CosineAnnealingLR(optimizer, 4)]
    return SequentialLR(optimizer, parts, milestones=[2])


def chained(optimizer: Any) -> ChainedScheduler:
    return ChainedScheduler([StepLR(optimizer, 2), ExponentialLR(optimizer, 0.9)])


SCHEDULES: dict[str, tuple[Any, Callable[[Any], Any], str]] = {
    "StepLR": ({"_target_": "StepLR", "step_size": 3}, partial(StepLR, step_size=3), "epoch"),
    "cosine": ({"_target_": "CosineAnnealingLR", "T_max": 6}, partial(CosineAnnealingLR, T_max=6), "epoch"),
    "partial": (partial(ExponentialLR, gamma=0.5), partial(ExponentialLR, gamma=0.5), "epoch"),
    "sequential": (warmed_up, warmed_up, "epoch"),
    "chained": (chained, chained, "epoch"),
    "one cycle": (
        {"_target_": "OneCycleLR", "max_lr": 0.3},
        partial(OneCycleLR, max_lr=0.3, total_steps=6 * BATCHES),
        "step",
    ),
    "one cycle by a function": (
        lambda optimizer: OneCycleLR(optimizer, 0.3, total_steps=24),
        lambda optimizer: OneCycleLR(optimizer, 0.3, total_steps=24),
        "step",
    ),
    "cyclic": (
        {"_target_": "CyclicLR", "base_lr": 0.01, "max_lr": 0.2, "step_size_up": 5},
        partial(CyclicLR, base_lr=0.01, max_lr=0.2, step_size_up=5),
        "step",
    ),
}  # fmt: skip


class TestASchedulerSteps:
    @pytest.mark.parametrize("name", SCHEDULES)
    def test_as_in_pytorchs_own_examples(self, name: str, quick: Any) -> None:
        given, plain, each = SCHEDULES[name]
        run = quick(scheduler=given, epochs=6, **{"optim.momentum": 0.9})
        expected, model = by_hand(plain, each=each, epochs=6, momentum=0.9)
        assert rates(run) == pytest.approx(expected)
        torch.testing.assert_close(run.agent.state_dict(), model.state_dict())

    @pytest.mark.parametrize("name", SCHEDULES)
    def test_again_from_its_start_in_each_task(self, name: str, quick: Any) -> None:
        given, plain, each = SCHEDULES[name]
        run = quick(scheduler=given, epochs=6, dataset=[rows(), rows()])
        expected, model = by_hand(plain, each=each, epochs=6, tasks=2)
        assert rates(run) == pytest.approx(expected)
        torch.testing.assert_close(run.agent.state_dict(), model.state_dict())

    def test_at_every_update_if_it_is_told_to(self, quick: Any) -> None:
        run = quick(
            scheduler={"_target_": "StepLR", "step_size": 10}, scheduler_every="step", epochs=6
        )
        assert rates(run) == pytest.approx(
            by_hand(partial(StepLR, step_size=10), each="step", epochs=6)[0]
        )

    def test_once_an_epoch_if_it_is_told_to(self, quick: Any) -> None:
        run = quick(scheduler={"_target_": "CyclicLR", "base_lr": 0.01, "max_lr": 0.2, "step_size_up": 2},
                    scheduler_every="epoch", epochs=4)  # fmt: skip
        make = partial(CyclicLR, base_lr=0.01, max_lr=0.2, step_size_up=2)
        assert rates(run) == pytest.approx(by_hand(make, each="epoch", epochs=4)[0])

    def test_without_a_warning_of_torchs(self, quick: Any) -> None:
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            for given, _, _ in SCHEDULES.values():
                quick(scheduler=given, epochs=6, dataset=[rows(), rows()], accumulate=3)
        assert [str(warning.message) for warning in said] == []

    def test_with_arguments_of_a_wrong_type_is_refused_before_training(self, quick: Any) -> None:
        with pytest.raises(ConfigError, match=r"scheduler=StepLR cannot step \(TypeError"):
            quick(scheduler={"_target_": "StepLR", "step_size": "3"})

    def test_where_a_model_draws_its_batches_another_way(self, quick: Any) -> None:
        class Samples(Net):
            def learn(self, replay: Any) -> Tensor:
                batch = replay.sample(11)
                return F.cross_entropy(self(batch.obs), batch.label)

        run = quick(model=Samples, scheduler={"_target_": "StepLR", "step_size": 1}, epochs=3)
        assert rates(run) == pytest.approx([0.1] * 4 + [0.01] * 4 + [0.001] * 4)

    def test_by_epochs_of_the_data_where_the_run_is_given_in_steps(self, quick: Any) -> None:
        run = quick(scheduler={"_target_": "StepLR", "step_size": 1}, train_steps=10)
        assert rates(run) == pytest.approx([0.1] * 4 + [0.01] * 4 + [0.001] * 2)

    def test_no_more_than_once_over_a_stream_without_borders(self, quick: Any) -> None:
        with pytest.warns(UserWarning, match=r"StepLR never steps.*scheduler_every=step"):
            run = quick(
                scheduler={"_target_": "StepLR", "step_size": 1},
                online=True,
                dataset=[rows(), rows()],
            )
        assert set(rates(run)) == {0.1}
        run = quick(
            scheduler={"_target_": "OneCycleLR", "max_lr": 0.1},
            online=True,
            dataset=[rows(), rows()],
        )
        whole = OneCycleLR(SGD([torch.zeros(1)], 0.1), 0.1, total_steps=8)
        assert len(rates(run)) == 8
        assert rates(run)[-1] < whole.get_last_lr()[0]

    def test_by_what_the_gradients_are(self, quick: Any) -> None:
        """Nothing is known of such a schedule before the run."""

        class Careful:
            def __init__(self, optimizer: Any):
                self.optimizer = optimizer

            def step(self) -> None:
                (group,) = self.optimizer.param_groups
                norm = sum(p.grad.norm().item() for p in group["params"])
                group["lr"] = 0.1 / (1 + norm)

        found = rates(quick(scheduler=Careful, scheduler_every="step"))
        assert found[0] == 0.1
        assert all(0 < rate < 0.1 for rate in found[1:])


class TestAnInstance:
    def test_is_stepped_and_started_again(self, quick: Any) -> None:
        model = start()
        optim = SGD(model.parameters(), 0.1)
        run = quick(model=model, optim=optim, scheduler=warmed_up(optim), epochs=6,
                    dataset=[rows(), rows()])  # fmt: skip
        assert rates(run) == pytest.approx(by_hand(warmed_up, each="epoch", epochs=6, tasks=2)[0])

    def test_of_another_optimiser_is_refused(self, quick: Any) -> None:
        model = start()
        other = StepLR(SGD(model.parameters(), 0.1), 3)
        with pytest.raises(
            ConfigError,
            match=r"optimiser other than the one that steps. Give optim= that optimiser too",
        ):
            quick(model=model, scheduler=other)


class TestLrDecayEpochs:
    def test_is_the_cosine_of_torch_to_the_bit(self, quick: Any) -> None:
        decayed = quick(lr_decay_epochs=5, epochs=5)
        cosine = quick(scheduler={"_target_": "CosineAnnealingLR", "T_max": 5}, epochs=5)
        assert rates(decayed) == rates(cosine)
        assert torch.equal(decayed.agent.layer.weight, cosine.agent.layer.weight)

    def test_stays_at_zero_and_says_so(self, quick: Any) -> None:
        with pytest.warns(
            UserWarning, match="lr_decay_epochs=2 ends long before the run: after 2 of 9"
        ):
            run = quick(lr_decay_epochs=2, epochs=9)
        assert rates(run)[8:] == pytest.approx([0] * 28)

    def test_is_smooth_at_every_update(self, quick: Any) -> None:
        run = quick(lr_decay_epochs=5, epochs=5, scheduler_every="step")
        assert rates(run) == pytest.approx(
            by_hand(partial(CosineAnnealingLR, T_max=20), each="step", epochs=5)[0]
        )


class TestItsLength:
    def test_is_told_to_a_function_that_asks_for_it(self, quick: Any) -> None:
        def linear(optimizer: Any, total_steps: int) -> LambdaLR:
            return LambdaLR(optimizer, lambda step: 1 - step / total_steps)

        assert rates(quick(scheduler=linear, epochs=5))[::4] == pytest.approx(
            [0.1, 0.08, 0.06, 0.04, 0.02]
        )
        at_steps = rates(quick(scheduler=linear, epochs=5, scheduler_every="step", accumulate=2))
        assert at_steps[1::2] == pytest.approx([0.1 - 0.01 * i for i in range(10)])

    @pytest.mark.parametrize(
        "more",
        [
            {"scheduler.epochs": 6},
            {"scheduler.steps_per_epoch": 4},
            {"scheduler.epochs": 6, "scheduler.steps_per_epoch": 4},
            {"scheduler.total_steps": 24},
        ],
    )
    def test_is_completed_or_taken_as_given(self, more: dict[str, int], quick: Any) -> None:
        run = quick(scheduler="OneCycleLR", **{"scheduler.max_lr": 0.3, **more}, epochs=6)
        expected, _ = by_hand(
            partial(OneCycleLR, max_lr=0.3, total_steps=24), each="step", epochs=6
        )
        assert rates(run) == pytest.approx(expected)

    def test_that_is_too_short_ends_in_no_traceback(self, quick: Any) -> None:
        with pytest.warns(UserWarning, match=r"OneCycleLR (ends after|is over)"):
            run = quick(
                scheduler="OneCycleLR",
                **{"scheduler.max_lr": 0.3, "scheduler.total_steps": 9},
                epochs=3,
            )
        assert rates(run)[10:] == [rates(run)[-1]] * 2

    def test_is_that_of_the_data_a_strategy_gives(self, quick: Any) -> None:
        run = quick(scheduler="OneCycleLR", **{"scheduler.max_lr": 0.3}, epochs=2, strategy="cumulative",
                    dataset=[rows(), rows()])  # fmt: skip
        first, second = rates(run)[:8], rates(run)[8:]
        assert len(second) == 16
        for used in (first, second):
            whole = OneCycleLR(SGD([torch.zeros(1)], 0.1), 0.3, total_steps=len(used))
            assert used[0] == pytest.approx(whole.get_last_lr()[0])
            assert used[-1] == pytest.approx(used[0] / 1e4, rel=0.01)


class TestWhatIsSaid:
    def test_in_the_header(self, quick: Any, capsys: pytest.CaptureFixture[str]) -> None:
        quick(scheduler={"_target_": "StepLR", "step_size": 3}, epochs=6, progress=True)
        assert "StepLR, once an epoch: lr 0.1 to 0.01 in 6 epochs" in capsys.readouterr().out

    def test_of_a_schedule_that_is_over_early(self, quick: Any) -> None:
        with pytest.warns(
            UserWarning, match="StepLR ends long before the run: after 8 of 20 updates"
        ):
            quick(
                scheduler={"_target_": "StepLR", "step_size": 2}, scheduler_every="step", epochs=5
            )

    def test_of_one_that_hardly_begins(
        self, quick: Any, capsys: pytest.CaptureFixture[str]
    ) -> None:
        quick(scheduler={"_target_": "CosineAnnealingLR", "T_max": 1000}, epochs=5)
        assert "CosineAnnealingLR hardly changes the learning rate" in capsys.readouterr().err

    def test_of_scheduler_every_without_a_scheduler(self, quick: Any) -> None:
        with pytest.warns(UserWarning, match="`scheduler_every` has no effect"):
            quick(scheduler_every="step", epochs=1)


class Stuck(Net):
    """Never better or worse."""

    def learn(self, replay: Any) -> Tensor:
        return super().learn(replay) * 0


class TestAPlateau:
    def test_of_accuracy_that_grows_keeps_the_rate(self, quick: Any) -> None:
        run = quick(
            scheduler="ReduceLROnPlateau", epochs=4, lr=1e-3,
            **{"scheduler.mode": "max", "scheduler.patience": 4},
        )  # fmt: skip
        assert set(rates(run)) == {1e-3}

    @pytest.mark.parametrize("mode", ["min", "max"])
    def test_is_stepped_on_the_metric_of_its_mode(self, mode: str, quick: Any) -> None:
        told: list[float] = []

        class Watch(ReduceLROnPlateau):
            def step(self, metrics: Any, epoch: Any = None) -> None:
                told.append(metrics)
                super().step(metrics)

        run = quick(scheduler={"_target_": Watch, "mode": mode}, epochs=3)
        name = {"min": "loss", "max": "accuracy"}[mode]
        assert told == [row[name] for row in run.history if row["mode"] == "eval"]

    def test_looks_at_the_rows_set_aside(self, quick: Any) -> None:
        told: list[float] = []

        class Watch(ReduceLROnPlateau):
            def step(self, metrics: Any, epoch: Any = None) -> None:
                told.append(metrics)
                super().step(metrics)

        run = quick(scheduler=Watch, epochs=3, validation=0.2)
        said = [row["validation_loss"] for row in run.history if "validation_loss" in row]
        assert len(said) == 2
        assert told == said

    def test_is_stepped_on_the_task_that_is_learnt(self, quick: Any) -> None:
        told: list[float] = []

        class Watch(ReduceLROnPlateau):
            def step(self, metrics: Any, epoch: Any = None) -> None:
                told.append(metrics)
                super().step(metrics)

        x, y = rows()
        run = quick(scheduler=Watch, epochs=2, eval_every=4, dataset=[(x, y), (x, 1 - y)])
        second = [row["loss/task_1"] for row in run.history if "loss/task_1" in row]
        assert told[-2:] == second[-2:]

    def test_looks_at_the_current_task_and_starts_again(self, quick: Any) -> None:
        run = quick(
            model=Stuck, scheduler="ReduceLROnPlateau", epochs=4, eval_every=4, dataset=[rows(), rows()],
            **{"scheduler.patience": 0},
        )  # fmt: skip
        assert rates(run) == pytest.approx(2 * ([0.1] * 8 + [0.01] * 4 + [0.001] * 4))

    def test_without_evaluations_is_said(self, quick: Any) -> None:
        with pytest.warns(
            UserWarning, match="ReduceLROnPlateau waits for evaluations, but there is none"
        ):
            quick(scheduler="ReduceLROnPlateau", epochs=2, dataset=[rows(), rows()])

    def test_of_a_missing_metric_is_said_and_changes_nothing(self, quick: Any) -> None:
        class Silent(Net):
            def act(self, obs: Tensor) -> Tensor:
                return self.layer(obs).argmax(-1)

            forward = None  # type: ignore[assignment]

            def learn(self, replay: Any) -> Tensor:
                batch = next(replay)
                return F.cross_entropy(self.layer(batch.obs), batch.label)

        with pytest.warns(UserWarning, match=r"needs loss, which is missing or NaN in this"):
            run = quick(model=Silent, scheduler="ReduceLROnPlateau", epochs=2)
        assert set(rates(run)) == {0.1}

    def test_steps_at_nothing_else(self, quick: Any) -> None:
        with pytest.raises(ConfigError, match="steps at each evaluation"):
            quick(scheduler="ReduceLROnPlateau", scheduler_every="step")


class Policy(nn.Module):
    def __init__(self, in_features: int, out_features: int):
        super().__init__()
        self.layer = nn.Linear(in_features, out_features)

    def forward(self, obs: Tensor) -> Tensor:
        return self.layer(obs)

    def learn(self, replay: Any) -> Tensor:
        batch = next(replay)
        return F.mse_loss(self(batch.obs).gather(1, batch.action[:, None]).squeeze(1), batch.reward)


class TestInEnvironments:
    @pytest.fixture
    def act(self, quick: Any) -> Any:
        usual: dict[str, Any] = {
            **{
                "model": Policy,
                "dataset": None,
                "env": "CartPole-v1",
                "seed_steps": 20,
                "batch_size": 4,
            },
            **{"eval_episodes": 1, "eval_every": 10, "time_limit": 5, "train_steps": 60},
        }
        return lambda *words, **more: quick(*words, **{**usual, **more})

    def test_it_steps_at_each_update(self, act: Any) -> None:
        run = act(scheduler={"_target_": "ExponentialLR", "gamma": 0.9})
        assert rates(run) == pytest.approx([0.1 * 0.9**i for i in range(41)])

    @pytest.mark.parametrize(
        "more",
        [
            {},
            {"num_envs": 4, "learn_every": 2},
            {"seed_steps": 0, "learn_every": 3},
            {"accumulate": 4},
        ],
        ids=str,
    )
    def test_one_cycle_ends_with_the_run(self, more: dict[str, Any], act: Any) -> None:
        made: list[OneCycleLR] = []

        class Watch(OneCycleLR):
            def __init__(self, *args: Any, **options: Any):
                super().__init__(*args, **options)
                made.append(self)

        act(scheduler={"_target_": Watch, "max_lr": 0.1}, **more)
        assert made[-1].last_epoch == made[-1].total_steps

    def test_a_plateau_looks_at_the_return(self, act: Any) -> None:
        run = act(scheduler={"_target_": "ReduceLROnPlateau", "mode": "max", "patience": 0})
        # All episodes have 5 steps: no return is better than the first.
        assert rates(run)[-1] < 0.1

    def test_a_plateau_of_a_loss_that_there_is_not_is_refused(self, act: Any) -> None:
        with pytest.raises(ConfigError, match=r"Write scheduler.mode=max"):
            act(scheduler="ReduceLROnPlateau")

    def test_there_are_no_epochs(self, act: Any) -> None:
        with pytest.raises(ConfigError, match="environments have no epochs"):
            act(scheduler={"_target_": "StepLR", "step_size": 1}, scheduler_every="epoch")


class Halt(Exception):
    pass


class TestResuming:
    @pytest.mark.parametrize("name", [*SCHEDULES, "decay", "plateau"])
    @pytest.mark.parametrize("at", [3, 10, 23])
    def test_ends_as_if_it_had_never_stopped(
        self, name: str, at: int, quick: Any, tmp_path: Path
    ) -> None:
        given: dict[str, Any] = {"lr_decay_epochs": 4}
        if name == "plateau":
            given = {"scheduler": {"_target_": "ReduceLROnPlateau", "patience": 0}, "eval_every": 2}
        elif name != "decay":
            given = {"scheduler": SCHEDULES[name][0]}
        settings: dict[str, Any] = {
            **{"epochs": 4, "dataset": [rows(), rows()], "accumulate": 2, "save_every": 1, **given},
            **{"optim.momentum": 0.9},
        }

        class Breaks(Net):
            def learn(self, replay: Any) -> Tensor:
                if len(seen) == at:
                    raise Halt
                return super().learn(replay)

        whole = quick(**settings, path=tmp_path / "whole")
        Breaks.__name__ = Breaks.__qualname__ = "Net"
        with pytest.raises(Halt):
            quick(**settings, model=Breaks)
        run = quick(**settings, resume=True)
        assert rates(run) == rates(whole)
        assert torch.equal(run.agent.layer.weight, whole.agent.layer.weight)

    def test_for_longer_follows_the_longer_curve(self, quick: Any) -> None:
        one_cycle = {"_target_": "OneCycleLR", "max_lr": 0.3}
        quick(scheduler=one_cycle, epochs=2)
        run = quick(scheduler=one_cycle, epochs=4, resume=True)
        expected = OneCycleLR(SGD([torch.zeros(1)], 0.1), 0.3, total_steps=16)
        after = []
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for _ in range(16):
                after.append(expected.get_last_lr()[0])
                expected.step()
        assert rates(run)[8:] == pytest.approx(after[8:])

    def test_with_another_rate_goes_on_along_the_curve(self, quick: Any) -> None:
        cosine = {"_target_": "CosineAnnealingLR", "T_max": 4}
        quick(scheduler=cosine, epochs=2)
        run = quick(scheduler=cosine, epochs=4, resume=True, lr=0.2)
        assert rates(run)[8::4] == pytest.approx([0.1, 0.1 * (1 - 0.5**0.5)])

    def test_without_the_scheduler_goes_back_to_the_rate(self, quick: Any) -> None:
        quick(scheduler={"_target_": "StepLR", "step_size": 1}, epochs=2)
        run = quick(epochs=3, resume=True)
        assert rates(run)[8:] == [0.1] * 4

    def test_at_other_moments_is_refused(self, quick: Any) -> None:
        step = {"_target_": "StepLR", "step_size": 1, "gamma": 0.9}
        quick(scheduler=step, epochs=2)
        with pytest.raises(
            CheckpointError, match="Resume with the scheduler_every it was saved with"
        ):
            quick(scheduler=step, epochs=3, resume=True, scheduler_every="step")


class Halving:
    """Not one of torch's, and without a state_dict."""

    def __init__(self, optimizer: Any):
        self.optimizer, self.steps = optimizer, 0

    def step(self) -> None:
        self.steps += 1
        for group in self.optimizer.param_groups:
            group["lr"] = 0.1 * 0.5**self.steps


def test_a_scheduler_of_ones_own_is_stepped_and_resumed(quick: Any, tmp_path: Path) -> None:
    whole = quick(scheduler=Halving, epochs=4, path=tmp_path / "whole", dataset=[rows(), rows()])
    assert rates(whole)[::4] == pytest.approx([0.1, 0.05, 0.025, 0.0125] * 2)

    class Breaks(Net):
        def learn(self, replay: Any) -> Tensor:
            if len(seen) == 26:
                raise Halt
            return super().learn(replay)

    Breaks.__name__ = Breaks.__qualname__ = "Net"
    settings = {"scheduler": Halving, "epochs": 4, "dataset": [rows(), rows()], "save_every": 1}
    with pytest.raises(Halt):
        quick(**settings, model=Breaks)
    assert rates(quick(**settings, resume=True)) == rates(whole)


def test_one_that_wants_to_be_told_the_epoch_is_refused(quick: Any) -> None:
    class Told(Halving):
        def step(self, epoch: int) -> None:  # type: ignore[override]
            pass

    with pytest.raises(ConfigError, match=r"Told.step needs epoch"):
        quick(scheduler=Told)


def test_a_warm_up_given_in_steps_is_told(quick: Any, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.warns(UserWarning, match="begins with an epoch at a learning rate of 0"):
        quick(scheduler=lambda o: LambdaLR(o, lambda step: min(1, step / 10)), epochs=4)
    quick(scheduler={"_target_": "LinearLR", "total_iters": 50}, epochs=4)
    assert "LinearLR still raises the learning rate" in capsys.readouterr().err


def test_nested_schedulers_are_given_by_name(quick: Any) -> None:
    parts = (
        "[{_target_:LinearLR,start_factor:0.1,total_iters:2},{_target_:CosineAnnealingLR,T_max:4}]"
    )
    run = quick(f"scheduler={{_target_:SequentialLR,schedulers:{parts},milestones:[2]}}", epochs=6)
    assert rates(run) == pytest.approx(by_hand(warmed_up, each="epoch", epochs=6)[0])
    parts = "[{_target_:StepLR,step_size:2},{_target_:ExponentialLR,gamma:0.9}]"
    run = quick(f"scheduler={{_target_:ChainedScheduler,schedulers:{parts}}}", epochs=6)
    assert rates(run) == pytest.approx(by_hand(chained, each="epoch", epochs=6)[0])


def test_a_checkpoint_of_0_4_0_goes_on_as_it_began_or_is_refused() -> None:
    """There the state was torch's own, stepped at every update."""
    optim = SGD([torch.zeros(1, requires_grad=True)], 0.1)
    duration = Duration(None, 5, 4)

    def make(optimizer: Any, duration: Duration) -> StepLR:
        return StepLR(optimizer, 3)

    before = {"step_size": 3, "gamma": 0.1, "base_lrs": [0.1], "last_epoch": 7, "_step_count": 8}
    for every in ("epoch", "step"):
        scheduler = Scheduler("StepLR", make, every=every, durations=[duration])
        scheduler.attach(optim)
        if every == "epoch":
            with pytest.raises(CheckpointError, match="Resume with scheduler_every=step"):
                scheduler.load_state_dict(before, optim)
        else:
            scheduler.load_state_dict(before, optim)
            scheduler.updated()
            assert scheduler.torch.last_epoch == 8
