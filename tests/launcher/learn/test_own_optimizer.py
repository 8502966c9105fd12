"""Models that hold an optimiser themselves, and optimisers given as functions, instances and groups."""

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
from torch.optim import SGD, Adam, AdamW

from antelope import ConfigError, Run, ml

seen: list[tuple[Tensor, Tensor]] = []


class Net(nn.Module):
    def __init__(self, in_features: int, out_features: int):
        super().__init__()
        self.body = nn.Linear(in_features, 4)
        self.head = nn.Linear(4, out_features)

    def forward(self, obs: Tensor) -> Tensor:
        return self.head(self.body(obs).relu())

    def learn(self, replay: Any) -> Tensor:
        batch = next(replay)
        seen.append((batch.obs.clone(), batch.label.clone()))
        return F.cross_entropy(self(batch.obs), batch.label)


class Own(Net):
    """Holds its optimiser, and returns its loss."""

    def __init__(self, in_features: int, out_features: int):
        super().__init__(in_features, out_features)
        self.optim = SGD(self.parameters(), lr=0.3, momentum=0.5)


def rows() -> tuple[Tensor, Tensor]:
    x = torch.randn(50, 3, generator=torch.Generator().manual_seed(1))
    return x, (x[:, 0] > 0).long()


@pytest.fixture
def quick(tmp_path: Path) -> Callable[..., Run]:
    def run(*words: str, **settings: Any) -> Run:
        seen.clear()
        usual = {
            "model": Net,
            "dataset": rows(),
            "batch_size": 11,
            "seed": 3,
            "log_every": 1,
        }
        if "env" not in settings:
            usual["epochs"] = 2
        return ml(
            *words,
            **{**usual, "path": tmp_path / "run", "plot": False, "progress": False, **settings},
        )

    return run


def by_hand(make: Callable[[Net], Any]) -> Net:
    """The same batches, in a loop of one's own."""
    torch.manual_seed(3)
    model = Net(3, 2)
    optimizer = make(model)
    for obs, label in seen:
        optimizer.zero_grad()
        F.cross_entropy(model(obs), label).backward()
        optimizer.step()
    return model


def assert_same_weights(run: Run, model: Net) -> None:
    torch.testing.assert_close(run.agent.state_dict(), model.state_dict())


