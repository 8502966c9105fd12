"""Parameters that come, change or go while a model learns, against a loop written by hand."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from antelope import ml

GENERATOR = torch.Generator().manual_seed(0)
X = torch.randn(40, 6, generator=GENERATOR)
Y = (X[:, 0] > 0).long() + 2 * (X[:, 1] > 0).long()
STEPS = 12

Change = Callable[["Net", int], None]


class Net(nn.Module):
    """Learns from the same rows in each step, and is changed by a function before it."""

    change: Change

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.body, self.head = nn.Linear(6, 8), nn.Linear(8, 4)
        self.more = nn.ModuleList()
        self.steps = 0

    def forward(self, obs: Tensor) -> Tensor:
        x = torch.relu(self.body(obs))
        for layer in self.more:
            x = x + layer(x)
        return F.pad(self.head(x), (0, 4 - self.head.out_features))

    def learn(self, replay: Any) -> Tensor:
        self.change(self.steps)
        self.steps += 1
        return F.cross_entropy(self(X), Y)


def layer(inputs: int, outputs: int, *, bias: bool = True) -> nn.Linear:
    """The same one at each call."""
    made = nn.Linear(inputs, outputs, bias=bias)
    with torch.no_grad():
        made.weight.copy_(torch.linspace(-0.4, 0.5, inputs * outputs).view(outputs, inputs))
    if bias:
        nn.init.zeros_(made.bias)
    return made


def freeze(net: Net) -> None:
    net.body.requires_grad_(False)


def unfreeze(net: Net, step: int) -> None:
    if step == 4:
        net.body.requires_grad_(True)


def append(net: Net, step: int) -> None:
    if step in (3, 6):
        net.more.append(layer(8, 8))


def replace(net: Net, step: int) -> None:
    if step == 5:
        net.head = layer(8, 4)


def reshape(net: Net, step: int) -> None:
    if step == 5:
        net.body, net.head = layer(6, 11), layer(11, 4, bias=False)


def swap_parameter(net: Net, step: int) -> None:
    if step == 5:
        net.head.weight = nn.Parameter(2 * net.head.weight.detach())


def drop(net: Net, step: int) -> None:
    if step == 0:
        net.more.extend([layer(8, 8), layer(8, 8)])
    if step == 5:
        del net.more[0]


def drop_directly(net: Net, step: int) -> None:
    """As many libraries do: behind the back of `__setattr__`."""
    if step == 5:
        net.head._parameters["bias"] = None
        net.more._modules["0"] = layer(8, 8)


def widen_data(net: Net, step: int) -> None:
    if step == 5:
        for tensor in (net.body.weight, net.body.bias):
            tensor.data = torch.cat([tensor.data, tensor.data[:3]])
        net.head.weight.data = torch.cat([net.head.weight.data, net.head.weight.data[:, :3]], 1)


CHANGES = [unfreeze, append, replace, reshape, swap_parameter, drop, drop_directly, widen_data]


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def learnt(change: Change, *, begin: Callable[[Net], None] | None = None, **settings: Any) -> Any:
    kind = type("Net", (Net,), {"change": change})
    net = kind()
    if begin is not None:
        begin(net)
    usual: dict[str, Any] = {"batch_size": 40, "plot": False, "progress": False, "device": "cpu"}
    return ml(model=net, dataset=(X, Y), train_steps=STEPS, **usual | settings)


class ByHand:
    """What a researcher would write: an optimiser that is given and loses parameters by hand."""

    def __init__(
        self,
        change: Change,
        make: Callable[[Any], torch.optim.Optimizer],
        *,
        begin: Callable[[Net], None] | None = None,
        clip: float | None = None,
        ema: float | None = None,
    ):
        net = type("Net", (Net,), {"change": change})()
        if begin is not None:
            begin(net)
        optimizer = make([p for p in net.parameters() if p.requires_grad])
        average = {id(p): (p, p.detach().clone()) for p in net.parameters()}
        for _ in range(STEPS):
            loss = net.learn(None)
            group, now = optimizer.param_groups[0], list(net.parameters())
            held = {id(p) for p in group["params"]}
            group["params"] += [p for p in now if p.requires_grad and id(p) not in held]
            for gone in [p for p in group["params"] if not any(p is q for q in now)]:
                group["params"] = [p for p in group["params"] if p is not gone]
                optimizer.state.pop(gone, None)
            for p in now:
                if p.shape != average.get(id(p), (p, torch.empty(0)))[1].shape:
                    average[id(p)] = (p, p.detach().clone())
                    optimizer.state.pop(p, None)
            average = {id(p): average[id(p)] for p in now}
            optimizer.zero_grad()
            loss.backward()
            if clip is not None:
                nn.utils.clip_grad_norm_(group["params"], clip)
            optimizer.step()
            del loss  # Its graph still refers to the earlier shapes.
            for p, mean in average.values():
                mean.lerp_(p.detach(), 1 - (ema or 0))
        self.net, self.optimizer = net, optimizer
        self.weights = [average[id(p)][1] for p in net.parameters()]


def assert_close(run: Any, hand: ByHand) -> None:
    ours = list(run.agent.parameters())
    assert len(ours) == len(hand.weights)
    for one, other in zip(ours, hand.weights, strict=True):
        torch.testing.assert_close(one.detach(), other)


class TestChangesInLearn:
    @pytest.mark.parametrize("change", CHANGES, ids=lambda c: c.__name__)
    def test_are_learnt_as_by_a_loop_that_keeps_up(self, change: Change) -> None:
        begin = freeze if change is unfreeze else None
        run = learnt(change, begin=begin, optim="AdamW", lr=0.02, clip_grad=0.2, ema=0.8)
        adamw = lambda parameters: torch.optim.AdamW(parameters, lr=0.02)  # noqa: E731
        assert_close(run, ByHand(change, adamw, begin=begin, clip=0.2, ema=0.8))

    @pytest.mark.parametrize("change", CHANGES, ids=lambda c: c.__name__)
    def test_with_momentum(self, change: Change) -> None:
        begin = freeze if change is unfreeze else None
        run = learnt(change, begin=begin, optim={"_target_": "SGD", "lr": 0.1, "momentum": 0.9})
        sgd = lambda parameters: torch.optim.SGD(parameters, lr=0.1, momentum=0.9)  # noqa: E731
        assert_close(run, ByHand(change, sgd, begin=begin))

    def test_with_an_optimiser_whose_state_is_made_when_it_is(self) -> None:
        run = learnt(append, optim="Adagrad", lr=0.1)
        first = torch.optim.Adagrad([torch.zeros(1, requires_grad=True)])
        assert first.state  # What this is about.
        weights = [p.detach() for p in run.agent.more.parameters()]
        assert not torch.equal(weights[0], layer(8, 8).weight)

    def test_are_learnt_when_all_was_frozen(self) -> None:
        def freeze_all(net: Net) -> None:
            net.requires_grad_(False)
            net.head.bias.requires_grad_(True)

        def thaw(net: Net, step: int) -> None:
            if step == 4:
                net.requires_grad_(True)

        run = learnt(thaw, begin=freeze_all, optim="SGD", lr=0.1)
        sgd = lambda parameters: torch.optim.SGD(parameters, lr=0.1)  # noqa: E731
        assert_close(run, ByHand(thaw, sgd, begin=freeze_all))

    def test_a_parameter_that_gets_its_first_gradient_late_begins_its_momentum_then(self) -> None:
        class Late(Net):
            def forward(self, obs: Tensor) -> Tensor:
                x = torch.relu(self.body(obs))
                return self.head(x) * (1 if self.steps < 4 else self.factor)

            def __init__(self) -> None:
                super().__init__()
                self.factor = nn.Parameter(torch.ones(4))

            def change(self, step: int) -> None:  # type: ignore[override]
                pass

        settings: dict[str, Any] = {"plot": False, "progress": False, "device": "cpu"}
        optim = {"_target_": "SGD", "lr": 0.1, "momentum": 0.9}
        run = ml(
            model=Late(), dataset=(X, Y), train_steps=STEPS, optim=optim, batch_size=40, **settings
        )
        net = Late()
        optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
        for _ in range(STEPS):
            optimizer.zero_grad()
            net.learn(None).backward()
            optimizer.step()
        for one, other in zip(run.agent.parameters(), net.parameters(), strict=True):
            torch.testing.assert_close(one, other)


class TestWhatIsDropped:
    def test_leaves_the_optimiser_with_its_state(self) -> None:
        net = type("Net", (Net,), {"change": drop})()
        net.more.extend([layer(8, 8)])
        optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
        ml(
            model=net,
            dataset=(X, Y),
            train_steps=STEPS,
            optim=optimizer,
            plot=False,
            progress=False,
        )
        now = {id(p) for p in net.parameters()}
        assert {id(p) for p in optimizer.param_groups[0]["params"]} == now
        assert {id(p) for p in optimizer.state} == now


def test_a_momentum_that_the_scheduler_gives_begins_at_zero() -> None:
    """OneCycleLR's, in an SGD that was made without one: a layer that comes later has none yet."""
    settings = {"optim": "SGD", "scheduler": {"_target_": "OneCycleLR", "max_lr": 0.1}}
    net = type("Net", (Net,), {"change": append})
    run = ml(model=net, dataset=(X, Y), train_steps=STEPS, plot=False, progress=False, **settings)
    hand = net()
    optimizer = torch.optim.SGD(hand.parameters(), 0.1, momentum=0.9)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=STEPS)
    for step in range(STEPS):
        append(hand, step)
        known = {id(p) for group in optimizer.param_groups for p in group["params"]}
        optimizer.param_groups[0]["params"] += [p for p in hand.parameters() if id(p) not in known]
        optimizer.zero_grad()
        F.cross_entropy(hand(X), Y).backward()
        optimizer.step()
        scheduler.step()
    torch.testing.assert_close(run.agent.state_dict(), hand.state_dict())


