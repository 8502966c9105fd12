"""A task's rows, as models written for Mammoth read and replace them."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from antelope import ConfigError, ml
from antelope.launcher.mammoth import (
    ContinualDataset,
    ContinualModel,
    load_runner,
    register_model,
    train,
)

QUICK: dict[str, Any] = {"dataset": "Digits", "tasks": 5, "train_steps": 4, "batch_size": 16}
COLOUR = (
    np.random.default_rng(0).integers(0, 256, (80, 3, 8, 8)).astype(np.uint8),
    np.arange(80) % 4,
)


@pytest.fixture(autouse=True)
def _quiet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def run(model: type, **settings: Any) -> Any:
    return ml(**{"model": model, "progress": False, "plot": False, **QUICK, **settings})


class Plain(ContinualModel):
    """Learns what comes."""

    NAME = "plain"
    COMPATIBILITY = ("class-il", "domain-il", "task-il", "general-continual")

    def observe(self, inputs: Tensor, labels: Tensor, not_aug_inputs: Tensor) -> float:  # type: ignore[override]
        self.opt.zero_grad()
        loss: Tensor = self.loss(self.net(inputs), labels)
        loss.backward()
        self.opt.step()
        return loss.item()


def during(check: Any, **settings: Any) -> Any:
    """A run in which `check(model, dataset)` is called as each task begins."""
    looked: list[int] = []

    class Looks(Plain):
        def begin_task(self, dataset: ContinualDataset) -> None:
            looked.append(dataset.c_task)
            check(self, dataset)

    made = run(Looks, **settings)
    assert looked
    return made


# ------------------------------------------------------------------------------- what can be read


def test_the_rows_of_a_task_are_there_as_stored_with_labels_in_the_order_of_the_tasks() -> None:
    order = [7, 3, 0, 1, 2, 4, 5, 6, 8, 9]

    def check(model: Any, dataset: ContinualDataset) -> None:
        rows = dataset.train_loader.dataset
        first = 2 * dataset.c_task
        assert isinstance(rows.data, Tensor)
        assert rows.data.dtype == torch.uint8
        assert rows.data.shape == (len(rows), 8, 8)
        assert rows.targets.unique().tolist() == [first, first + 1]
        table = model.dataset.replay.storage
        assert torch.equal(rows.data, table.columns["obs"][rows.indexes, 0])
        own = table.columns["label"][rows.indexes]
        assert torch.equal(torch.tensor(order)[rows.targets], own)
        assert torch.equal(rows.columns()["label"], own)

    during(check, class_order=order)


def test_colour_images_are_an_array_with_channels_last() -> None:
    def check(model: Any, dataset: ContinualDataset) -> None:
        rows = dataset.train_loader.dataset
        assert isinstance(rows.data, np.ndarray)
        assert rows.data.shape == (len(rows), 8, 8, 3)
        stored = rows.columns()["obs"]
        assert stored.shape == (len(rows), 3, 8, 8)
        assert np.array_equal(stored.permute(0, 2, 3, 1).numpy(), rows.data)
        rows.data = rows.data[:6]
        rows.targets = rows.targets[:6]
        assert torch.equal(rows.columns()["obs"], stored[:6])

    during(check, dataset=COLOUR, tasks=2)


def test_an_item_is_what_the_model_meets_its_label_and_the_row_in_0_to_1() -> None:
    def check(model: Any, dataset: ContinualDataset) -> None:
        rows = dataset.train_loader.dataset
        met, label, row = rows[3]
        assert label == int(rows.targets[3])
        torch.testing.assert_close(row[0], rows.data[3] / 16.0)  # Digits go from 0 to 16.
        torch.testing.assert_close(dataset.get_normalization_transform()(row), met)
        torch.testing.assert_close(dataset.get_denormalization_transform()(met[None])[0], row)
        torch.testing.assert_close((row - dataset.MEAN[0]) / dataset.STD[0], met)
        batch = next(iter(DataLoader(rows, batch_size=5)))
        assert [part.shape for part in batch] == [(5, 1, 8, 8), (5,), (5, 1, 8, 8)]
        torch.testing.assert_close(batch[0][3], met)
        with pytest.raises(IndexError):
            rows[len(rows)]

    during(check)


def test_a_loader_augments_what_is_learnt_and_nothing_else() -> None:
    def check(model: Any, dataset: ContinualDataset) -> None:
        inputs, _, rows = next(iter(dataset.train_loader))
        torch.testing.assert_close(dataset.TEST_TRANSFORM(rows.flip(3)), inputs)
        held_out, labels = next(iter(dataset.test_loaders[0]))
        stored = dataset.test_loaders[0].dataset.data[: len(labels)]
        torch.testing.assert_close(dataset.TEST_TRANSFORM(stored[:, None] / 16.0), held_out)

    during(check, aug={"_target_": "RandomHorizontalFlip", "p": 1.0})


def test_a_task_has_one_loader_which_goes_on_when_later_tasks_are_learnt() -> None:
    kept: list[Any] = []

    def check(model: Any, dataset: ContinualDataset) -> None:
        assert dataset.train_loader is dataset.train_loader
        assert all(loader is not dataset.train_loader for loader in kept)
        kept.append(dataset.train_loader)
        for task, loader in enumerate(kept):
            labels = torch.cat([batch[1] for batch in loader])
            assert set(labels.tolist()) == {2 * task, 2 * task + 1}
            assert len(labels) == len(loader.dataset)

    during(check)


def test_held_out_rows_of_the_tasks_so_far() -> None:
    def check(model: Any, dataset: ContinualDataset) -> None:
        loaders = dataset.test_loaders
        assert len(loaders) == dataset.c_task + 1
        for task, loader in enumerate(loaders):
            batches = list(loader)
            assert all(len(batch) == 2 for batch in batches)
            labels = torch.cat([batch[1] for batch in batches])
            assert set(labels.tolist()) == {2 * task, 2 * task + 1}
            assert torch.equal(labels, loader.dataset.targets)

    during(check)


def test_rows_to_validate_with_take_the_place_of_test_rows() -> None:
    def check(model: Any, dataset: ContinualDataset) -> None:
        new, held_out = dataset.train_loader.dataset, dataset.test_loaders[-1].dataset
        assert not set(new.indexes.tolist()) & set(held_out.indexes.tolist())
        share = len(held_out) / (len(new) + len(held_out))
        assert 0.2 < share < 0.3
        assert held_out._table is new._table

    during(check, validation=0.25)


def test_altered_tasks_show_altered_rows() -> None:
    shown: list[Tensor] = []

    def check(model: Any, dataset: ContinualDataset) -> None:
        shown.append(dataset.train_loader.dataset.data)
        row = dataset.train_loader.dataset[0][2]
        torch.testing.assert_close(row[0], shown[-1][0] / 255.0)

    class Shifted(TensorDataset):
        def alterations(self, tasks: int = 2, seed: int = 0) -> Any:
            return [lambda obs: obs, lambda obs: obs.roll(3, -1)]

    rows = torch.randint(0, 256, (20, 1, 8, 8), dtype=torch.uint8)
    rows[:2] = torch.tensor([0, 255])[:, None, None, None]
    during(check, dataset=Shifted(rows, torch.arange(20) % 4), tasks=2)
    assert torch.equal(shown[1], shown[0].roll(3, -1))


def test_the_scores_of_evaluate_are_those_of_the_run() -> None:
    found: list[Any] = []

    class Evaluates(Plain):
        def end_task(self, dataset: ContinualDataset) -> None:
            self.net.train()
            found.append(dataset.evaluate(self, dataset))
            assert self.net.training
            last = dataset.evaluate(self, dataset, last=True, return_loss=True)
            assert last[:2] == ([found[-1][0][-1]], [found[-1][1][-1]])
            assert last[2] > 0

    made = run(Evaluates, train_steps=40)
    for task, (_, within) in enumerate(found):
        np.testing.assert_allclose(within, 100 * made.task_il_matrix[task][: task + 1])
    np.testing.assert_allclose(found[-1][0], 100 * made.accuracy_matrix[-1])


# ------------------------------------------------------------------------------- what is replaced


def test_what_is_changed_is_seen() -> None:
    def check(model: Any, dataset: ContinualDataset) -> None:
        rows = dataset.train_loader.dataset
        assert not rows.changed
        _ = rows.data, rows.targets
        assert not rows.changed
        other = copy.deepcopy(rows)
        other.data, other.targets = other.data[:5], other.targets[:5]
        assert (len(other), other.changed) == (5, True)
        assert not rows.changed
        if dataset.c_task == 0:
            rows.targets[0] = 1 - rows.targets[0]  # Written into, not assigned.
            assert rows.changed
            rows.targets[0] = 1 - rows.targets[0]
        assert not rows.changed

    during(check)


def test_rows_of_a_memory_take_the_form_of_the_data() -> None:
    def check(model: Any, dataset: ContinualDataset) -> None:
        rows = dataset.train_loader.dataset
        kept = torch.stack([rows[i][2] for i in range(4)])
        assert np.array_equal(np.asarray(rows.data_of(kept)), np.asarray(rows.data[:4]))

    during(check)
    during(check, dataset=COLOUR, tasks=2)


def test_a_field_that_is_added_comes_after_the_others() -> None:
    def check(model: Any, dataset: ContinualDataset) -> None:
        rows = dataset.train_loader.dataset
        rows.add_extra_return_field("brightness", rows.data.flatten(1).float().mean(1))
        assert rows.changed
        for _, _, row, brightness in dataset.train_loader:
            torch.testing.assert_close(row.flatten(1).mean(1) * 16, brightness)
        torch.testing.assert_close(rows.columns()["brightness"], rows.brightness)
        rows.extra_return_fields = ()

    during(check)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda rows: setattr(rows, "data", rows.data[:, :4]), r"rows of shape \[4, 8\]"),
        (lambda rows: setattr(rows, "data", rows.data / 16.0), r"data_of\(rows\)"),
        (lambda rows: setattr(rows, "targets", rows.targets[:3]), "3 in `targets`"),
        (lambda rows: setattr(rows, "targets", rows.targets + 10), "there are classes 0 to 9"),
        (lambda rows: rows.add_extra_return_field("more", torch.ones(3)), "more has 3 values"),
    ],
)
def test_rows_that_do_not_fit_are_refused(change: Any, words: str) -> None:
    def check(model: Any, dataset: ContinualDataset) -> None:
        change(dataset.train_loader.dataset)
        dataset.train_loader.dataset.columns()

    with pytest.raises(ConfigError, match=words):
        during(check)


def test_another_transform_holds_for_the_loader_and_is_not_forgotten_there() -> None:
    def check(model: Any, dataset: ContinualDataset) -> None:
        rows = dataset.train_loader.dataset
        usual, rows.transform = rows.transform, lambda row: row * 0
        assert not next(iter(dataset.train_loader))[0].any()
        with pytest.raises(ConfigError, match="transform was replaced"):
            _ = rows.changed
        rows.transform = usual

    during(check)


class Stopped(Exception):
    """The run's end, too early."""