class TestAModelThatHoldsOne:
    def test_and_returns_its_loss_is_stepped_by_it(self, quick: Any) -> None:
        run = quick(model=Own)
        assert_same_weights(run, by_hand(lambda model: SGD(model.parameters(), 0.3, momentum=0.5)))
        assert {row["lr"] for row in run.history if row["mode"] == "train"} == {0.3}

    def test_is_named_in_the_header(self, quick: Any, capsys: pytest.CaptureFixture[str]) -> None:
        quick(model=Own, progress=True)
        assert "SGD, the model's own (`self.optim`)" in capsys.readouterr().out

    def test_in_a_part_is_stepped_by_it_too(self, quick: Any) -> None:
        class Whole(Net):
            def __init__(self, in_features: int, out_features: int):
                super().__init__(in_features, out_features)
                self.body.optim = SGD(self.parameters(), lr=0.3)

        assert_same_weights(quick(model=Whole), by_hand(lambda model: SGD(model.parameters(), 0.3)))

    def test_made_when_a_task_begins_is_stepped_by_it(self, quick: Any) -> None:
        class Late(Net):
            def begin_task(self, task: int) -> None:
                self.optim = SGD(self.parameters(), lr=0.3)

        assert_same_weights(quick(model=Late), by_hand(lambda model: SGD(model.parameters(), 0.3)))

    @pytest.mark.parametrize("listed", [False, True])
    def test_and_makes_another_in_learn_is_stepped_by_that(self, listed: bool, quick: Any) -> None:
        class Again(Own):
            def __init__(self, in_features: int, out_features: int):
                super().__init__(in_features, out_features)
                if listed:
                    self.optim = [self.optim]

            def learn(self, replay: Any) -> Tensor:
                if len(seen) == 3:
                    made = SGD(self.parameters(), lr=0.1)
                    self.optim = [made] if listed else made
                return super().learn(replay)

        run = quick(model=Again)
        rates = [row["lr"] for row in run.history if row["mode"] == "train"]
        assert rates == [0.3] * 3 + [0.1] * 5

    def test_is_scheduled_clipped_and_averaged(self, quick: Any) -> None:
        run = quick(
            model=Own, scheduler={"_target_": "StepLR", "step_size": 1}, clip_grad=0.1, ema=0.9
        )
        assert [row["lr"] for row in run.history if row["mode"] == "train"] == pytest.approx(
            [0.3] * 4 + [0.03] * 4
        )
        assert run.agent.optim.param_groups[0]["lr"] == pytest.approx(0.003)

    def test_that_updates_itself_keeps_its_rate(self, quick: Any) -> None:
        class Self(Own):
            def learn(self, replay: Any) -> None:  # type: ignore[override]
                loss = super().learn(replay)
                self.optim.zero_grad()
                loss.backward()
                self.optim.step()

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            run = quick(model=Self, scheduler={"_target_": "LinearLR", "total_iters": 2})
        assert_same_weights(run, by_hand(lambda model: SGD(model.parameters(), 0.3, momentum=0.5)))

    @pytest.mark.parametrize("settings", [{"optim": "SGD"}, {"lr": 0.1}, {"weight_decay": 0.1}])
    def test_and_is_given_another_is_refused(self, settings: dict[str, Any], quick: Any) -> None:
        (key,) = settings
        with pytest.raises(ConfigError, match=rf"`self.optim`.*{key}= is given too.*return None"):
            quick(model=Own, **settings)

    def test_and_is_given_the_same_is_no_contradiction(self, quick: Any) -> None:
        torch.manual_seed(3)
        model = Own(3, 2)
        run = quick(model=model, optim=model.optim)
        assert_same_weights(run, by_hand(lambda model: SGD(model.parameters(), 0.3, momentum=0.5)))

    def test_several_times_is_refused(self, quick: Any) -> None:
        class Two(Net):
            def __init__(self, in_features: int, out_features: int):
                super().__init__(in_features, out_features)
                self.optims = [SGD(self.body.parameters(), 0.1), SGD(self.head.parameters(), 0.1)]

        with pytest.raises(
            ConfigError, match=r"several optimisers.*Step them in learn, and return None"
        ):
            quick(model=Two)

    def test_and_steps_it_too_is_refused(self, quick: Any) -> None:
        class Both(Own):
            def learn(self, replay: Any) -> Tensor:
                loss = super().learn(replay)
                self.optim.zero_grad()
                loss.backward()
                self.optim.step()
                return loss

        with pytest.raises(ConfigError, match=r"stepped its optimiser .*Return None"):
            quick(model=Both)

    def test_and_only_goes_backward_is_refused(self, quick: Any) -> None:
        class Backward(Net):
            def learn(self, replay: Any) -> Tensor:
                loss = super().learn(replay)
                loss.backward()
                return loss

        with pytest.raises(ConfigError, match="Return the loss without calling backward"):
            quick(model=Backward)

    def test_that_cannot_be_stepped_from_outside_is_refused(self, quick: Any) -> None:
        class Closure(Net):
            def __init__(self, in_features: int, out_features: int):
                super().__init__(in_features, out_features)
                self.optim = torch.optim.LBFGS(self.parameters())

        with pytest.raises(ConfigError, match="LBFGS evaluates the loss several times"):
            quick(model=Closure)

    def test_inside_a_wrapper_of_its_own_is_stepped_by_that(self, quick: Any) -> None:
        class Wrapper(torch.optim.Optimizer):
            def __init__(self, inner: Any):
                self.inner, self.defaults, self.state = inner, inner.defaults, inner.state
                self.param_groups = inner.param_groups

            def step(self, closure: Any = None) -> None:  # type: ignore[override]
                self.inner.step()

            def state_dict(self) -> dict[str, Any]:
                return self.inner.state_dict()

        class Wrapped(Own):
            def __init__(self, in_features: int, out_features: int):
                super().__init__(in_features, out_features)
                self.optim = Wrapper(self.optim)

        class Steps(Wrapped):
            def learn(self, replay: Any) -> Tensor:
                loss = super().learn(replay)
                loss.backward()
                self.optim.step()
                return loss

        assert_same_weights(
            quick(model=Wrapped), by_hand(lambda m: SGD(m.parameters(), 0.3, momentum=0.5))
        )
        with pytest.raises(ConfigError, match="stepped its optimiser"):
            quick(model=Steps)

    def test_of_other_tensors_is_left_alone(self, quick: Any) -> None:
        class Latent(Net):
            def __init__(self, in_features: int, out_features: int):
                super().__init__(in_features, out_features)
                self.latents = [torch.zeros(3, requires_grad=True)]
                self.latent_optim = SGD(self.latents, 0.1)

        run = quick(model=Latent, optim="SGD", lr=0.2)
        assert_same_weights(run, by_hand(lambda model: SGD(model.parameters(), 0.2)))

    def test_and_a_scheduler_that_nobody_steps_is_told(self, quick: Any) -> None:
        class Scheduled(Own):
            def __init__(self, in_features: int, out_features: int):
                super().__init__(in_features, out_features)
                self.schedule = torch.optim.lr_scheduler.StepLR(self.optim, 1)

        with pytest.warns(UserWarning, match="`self.schedule` of Scheduled has never been stepped"):
            quick(model=Scheduled)

    def test_over_a_part_of_itself_is_told_what_is_left_out(self, quick: Any) -> None:
        class Head(Net):
            def __init__(self, in_features: int, out_features: int):
                super().__init__(in_features, out_features)
                self.optim = SGD(self.head.parameters(), 0.1)

        with pytest.warns(UserWarning, match=r"does not hold `body.weight`, `body.bias` of Head"):
            quick(model=Head)

    def test_is_left_without_our_hooks(self, quick: Any) -> None:
        assert not quick(model=Own).agent.optim._optimizer_step_post_hooks

    @pytest.mark.parametrize("more", [{}, {"scheduler": {"_target_": "StepLR", "step_size": 1}}])
    def test_resumes_to_the_bit(self, more: dict[str, Any], quick: Any, tmp_path: Path) -> None:
        class Halt(Exception):
            pass

        class Breaks(Own):
            def learn(self, replay: Any) -> Tensor:
                if len(seen) == 6:
                    raise Halt
                return super().learn(replay)

        Breaks.__name__ = Breaks.__qualname__ = "Own"
        whole = quick(model=Own, path=tmp_path / "whole", save_every=1, **more)
        with pytest.raises(Halt):
            quick(model=Breaks, save_every=1, **more)
        run = quick(model=Own, resume=True, save_every=1, **more)
        assert len(seen) == 2
        assert torch.equal(run.agent.head.weight, whole.agent.head.weight)
        for row, expected in zip(run.history, whole.history, strict=True):
            assert row == expected

    def test_made_when_a_task_begins_resumes_to_the_bit(self, quick: Any, tmp_path: Path) -> None:
        class Halt(Exception):
            pass

        class Late(Net):
            halt_at = None

            def begin_task(self, task: int) -> None:
                self.optim = SGD(self.parameters(), lr=0.3, momentum=0.9)

            def learn(self, replay: Any) -> Tensor:
                if len(seen) == self.halt_at:
                    raise Halt
                return super().learn(replay)

        halting = type("Late", (Late,), {"halt_at": 14})  # In the second epoch of the second task.
        settings = {"dataset": [rows(), rows()], "save_every": 1}
        settings["scheduler"] = {"_target_": "ExponentialLR", "gamma": 0.5}
        whole = quick(model=Late, path=tmp_path / "whole", **settings)
        with pytest.raises(Halt):
            quick(model=halting, **settings)
        run = quick(model=Late, resume=True, **settings)
        assert len(seen) == 2
        assert torch.equal(run.agent.head.weight, whole.agent.head.weight)
        assert run.history == whole.history


