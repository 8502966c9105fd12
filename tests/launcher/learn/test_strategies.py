"""Strategies as a person uses them: names, objects, hooks, combinations, conflicts, resumption."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from antelope import Batch, ConfigError, Memory, Run, ml, register
from antelope.agents.continual import ER, EWC, SI
from antelope.launcher.record.checkpoint import Checkpoints
from antelope.launcher.settings.compose import compose
from antelope.launcher.settings.lookup import named_objects, unresolved

SHORT: dict[str, Any] = {
    "tasks": 5,
    "epochs": 1,
    "batch_size": 16,
    "lr": 0.01,
    "plot": False,
    "progress": False,
}


class MLP(nn.Module):
    def __init__(self, in_features: int, out_features: int):
        super().__init__()
        self.network = nn.Sequential(
            nn.Flatten(), nn.Linear(in_features, 32), nn.ReLU(), nn.Linear(32, out_features)
        )

    def forward(self, obs: Tensor) -> Tensor:
        return self.network(obs)


class Learner(MLP):
    """One with a loss of its own."""

    def learn(self, replay: Any, log: Any) -> Tensor:
        batch = next(replay)
        log.rows = len(batch)
        return F.cross_entropy(self(batch.obs), batch.label)


@pytest.fixture(autouse=True)
def _here(workdir: Path) -> None:
    """Every test in a folder of its own."""


def run(*words: str, model: Any = MLP, **settings: Any) -> Run:
    return ml(*words, model=model, **SHORT | settings)


def weights(finished: Run) -> Tensor:
    return torch.cat([p.detach().flatten() for p in finished.agent.parameters()])


def refused(*words: str, says: list[str], **settings: Any) -> str:
    with pytest.raises(ConfigError) as raised:
        run(*words, **settings)
    message = str(raised.value)
    assert all(text in message for text in says), message
    assert not Path("runs").exists()
    return message


# --------------------------------------------------------------------------------- how it is said


def test_a_name_a_class_an_object_and_words_are_the_same_strategy() -> None:
    said: list[tuple[tuple[str, ...], dict[str, Any]]] = [
        (("strategy=er", "strategy.capacity=40"), {}),
        (("strategy=er", "strategy.er.capacity=40"), {}),
        (("strategy=[er]", "strategy.er.capacity=40"), {}),
        ((), {"strategy": "er", "strategy.capacity": 40}),
        ((), {"strategy": ["er"], "strategy.er.capacity": 40}),
        ((), {"strategy": {"_target_": ER, "capacity": 40}}),
        ((), {"strategy": ER(capacity=40)}),
        ((), {"strategy": [ER(capacity=40)]}),
    ]
    ends = [weights(run(*words, **settings)) for words, settings in said]
    assert all(torch.equal(ends[0], end) for end in ends)
    assert not torch.equal(ends[0], weights(run(strategy="er", **{"strategy.capacity": 80})))


def test_a_folder_with_the_name_of_a_strategy_is_none() -> None:
    Path("er").mkdir()  # Of runs with it, for example.
    for strategy in ("er", ["er"]):
        (found,) = named_objects(compose((), {"strategy": strategy}), "strategy")
        assert found.target is ER
    assert unresolved(compose((), {"strategy": "er"})) == []


def test_a_folder_with_a_strange_name_is_a_mistake_in_the_name() -> None:
    Path("erx").mkdir()
    refused("strategy=erx", says=["No strategy `erx`"])


def test_arguments_in_a_list_go_to_the_strategy_they_name() -> None:
    words = ["strategy=[er,ewc]", "strategy.er.capacity=500", "strategy.ewc.importance=1e3"]
    assert compose(words, {}).values["strategy"] == [
        {"_target_": "er", "capacity": 500},
        {"_target_": "ewc", "importance": 1000.0},
    ]


def test_a_name_in_the_console_replaces_the_one_in_code_with_its_arguments() -> None:
    composed = compose(["strategy=si"], {"strategy": "er", "strategy.capacity": 40})
    assert composed.values["strategy"] == {"_target_": "si"}


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["strategy=erx"], ["No strategy `erx`", "`er`", "ml strategies"]),
        (["strategy=er", "strategy.capacit=4"], ["`capacit`", "Did you mean `capacity`?"]),
        (["strategy=[er,si]", "strategy.capacity=4"], ["`strategy` is a list", "strategy.er."]),
        (["strategy=[er,si]", "strategy.ewc.importance=4"], ["`strategy` is a list"]),
        (["strategy=[er,er]"], ["er is given twice"]),
        (["strategy=er", "strategy.policy=fifo"], ["fifo", "reservoir"]),
    ],
)
def test_a_wrong_word_is_refused_with_what_would_be_right(
    words: list[str], says: list[str]
) -> None:
    refused(*words, says=says)


def test_a_strategy_that_needs_labels_is_refused_in_an_environment() -> None:
    with pytest.raises(ConfigError, match="strategy=er is not available in environments"):
        ml(env="CartPole-v1", model="Random", strategy="er", progress=False, train_steps=10)


# ------------------------------------------------------------------------------------- the hooks


class Recorder:
    """Any class with any of the hooks, here all of them."""

    def __init__(self) -> None:
        self.seen: list[Any] = []

    def begin_task(self, agent: nn.Module, replay: Any) -> None:
        self.seen.append(("begin", replay.task))

    def end_task(self, agent: nn.Module, replay: Any) -> None:
        rows = sum(len(batch) for batch in replay.once())
        self.seen.append(("end", replay.task, rows == len(replay)))

    def before_batch(self, agent: nn.Module, batch: Batch) -> Batch:
        self.seen.append("before")
        self.given = batch
        return Batch(**batch)

    def after_loss(self, agent: nn.Module, batch: Batch, loss: Tensor) -> Tensor:
        assert batch.obs is self.given.obs
        assert loss.requires_grad
        assert all(p.grad is None or self.seen for p in agent.parameters())
        self.seen.append("loss")
        return loss

    def after_backward(self, agent: nn.Module) -> None:
        assert all(p.grad is not None for p in agent.parameters())
        self.before = [p.detach().clone() for p in agent.parameters()]
        self.seen.append("backward")

    def after_step(self, agent: nn.Module, batch: Batch) -> None:
        moved = [
            not torch.equal(a, b) for a, b in zip(self.before, agent.parameters(), strict=True)
        ]
        assert any(moved)
        self.seen.append("step")


@pytest.mark.parametrize("model", [MLP, Learner])
def test_every_hook_is_called_in_its_place(model: Any) -> None:
    recorder = Recorder()
    run(strategy=recorder, model=model, train_steps=2, epochs=None)
    step = ["before", "loss", "backward", "step"]
    assert recorder.seen == [
        entry for task in range(5) for entry in [("begin", task), *step, *step, ("end", task, True)]
    ]


def test_hooks_that_do_nothing_change_nothing() -> None:
    assert torch.equal(weights(run(strategy=Recorder())), weights(run()))


def test_naive_is_no_strategy_at_all() -> None:
    assert torch.equal(weights(run(strategy="naive")), weights(run()))


class Doubled:
    def after_loss(self, agent: nn.Module, batch: Batch, loss: Tensor) -> Tensor:
        return 2 * loss


class Frozen:
    def after_backward(self, agent: nn.Module) -> None:
        for parameter in agent.parameters():
            parameter.grad = torch.zeros_like(parameter)


class Constant:
    def predict(self, agent: nn.Module, obs: Tensor, task: int | None) -> Tensor:
        return F.one_hot(torch.full((len(obs),), 3), 10).float()


def test_a_loss_can_be_changed() -> None:
    doubled, plain = (run(strategy=s, train_steps=1, epochs=None) for s in (Doubled(), None))
    losses = [
        next(row["loss"] for row in r.history if row["mode"] == "train") for r in (doubled, plain)
    ]
    assert losses[0] == pytest.approx(2 * losses[1])


def test_gradients_can_be_changed() -> None:
    torch.manual_seed(0)
    model = MLP(64, 10)
    before = torch.cat([p.detach().flatten().clone() for p in model.parameters()])
    assert torch.equal(weights(run(strategy=Frozen(), model=model, optim="SGD")), before)


def test_inference_can_be_replaced() -> None:
    finished = run(strategy=Constant(), eval_future=True)
    expected = np.zeros((5, 5))
    share = finished.accuracy_matrix[0, 1]
    expected[:, 1] = share
    assert 0.3 < share < 0.7
    assert np.array_equal(finished.accuracy_matrix, expected)


class Told:
    """Answers the first class of the task it is told, or of the last one."""

    def __init__(self) -> None:
        self.asked: set[int | None] = set()

    def predict(self, agent: nn.Module, obs: Tensor, task: int | None) -> Tensor:
        self.asked.add(task)
        label = 8 if task is None else 2 * task
        return F.one_hot(torch.full((len(obs),), label), 10).float()


class ToldIfItMay(Told):
    task_aware = True


def test_inference_is_told_the_task_of_the_rows() -> None:
    told = Told()
    matrix = run(strategy=told, eval_future=True).accuracy_matrix
    assert told.asked == {0, 1, 2, 3, 4}
    assert ((matrix > 0.3) & (matrix < 0.7)).all()


def test_what_depends_on_the_task_is_not_told_it_for_class_il() -> None:
    told = ToldIfItMay()
    finished = run(strategy=told, eval_future=True)
    assert told.asked == {None, 0, 1, 2, 3, 4}
    assert not finished.accuracy_matrix[:, :4].any()  # All is taken for an 8.
    assert ((finished.task_il_matrix > 0.3) & (finished.task_il_matrix < 0.7)).all()


class Counter(nn.Module):
    """Counts its forwards while it learns."""

    def __init__(self, in_features: int, out_features: int):
        super().__init__()
        self.layer = nn.Linear(in_features, out_features)
        self.forwards = 0

    def forward(self, obs: Tensor) -> Tensor:
        self.forwards += self.training
        return self.layer(obs.flatten(1))


class Asks(ER):
    """Asks for the outputs of the batch that has just been learnt, and for those of others."""

    def before_batch(self, agent: nn.Module, batch: Batch) -> Batch:
        return batch

    def after_loss(self, agent: nn.Module, batch: Batch, loss: Tensor) -> Tensor:
        known = self.context.logits(batch.obs)
        assert known.requires_grad
        assert F.cross_entropy(known, batch.label) == loss
        other = self.context.logits(batch.obs.clone())
        assert torch.equal(other, known)
        assert self.context.loss(batch) == loss
        assert self.context.logits(batch.obs) is known
        return loss

    def after_step(self, agent: nn.Module, batch: Batch) -> None:
        assert not torch.equal(self.context.logits(batch.obs), self.known_of(batch))

    def known_of(self, batch: Batch) -> Tensor:
        return torch.zeros(len(batch), 10)


def test_outputs_of_the_step_are_known_without_a_second_forward() -> None:
    finished = run(
        strategy=Asks(), model=Counter, train_steps=3, epochs=None, tasks=1, scenario=None
    )
    # Of each step: the model's own, the clone's, the loss's, and the one after the step.
    assert finished.agent.forwards == 3 * 4


class UpdatesItself(MLP):
    def __init__(self, in_features: int, out_features: int):
        super().__init__(in_features, out_features)
        self.optim = torch.optim.SGD(self.parameters(), lr=0.1)
        self.rows: list[int] = []

    def learn(self, replay: Any) -> None:
        batch = next(replay)
        self.rows.append(len(batch))
        self.optim.zero_grad()
        F.cross_entropy(self(batch.obs), batch.label).backward()
        self.optim.step()


def test_rehearsal_serves_a_model_that_updates_itself() -> None:
    finished = run(strategy="er", model=UpdatesItself, train_steps=3, epochs=None)
    assert finished.agent.rows[:3] == [16, 32, 32]


def test_a_penalty_cannot_serve_a_model_that_updates_itself() -> None:
    refused(
        says=["strategy=ewc works on the loss", "returned None"],
        strategy="ewc",
        model=UpdatesItself,
    )


class Observes:
    def observe(self, inputs: Tensor, labels: Tensor, not_aug_inputs: Tensor) -> float:
        self.rows = [*getattr(self, "rows", []), len(inputs)]
        self.opt.zero_grad()
        loss = self.loss(self.net(inputs), labels)
        loss.backward()
        self.opt.step()
        return loss.item()


def test_around_a_model_that_observes_rehearsal_works_and_a_penalty_is_refused() -> None:
    refused(
        says=["strategy=ewc works on the loss", "Observes.observe"], strategy="ewc", model=Observes
    )
    finished = run(strategy="er", model=Observes, train_steps=3, epochs=None)
    assert finished.agent.model.rows[:3] == [16, 32, 32]


def test_averaged_weights_are_only_of_a_model_that_returns_a_loss() -> None:
    plain, averaged = (run(*w, model=UpdatesItself) for w in ([], ["ema=0.99"]))
    assert torch.equal(weights(plain), weights(averaged))
    assert np.array_equal(plain.accuracy_matrix, averaged.accuracy_matrix, equal_nan=True)


def test_the_model_is_as_it_was_after_the_run() -> None:
    model = MLP(64, 10)
    run(strategy="er", model=model, scenario="task")
    assert not model._forward_hooks
    assert len(model(torch.zeros(3, 64)).unique()) > 2


# --------------------------------------------------------------------- what fits and what does not


@pytest.mark.parametrize(
    ("pair", "reason"),
    [
        (["er", "derpp"], "rows from their own memory"),
        (["gem", "agem"], "gradient"),
        (["icarl", "cwr"], "outputs"),
        (["pnn", "packnet"], "outputs"),
        (["joint", "cumulative"], "both choose the data"),
    ],
)
def test_two_that_conflict_are_refused_with_the_reason(pair: list[str], reason: str) -> None:
    refused(strategy=pair, says=[f"strategy={pair[0]}", f"strategy={pair[1]}", "conflict", reason])


def test_two_with_a_way_of_their_own_to_predict_conflict() -> None:
    refused(strategy=[Constant(), "icarl"], says=["Constant", "icarl", "outputs"])


@pytest.mark.parametrize("pair", [["er", "ewc"], ["er", "lwf"], ["derpp", "si"], ["er", "agem"]])
def test_two_that_touch_different_things_work_together(pair: list[str]) -> None:
    together = weights(run(strategy=pair))
    for one in pair:
        assert not torch.equal(together, weights(run(strategy=one)))


@pytest.mark.parametrize("name", ["ewc", "si", "lwf", "gem", "packnet", "pnn", "icarl", "joint"])
def test_a_strategy_that_needs_borders_is_refused_in_a_stream(name: str) -> None:
    refused("online=true", strategy=name, epochs=None, says=[f"strategy={name}", "online=true"])


@pytest.mark.parametrize("name", ["pnn", "packnet", "cwr"])
def test_weights_that_belong_to_a_task_are_not_averaged(name: str) -> None:
    refused("ema=0.9", strategy=name, says=[f"strategy={name}", "ema=0.9"])


def test_an_object_that_is_no_strategy_is_refused() -> None:
    refused(strategy=object(), says=["none of a strategy's hooks", "after_loss"])


class NoForward(nn.Module):
    def __init__(self, in_features: int, out_features: int):
        super().__init__()
        self.layer = nn.Linear(in_features, out_features)

    def act(self, obs: Tensor) -> Tensor:
        return self.layer(obs.flatten(1)).argmax(-1)

    def learn(self, replay: Any) -> Tensor:
        batch = next(replay)
        return F.cross_entropy(self.layer(batch.obs.flatten(1)), batch.label)


def test_a_strategy_that_calls_the_model_needs_a_forward() -> None:
    refused(strategy="lwf", model=NoForward, says=["strategy=lwf", "no `forward`"])
    run(strategy="er", model=NoForward)  # Which only adds rows.


@register("twice-the-loss")
class Registered(Doubled):
    """Named by its registration."""


class NoLayers(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(64, 10))

    def forward(self, obs: Tensor) -> Tensor:
        return obs.flatten(1) @ self.weight


def test_a_model_that_a_strategy_refuses_is_as_it_was() -> None:
    model = NoLayers()
    refused(strategy="icarl", model=model, says=["strategy=icarl", "no nn.Linear"])
    refused(strategy=["er", "derpp"], model=model, says=["conflict"])
    refused("ema=0.9", strategy="packnet", model=MLP(64, 10), says=["ema=0.9"])
    assert not model._forward_hooks


def test_a_strategy_of_ones_own_is_found_by_its_name() -> None:
    Path("mine.py").write_text(
        "class Mine:\n    def after_loss(self, agent, batch, loss):\n        return 2 * loss\n"
    )
    ends = [weights(run(strategy=s)) for s in ("Mine", "mine.py:Mine", "twice-the-loss", Doubled)]
    assert all(torch.equal(ends[0], end) for end in ends)


# ------------------------------------------------------------------------------------- scenarios


class Shown(MLP):
    """Keeps what it was shown while it learnt."""

    def __init__(self, in_features: int, out_features: int):
        super().__init__(in_features, out_features)
        self.outputs: list[Tensor] = []
        self.tasks: list[Tensor] = []
        self.labels: list[Tensor] = []

    def learn(self, replay: Any) -> Tensor:
        batch = next(replay)
        output = self(batch.obs)
        self.outputs.append(output.detach())
        self.tasks.append(batch.task)
        self.labels.append(batch.label)
        return F.cross_entropy(output, batch.label)


@pytest.mark.parametrize("strategy", [None, "er"])
def test_with_the_task_told_only_its_own_outputs_compete(strategy: str | None) -> None:
    model = run(
        scenario="task", model=Shown, strategy=strategy, class_order=[9, 0, 2, 1, 4, 3, 6, 5, 8, 7]
    ).agent
    order = torch.tensor([[9, 0], [2, 1], [4, 3], [6, 5], [8, 7]])
    outputs, tasks, labels = (
        torch.cat(rows) for rows in (model.outputs, model.tasks, model.labels)
    )
    competing = outputs.softmax(-1) > 0
    assert (competing.sum(-1) == 2).all()
    for task in range(5):
        assert (
            competing[tasks == task].nonzero()[:, 1].unique() == order[task].sort().values
        ).all()
    assert (order[tasks] == labels[:, None]).any(-1).all()
    if strategy:
        mixed = [len(rows.unique()) > 1 for rows in model.tasks]
        assert any(mixed)


def test_task_il_accuracy_is_of_the_classes_of_the_task_alone() -> None:
    finished = run(strategy=Constant(), eval_future=True)  # Always class 3, of task 1.
    told = finished.task_il_matrix
    assert told.shape == (5, 5)
    assert np.array_equal(told[:, 1], finished.accuracy_matrix[:, 1])
    # Where 3 may not be said, all other outputs are equal, and the first class of the task is.
    assert ((told[:, [0, 2, 3, 4]] > 0.3) & (told[:, [0, 2, 3, 4]] < 0.7)).all()


def test_metrics_are_those_of_the_matrices() -> None:
    finished = run(epochs=3)
    class_il, task_il = finished.accuracy_matrix, finished.task_il_matrix
    metrics = finished.metrics
    assert metrics["accuracy"] == pytest.approx(class_il[-1].mean())
    assert metrics["task_il_accuracy"] == pytest.approx(task_il[-1].mean())
    assert metrics["learning_accuracy"] == pytest.approx(np.diag(class_il).mean())
    assert metrics["bwt"] == pytest.approx(
        np.mean([class_il[-1, j] - class_il[j, j] for j in range(4)])
    )
    best = [class_il[j:4, j].max() - class_il[-1, j] for j in range(4)]
    assert metrics["forgetting"] == pytest.approx(np.mean(best))
    assert metrics["forgetting"] > 0.5  # Without a strategy.
    assert "fwt" in metrics
    scored = np.tri(5, 5, 1, dtype=bool)  # The tasks seen, and the next one.
    assert (task_il >= class_il)[scored].all()
    for matrix in (class_il, task_il):
        assert np.array_equal(np.isnan(matrix), ~scored)


def test_forward_transfer_is_against_the_untrained_model() -> None:
    finished = run(strategy=Constant())
    assert finished.metrics["fwt"] == 0  # It knows as much before as after.


def test_where_the_task_is_told_forward_transfer_is_of_the_told_accuracy() -> None:
    assert run(strategy=Constant(), scenario="task").metrics["fwt"] == 0


def test_where_the_task_is_told_forgetting_is_of_the_told_accuracy() -> None:
    finished = run(scenario="task", epochs=2)
    told = finished.task_il_matrix
    assert finished.metrics["learning_accuracy"] == pytest.approx(np.diag(told).mean())
    assert finished.metrics["accuracy"] == pytest.approx(finished.accuracy_matrix[-1].mean())


def test_joint_learns_everything_once() -> None:
    class Counts(Recorder):
        def after_step(self, agent: nn.Module, batch: Batch) -> None:
            self.tasks = [*getattr(self, "tasks", []), batch.task]

    counts = Counts()
    finished = run(strategy=["joint", counts], epochs=2, eval_future=True)
    tasks = torch.cat(counts.tasks)
    assert len(tasks) == 2 * sum(len(t.train) for t in _world().tasks)
    assert len(counts.tasks[0].unique()) > 2
    assert finished.metrics["accuracy"] > 0.6
    assert np.array_equal(finished.accuracy_matrix, np.tile(finished.accuracy_matrix[0], (5, 1)))


def test_joint_learns_once_by_steps_too() -> None:
    finished = run(strategy="joint", train_steps=7, epochs=None)
    assert [task["steps"] for task in finished.tasks] == [7, 0, 0, 0, 0]


def test_cumulative_learns_each_task_with_all_before() -> None:
    class Counts(Recorder):
        def after_step(self, agent: nn.Module, batch: Batch) -> None:
            self.tasks = [*getattr(self, "tasks", []), batch.task]

    counts = Counts()
    run(strategy=["cumulative", counts])
    sizes = torch.tensor([len(t.train) for t in _world().tasks])
    assert torch.equal(torch.cat(counts.tasks).bincount(), sizes * torch.tensor([5, 4, 3, 2, 1]))


def _world(**settings: Any) -> Any:
    from antelope.launcher.assembly.world import build_world
    from antelope.launcher.settings.plan import make_plan

    return build_world(make_plan(compose([], {"tasks": 5} | settings)))


# ----------------------------------------------------------------------------------------- streams


def test_a_stream_tells_no_task_and_passes_once() -> None:
    recorder = Recorder()
    finished = run("online=true", strategy=recorder, model=Shown, epochs=None, batch_size=None)
    assert not torch.cat(finished.agent.tasks).any()
    assert max(len(rows) for rows in finished.agent.tasks) == 10
    assert sum(map(len, finished.agent.tasks)) == sum(len(t.train) for t in _world().tasks)
    borders = [entry for entry in recorder.seen if isinstance(entry, tuple)]
    assert [entry[:2] for entry in borders] == [("begin", 0), ("end", 0)]
    assert finished.accuracy_matrix.shape == (5, 5)  # Measured all the same.
    classes = [tuple(rows.unique().tolist()) for rows in finished.agent.labels]
    assert classes[0] == (0, 1)  # Still one after another.


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["online=true", "epochs=3"], ["single pass", "epochs=3"]),
        (["online=true", "scenario=task", "epochs=1"], ["online=true", "scenario=task"]),
    ],
)
def test_a_stream_that_contradicts_itself_is_refused(words: list[str], says: list[str]) -> None:
    refused(*words, says=says)


def test_validation_rows_are_looked_at_in_mid_task_and_never_learnt() -> None:
    finished = run("validation=0.2", "eval_every=5", "early_stopping.patience=2", epochs=30)
    evals = [row for row in finished.history if row["mode"] == "eval"]
    before = [row for row in evals if "validation_accuracy" in row]
    after = [row for row in evals if "accuracy" in row]
    assert len(after) == 5
    assert len(before) > 5
    assert not any("accuracy" in row for row in before)
    assert finished.metrics["accuracy"] == pytest.approx(finished.accuracy_matrix[-1].mean())
    assert finished.history[-1]["step"] < 5 * 30 * 18  # Stopped before its time.


class Sizes:
    """Remembers how many rows it was asked about."""

    def __init__(self) -> None:
        self.asked: list[int] = []

    def predict(self, agent: nn.Module, obs: Tensor, task: int | None) -> Tensor:
        self.asked.append(len(obs))
        return agent(obs)


def test_evaluations_in_mid_task_are_of_the_rows_set_aside() -> None:
    sizes = Sizes()
    run("validation=0.2", "eval_every=4", strategy=sizes, train_steps=6, epochs=None, tasks=2)
    tasks = _world(tasks=2, validation=0.2).tasks
    apart, tested = ([len(getattr(t, part)) for t in tasks] for part in ("validation", "test"))
    assert not set(apart) & set(tested)
    # Before learning; at step 4; after the first task; at step 8; after the second.
    assert sizes.asked == [*tested, apart[0], *tested, *apart, *tested]


# ------------------------------------------------------------------------------ what is left of it


def test_memory_and_time_of_each_task_are_kept(capsys: pytest.CaptureFixture[str]) -> None:
    finished = run(strategy="er", **{"strategy.capacity": 50, "progress": True})
    assert len(finished.tasks) == 5
    row = 64 * 4 + 3 * 8  # obs, label, task, index.
    assert finished.tasks[-1]["memory_bytes"] >= 50 * row
    assert finished.tasks[-1]["memory_bytes"] < 50 * row + 40_000
    assert all(task["seconds"] > 0 for task in finished.tasks)
    assert json.loads((finished.path / "status.json").read_text())["tasks"] == finished.tasks
    shown = capsys.readouterr().out
    assert shown.count("class-IL") == shown.count("task-IL") == 5
    assert f"{finished.accuracy_matrix[2, 1]:.4f}" in shown
    assert f"{finished.task_il_matrix[3].tolist()[0]:.4f}" in shown
    assert "KiB" in shown


def test_where_tasks_share_outputs_there_is_one_accuracy(
    capsys: pytest.CaptureFixture[str],
) -> None:
    finished = run(scenario="domain", progress=True)
    assert finished.spec.action.n == 2
    shown = capsys.readouterr().out
    assert "class-IL" not in shown
    assert "task-IL" not in shown
    assert f"{finished.accuracy_matrix[3, 1]:.4f}" in shown


def test_pictures_of_both_matrices_are_drawn() -> None:
    finished = run(strategy="er", plot=True)
    drawn = {path.name for path in (finished.path / "plots").iterdir()}
    assert {"accuracy_matrix.png", "task_il_matrix.png", "tasks.png"} <= drawn
    assert "parameters.png" not in drawn
    shared = run(plot=True, scenario="domain", path="shared")
    assert not (shared.path / "plots" / "task_il_matrix.png").exists()
    packed = run(plot=True, strategy="packnet", path="packed")
    assert (packed.path / "plots" / "parameters.png").exists()


class Crash(Exception):
    """The model's own failure."""