class Holds(Plain):
    """Holds on to loaders, and learns some of the first task's rows again in every other."""

    calls, stop_at = 0, 0

    def __init__(self, *args: Any, **more: Any):
        super().__init__(*args, **more)
        self.loaders: list[Any] = []
        self.sizes: list[int] = []

    def begin_task(self, dataset: ContinualDataset) -> None:
        if dataset.c_task:
            rows, first = dataset.train_loader.dataset, self.loaders[0].dataset
            rows.data = torch.cat((rows.data, first.data[:9]))
            rows.targets = torch.cat((rows.targets, first.targets[:9]))

    def observe(self, inputs: Tensor, labels: Tensor, not_aug_inputs: Tensor) -> float:  # type: ignore[override]
        Holds.calls += 1
        if Holds.calls == Holds.stop_at:
            raise Stopped
        return super().observe(inputs, labels, not_aug_inputs)

    def end_task(self, dataset: ContinualDataset) -> None:
        self.loaders.append(dataset.train_loader)
        self.sizes.append(len(dataset.train_loader.dataset))


def test_loaders_and_replaced_rows_are_there_again_when_a_run_is_resumed() -> None:
    settings = {"train_steps": 6, "save_every": 1, "seed": 1}
    Holds.calls, Holds.stop_at = 0, 0
    whole = run(Holds, path="whole", **settings)
    Holds.calls, Holds.stop_at = 0, 16  # In the third task.
    with pytest.raises(Stopped):
        run(Holds, path="stopped", **settings)
    Holds.stop_at = 0
    resumed = run(Holds, path="stopped", resume=True, **settings)
    assert resumed.agent.sizes == whole.agent.sizes
    plain = [len(loader.dataset) for loader in whole.agent.loaders]
    assert whole.agent.sizes == plain
    for name in ("train.csv", "eval.csv"):
        assert (resumed.path / name).read_bytes() == (whole.path / name).read_bytes()


