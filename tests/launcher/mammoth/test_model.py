"""How Mammoth's models are run: what they are told, which rows they learn, what begins again with a task."""

from __future__ import annotations

import copy
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from antelope import ConfigError, ml
from antelope.launcher.mammoth import (
    Buffer,
    ContinualModel,
    add_rehearsal_args,
    fill_buffer,
    get_backbone,
    get_dataset,
    get_device,
    icarl_replay,
    load_runner,
    register_model,
    train,
)
from antelope.replay import Replay, Space, Standardize, Table

ARGS: dict[str, Any] = {"lr": 0.1, "n_epochs": 1, "batch_size": 64}
QUIET: dict[str, Any] = {"progress": False, "plot": False}
RUN: dict[str, Any] = {"dataset": "Digits", "tasks": 5, "epochs": 1, "batch_size": 64, **QUIET}


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


class Plain(ContinualModel):
    """Learns each batch, and can be told apart by what it notes."""

    def observe(self, inputs, labels, not_aug_inputs, epoch=None):  # type: ignore[no-untyped-def]
        self.opt.zero_grad()
        loss = self.loss(self.net(inputs), labels)
        loss.backward()
        self.opt.step()
        return loss.item()


# ------------------------------------------------------------------------------------- counters


def test_a_constructor_knows_the_sequence_before_the_first_task() -> None:
    class Early(Plain):
        def __init__(self, backbone, loss, args, transform):  # type: ignore[no-untyped-def]
            super().__init__(backbone, loss, args, transform)  # The dataset is not passed on.
            self.known = [self.cpt, self.n_tasks, self.N_TASKS, self.num_classes, self.N_CLASSES]
            self.before = [self.current_task, self.n_past_classes, self.n_seen_classes]
            self.asked = get_dataset(args), get_device(), self.get_offsets(3), self.SETTING
            self.spare = get_backbone(args).requires_grad_(False)

    agent = ml(model=Early, **RUN).agent
    assert agent.known == [2, 5, 5, 10, 10]
    assert agent.before == [0, -1, -1]
    assert agent.asked == (agent.dataset, torch.device("cpu"), (6, 8), "class-il")
    assert type(agent.spare) is type(agent.net)
    assert agent.spare is not agent.net
    with pytest.raises(ConfigError, match="needs the args that a model receives"):
        get_dataset(Namespace(dataset="seq-mnist"))


def test_iterations_are_counted_in_each_task_and_pass() -> None:
    counted: list[tuple[int, int, int]] = []

    class Counting(Plain):
        def observe(self, *arguments, **named):  # type: ignore[no-untyped-def]
            counted.append((self.current_task, self.task_iteration, self.epoch_iteration))
            return super().observe(*arguments, **named)

    settings = {**RUN, "tasks": 2, "epochs": 2, "batch_size": 300}
    run = ml(model=Counting, **settings)
    first = [at for at in counted if at[0] == 0]
    per_pass = len(first) // 2
    assert first == [(0, n, n % per_pass) for n in range(2 * per_pass)]
    assert counted[len(first)] == (1, 0, 0)
    del counted[:]
    ml(model=run.agent, **settings, path="again")  # They start again with the next run.
    assert counted[: len(first)] == first


def test_arguments_by_place_are_those_of_mammoth() -> None:
    seen: list[Any] = []

    class Any_(Plain):
        def observe(self, *args, **kwargs):  # type: ignore[no-untyped-def]
            seen.append(([x.dtype for x in args], sorted(kwargs)))
            return 0.0

    ml(model=Any_, **RUN)
    assert seen[0] == ([torch.float32, torch.int64, torch.float32], ["epoch"])


def test_so_they_are_in_hooks_and_without_keywords() -> None:
    seen: dict[str, Any] = {}

    class Placed(Plain):
        def observe(self, *args):  # type: ignore[no-untyped-def]
            seen["observe"] = len(args)
            return 0.0

        def begin_task(self, *args):  # type: ignore[no-untyped-def]
            seen["begin_task"] = args

        def begin_epoch(self, *args, **kwargs):  # type: ignore[no-untyped-def]
            seen["begin_epoch"] = args, sorted(kwargs)

        def end_task(self, **kwargs):  # type: ignore[no-untyped-def]
            seen["end_task"] = sorted(kwargs)

    dataset = ml(model=Placed, **RUN).agent.dataset
    assert seen == {
        "observe": 3,
        "begin_task": (dataset,),
        "begin_epoch": ((0, dataset), ["replay", "task"]),
        "end_task": ["dataset", "epoch", "replay", "task"],
    }