class TestGroups:
    def test_a_new_parameter_joins_the_group_of_its_neighbours(self) -> None:
        def change(net: Net, step: int) -> None:
            append(net, step)
            replace(net, step)

        net = type("Net", (Net,), {"change": change})()
        net.more.append(layer(8, 8))
        groups = [
            {"params": [net.body.weight, net.head.weight], "lr": 0.01},
            {"params": [net.body.bias, net.head.bias], "lr": 0.02},
            {"params": net.more.parameters(), "lr": 0.03},
        ]
        optimizer = torch.optim.Adam(groups)
        ml(
            model=net,
            dataset=(X, Y),
            train_steps=STEPS,
            optim=optimizer,
            plot=False,
            progress=False,
        )
        held = [[id(p) for p in group["params"]] for group in optimizer.param_groups]
        assert held == [
            [id(net.body.weight), id(net.head.weight)],
            [id(net.body.bias), id(net.head.bias)],
            [id(p) for p in net.more.parameters()],
        ]

    def test_an_optimiser_over_a_part_is_left_alone_with_a_warning(self) -> None:
        net = type("Net", (Net,), {"change": append})()
        optimizer = torch.optim.Adam(net.head.parameters(), lr=0.01)
        with (
            pytest.warns(UserWarning, match=r"does not hold `body.weight`, `body.bias`"),
            pytest.warns(UserWarning, match=r"Nothing trains `more.0.weight`, `more.0.bias`"),
        ):
            ml(
                model=net,
                dataset=(X, Y),
                train_steps=5,
                optim=optimizer,
                plot=False,
                progress=False,
            )
        assert len(optimizer.param_groups[0]["params"]) == 2


