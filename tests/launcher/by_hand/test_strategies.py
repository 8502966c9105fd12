"""`antelope.tasks` and `antelope.Strategies`: a loop of one's own does what `ml` does, to the bit."""

from __future__ import annotations

import io
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import antelope
from antelope import ER, EWC, PNN, Batch, ConfigError, Run, Strategies, ml
from antelope.agents.continual import NAMES
from antelope.launcher.by_hand.tasks import Task, Tasks
from antelope.replay.randomness import kept_randomness

WIDTH, CLASSES = 6, 6


def blobs() -> tuple[Tensor, Tensor]:
    """Rows around a centre of each class."""
    stream = torch.Generator().manual_seed(0)
    label = torch.arange(CLASSES).repeat(30)
    centres = 2 * torch.randn(CLASSES, WIDTH, generator=stream)
    return centres[label] + torch.randn(len(label), WIDTH, generator=stream), label


class Model(nn.Module):
    """Statistics that move, and draws of torch's own stream: what a careless loop gets wrong."""

    def __init__(self, in_features: int, out_features: int):
        super().__init__()
        self.first, self.norm = nn.Linear(in_features, 16), nn.BatchNorm1d(16)
        self.drop, self.last = nn.Dropout(0.1), nn.Linear(16, out_features)

    def forward(self, obs: Tensor) -> Tensor:
        return self.last(self.drop(self.norm(self.first(obs.flatten(1))).relu()))


class Smooth(Model):
    """One with a loss of its own."""

    def learn(self, replay: Any) -> Tensor:
        batch = next(replay)
        return F.cross_entropy(self(batch.obs), batch.label, label_smoothing=0.1)


def usual(model: nn.Module, batch: Batch) -> Tensor:
    return F.cross_entropy(model(batch.obs), batch.label)


def made(
    strategies: Any, *, scenario: str = "class", model: type[Model] = Model, **settings: Any
) -> tuple[Tasks, Model, Strategies, torch.optim.Optimizer]:
    data = {"dataset": blobs(), "tasks": 3, "scenario": scenario, "batch_size": 8} | settings
    tasks = antelope.tasks(**data)
    torch.manual_seed(0)
    agent = model(tasks.spec.obs.n, tasks.spec.action.n)
    told = Strategies(agent, strategies, tasks.spec)
    return tasks, agent, told, torch.optim.SGD(agent.parameters(), 0.05, momentum=0.9, fused=True)


def step(
    agent: nn.Module,
    told: Strategies,
    optimizer: torch.optim.Optimizer,
    batch: Batch,
    loss: Callable[[nn.Module, Batch], Tensor] | None,
) -> None:
    """Of a loop; with a loss of None that of the strategies is taken."""
    total = told.loss(batch) if loss is None else told.after_loss(batch, loss(agent, batch))
    optimizer.zero_grad()
    total.backward()
    told.after_backward()
    optimizer.step()
    told.after_step(batch)


def learn(
    parts: tuple[Tasks, Model, Strategies, torch.optim.Optimizer],
    loss: Callable[[nn.Module, Batch], Tensor] | None = usual,
    epochs: int = 2,
) -> None:
    tasks, agent, told, optimizer = parts
    for task in tasks:
        told.begin_task(task, optimizer)
        for _ in range(epochs):
            for batch in task.train:
                step(agent, told, optimizer, batch, loss)
        told.end_task(task)


def by_ml(strategies: Any, path: Path, **settings: Any) -> Run:
    usual: dict[str, Any] = {
        **{"model": Model, "dataset": blobs(), "tasks": 3, "epochs": 2, "batch_size": 8},
        **{"optim": "SGD", "lr": 0.05, "optim.momentum": 0.9, "device": "cpu", "path": path},
        **{"plot": False, "progress": False, "strategy": strategies},
    }
    return ml(**usual | settings)


def accuracies(tasks: Tasks, told: Strategies) -> list[list[float]]:
    """On each task, without and with the task told."""
    table: list[list[float]] = [[], []]
    for task in tasks:
        for row, number in zip(table, (None, task), strict=True):
            right = [told.predict(b.obs, number).argmax(1) == b.label for b in task.test]
            row.append(float(torch.cat(right).double().mean()))
    return table


