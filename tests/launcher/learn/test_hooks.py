"""The hooks of a strategy: epochs and evaluations, names that are none, and what hooks give back."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from antelope import Batch, ConfigError, Memory, Run, ml
from antelope.agents.continual import ER, EWC, NAMES, Strategy
from antelope.launcher.learn.hooks import AVALANCHE, HOOKS, mistaken


@pytest.fixture(autouse=True)
def _here(workdir: Path) -> None:
    """Every test in a folder of its own."""


class MLP(nn.Sequential):
    def __init__(self, in_features: int, out_features: int):
        super().__init__(nn.Flatten(), nn.Linear(in_features, out_features))


class Updates(MLP):
    """One that updates itself."""

    def learn(self, replay: Any) -> None:
        batch = next(replay)
        nn.functional.cross_entropy(self(batch.obs), batch.label).backward()
        with torch.no_grad():
            for parameter in self.parameters():
                parameter -= 0.01 * parameter.grad
                parameter.grad = None


def run(**settings: Any) -> Run:
    usual: dict[str, Any] = {"model": MLP, "dataset": "Digits", "tasks": 2, "epochs": 2}
    usual |= {"batch_size": 200, "plot": False, "progress": False, "device": "cpu"}
    return ml(**usual | settings)


def refused(strategy: Any, *says: str, **settings: Any) -> str:
    with pytest.raises(ConfigError) as raised:
        run(strategy=strategy, **settings)
    message = str(raised.value)
    assert all(text in message for text in says), message
    return message


# ------------------------------------------------------------------------- epochs and evaluations


class Notes:
    """What was told, in order."""

    fails_at: int | None = None

    def __init__(self) -> None:
        self.told: list[str] = []

    def begin_task(self, agent: nn.Module, replay: Any) -> None:
        self.told.append("task")

    def begin_epoch(self, agent: nn.Module, replay: Any) -> None:
        self.told.append(f"epoch {replay.passes}")

    def after_step(self, agent: nn.Module, batch: Batch) -> None:
        self.told.append("step")
        if len(self.told) == self.fails_at:
            raise RuntimeError("The power is gone.")

    def end_epoch(self, agent: nn.Module, replay: Any) -> None:
        self.told.append("over")

    def after_evaluation(self, agent: nn.Module, metrics: dict[str, float]) -> None:
        self.told.append("evaluation")

    def end_task(self, agent: nn.Module, replay: Any) -> None:
        self.told.append("end")


EPOCHS = [["epoch 0", *["step"] * 4, "over"], ["epoch 1", *["step"] * 4, "over"]]
TASK = ["task", *EPOCHS[0], *EPOCHS[1], "end", "evaluation"]


@pytest.mark.parametrize("model", [MLP, Updates])
def test_epochs_are_passes_over_the_tasks_data(model: Any) -> None:
    notes = Notes()
    run(strategy=notes, model=model)
    assert notes.told == TASK * 2


def test_a_pass_that_is_cut_short_ends_with_its_task() -> None:
    notes = Notes()
    run(strategy=notes, train_steps=6, epochs=None, eval_every=3, tasks=2)
    assert notes.told[:15] == [
        *["task", "epoch 0", "step", "step", "step", "evaluation", "step", "over"],
        *["epoch 1", "step", "step", "over", "end", "evaluation", "task"],
    ]


def test_a_stream_without_borders_is_one_pass() -> None:
    notes = Notes()
    run(strategy=notes, online=True, epochs=None, batch_size=400)
    assert [word for word in notes.told if word != "step"] == [
        *["task", "epoch 0", "evaluation", "over", "end", "evaluation"]
    ]


@pytest.mark.parametrize("fails_at", [4, 6, 9, 12, 18, 20])
def test_no_epoch_is_told_twice_after_a_kill(fails_at: int) -> None:
    """In a pass, at its end, at the start of the next, and in the next task."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Notes, "fails_at", fails_at)
        with pytest.raises(RuntimeError, match="power"):
            run(strategy=Notes(), save_every=1)
    again = Notes()
    resumed = run(strategy=again, save_every=1, resume=True)
    assert (resumed.path / "eval.csv").is_file()
    assert again.told == TASK * 2