class Counts(torch.optim.Optimizer):
    """Robbins and Monro's: its rate falls with a count that is no part of its state."""

    def __init__(self, params: Any, lr: float = 0.5):
        super().__init__(params, {"lr": lr})
        self.count = 0

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        self.count += 1
        for group in self.param_groups:
            for p in group["params"]:
                p.data.sub_(p.grad, alpha=group["lr"] / self.count)


@pytest.mark.parametrize("held", [False, True])
def test_what_an_optimiser_counts_is_resumed(held: bool, quick: Any, tmp_path: Path) -> None:
    class Halt(Exception):
        pass

    class Model(Net):
        halt_at: int | None = None

        def __init__(self, in_features: int, out_features: int):
            super().__init__(in_features, out_features)
            if held:
                self.optim = Counts(self.parameters())

        def learn(self, replay: Any) -> Tensor:
            if len(seen) == self.halt_at:
                raise Halt
            return super().learn(replay)

    settings = {"save_every": 1} | ({} if held else {"optim": Counts})
    whole = quick(model=Model, path=tmp_path / "whole", **settings)
    with pytest.raises(Halt):
        quick(model=type("Model", (Model,), {"halt_at": 5}), **settings)
    run = quick(model=Model, resume=True, **settings)
    assert torch.equal(run.agent.head.weight, whole.agent.head.weight)