SERVED = [
    (name, scenario)
    for name in NAMES["strategy"]
    for scenario in ("class", "task", "domain")
    if not (scenario == "domain" and name in ("gdumb", "icarl"))
]


@pytest.mark.parametrize(("name", "scenario"), SERVED)
def test_a_loop_of_ones_own_gives_the_bits_of_ml(name: str, scenario: str, workdir: Path) -> None:
    model, loss = (Smooth, None) if scenario == "task" else (Model, usual)
    options = {"gdumb": {"passes": 4}, "ewc_online": {"importance": 10.0}}
    strategy = {"_target_": name, **options[name]} if name in options else name
    run = by_ml(strategy, workdir / "run", scenario=scenario, model=model)
    parts = made(strategy, scenario=scenario, model=model)
    learn(parts, loss)
    theirs, ours = run.agent.state_dict(), parts[1].state_dict()
    assert all(torch.equal(ours[n], theirs[n]) for n in theirs)
    untold, told = accuracies(parts[0], parts[2])
    assert untold == run.accuracy_matrix[-1].tolist()
    if len(run.task_il_matrix):
        assert told == run.task_il_matrix[-1].tolist()


def test_two_strategies_and_an_augmentation_too(workdir: Path) -> None:
    settings = {"dataset": "Digits", "tasks": 2, "aug": "RandomCrop"}
    run = by_ml(["er", EWC(importance=10.0)], workdir / "run", epochs=1, **settings)
    parts = made(["er", EWC(importance=10.0)], **settings)
    learn(parts, epochs=1)
    assert all(
        torch.equal(a, b)
        for a, b in zip(run.agent.parameters(), parts[1].parameters(), strict=True)
    )


def test_a_plain_loop_over_the_tasks_is_a_run_without_a_strategy(workdir: Path) -> None:
    run = by_ml(None, workdir / "run")
    tasks, agent, _, optimizer = made([])
    for task in tasks:
        for _ in range(2):
            for batch in task.train:
                optimizer.zero_grad()
                usual(agent, batch).backward()
                optimizer.step()
    assert all(
        torch.equal(a, b) for a, b in zip(run.agent.parameters(), agent.parameters(), strict=True)
    )


# --------------------------------------------------------------------------------------- the tasks


def test_each_iteration_is_a_pass_over_all_rows_in_another_order() -> None:
    tasks = antelope.tasks(blobs(), tasks=3, batch_size=8)
    assert (len(tasks), [t.number for t in tasks], [t.classes for t in tasks]) == (
        3,
        [0, 1, 2],
        [[0, 1], [2, 3], [4, 5]],
    )
    task = tasks[1]
    passes = [torch.cat([batch.index for batch in task.train]) for _ in range(2)]
    assert len(passes[0]) == task.train.rows == 60 - task.test.rows
    assert set(passes[0].tolist()) == set(passes[1].tolist())
    assert not torch.equal(*passes)
    assert len(list(task.train)) == len(task.train) == 6
    held_out = [torch.cat([batch.index for batch in task.test]) for _ in range(2)]
    assert torch.equal(*held_out)
    assert {int(x) for batch in task.test for x in batch.label} == set(task.classes)
    again = antelope.tasks(blobs(), tasks=3, batch_size=8)[1]
    assert torch.equal(torch.cat([batch.index for batch in again.train]), passes[0])
    other = antelope.tasks(blobs(), tasks=3, batch_size=8, seed=1)[1]
    assert not torch.equal(torch.cat([batch.index for batch in other.train]), passes[0])