class Metrics:
    def __init__(self) -> None:
        self.seen: list[dict[str, float]] = []

    def after_evaluation(self, agent: nn.Module, metrics: dict[str, float]) -> None:
        self.seen.append(dict(metrics))
        metrics.clear()  # It is the strategy's own.


def test_metrics_are_those_of_the_rows_of_eval_csv() -> None:
    strategy = Metrics()
    finished = run(strategy=strategy, eval_every=3, validation=0.2)
    rows = [row for row in finished.history if row["mode"] == "eval"]
    assert len(rows) == len(strategy.seen) > 3
    for row, seen in zip(rows, strategy.seen, strict=True):
        assert seen == {k: v for k, v in row.items() if k not in ("mode", "step", "epoch", "task")}
    assert "validation_accuracy" in strategy.seen[0]
    assert {"accuracy", "accuracy/task_1", "forgetting"} <= strategy.seen[-1].keys()


# ------------------------------------------------------------------------------- names that are none


def strategy_with(*methods: str) -> Any:
    return type("Mine", (), {"after_step": lambda self, agent, batch: None}
                | {name: lambda self, *args, **kwargs: None for name in methods})  # fmt: skip


@pytest.mark.parametrize(
    ("method", "nearest"),
    [
        ("after_lost", "after_loss(agent, batch, loss)"),
        ("befor_batch", "before_batch(agent, batch)"),
        ("beforeBatch", "before_batch(agent, batch)"),
        ("begin_taks", "begin_task(agent, replay)"),
        ("end_of_task", "end_task(agent, replay)"),
        ("start_task", "begin_task(agent, replay)"),
        ("before_task", "begin_task(agent, replay)"),
        ("after_task", "end_task(agent, replay)"),
        ("begin_experience", "begin_task(agent, replay)"),
        ("after_epoch", "end_epoch(agent, replay)"),
        ("begin_batch", "before_batch(agent, batch)"),
        ("after_batch", "after_step(agent, batch)"),
        ("after_optimizer_step", "after_step(agent, batch)"),
        ("after_evaluate", "after_evaluation(agent, metrics)"),
        ("before_backward", "after_loss(agent, batch, loss)"),
        ("before_training_exp", "begin_task(agent, replay)"),
        ("after_training_iteration", "after_step(agent, batch)"),
        ("on_train_begin", "begin_task(agent, replay)"),
        ("on_train_batch_start", "before_batch(agent, batch)"),
        ("on_before_optimizer_step", "after_backward(agent)"),
        ("on_epoch_end", "end_epoch(agent, replay)"),
        ("on_validation_end", "after_evaluation(agent, metrics)"),
        ("on_train_end", "end_task(agent, replay)"),
        ("on_step", "after_step(agent, batch)"),
        ("prdict", "predict(agent, obs, task)"),
        ("after_everything_else", "The hooks are begin_task"),
        ("on_rollout_end", "The hooks are begin_task"),
        ("on_grad_computed", "after_backward(agent)"),
        ("on_save_checkpoint", "The hooks are begin_task"),
    ],
)
def test_a_method_that_looks_like_a_hook_and_is_none_is_answered(method: str, nearest: str) -> None:
    found = list(mistaken("mine", strategy_with(method)()))
    assert len(found) == 1
    assert f"`{method}`" in found[0]
    assert nearest in found[0]


def test_all_of_them_are_named_before_training() -> None:
    mine = strategy_with("after_lost", "before_training_exp", "on_epoch_end")
    refused(mine, "strategy=Mine", "`after_lost`", "Avalanche", "`on_epoch_end`")
    assert not Path("runs").exists()