class Crashes(MLP):
    at = 0  # The learning step in which it fails; 0: never.

    def __init__(self, in_features: int, out_features: int):
        super().__init__(in_features, out_features)
        self.calls = 0

    def learn(self, replay: Any) -> Tensor:
        batch = next(replay)
        if self.training and len(batch) > 1:
            self.calls += 1
        if self.calls == self.at:
            raise Crash
        return F.cross_entropy(self(batch.obs), batch.label)


RESUMED: list[tuple[Any, str]] = [
    *(
        (name, "class")
        for name in ("er", "er_ace", "der", "derpp", "ewc", "ewc_online", "si", "mas")
    ),
    *((name, "class") for name in ("lwf", "gem", "agem", "gdumb", "cwr", "icarl", "cumulative")),
    *((name, "task") for name in ("er", "ewc_online", "lwf", "pnn", "packnet")),
    (["er", "ewc"], "class"),
    (["derpp", "si"], "domain"),
]


@pytest.mark.parametrize(("strategy", "scenario"), RESUMED, ids=str)
def test_a_resumed_run_ends_as_if_it_had_never_stopped(
    strategy: Any, scenario: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"strategy": strategy, "model": Crashes, "save_every": 3, "scenario": scenario}
    if strategy == "gdumb":
        settings["strategy.passes"] = 4
    whole = run(path="whole", **settings)
    steps = whole.agent.calls
    monkeypatch.setattr(Crashes, "at", steps * 2 // 3)
    with pytest.raises(Crash):
        run(path="broken", **settings)
    monkeypatch.setattr(Crashes, "at", 0)
    state, _ = Checkpoints(Path("broken/checkpoints")).newest()
    assert state is not None
    assert state["progress"]["begun"]  # In the middle of a task, and not of the first.
    assert state["progress"]["task"] > 0
    resumed = run(path="broken", resume=True, **settings)
    assert torch.equal(weights(whole), weights(resumed))
    assert np.array_equal(whole.accuracy_matrix, resumed.accuracy_matrix, equal_nan=True)
    for name in ("train.csv", "eval.csv"):
        assert (whole.path / name).read_bytes() == (resumed.path / name).read_bytes()
    assert len(resumed.tasks) == 5


def test_a_finished_run_that_learns_for_longer_has_one_row_per_task() -> None:
    run(path="here", train_steps=5, epochs=None)
    longer = run(path="here", train_steps=9, epochs=None, resume=True)
    assert longer.accuracy_matrix.shape == longer.task_il_matrix.shape == (5, 5)
    assert len(longer.tasks) == 5


def test_a_run_is_not_continued_with_another_strategy() -> None:
    run(strategy="er", path="here")
    with pytest.raises(ConfigError, match="strategy"):
        run(strategy="derpp", path="here", resume=True)


def test_a_memory_of_a_users_strategy_is_saved_with_it() -> None:
    class Mine:
        def __init__(self) -> None:
            self.memory = Memory(30)

        def after_step(self, agent: nn.Module, batch: Batch) -> None:
            self.memory.add(batch)

    first, second = Mine(), Mine()
    run(strategy=first, path="here")
    run(strategy=second, path="here", resume=True)
    assert torch.equal(first.memory.all().index, second.memory.all().index)


def test_a_step_that_the_model_takes_itself_is_a_step() -> None:
    class Mine:
        def __init__(self) -> None:
            self.memory = Memory(30)

        def after_step(self, agent: nn.Module, batch: Batch) -> None:
            self.memory.add(batch)

    mine = Mine()
    run(strategy=mine, model=UpdatesItself)
    assert mine.memory.seen == sum(len(task.train) for task in _world().tasks)


def test_strategies_are_made_for_seeds_of_their_own() -> None:
    ends = [run(strategy="er", seed=seed, path=f"{seed}") for seed in (1, 2)]
    assert not torch.equal(*[weights(end) for end in ends])


def test_settings_of_ours_are_what_the_console_lists(capsys: pytest.CaptureFixture[str]) -> None:
    from antelope.launcher.commands import command

    listed = command(["strategies"])
    assert listed is not None
    listed()
    shown = capsys.readouterr().out
    assert all(name in shown for name in ("er", "derpp", "ewc_online", "packnet"))


def test_several_objects_are_told_apart_by_their_class() -> None:
    finished = run(strategy=[ER(capacity=40), EWC(importance=10.0), SI()])
    assert finished.metrics["accuracy"] > 0.2


# ------------------------------------------------------------------------ where the task is told


class Rows:
    """Keeps the rows of the output layer of the default agent as the first task leaves them."""

    def begin_task(self, agent: nn.Module, replay: Any) -> None:
        if replay.task == 0:
            self.before = output_rows(agent)

    def end_task(self, agent: nn.Module, replay: Any) -> None:
        if replay.task == 0:
            self.moved = (output_rows(agent) != self.before).any(1).tolist()


def output_rows(agent: nn.Module) -> Tensor:
    layers = [layer for layer in agent.modules() if isinstance(layer, nn.Linear)]
    return next(layer.weight.detach().clone() for layer in layers if layer.out_features == 10)


def test_the_default_agent_learns_the_outputs_of_the_task_alone() -> None:
    rows = Rows()
    settings = {**SHORT, "epochs": None, "train_steps": 2, "optim": "SGD"}
    ml(dataset="Digits", scenario="task", strategy=rows, **settings)
    assert rows.moved == [True] * 2 + [False] * 8


class ByName(MLP):
    def learn(self, replay: Any) -> Tensor:
        batch = next(replay)
        return F.cross_entropy(self(obs=batch.obs), batch.label)

    def forward(self, obs: Tensor) -> Tensor:
        return self.network(obs)


def test_a_model_called_by_name_learns_the_outputs_of_the_task_alone() -> None:
    rows = Rows()
    run(scenario="task", strategy=rows, model=ByName, optim="SGD")
    assert rows.moved == [True] * 2 + [False] * 8


class OfParts(MLP):
    """Calls a part of itself, whose outputs cannot be hidden."""

    def learn(self, replay: Any) -> Tensor:
        batch = next(replay)
        return F.cross_entropy(self.network(batch.obs), batch.label)


def test_a_model_whose_outputs_cannot_be_hidden_is_warned_of() -> None:
    says = r"cannot hide the outputs of other tasks: OfParts\.learn never called self\(batch\.obs\)"
    with pytest.warns(UserWarning, match=says) as found:
        run(scenario="task", model=OfParts)
    assert len(found) == 1
    run(scenario="class", model=OfParts, path="other")  # Warnings are errors.


def test_so_it_is_where_a_strategy_hides_them() -> None:
    with pytest.warns(
        UserWarning, match=r"The strategy cannot hide the outputs of other tasks: OfParts"
    ):
        run(scenario="class", model=OfParts, strategy="packnet")


class OfItself(MLP):
    """Has an optimiser of its own, which it steps."""

    def __init__(self, in_features: int, out_features: int):
        super().__init__(in_features, out_features)
        self.optimiser = torch.optim.SGD(self.network.parameters(), 0.01)

    def learn(self, replay: Any) -> None:
        batch = next(replay)
        self.optimiser.zero_grad()
        F.cross_entropy(self(batch.obs), batch.label).backward()
        self.optimiser.step()


@pytest.mark.parametrize("strategy", ["pnn", "packnet", "cwr"])
def test_what_the_run_s_optimiser_has_to_train_is_refused_to_a_model_that_steps(
    strategy: str,
) -> None:
    with pytest.raises(ConfigError, match=rf"strategy={strategy} .*OfItself\.learn returned None"):
        run(model=OfItself, strategy=strategy)


class OfSixteenBits(MLP):
    def __init__(self, in_features: int, out_features: int):
        super().__init__(in_features, out_features)
        self.bfloat16()

    def forward(self, obs: Tensor) -> Tensor:
        return super().forward(obs.bfloat16())


@pytest.mark.parametrize("strategy", ["cwr", "ewc", "si"])
def test_weights_of_16_bits_stay_so(strategy: str) -> None:
    found = run(model=OfSixteenBits, strategy=strategy, tasks=2, classes_per_task=5)
    assert {weight.dtype for weight in found.agent.parameters()} == {torch.bfloat16}
    assert found.metrics["task_il_accuracy"] > 0.3


@pytest.mark.parametrize("scenario", ["class", "task"])
def test_the_scenario_s_own_accuracy_is_printed_first(
    scenario: str, capsys: pytest.CaptureFixture[str]
) -> None:
    run(scenario=scenario, tasks=2, classes_per_task=5, progress=True)
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    first = [line[0] for line in lines if line and line[0] in ("class-IL", "task-IL")]
    headline = next(line[0] for line in lines if line and "forgetting" in line)
    own = {"class": ("class-IL", "accuracy"), "task": ("task-IL", "task_il_accuracy")}[scenario]
    assert (first[0], headline) == own