def test_what_mammoth_has_for_every_model_is_in_args() -> None:
    agent = ml(model=Plain, **RUN).agent
    args = agent.args
    assert (args.debug_mode, args.lr_scheduler, args.start_from) == (False, None, None)
    assert agent.get_debug_iters() == 5
    assert "sequence" not in vars(args)
    copied = copy.deepcopy(agent)
    assert get_dataset(copied.args) is agent.dataset
    assert type(get_backbone(copied.args)) is type(agent.net)


def test_a_loss_can_be_asked_for_without_reduction() -> None:
    class Each(Plain):
        def observe(self, inputs, labels, not_aug_inputs, epoch=None):  # type: ignore[no-untyped-def]
            each = self.loss(self.net(inputs), labels, reduction="none")
            assert torch.allclose(each, F.cross_entropy(self.net(inputs), labels, reduction="none"))
            return each.mean().item()

    assert ml(model=Each, **RUN).metrics


def test_scores_after_a_task_are_given_to_end_eval() -> None:
    told: list[Any] = []

    class Told(Plain):
        def end_eval(self, dataset, accs):  # type: ignore[no-untyped-def]
            told.append((self.current_task, [len(each) for each in accs], accs[0]))

    run = ml(model=Told, **{**RUN, "tasks": 2})
    assert [each[:2] for each in told] == [(0, [1, 1]), (1, [2, 2])]
    assert told[1][2] == pytest.approx([100 * x for x in run.accuracy_matrix[1]], abs=1e-3)


def test_methods_that_are_not_called_are_an_error() -> None:
    class Wrapped(Plain):
        def meta_observe(self, *args, **kwargs):  # type: ignore[no-untyped-def]
            return 0.0

    with pytest.raises(
        ConfigError, match=r"meta_observe is never called. Move its code into observe"
    ):
        ml(model=Wrapped, **RUN)


def test_a_model_that_sets_its_epochs_says_so() -> None:
    class Once(Plain):
        def __init__(self, backbone, loss, args, transform, dataset=None):  # type: ignore[no-untyped-def]
            args.n_epochs = 1
            super().__init__(backbone, loss, args, transform, dataset=dataset)

    assert ml(model=Once, **RUN).metrics
    with pytest.raises(ConfigError, match=r"Once sets n_epochs=1 itself"):
        ml(model=Once, **{**RUN, "epochs": 3})


# ------------------------------------------------------------------------- optimisers, schedules


def test_the_optimiser_begins_again_with_each_task() -> None:
    held: list[int] = []

    class Looking(Plain):
        def begin_task(self, dataset):  # type: ignore[no-untyped-def]
            held.append(len(self.opt.state))

        def end_task(self, dataset):  # type: ignore[no-untyped-def]
            held.append(len(self.opt.state))

    ml(model=Looking, optim="SGD", **{"optim.momentum": 0.9}, **{**RUN, "tasks": 2})
    assert held == [0, 6, 0, 6]


@pytest.mark.parametrize(("mode", "steps"), [("epoch", 2), ("iter", 6)])
def test_a_scheduler_of_the_models_own_is_stepped(mode: str, steps: int) -> None:
    class Own(Plain):
        def begin_task(self, dataset):  # type: ignore[no-untyped-def]
            if self.current_task == 0:
                self.kept = self.opt
                self.custom_scheduler = torch.optim.lr_scheduler.StepLR(self.opt, 1, gamma=0.5)
            self.args.scheduler_mode = mode

    agent = ml(model=Own, lr=1.0, **{**RUN, "tasks": 1, "epochs": 2, "batch_size": 480}).agent
    assert agent.opt is agent.kept
    assert agent.opt.param_groups[0]["lr"] == 0.5**steps


# ------------------------------------------------------------------------------ rows of the task