def test_names_of_ones_own_are_ones_own() -> None:
    names = ["penalty", "loss", "forward", "predict_rows", "predictor", "product", "update"]
    names += ["_after_lost", "on_device", "reset", "sample", "task_of", "step", "batches", "epoch"]
    mine = strategy_with(*names)()
    mine.after_norm, mine.before_weights = nn.ReLU(), torch.zeros(3)
    assert not list(mistaken("mine", mine))

    class Network(nn.Module):
        def after_step(self, agent: nn.Module, batch: Batch) -> None: ...

        @property
        def after_all(self) -> Any:
            raise RuntimeError("Looked at.")

    assert not list(mistaken("mine", Network()))


def test_no_strategy_of_ours_has_a_method_like_that() -> None:
    import antelope.agents.continual as ours

    for name in NAMES["strategy"].values():
        assert not list(mistaken(name, getattr(ours, name)()))
    assert not list(mistaken("base", Strategy()))


def test_every_callback_of_avalanches_plugins_has_an_answer_in_the_docs_too() -> None:
    page = (Path(__file__).parents[3] / "docs" / "continual.md").read_text()
    rows = [line.strip("|").split("|") for line in page.splitlines() if line.startswith("|")]
    listed = {name: row[1].strip() for row in rows if len(row) == 2 for name in row[0].split(", ")}
    for theirs, ours in AVALANCHE.items():
        assert ours in HOOKS
        found = list(mistaken("mine", strategy_with(theirs)()))
        assert len(found) == 1
        assert "Avalanche" in found[0]
        assert {name.strip(): here for name, here in listed.items()}[f"`{theirs}`"] == f"`{ours}`"


def test_a_hook_that_cannot_be_called_is_refused() -> None:
    class Short:
        def before_batch(self, batch: Batch) -> Batch:
            return batch

        def after_loss(self, agent: nn.Module, loss: Tensor) -> Tensor:
            return loss

        def predict(self, agent: nn.Module, obs: Tensor, task: int, more: int) -> Tensor:
            return agent(obs)

    refused(
        Short,
        "Write before_batch(self, agent, batch)",
        "Write after_loss(self, agent, batch, loss)",
        "Write predict(self, agent, obs, task)",
    )


def test_a_hook_with_its_arguments_in_another_order_is_refused() -> None:
    class Turned:
        def after_loss(self, agent: nn.Module, loss: Tensor, batch: Batch) -> Tensor:
            return loss

    refused(Turned, "wrong order", "after_loss(self, agent, batch, loss)")

    class Renamed:
        def after_loss(self, model: nn.Module, rows: Batch, loss: Tensor, *more: Any) -> Tensor:
            return loss

    run(strategy=Renamed)


# --------------------------------------------------------------------------- what hooks give back


class NoLoss:
    def after_loss(self, agent: nn.Module, batch: Batch, loss: Tensor) -> None:
        loss * 2


class NoBatch:
    def before_batch(self, agent: nn.Module, batch: Batch) -> tuple[Any, ...]:
        return batch.obs, batch.label


class NoLogits:
    def predict(self, agent: nn.Module, obs: Tensor, task: int | None) -> None:
        agent(obs)


@pytest.mark.parametrize(
    ("strategy", "says"),
    [
        (NoLoss, "strategy=NoLoss: after_loss(agent, batch, loss) returned None. Return the loss."),
        (NoBatch, "before_batch(agent, batch) returned a tuple. Return the batch."),
        (NoLogits, "predict(agent, obs, task) returned None. Return the logits."),
    ],
)
def test_a_hook_that_forgets_to_return_is_told_so(strategy: Any, says: str) -> None:
    refused(strategy, says)


# ------------------------------------------------------------------------ two that do not say so


class Adds:
    """Rehearses rows of a list of its own, and says nothing of it."""

    def __init__(self) -> None:
        self.past: list[Batch] = []

    def before_batch(self, agent: nn.Module, batch: Batch) -> Batch:
        joined = [batch, *self.past[-1:]]
        self.past.append(batch)
        return Batch(**{name: torch.cat([part[name] for part in joined]) for name in batch})