def test_the_doors_of_data_and_its_settings_are_those_of_ml() -> None:
    x, y = blobs()
    items = torch.utils.data.TensorDataset(x, y)
    for data in (
        (x, y),
        (x.numpy(), y.numpy()),
        items,
        [(a, int(b)) for a, b in zip(x, y, strict=True)],
    ):
        assert antelope.tasks(data, tasks=3).spec.obs.shape == (WIDTH,)
    pair = antelope.tasks([(x, y), (x + 1, y)], validation=0.1)
    assert (len(pair), pair.scenario, pair[0].classes) == (2, "domain", list(range(CLASSES)))
    kept = pair[0].validation
    assert kept is not None
    assert (kept.rows, pair[0].train.rows + kept.rows) == (13, 144)
    rows = {int(i) for batch in pair[0].train for i in batch.index}
    assert not rows & {int(i) for batch in kept for i in batch.index}
    ordered = antelope.tasks("Digits", classes_per_task=[4, 6], class_order=list(range(9, -1, -1)))
    assert [t.classes for t in ordered] == [[9, 8, 7, 6], [5, 4, 3, 2, 1, 0]]
    raw = next(iter(antelope.tasks("Digits", tasks=5, standardize=False)[0].train)).obs
    assert 0 <= float(raw.min()) <= float(raw.max()) <= 1


def test_values_have_tasks_without_classes() -> None:
    x, _ = blobs()
    tasks = antelope.tasks([(x, x.sum(1)), (x, x.prod(1))])
    assert (tasks[1].classes, tasks.spec.discrete, len(tasks)) == ([], False, 2)
    torch.manual_seed(0)
    agent = nn.Linear(WIDTH, 1)
    told = Strategies(agent, ["er", "ewc"], tasks.spec)
    optimizer = torch.optim.SGD(agent.parameters(), 1e-3)
    for task in tasks:
        told.begin_task(task)
        for batch in task.train:
            step(agent, told, optimizer, batch, None)
        told.end_task(task)
    assert told.predict(x, tasks[1]).shape == (len(x), 1)