@register_model("test-replaying")
class Replaying(Plain):
    """Learns the rows of its memory among those of each task, as iCaRL and BiC do."""

    val_set_split = 0.0

    @staticmethod
    def get_parser(parser):  # type: ignore[no-untyped-def]
        add_rehearsal_args(parser)
        return parser

    def __init__(self, backbone, loss, args, transform, dataset=None):  # type: ignore[no-untyped-def]
        super().__init__(backbone, loss, args, transform, dataset=dataset)
        self.buffer = Buffer(self.args.buffer_size)
        self.seen: list[list[int]] = []

    def begin_task(self, dataset):  # type: ignore[no-untyped-def]
        self.seen.append([])
        icarl_replay(self, dataset, val_set_split=self.val_set_split)

    def observe(self, inputs, labels, not_aug_inputs, epoch=None):  # type: ignore[no-untyped-def]
        assert 0 <= float(not_aug_inputs.min()) <= float(not_aug_inputs.max()) <= 1
        self.seen[-1] += labels.tolist()
        return super().observe(inputs, labels, not_aug_inputs, epoch=epoch)

    def end_task(self, dataset):  # type: ignore[no-untyped-def]
        fill_buffer(self.buffer, dataset, self.current_task)


@pytest.mark.parametrize("order", [None, [3, 1, 4, 0, 5, 9, 2, 6, 8, 7]])
def test_rows_of_a_memory_are_learnt_with_those_of_the_task(order: list[int] | None) -> None:
    settings = {**RUN, "model.buffer_size": 100, "class_order": order, "epochs": 2, "lr": 0.1}
    run = ml(model=Replaying, **settings)
    agent = run.agent
    for task, labels in enumerate(agent.seen):
        counts = torch.tensor(labels).bincount()
        assert len(counts) == 2 * task + 2
        # Each pass has as many rows of each earlier class as the memory had.
        assert set(counts[: 2 * task].tolist()) <= {2 * (100 // max(2 * task, 1))}
        assert int(counts[-2:].min()) > 200
    assert agent.buffer.labels.bincount().tolist() == [10] * 10
    assert run.metrics["accuracy"] > 0.45  # It is 0.2 where a task's own rows alone are learnt.
    # What the memory holds is what the data set has: nothing was rounded on the way.
    rows = run.agent.buffer.examples * 16
    assert torch.allclose(rows, rows.round(), atol=1e-4)


def test_some_rows_are_kept_to_validate_with() -> None:
    class Validating(Replaying):
        val_set_split = 0.5
        sizes: list[tuple[int, int]] = []  # noqa: RUF012

        def end_task(self, dataset):  # type: ignore[no-untyped-def]
            if self.current_task > 0:
                labels = torch.cat([data[1] for data in self.val_loader])
                past = int((labels < self.n_past_classes).sum())
                self.sizes.append((past, len(labels) - past))
                assert len(labels) == len(self.val_loader.dataset)
                assert len(self.seen[-1]) == len(dataset.train_loader.dataset)
            super().end_task(dataset)

    ml(model=Validating, **RUN, **{"model.buffer_size": 100})
    assert len(Validating.sizes) == 4
    assert all(past == new > 20 for past, new in Validating.sizes)


def test_a_memory_is_filled_by_herding_with_logits() -> None:
    class Herding(Replaying):
        def end_task(self, dataset):  # type: ignore[no-untyped-def]
            fields = ["examples", "labels", "logits"]
            fill_buffer(
                self.buffer,
                dataset,
                self.current_task,
                net=self.net,
                use_herding=True,
                required_attributes=fields,
                normalize_features=True,
            )
            examples, labels, logits = self.buffer.get_all_data()
            assert torch.allclose(
                logits[-1:], torch.sigmoid(self.net(self.normalization_transform(examples[-1:])))
            )
            if self.current_task == 0:
                self.first = examples[labels == 0]
                rows = dataset.train_loader.dataset
                every = torch.arange(len(rows))[rows.targets == 0]
                inputs = self.normalization_transform(rows.read(every)[2])
                features = F.normalize(self.net(inputs, returnt="features"), dim=1)
                mean, chosen = features.mean(0), []
                for k in range(1, 6):
                    so_far = features[chosen].sum(0)
                    distance = (mean - (so_far + features) / k).norm(dim=1)
                    distance[chosen] = torch.inf
                    chosen.append(int(distance.argmin()))
                assert torch.equal(rows.read(every[chosen])[2], self.first[:5])

    agent = ml(model=Herding, **RUN, **{"model.buffer_size": 50}).agent
    held = agent.buffer.examples[agent.buffer.labels == 0]
    assert torch.equal(held, agent.first[:5])  # The best ones stay when room gets scarce.
    with pytest.raises(ConfigError, match="herding and logits need net="):
        fill_buffer(Buffer(4), agent.dataset, 0, use_herding=True)


def test_a_field_that_a_model_adds_to_the_rows_comes_to_observe() -> None:
    class Distilling(Plain):
        met = 0

        def begin_task(self, dataset):  # type: ignore[no-untyped-def]
            if self.current_task > 0:
                rows = dataset.train_loader.dataset
                sums = [rows[place][2].sum() for place in range(len(rows))]
                rows.logits = torch.stack(sums)[:, None]
                rows.extra_return_fields += ("logits",)

        def observe(self, inputs, labels, not_aug_inputs, logits=None, epoch=None):  # type: ignore[no-untyped-def]
            assert (logits is None) == (self.current_task == 0)
            if logits is not None:
                self.met += 1
                assert torch.allclose(logits[:, 0], not_aug_inputs.flatten(1).sum(1), atol=1e-4)
            return super().observe(inputs, labels, not_aug_inputs, epoch=epoch)

    assert ml(model=Distilling, **{**RUN, "tasks": 2}).agent.met > 5


def test_a_run_stopped_among_replaced_rows_continues_exactly(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    args = {**ARGS, **QUIET, "n_epochs": 2, "buffer_size": 60, "save_every": 2}
    args |= {"optim_mom": 0.9, "lr": 0.02, "lr_scheduler": "cosine"}
    first, sequence = load_runner("test-replaying", "seq-digits", {**args, "path": "reference"})
    reference = train(first, sequence)

    class Crash(Exception):
        pass

    calls = 0
    inner = Replaying.observe

    def observe(
        self: Any, inputs: Tensor, labels: Any, not_aug_inputs: Any, epoch: Any = None
    ) -> Any:
        nonlocal calls
        calls += 1
        if calls == 17:  # In the second task, whose rows were replaced.
            raise Crash
        return inner(self, inputs, labels, not_aug_inputs, epoch=epoch)

    monkeypatch.setattr(Replaying, "observe", observe)
    args["path"] = "run"
    with pytest.raises(Crash):
        train(*load_runner("test-replaying", "seq-digits", args))
    second, sequence = load_runner("test-replaying", "seq-digits", args)
    run = train(second, sequence, {"resume": True})
    for key, weight in first.state_dict().items():
        assert torch.equal(second.state_dict()[key], weight), key
    assert (run.path / "train.csv").read_bytes() == (reference.path / "train.csv").read_bytes()
    assert first.seen[2:] == second.seen[2:]


def test_rows_that_take_the_place_of_a_tasks_are_not_altered_again() -> None:
    rows = torch.arange(6.0)[:, None]
    table = Table(obs=rows, label=torch.zeros(6, dtype=torch.int64))
    space = Space((1,), torch.float32, low=0.0, high=1.0)
    replay = Replay(
        table,
        Standardize(space, standardize=False),
        batch_size=4,
        tasks=[torch.arange(3), torch.arange(3, 6)],
        task_transform=lambda obs, task: obs + 100,
    )
    replay.begin(1)
    replay.replace(
        Table(obs=rows[:5] + 100, label=torch.zeros(5, dtype=torch.int64), more=torch.arange(5))
    )
    assert (len(replay), replay.batches_per_epoch) == (5, 2)
    batches = [next(replay), next(replay)]
    assert sorted(float(x) for b in batches for x in b.obs) == [100, 101, 102, 103, 104]
    assert all(torch.equal(b.obs[:, 0] - 100, b.more.float()) for b in batches)
    assert replay.passes == 1
    replay.begin(0)
    assert sorted(float(x) for x in next(replay).obs) == [100, 101, 102]
    assert "more" not in replay.batch