class TestTasks:
    def test_what_begin_task_unfreezes_of_a_frozen_model_is_trained(self) -> None:
        class Frozen(Net):
            def __init__(self) -> None:
                super().__init__()
                self.requires_grad_(False)

            def begin_task(self, task: int) -> None:
                self.head.requires_grad_(True)

            def change(self, step: int) -> None:  # type: ignore[override]
                pass

        before = Frozen()
        run = ml(model=Frozen, dataset=(X, Y), train_steps=4, plot=False, progress=False)
        assert torch.equal(run.agent.body.weight, before.body.weight)
        assert not torch.equal(run.agent.head.weight, before.head.weight)

    def test_heads_of_later_tasks_are_not_called_unreachable(self) -> None:
        class Heads(nn.Module):
            task = 0

            def __init__(self) -> None:
                super().__init__()
                self.heads = nn.ModuleList(nn.Linear(6, 4) for _ in range(2))

            def begin_task(self, task: int) -> None:
                self.task = task

            def forward(self, obs: Tensor) -> Tensor:
                return self.heads[self.task](obs)

        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            ml(model=Heads, dataset=(X, Y), tasks=2, train_steps=120, plot=False, progress=False)
        assert [str(warning.message) for warning in said] == []

    def test_an_unused_layer_that_comes_later_is_named(self) -> None:
        class Idle(Net):
            def change(self, step: int) -> None:  # type: ignore[override]
                if step == 3:
                    self.unused = nn.Linear(2, 2)

        with pytest.warns(UserWarning, match=r"No loss reaches `unused.weight`, `unused.bias`"):
            ml(model=Idle, dataset=(X, Y), train_steps=8, plot=False, progress=False)