class AddsToo(Adds):
    pass


class Keeps:
    """Rehearses rows of a `Memory`."""

    def __init__(self) -> None:
        self.memory = Memory(100)

    def before_batch(self, agent: nn.Module, batch: Batch) -> Batch:
        past = self.memory.sample(10) if len(self.memory) else batch[:0]
        self.memory.add(batch)
        return Batch(**{name: torch.cat((batch[name], past[name])) for name in batch})


class KeepsToo(Keeps):
    pass


class Looks(Keeps):
    """Keeps rows, and adds none to the batch, as it says."""

    owns = ()

    def before_batch(self, agent: nn.Module, batch: Batch) -> Batch:
        self.memory.add(batch)
        return batch


@pytest.mark.parametrize(
    "pair", [(Adds, AddsToo), (Keeps, KeepsToo), (Adds, Keeps), (Adds, ER), (Keeps, ER)]
)
def test_two_rehearsals_conflict_whether_they_say_so_or_not(pair: tuple[Any, Any]) -> None:
    names = ["er" if strategy is ER else strategy.__name__ for strategy in pair]
    refused(list(pair), "conflict", "add rows", *(f"strategy={name}" for name in names))


@pytest.mark.parametrize("pair", [(Keeps, KeepsToo), (Keeps, ER)])
def test_those_that_hold_a_memory_are_seen_before_training(pair: tuple[Any, Any]) -> None:
    refused(list(pair), "owns = ()")
    assert not Path("runs").exists()


@pytest.mark.parametrize("other", [Adds, ER, Keeps])
def test_one_that_only_keeps_rows_may_say_so(other: Any) -> None:
    assert [task["steps"] > 0 for task in run(strategy=[Looks, other]).tasks] == [True, True]


def test_a_hook_that_runs_nothing_when_it_is_called_is_refused() -> None:
    class Later:
        async def after_step(self, agent: nn.Module, batch: Batch) -> None: ...

        def end_task(self, agent: nn.Module, replay: Any) -> Any:
            yield

    refused(Later, "after_step is `async`", "end_task is a generator", "plain method")
    assert not Path("runs").exists()


class First:
    def predict(self, agent: nn.Module, obs: Tensor, task: int | None) -> Tensor:
        return agent(obs)


class Second(First):
    pass


def test_two_that_predict_conflict() -> None:
    refused([First, Second], "strategy=First and strategy=Second conflict", "outputs")


def test_a_misspelt_word_of_owns_is_answered() -> None:
    class Owner(Keeps):
        owns = frozenset({"bacth"})

    refused(Owner, "`owns` holds 'bacth'", "Did you mean `batch`?")

    class Other(Keeps):
        owns = frozenset({"batch", "temperature"})

    run(strategy=Other)


# -------------------------------------------------------------------- objects, and what they are given


class Rehearses:
    def __init__(self) -> None:
        self.memory = Memory(20)

    def before_batch(self, agent: nn.Module, batch: Batch) -> Batch:
        self.new = batch
        if not len(self.memory):
            return batch
        past = self.memory.sample(20)
        return Batch(**{name: torch.cat((batch[name], past[name])) for name in batch})

    def after_step(self, agent: nn.Module, batch: Batch) -> None:
        self.memory.add(self.new)


@pytest.mark.parametrize("kind", [Rehearses, lambda: ER(capacity=20), lambda: EWC()])
def test_an_object_that_has_learnt_is_not_taken_for_a_fresh_one(kind: Any) -> None:
    strategy = kind()
    run(strategy=strategy)
    refused(strategy, "has learnt in another run", "Construct one for each run")
    refused(strategy, "Construct one for each run")  # Nor by asking twice.