class TestAFunction:
    @pytest.mark.parametrize(
        "make",
        [
            lambda params: SGD(params, lr=0.3),
            partial(SGD, lr=0.3),
            lambda model: SGD(model.parameters(), lr=0.3),
            lambda named_parameters: SGD([p for _, p in named_parameters], lr=0.3),
        ],
    )
    def test_makes_the_optimiser(self, make: Any, quick: Any) -> None:
        run = quick(optim=make)
        assert_same_weights(run, by_hand(lambda model: SGD(model.parameters(), 0.3)))

    def test_by_name_has_arguments(self, quick: Any, workdir: Path) -> None:
        Path("mine.py").write_text(
            "import torch\ndef make(params, rate):\n    return torch.optim.SGD(params, lr=rate)\n"
        )
        run = quick("optim=mine.py:make", "optim.rate=0.3")
        assert_same_weights(run, by_hand(lambda model: SGD(model.parameters(), 0.3)))

    def test_of_ours_wins_over_its_own_rate(self, quick: Any) -> None:
        run = quick(optim=partial(SGD, lr=0.1), lr=0.3)
        assert_same_weights(run, by_hand(lambda model: SGD(model.parameters(), 0.3)))

    def test_that_gives_no_optimiser_is_refused(self, quick: Any) -> None:
        with pytest.raises(
            ConfigError, match=r"returned a tuple, not a torch.optim.Optimizer.*scheduler="
        ):
            quick(optim=lambda params: (SGD(params, lr=0.1), None))

    @pytest.mark.parametrize("kind", [nn.Linear, torch.optim.lr_scheduler.StepLR, dict])
    def test_a_class_of_something_else_is_refused(self, kind: type, quick: Any) -> None:
        with pytest.raises(ConfigError, match=r"is not a torch.optim.Optimizer.*scheduler="):
            quick(optim=kind)

    def test_of_other_parameters_is_refused(self, quick: Any) -> None:
        with pytest.raises(ConfigError, match="holds none of the model's parameters"):
            quick(optim=lambda params: SGD([torch.zeros(1, requires_grad=True)], lr=0.1))


class TestAnInstance:
    def test_over_a_part_of_the_model_is_told_what_is_left_out(self, quick: Any) -> None:
        model = Net(3, 2)
        before = model.body.weight.detach().clone()
        with pytest.warns(UserWarning, match=r"does not hold `body.weight`"):
            run = quick(model=model, optim=SGD(model.head.parameters(), 0.1), clip_grad=1e-3)
        assert torch.equal(run.agent.body.weight, before)

    def test_takes_no_arguments(self, quick: Any) -> None:
        model = Net(3, 2)
        with pytest.raises(ConfigError, match="already constructed, so `momentum` cannot be set"):
            quick("optim.momentum=0.5", model=model, optim=SGD(model.parameters(), 0.1))

    def test_that_wants_a_closure_is_refused(self, quick: Any) -> None:
        model = Net(3, 2)
        with pytest.raises(ConfigError, match="LBFGS evaluates the loss several times"):
            quick(model=model, optim=torch.optim.LBFGS(model.parameters()))


def two_rates(model: Net) -> SGD:
    return SGD(
        [
            {"params": [model.body.weight]},
            {"params": [model.body.bias], "weight_decay": 0.0},
            {"params": [model.head.weight], "lr": 0.03},
            {"params": [model.head.bias], "lr": 0.03, "weight_decay": 0.0},
        ],
        lr=0.3,
        weight_decay=0.1,
    )