def test_the_callers_random_streams_go_on_as_if_nothing_had_been_read() -> None:
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    antelope.tasks("Digits", tasks=5, class_order="shuffled")
    assert torch.equal(torch.rand(2), expected)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"tasks": 4}, "Cannot split the 6 classes"),
        ({"taks": 3}, "Did you mean `tasks`"),
        ({"tasks": 3, "lr": 0.1}, "has no setting `lr`"),
        ({"tasks": 3, "strategy": "er"}, "antelope.Strategies"),
        ({"tasks": 3, "online": True}, "has no setting `online`"),
    ],
)
def test_what_the_tasks_cannot_do_is_said(settings: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        antelope.tasks(blobs(), **settings)


def test_a_pass_that_is_left_begins_again_and_two_at_once_are_refused() -> None:
    task, other = antelope.tasks(blobs(), tasks=3, batch_size=8)[:2]
    for _ in task.train:
        break
    assert len({int(i) for batch in task.train for i in batch.index}) == task.train.rows
    with pytest.raises(ConfigError, match=r"once\(\)"):
        for _ in zip(task.train, task.train, strict=True):
            pass
    with pytest.raises(ConfigError, match="iterated again"):
        for _ in zip(task.train, other.train, strict=True):
            pass
    assert (
        sum(len(batch) for _ in task.train for batch in other.train.once()) == 6 * other.train.rows
    )


# ---------------------------------------------------------------------------- calls that are missing


def without(name: str, missing: str, *, named: bool = True) -> str:
    """What a loop hears that leaves out one call."""
    tasks, agent, told, optimizer = made(name)
    calls: dict[str, Any] = {
        call: getattr(told, call)
        for call in ("begin_task", "after_loss", "after_backward", "after_step", "end_task")
    }
    calls[missing] = lambda *given: given[-1] if missing == "after_loss" else None

    def loop() -> None:
        for task in tasks:
            calls["begin_task"](task, *([optimizer] if named else []))
            for batch in task.train:
                loss = calls["after_loss"](batch, usual(agent, batch))
                optimizer.zero_grad()
                loss.backward()
                calls["after_backward"]()
                optimizer.step()
                calls["after_step"](batch)
            calls["end_task"](task)

    with pytest.raises(ConfigError) as raised:
        loop()
    return str(raised.value)


@pytest.mark.parametrize("name", ["er", "gem", "si"])
def test_a_loop_that_forgets_the_borders_or_the_end_of_a_step_hears_of_it(name: str) -> None:
    assert "Call begin_task(task) first" in without(name, "begin_task")
    assert "Call end_task(task)" in without(name, "end_task")
    assert "after_step was not called" in without(name, "after_step")


@pytest.mark.parametrize("named", [True, False])
def test_a_loop_that_forgets_a_call_which_its_strategy_needs_hears_of_it(named: bool) -> None:
    assert "ewc needs after_loss" in without("ewc", "after_loss", named=named)
    assert "gem needs after_backward" in without("gem", "after_backward", named=named)


@pytest.mark.parametrize("named", [True, False])
@pytest.mark.parametrize("late", [True, False])
def test_a_loss_that_is_dropped_or_comes_too_late_is_told_at_the_first_step(
    named: bool, late: bool
) -> None:
    tasks, agent, told, optimizer = made("ewc")
    told.begin_task(tasks[0], *([optimizer] if named else []))
    batch = next(iter(tasks[0].train))
    loss = usual(agent, batch)
    if not late:
        told.after_loss(batch, loss)  # What it returns is the loss to learn by.
    loss.backward()

    def rest_of_the_step() -> None:
        optimizer.step()
        if late:
            told.after_loss(batch, loss)
        told.after_step(batch)

    with pytest.raises(ConfigError, match=r"loss = strategies\.after_loss\(batch, loss\)"):
        rest_of_the_step()


def test_a_batch_that_is_dropped_is_told() -> None:
    tasks, agent, told, optimizer = made("er")
    x, y = blobs()
    batch = Batch(obs=x[:8], label=y[:8], task=torch.zeros(8, dtype=torch.int64))
    told.begin_task(tasks[0])
    step(agent, told, optimizer, told.before_batch(batch), usual)
    told.before_batch(batch)  # What it returns is the batch to learn from.
    with pytest.raises(ConfigError, match=r"this batch has 8 rows, .* one of 16 rows"):
        told.after_loss(batch, usual(agent, batch))


@pytest.mark.parametrize("name", ["cwr", "pnn", "packnet"])
def test_what_works_on_the_optimiser_asks_for_it(name: str) -> None:
    tasks, _, told, _ = made(name)
    with pytest.raises(ConfigError, match=rf"{name} .*begin_task\(task, optimizer\)"):
        told.begin_task(tasks[0])


def test_an_optimiser_that_lacks_what_a_strategy_has_added_is_refused() -> None:
    tasks = antelope.tasks(blobs(), tasks=3)
    agent = Model(WIDTH, CLASSES)
    before = torch.optim.SGD(agent.parameters(), 0.1)
    told = Strategies(agent, PNN(), tasks.spec)
    with pytest.raises(ConfigError, match="laterals"):
        told.begin_task(tasks[0], before)
    with pytest.raises(ConfigError, match="none of the model's"):
        made("er")[2].begin_task(tasks[0], torch.optim.SGD(Model(WIDTH, CLASSES).parameters(), 0.1))


def test_calls_in_a_wrong_order_are_refused() -> None:
    tasks, agent, told, optimizer = made("si")
    with pytest.raises(ConfigError, match="task 0 comes next, not task 1"):
        told.begin_task(tasks[1], optimizer)
    told.begin_task(tasks[0], optimizer)
    with pytest.raises(ConfigError, match="no batch to learn"):
        told.after_backward()
    batch = next(given := iter(tasks[0].train))
    told.after_loss(batch, usual(agent, batch))
    with pytest.raises(ConfigError, match="no parameter has a gradient"):
        told.after_backward()
    with pytest.raises(ConfigError, match="twice"):
        told.after_loss(batch, usual(agent, batch))
    usual(agent, batch).backward()
    told.after_backward()
    told.after_step(batch)
    with pytest.raises(ConfigError, match="belongs between"):
        optimizer.step()
    next(given)
    with pytest.raises(ConfigError, match="learnt completely"):
        next(given)


def test_each_strategy_is_offered_by_the_package_itself() -> None:
    assert {*NAMES["strategy"].values(), "Strategy"} <= set(antelope.__all__)
    for name in NAMES["strategy"].values():
        assert getattr(antelope, name) is getattr(antelope.agents.continual, name)


@pytest.mark.parametrize("task", [0, [1, 2], None])
def test_only_a_task_can_begin(task: Any) -> None:
    with pytest.raises(ConfigError, match=r"antelope\.tasks"):
        made("er")[2].begin_task(task)


def test_strategies_are_named_and_refused_as_in_a_run() -> None:
    for strategies, says in (
        ("erx", "Did you mean `er`"),
        (["er", "derpp"], "conflict"),
        ({"_target_": "er", "capacit": 4}, "Did you mean `capacity`"),
        (["er", {"ewc": {"importance": 4}}], "arguments but no name"),
    ):
        with pytest.raises(ConfigError, match=says):
            made(strategies)
    tasks = antelope.tasks(blobs(), tasks=3)
    with pytest.raises(ConfigError, match=r"tasks\.spec"):
        Strategies(Model(WIDTH, CLASSES), "er", tasks.world.spec)
    with pytest.raises(ConfigError, match=r"nn\.Module"):
        Strategies(Model, "er", tasks.spec)  # type: ignore[arg-type]


# ------------------------------------------------------------------------------ what a loop may do


def test_a_loop_may_break_accumulate_and_look() -> None:
    tasks, agent, told, optimizer = made(["er", "gem"])
    told.begin_task(tasks[0], optimizer)
    for i, batch in enumerate(tasks[0].train):
        if i == 4:
            break
        loss = told.after_loss(batch, usual(agent, batch))
        with torch.no_grad():
            agent(batch.obs)
        loss.backward()
        if i % 2:  # Two batches to an update.
            told.after_backward()
            optimizer.step()
            optimizer.zero_grad()
        told.after_step(batch)
        for held_out in tasks[0].test:
            told.predict(held_out.obs)
    told.end_task(tasks[0])
    assert agent.training
    assert not agent._forward_hooks
    memory = next(iter(told._hooks.named.values())).memory
    assert len(memory) == 40  # Of the batch that was not learnt too: it had been joined by then.


def test_outputs_without_gradient_do_not_take_the_place_of_those_that_were_learnt() -> None:
    def ends(look: bool) -> Tensor:
        parts = made("lwf")

        def loss(agent: nn.Module, batch: Batch) -> Tensor:
            found = usual(agent, batch)
            if look:
                with torch.no_grad(), kept_randomness():
                    agent.eval()
                    agent(batch.obs)
                    agent.train()
            return found

        learn(parts, loss)
        return torch.cat([p.detach().flatten() for p in parts[1].parameters()])

    assert torch.equal(ends(True), ends(False))


def test_batches_from_elsewhere_go_through_before_batch() -> None:
    tasks, agent, told, optimizer = made(ER(capacity=100))
    x, y = blobs()
    told.begin_task(tasks[0])
    sizes = []
    for rows in torch.arange(24).split(8):
        batch = told.before_batch(Batch(obs=x[rows], label=y[rows], task=torch.zeros_like(rows)))
        sizes.append(len(batch))
        assert told.before_batch(batch) is batch  # Once is enough.
        step(agent, told, optimizer, batch, usual)
    assert sizes == [8, 16, 16]


def test_batches_of_a_task_come_with_what_is_rehearsed() -> None:
    tasks, agent, told, optimizer = made("er")
    told.begin_task(tasks[0])
    sizes = []
    for batch in tasks[0].train:
        assert told.before_batch(batch) is batch  # Nothing is rehearsed twice.
        sizes.append(len(batch))
        step(agent, told, optimizer, batch, usual)
    assert sizes[:3] == [8, 16, 16]


def test_a_loss_that_is_given_is_what_strategies_learn_by_themselves() -> None:
    def ends(**options: Any) -> Tensor:
        tasks, agent, _, optimizer = made([])
        told = Strategies(agent, "derpp", tasks.spec, **options)
        learn((tasks, agent, told, optimizer))
        return torch.cat([p.detach().flatten() for p in agent.parameters()])

    plain = ends()
    assert torch.equal(plain, ends(loss=F.cross_entropy))
    assert not torch.equal(plain, ends(loss=nn.CrossEntropyLoss(label_smoothing=0.3)))


class Passes:
    """Notes what it is told."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def begin_epoch(self, agent: nn.Module, replay: Any) -> None:
        self.told.append("begin")

    def end_epoch(self, agent: nn.Module, replay: Any) -> None:
        self.told.append("end")

    def end_task(self, agent: nn.Module, replay: Any) -> None:
        self.told.append("task")

    def after_evaluation(self, agent: nn.Module, metrics: dict[str, float]) -> None:
        self.told.append(str(metrics))


def test_passes_and_evaluations_are_told() -> None:
    passes = Passes()
    parts = made([passes, "joint"])
    learn(parts)
    parts[2].after_evaluation({"accuracy": 0.5})
    # Joint leaves nothing to learn after the first task.
    assert passes.told == [*["begin", "end"] * 2, "task", "task", "task", "{'accuracy': 0.5}"]


def test_calls_may_be_written_as_the_hooks_are_with_the_model_first() -> None:
    def ends(model_first: bool, *, train: bool) -> dict[str, Tensor]:
        tasks, agent, told, optimizer = made(["er", "ewc"])
        first = (agent,) if model_first else ()
        for task in tasks:
            told.begin_task(*first, task.train if train else task)  # type: ignore[arg-type]
            for batch in task.train:
                batch = told.before_batch(*first, batch)
                loss = told.after_loss(*first, batch, usual(agent, batch))
                optimizer.zero_grad()
                loss.backward()
                told.after_backward(*first)
                optimizer.step()
                told.after_step(*first, batch)
            told.end_task(*first, task.train if train else task)
        told.predict(*first, blobs()[0], 1)
        return agent.state_dict()

    expected = ends(False, train=False)
    for train in (False, True):
        seen = ends(True, train=train)
        assert all(torch.equal(seen[name], expected[name]) for name in expected)


def test_passes_over_batches_from_elsewhere_are_told_by_the_loop() -> None:
    passes = Passes()
    tasks, agent, told, optimizer = made(passes)
    told.begin_task(tasks[0])
    for _ in range(2):
        told.begin_epoch()
        for batch in tasks[0].train.once():
            step(agent, told, optimizer, told.before_batch(batch), usual)
        told.end_epoch()
    told.begin_epoch()
    for batch in tasks[0].train:  # Tells by itself, once.
        step(agent, told, optimizer, batch, usual)
    told.end_epoch()
    told.end_task()
    assert passes.told == [*["begin", "end"] * 3, "task"]
    with pytest.raises(ConfigError, match="no task has begun"):
        told.begin_epoch()


# ------------------------------------------------------------------------------------- resumption


@pytest.mark.parametrize(
    ("name", "stop"),
    [
        *product(["er", "ewc", "si", "gem", "icarl", "pnn", "packnet", "cwr"], [3, 9, 12, 17]),
        ("joint", 3),  # Of as many steps in a pass as it has for all tasks.
    ],
)
def test_a_loop_continues_from_a_file_to_the_bit(name: str, stop: int) -> None:
    """Of 12 steps to a task of 2 passes: in a pass, in the next, at the end of a task, in the second."""

    def state(parts: Any) -> Any:
        _, agent, told, optimizer = parts
        file = io.BytesIO()
        torch.save(
            {
                "strategies": told.state_dict(),
                "model": agent.state_dict(),
                "optimizer": optimizer.state_dict(),
                "random": torch.get_rng_state(),
            },
            file,
        )
        file.seek(0)
        return torch.load(file, weights_only=True)

    def go(parts: Any, steps: int, stop: int | None = None) -> Any:
        tasks, agent, told, optimizer = parts
        first = steps // 12
        for task in tasks[first:]:
            told.begin_task(task, optimizer)
            for _ in range(steps % 12 // 6 if task.number == first else 0, 2):
                for batch in task.train:
                    step(agent, told, optimizer, batch, usual)
                    steps += 1
                    if steps == stop and steps % 12:
                        return state(parts)
            told.end_task(task)
            if steps == stop:
                return state(parts)
        return None

    whole = made(name)
    go(whole, 0)
    saved = go(made(name), 0, stop)
    parts = made(name)
    parts[1].load_state_dict(saved["model"])
    parts[3].load_state_dict(saved["optimizer"])
    parts[2].load_state_dict(saved["strategies"])
    torch.set_rng_state(saved["random"])
    go(parts, stop)
    for n, tensor in whole[1].state_dict().items():
        assert torch.equal(parts[1].state_dict()[n], tensor), n
    assert accuracies(parts[0], parts[2]) == accuracies(whole[0], whole[2])


def test_a_state_is_taken_between_steps_and_loaded_into_a_new_object() -> None:
    tasks, agent, told, optimizer = made("er")
    told.begin_task(tasks[0])
    given = iter(tasks[0].train)
    batch = next(given)
    with pytest.raises(ConfigError, match="in the middle of a step"):
        told.state_dict()
    step(agent, told, optimizer, batch, usual)
    state = told.state_dict()
    with pytest.raises(ConfigError, match="have already learnt"):
        told.load_state_dict(state)
    again = made("er")
    again[2].load_state_dict(state)
    with pytest.raises(ConfigError, match="task 0 comes next"):
        again[2].begin_task(again[0][1])
    again[2].begin_task(again[0][0])
    assert torch.equal(next(iter(again[0][0].train)).index, next(given).index)


def test_a_task_has_words_for_a_person() -> None:
    task = antelope.tasks("Digits", tasks=5)[0]
    assert isinstance(task, Task)
    assert repr(task) == "Task(0, 'classes 0-1', 291 training rows, 69 held out)"


# ------------------------------------------------------------------- a cell of a notebook, run again


@pytest.mark.parametrize("name", ["er", "gem", "cwr", "packnet"])
def test_a_loop_that_was_interrupted_leaves_the_model_and_the_optimiser_to_the_next(
    name: str,
) -> None:
    tasks, model, told, optimizer = made(name)
    told.begin_task(tasks[0], optimizer)
    batch = next(iter(tasks[0].train))
    usual(model, batch).backward()  # And here the cell was stopped.
    again = Strategies(model, name, tasks.spec)
    assert not model._forward_hooks
    learn((tasks, model, again, optimizer))
    assert not model._forward_hooks
    with pytest.raises(ConfigError, match="left in the middle of a task"):
        told.begin_task(tasks[0])


def test_an_object_serves_one_loop() -> None:
    strategy = ER(capacity=20)
    for first in (True, False):
        tasks, model, told, optimizer = made(strategy)
        if first:
            learn((tasks, model, told, optimizer))
    with pytest.raises(ConfigError, match="Construct one for each run"):
        told.begin_task(tasks[0], optimizer)


def test_lbfgs_and_an_optimiser_of_a_part_are_refused_where_they_cannot_work() -> None:
    tasks, model, told, _ = made("ewc")
    with pytest.raises(ConfigError, match="LBFGS computes the loss several times"):
        told.begin_task(tasks[0], torch.optim.LBFGS(model.parameters()))
    tasks, model, told, _ = made("cwr")
    with pytest.raises(ConfigError, match="does not hold `norm"):
        told.begin_task(tasks[0], torch.optim.SGD(model.first.parameters(), 0.1))
    model.last.requires_grad_(False)
    model.norm.requires_grad_(False)
    told.begin_task(tasks[0], torch.optim.SGD(model.first.parameters(), 0.1))


@pytest.mark.parametrize("task", [-1, 3])
def test_a_task_that_there_is_not_cannot_be_told(task: int) -> None:
    tasks, _, told, _ = made("er")
    with pytest.raises(ConfigError, match="tasks are numbered 0 to 2"):
        told.predict(next(iter(tasks[0].test)).obs, task)


def test_words_of_other_libraries_are_answered() -> None:
    with pytest.raises(ConfigError, match="use tasks="):
        antelope.tasks(blobs(), n_experiences=3)