def test_an_object_that_was_refused_before_it_learnt_is_fresh() -> None:
    strategy = ER(capacity=20)
    refused([strategy, "der"], "conflict")
    run(strategy=strategy)


def test_an_object_that_keeps_nothing_serves_many_runs() -> None:
    class Penalty:
        def __init__(self, importance: float):
            self.importance = importance

        def after_loss(self, agent: nn.Module, batch: Batch, loss: Tensor) -> Tensor:
            return loss + self.importance * sum(p.square().sum() for p in agent.parameters())

    strategy = Penalty(0.1)
    first, second = run(strategy=strategy), run(strategy=strategy)
    assert all(map(torch.equal, first.agent.parameters(), second.agent.parameters()))


def test_an_object_that_only_records_goes_on_with_a_word() -> None:
    class Records:
        def __init__(self) -> None:
            self.seen: list[float] = []

        def after_evaluation(self, agent: nn.Module, metrics: dict[str, float]) -> None:
            self.seen.append(metrics["accuracy"])

    strategy = Records()
    run(strategy=strategy)
    with pytest.warns(UserWarning, match="continues with what it recorded"):
        run(strategy=strategy)
    assert len(strategy.seen) == 4


def test_an_interrupted_run_goes_on_with_the_object_it_had() -> None:
    class Stops:
        left = 20

        def after_step(self, agent: nn.Module, batch: Batch) -> None:
            Stops.left -= 1
            if Stops.left == 0:
                raise KeyboardInterrupt

    strategy = Rehearses()
    with pytest.raises(KeyboardInterrupt):  # In the second task: the first is saved.
        run(strategy=[strategy, Stops], batch_size=100, path="stopped")
    resumed = run(strategy=[strategy, Stops], batch_size=100, path="stopped", resume=True)
    whole = run(strategy=[Rehearses, Stops], batch_size=100, path="whole")
    assert all(map(torch.equal, resumed.agent.parameters(), whole.agent.parameters()))


def test_two_runs_that_are_open_at_once_need_an_object_each() -> None:
    strategy = ER(capacity=20)
    usual: dict[str, Any] = {"model": MLP, "dataset": "Digits", "tasks": 2, "epochs": 1}
    usual |= {"plot": False, "progress": False, "device": "cpu"}
    first = iter(ml.tasks(**usual, strategy=strategy, path="first"))
    second = iter(ml.tasks(**usual, strategy=strategy, path="second"))
    with pytest.raises(ConfigError, match="another run has taken over since"):
        next(first).learn()
    next(second).learn()


@dataclass(frozen=True)
class Frozen:
    importance: float = 0.1

    def after_loss(self, agent: nn.Module, batch: Batch, loss: Tensor) -> Tensor:
        return loss


@dataclass(slots=True)
class Slots:
    importance: float = 0.1

    def after_loss(self, agent: nn.Module, batch: Batch, loss: Tensor) -> Tensor:
        return loss


class OwnContext(Rehearses):
    def __init__(self) -> None:
        super().__init__()
        self.context = {"mine": 1}


def test_a_strategy_without_a_place_for_its_context_is_refused() -> None:
    refused(Frozen(), "strategy=Frozen", "without frozen=True and slots")
    refused(Slots(), "strategy=Slots", "without frozen=True and slots")
    refused(OwnContext(), "strategy=OwnContext", "rename your own")


@pytest.mark.parametrize("read", [lambda logits: logits.argmax(1), lambda logits: logits[:, :2]])
def test_predictions_that_are_no_logits_are_refused(read: Any) -> None:
    class Predicts:
        def predict(self, agent: nn.Module, obs: Tensor, task: int | None) -> Tensor:
            return read(agent(obs))

    refused(Predicts, "Return the logits of all 10 outputs")


def test_a_batch_without_rows_is_refused() -> None:
    class Filters:
        def before_batch(self, agent: nn.Module, batch: Batch) -> Batch:
            return batch[batch.label > 100]

    refused(Filters, "strategy=Filters", "without rows")