class TestGroups:
    def test_have_settings_of_their_own(self, quick: Any) -> None:
        groups = {"head": {"lr": 0.03}, "*.bias": {"weight_decay": 0}}
        run = quick(optim={"_target_": SGD, "lr": 0.3, "weight_decay": 0.1, "groups": groups})
        assert_same_weights(run, by_hand(two_rates))
        words = ["optim=SGD", "lr=0.3", "weight_decay=0.1", "optim.groups.head.lr=0.03"]
        words.append("+optim.groups={*.bias:{weight_decay:0},head:{lr:0.03}}")
        assert_same_weights(quick(*words[:3], words[4][1:]), by_hand(two_rates))

    def test_in_words(self, quick: Any) -> None:
        run = quick(
            "optim=SGD", "lr=0.3", "optim.groups.head.lr=0.03", "optim.groups.body.weight.lr=0.1"
        )

        def make(model: Net) -> SGD:
            groups = [{"params": [model.body.bias]}, {"params": [model.body.weight], "lr": 0.1}]
            return SGD([*groups, {"params": model.head.parameters(), "lr": 0.03}], lr=0.3)

        assert_same_weights(run, by_hand(make))
        assert run.history[0]["lr"] == 0.3  # Of those that no group is about.

    def test_are_given_to_a_function(self, quick: Any) -> None:
        run = quick(
            optim=lambda params: SGD(params, lr=0.3), **{"optim.groups": {"head": {"lr": 0.03}}}
        )

        def make(model: Net) -> SGD:
            return SGD(
                [
                    {"params": model.body.parameters()},
                    {"params": model.head.parameters(), "lr": 0.03},
                ],
                lr=0.3,
            )

        assert_same_weights(run, by_hand(make))

    @pytest.mark.parametrize(
        ("groups", "says"),
        [
            ({"haed": {"lr": 1}}, "no trained parameter is called `haed`. Did you mean `head`"),
            ({"bias": {"lr": 1}}, r"Did you mean `\*.bias`"),
            ({"head": {"momentun": 1}}, "SGD has no setting `momentun`.* Did you mean `momentum`"),
            ({"head": {"lr": "fast"}}, "expected a nonnegative number"),
            ({"head": 0.1}, r"Write optim.groups.head.lr=0.1"),
            ({}, "expected settings by names of parameters"),
        ],
    )
    def test_with_a_mistake_are_refused(self, groups: Any, says: str, quick: Any) -> None:
        with pytest.raises(ConfigError, match=says):
            quick(optim="SGD", lr=0.1, **{"optim.groups": groups})

    def test_patterns_are_said_in_words_too(self, quick: Any) -> None:
        words = "optim.groups.*.bias.lr=0.01", "optim.groups.*.bias.weight_decay=0"
        run = quick(*words, "optim.groups.head.weight.lr=0.02", optim="SGD", lr=0.1)
        assert [group["lr"] for group in run_groups(run)] == [0.1, 0.01, 0.02]
        with pytest.raises(ConfigError, match=r"no trained parameter is called `\*.bais`"):
            quick("optim.groups.*.bais.lr=0.01", optim="SGD", lr=0.1)

    def test_name_the_users_own_parameters_inside_an_agent(self, quick: Any) -> None:
        class Policy(nn.Module):
            def __init__(self, in_features: int, out_features: int):
                super().__init__()
                self.head = nn.Linear(in_features, out_features)

            def forward(self, obs: Tensor) -> Tensor:
                return self.head(obs)

        run = quick(model=Policy, dataset=None, env="CartPole-v1", train_steps=30, seed_steps=5,
                    eval_episodes=1, time_limit=5, lr=0.1, **{"optim.groups.head.lr": 0.0})  # fmt: skip
        torch.manual_seed(3)
        assert torch.equal(run.agent.head.weight, Policy(4, 2).head.weight)

    def test_resume_and_take_another_rate(self, quick: Any) -> None:
        settings = {"optim": "SGD", "optim.groups": {"head": {"lr": 0.03}}}
        quick(**settings, lr=0.3)
        run = quick(**settings, lr=0.2, epochs=3, resume=True)
        groups = run_groups(run)
        assert [group["lr"] for group in groups] == [0.2, 0.03]
        run = quick(
            lr=0.2, epochs=4, resume=True, optim="SGD", **{"optim.groups": {"head": {"lr": 0.01}}}
        )
        assert [group["lr"] for group in run_groups(run)] == [0.2, 0.01]

    def test_may_be_damped_from_their_second_step_on(self, quick: Any) -> None:
        def make(model: Net) -> SGD:
            head = {"params": model.head.parameters(), "dampening": 0.5}
            return SGD([{"params": model.body.parameters()}, head], lr=0.1, momentum=0.9)

        optim = {"_target_": "SGD", "momentum": 0.9, "groups": {"head": {"dampening": 0.5}}}
        assert_same_weights(quick(optim=optim, lr=0.1), by_hand(make))

    def test_that_are_others_begin_again(self, quick: Any) -> None:
        quick(optim="SGD", lr=0.3, **{"optim.groups": {"head": {"lr": 0.03}}})
        run = quick(
            optim="SGD", lr=0.3, epochs=3, resume=True, **{"optim.groups": {"body": {"lr": 0.03}}}
        )
        assert [group["lr"] for group in run_groups(run)] == [0.3, 0.03]