# ------------------------------------------------------------------------------- the sequence


def test_offsets_before_the_first_task_and_beyond_the_last() -> None:
    def check(model: Any, dataset: ContinualDataset) -> None:
        assert dataset.get_offsets(-1) == (0, 0)
        assert dataset.get_offsets(4) == (8, 10)
        assert dataset.get_offsets(5) == (10, 10)
        assert dataset.get_offsets() == (2 * dataset.c_task, 2 * dataset.c_task + 2)

    during(check)


def test_the_loss_takes_the_arguments_of_its_function() -> None:
    def check(model: Any, dataset: ContinualDataset) -> None:
        outputs, labels = torch.randn(3, 10), torch.tensor([1, 2, 3])
        each = model.loss(outputs, labels, reduction="none")
        assert each.shape == (3,)
        torch.testing.assert_close(each.mean(), model.loss(outputs, labels))

    during(check)


def test_class_names_come_in_the_order_of_the_tasks() -> None:
    def check(model: Any, dataset: ContinualDataset) -> None:
        assert dataset.class_names == ["3", "1", "0", "2"]

    during(check, dataset=COLOUR, tasks=2, class_order=[3, 1, 0, 2])


# ------------------------------------------------------------------------------- told the task


class Told(Plain):
    """Answers for the task that it is told, and for nothing else."""

    COMPATIBILITY = ("task-il",)

    def forward(self, x: Tensor, task_label: int) -> Tensor:  # type: ignore[override]
        first, end = self.dataset.get_offsets(task_label)  # type: ignore[union-attr]
        output: Tensor = self.net(x).clone()
        output[:, :first], output[:, end:] = -torch.inf, -torch.inf
        return output


def test_a_forward_that_asks_for_the_task_is_told_it() -> None:
    told = run(Told, scenario="task", train_steps=60)
    untold = run(Plain, scenario="task", train_steps=60)
    np.testing.assert_allclose(told.task_il_matrix[-1], untold.task_il_matrix[-1])
    # Not told, it is asked for each task's own classes: the same network's outputs.
    np.testing.assert_allclose(told.accuracy_matrix[-1], untold.accuracy_matrix[-1])


def test_a_runner_takes_the_scenario_that_a_model_is_for() -> None:
    register_model("told")(Told)
    args = {"lr": 0.1, "batch_size": 16, "n_epochs": 1, "progress": False, "plot": False}
    model, dataset = load_runner("told", "seq-digits", args)
    assert dataset.SETTING == "task-il"
    made = train(model, dataset)
    assert made.metrics["task_il_accuracy"] > made.metrics["accuracy"]