def run_groups(run: Run) -> list[dict[str, Any]]:
    from antelope.launcher.record.checkpoint import Checkpoints

    state, _ = Checkpoints(run.path / "checkpoints").newest()
    assert state is not None
    found: list[dict[str, Any]] = state["learner"]["optimizer"]["param_groups"]
    return found


def test_optimisers_of_one_kernel_are_used_for_functions_too(quick: Any) -> None:
    made: list[Any] = []

    def remember(optimizer: Any, *_: Any) -> None:
        made.append(optimizer.param_groups[0].get("fused"))

    from torch.optim.optimizer import register_optimizer_step_pre_hook

    handle = register_optimizer_step_pre_hook(remember)
    try:
        for optim in (AdamW, partial(Adam, lr=0.1), "SGD"):
            quick(optim=optim, epochs=1)
    finally:
        handle.remove()
    assert all(made)


def test_a_partial_may_be_damped(quick: Any) -> None:
    damped = partial(SGD, lr=0.1, momentum=0.9, dampening=0.5)
    assert_same_weights(quick(optim=damped), by_hand(lambda model: damped(model.parameters())))


def test_a_rate_that_is_a_tensor_stays_the_users(quick: Any) -> None:
    rate = torch.tensor(0.1)
    run = quick(optim=partial(Adam, lr=rate), scheduler={"_target_": "StepLR", "step_size": 1})
    assert rate.item() == pytest.approx(0.1)
    rates = [row["lr"] for row in run.history if row["mode"] == "train"]
    assert rates == pytest.approx([0.1] * 4 + [0.01] * 4)


class TestAModelThatIsNeverUpdated:
    def test_because_a_return_is_missing_is_told(
        self, quick: Any, capsys: pytest.CaptureFixture[str]
    ) -> None:
        class Forgets(Net):
            def learn(self, replay: Any) -> None:  # type: ignore[override]
                super().learn(replay)

        quick(model=Forgets)
        assert "Nothing was trained: Forgets.learn returned no loss" in capsys.readouterr().err

    def test_is_told_at_the_first_evaluation_already(
        self, quick: Any, capsys: pytest.CaptureFixture[str]
    ) -> None:
        class Forgets(Net):
            def learn(self, replay: Any) -> None:  # type: ignore[override]
                super().learn(replay)

        quick(model=Forgets, eval_every=2)
        said = capsys.readouterr().err
        assert said.count("Nothing was trained so far: Forgets.learn returned no loss") == 1
        assert said.count("Nothing was trained: ") == 1

    def test_because_nobody_steps_is_told(
        self, quick: Any, capsys: pytest.CaptureFixture[str]
    ) -> None:
        class Backward(Net):
            def learn(self, replay: Any) -> None:  # type: ignore[override]
                super().learn(replay).backward()

        quick(model=Backward)
        assert "Return the loss, or step an optimiser there" in capsys.readouterr().err

    @pytest.mark.parametrize("frozen", [False, True])
    def test_on_purpose_or_until_a_tasks_end_is_not(
        self, frozen: bool, quick: Any, capsys: pytest.CaptureFixture[str]
    ) -> None:
        class Late(Net):
            def learn(self, replay: Any) -> None:  # type: ignore[override]
                self.requires_grad_(not frozen)

            def end_task(self, replay: Any) -> None:
                if not frozen:
                    with torch.no_grad():
                        self.head.bias += 1

        quick(model=Late)
        assert capsys.readouterr().err == ""

    @pytest.mark.parametrize(
        ("method", "whose"), [("training_step", "Lightning"), ("train_step", "Keras")]
    )
    def test_by_the_step_written_for_another_tool_is_told(
        self, method: str, whose: str, quick: Any
    ) -> None:
        model = type("Theirs", (Net,), {"learn": None, method: lambda self, batch: None})
        with pytest.warns(
            UserWarning, match=rf"`Theirs.{method}` is {whose}'s.*Write learn"
        ) as told:
            quick(model=model)
        assert len(told) == 1
