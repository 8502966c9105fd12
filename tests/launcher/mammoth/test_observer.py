"""A class that only observes is trained unmodified, and given what it lacks."""

from __future__ import annotations

import copy
import functools
import re
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from antelope import CheckpointError, ConfigError, Diverged, ml
from antelope.launcher.mammoth.backbones import MammothBackbone, default_backbone
from antelope.launcher.mammoth.observer import Observer
from antelope.launcher.mammoth.options import Options
from antelope.launcher.mammoth.tasks.loaders import TaskLoader
from antelope.launcher.mammoth.tasks.sequence import ContinualDataset
from antelope.launcher.mammoth.tasks.transform import Transform
from antelope.launcher.record.checkpoint import Checkpoints
from antelope.launcher.record.state import load_weights
from antelope.replay import Space, Spec

QUICK: dict[str, Any] = {"tasks": 5, "epochs": 1, "progress": False, "plot": False}


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def step(model: Any, inputs: Tensor, labels: Tensor) -> float:
    """What most of these models do."""
    model.opt.zero_grad()
    loss = model.loss(model.net(inputs), labels)
    loss.backward()
    model.opt.step()
    return loss.item()


class Plain:
    """No module, no constructor, nothing but `observe`."""

    def observe(
        self, inputs: Tensor, labels: Tensor, not_aug_inputs: Tensor, epoch: int | None = None
    ) -> float:
        return step(self, inputs, labels)


class Module(nn.Module):
    """Everything asked for by name."""

    def __init__(self, backbone: Any, loss: Any, args: Any, transform: Any, dataset: Any = None):
        super().__init__()
        self.net, self.loss, self.args = backbone, loss, args
        self.transform, self.dataset = transform, dataset
        self.opt = torch.optim.SGD(self.net.parameters(), lr=args.lr)

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)

    def observe(self, inputs: Tensor, labels: Tensor, not_aug_inputs: Tensor) -> float:
        return step(self, inputs, labels)


# ------------------------------------------------------------------------------------- learning


def test_a_class_with_only_observe_learns() -> None:
    run = ml(model=Plain, **QUICK | {"epochs": 3})
    assert run.metrics["task_il_accuracy"] > 0.9
    assert run.accuracy_matrix[4].argmax() == 4  # And forgets, as it should.
    losses = [row["loss"] for row in run.history if row["mode"] == "train"]
    assert losses
    assert all(isinstance(loss, float) for loss in losses)
    assert isinstance(run.agent.model, Plain)
    assert run.agent(torch.zeros(3, 1, 8, 8)).shape == (3, 10)
    assert not run.agent.model.net.training


def test_a_module_that_observes_is_the_agent() -> None:
    run = ml(model=Module, **QUICK)
    assert type(run.agent) is Module
    assert not run.agent.training
    assert run.metrics["task_il_accuracy"] > 0.8


@pytest.mark.parametrize("model", [Plain, Module])
def test_it_learns_what_a_model_with_learn_does_to_the_bit(model: Any) -> None:
    class Same(nn.Module):
        def __init__(self, spec: Spec):
            super().__init__()
            self.net = default_backbone(spec)
            self.opt = torch.optim.SGD(self.net.parameters(), lr=0.1)

        def forward(self, obs: Tensor) -> Tensor:
            return self.net(obs)

        def learn(self, replay: Any, log: Any) -> None:
            batch = next(replay)
            self.opt.zero_grad()
            F.cross_entropy(self.net(batch.obs), batch.label).backward()
            self.opt.step()

    ours, same = ml(model=model, lr=0.1, **QUICK), ml(model=Same, **QUICK)
    net = ours.agent.model.net if model is Plain else ours.agent.net
    for name, weight in same.agent.net.state_dict().items():
        assert torch.equal(net.state_dict()[name], weight), name
    np.testing.assert_array_equal(ours.accuracy_matrix, same.accuracy_matrix)


def test_an_instance_is_trained_as_it_is() -> None:
    model = Plain()
    model.net = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))  # type: ignore[attr-defined]
    before = model.net[1].weight.clone()  # type: ignore[attr-defined]
    run = ml(model=model, **QUICK)
    assert run.agent.model is model
    assert not torch.equal(model.net[1].weight, before)  # type: ignore[attr-defined]


def test_a_function_may_make_it() -> None:
    def make() -> Plain:
        return Plain()

    assert isinstance(ml(model=make, **QUICK).agent.model, Plain)


def test_learn_comes_before_observe() -> None:
    class Both(nn.Module):
        def __init__(self, in_features: int, out_features: int):
            super().__init__()
            self.layer = nn.Linear(in_features, out_features)

        def forward(self, obs: Tensor) -> Tensor:
            return self.layer(obs.flatten(1))

        def learn(self, replay: Any) -> Tensor:
            batch = next(replay)
            return F.cross_entropy(self(batch.obs), batch.label)

        def observe(self, inputs: Tensor) -> float:
            raise AssertionError

    assert type(ml(model=Both, **QUICK).agent) is Both


# ---------------------------------------------------------------------- what observe is given


def test_only_the_parameters_that_observe_names_are_passed() -> None:
    class Few(Plain):
        def observe(self, labels: Tensor, inputs: Tensor, logits: Any = None) -> float:  # type: ignore[override]
            assert logits is None
            return step(self, inputs, labels)

    assert ml(model=Few, **QUICK).metrics["task_il_accuracy"] > 0.8


def test_observe_may_take_anything() -> None:
    seen = set()

    class Any_(Plain):
        def observe(self, **given: Any) -> float:  # type: ignore[override]
            seen.update(given)
            return step(self, given["inputs"], given["labels"])

    ml(model=Any_, **QUICK)
    assert seen == {"inputs", "labels", "not_aug_inputs", "epoch"}


def test_task_epoch_and_indexes_are_told() -> None:
    seen: list[tuple[Any, ...]] = []

    class Indexed(Plain):
        def observe(  # type: ignore[override]
            self, inputs: Tensor, labels: Tensor, task: int, indexes: Tensor, epoch: int
        ) -> float:
            seen.append((task, epoch, indexes, labels))
            return step(self, inputs, labels)

    run = ml(model=Indexed, **QUICK | {"epochs": 2})
    order = [(task, epoch) for task, epoch, _, _ in seen]
    assert list(dict.fromkeys(order)) == [(task, epoch) for task in range(5) for epoch in (0, 1)]
    stored = run.replay.storage.gather(torch.cat([indexes for _, _, indexes, _ in seen]))
    assert torch.equal(stored["label"], torch.cat([labels for *_, labels in seen]))


@pytest.mark.parametrize("standardize", [True, False])
@pytest.mark.parametrize("aug", [None, torch.flip])
def test_not_aug_inputs_are_the_stored_rows_between_0_and_1(standardize: bool, aug: Any) -> None:
    seen: list[tuple[Tensor, ...]] = []

    class Rows(Plain):
        def observe(  # type: ignore[override]
            self, inputs: Tensor, labels: Tensor, not_aug_inputs: Tensor, indexes: Tensor
        ) -> float:
            seen.append((not_aug_inputs, indexes, inputs))
            return step(self, inputs, labels)

    augment = None if aug is None else functools.partial(aug, dims=(-1,))
    settings = {"standardize": standardize} | ({} if augment is None else {"aug": augment})
    run = ml(model=Rows, **QUICK, **settings)
    rows, indexes, inputs = (torch.cat(part) for part in zip(*seen, strict=True))
    stored = run.replay.storage.gather(indexes)["obs"].float() / 16
    torch.testing.assert_close(rows, stored, rtol=0, atol=1e-6)
    assert rows.dtype == torch.float32
    assert rows.min() == 0
    assert 1 - 1e-6 < rows.max() <= 1
    # And the transform makes of them what the model met.
    torch.testing.assert_close(run.agent.model.transform(rows), inputs, rtol=0, atol=1e-4)


def test_rounding_does_not_lead_out_of_0_and_1() -> None:
    transform = ml(model=Plain, **QUICK).agent.model.transform
    ends = transform.normalise(torch.tensor([0.0, 1.0])) + torch.tensor([-1e-3, 1e-3])
    assert transform.undone(ends).tolist() == [0.0, 1.0]


def test_not_aug_inputs_of_an_altered_data_set_are_altered() -> None:
    class Rolled(torch.utils.data.Dataset):
        def __init__(self, train: bool = True):
            generator = torch.Generator().manual_seed(int(train))
            self.data = torch.randint(256, (60, 6), generator=generator).to(torch.uint8)
            self.targets = torch.arange(60) % 2

        def __len__(self) -> int:
            return 60

        def __getitem__(self, i: int) -> tuple[Tensor, int]:
            return self.data[i], int(self.targets[i])

        def alterations(self, tasks: int = 3, seed: int = 0) -> list[Any]:
            return [functools.partial(torch.roll, shifts=task, dims=-1) for task in range(tasks)]

    seen: dict[int, list[tuple[Tensor, Tensor]]] = {}

    class Rows(Plain):
        def observe(  # type: ignore[override]
            self, inputs: Tensor, labels: Tensor, not_aug_inputs: Tensor, indexes: Tensor, task: int
        ) -> float:
            seen.setdefault(task, []).append((not_aug_inputs, indexes))
            return step(self, inputs, labels)

    run = ml(model=Rows, dataset=Rolled, **QUICK | {"tasks": 3})
    assert sorted(seen) == [0, 1, 2]
    for task, parts in seen.items():
        rows, indexes = (torch.cat(part) for part in zip(*parts, strict=True))
        stored = run.replay.storage.gather(indexes)["obs"]
        low, high = (float(getattr(run.spec.obs, end)) for end in ("low", "high"))
        expected = (stored.roll(task, -1).float() - low) / (high - low)
        torch.testing.assert_close(rows, expected, rtol=0, atol=1e-6)


def test_a_parameter_that_is_not_to_be_had_is_an_error_before_the_first_batch() -> None:
    class Needy(Plain):
        called = False

        def observe(self, inputs: Tensor, logits: Tensor, labels: Tensor) -> float:  # type: ignore[override]
            Needy.called = True
            return 0.0

    match = "Needy.observe asks for `logits`.*inputs, labels, not_aug_inputs, epoch, task, indexes"
    with pytest.raises(ConfigError, match=match):
        ml(model=Needy, **QUICK)
    assert not Needy.called


def test_a_hook_that_asks_for_something_else_is_an_error() -> None:
    class Needy(Plain):
        def end_task(self, loader: Any) -> None:
            pass

    with pytest.raises(ConfigError, match=r"Needy.end_task asks for `loader`.*dataset, epoch"):
        ml(model=Needy, **QUICK)


# ------------------------------------------------------------------------- what it may return


def test_a_dict_of_values_is_logged() -> None:
    class Two(Plain):
        def observe(self, inputs: Tensor, labels: Tensor) -> Any:  # type: ignore[override]
            return {"loss": torch.tensor(2.5, requires_grad=True), "share": 1}

    run = ml(model=Two, **QUICK)
    row = next(row for row in run.history if row["mode"] == "train")
    assert (row["loss"], row["share"]) == (2.5, 1.0)


def test_nothing_need_be_returned() -> None:
    class Silent(Plain):
        def observe(self, inputs: Tensor, labels: Tensor) -> None:  # type: ignore[override]
            step(self, inputs, labels)

    run = ml(model=Silent, **QUICK)
    assert run.metrics["task_il_accuracy"] > 0.8


def test_something_that_is_no_number_is_an_error() -> None:
    class Wordy(Plain):
        def observe(self, inputs: Tensor) -> Any:  # type: ignore[override]
            return "0.1"

    with pytest.raises(ConfigError, match=r"Wordy.observe returned a str.*as a float"):
        ml(model=Wordy, **QUICK)


def test_a_loss_of_nan_ends_the_run() -> None:
    class Lost(Plain):
        def observe(self, inputs: Tensor) -> float:  # type: ignore[override]
            return float("nan")

    with pytest.raises(Diverged, match="NaN at learning step 1"):
        ml(model=Lost, **QUICK)


def test_an_error_inside_says_where() -> None:
    class Broken(Plain):
        def observe(self, inputs: Tensor, labels: Tensor) -> float:  # type: ignore[override]
            return 1 / 0

    with pytest.raises(ZeroDivisionError) as raised:
        ml(model=Broken, **QUICK)
    assert "In Broken.observe, learning step 1. Batch: obs float32" in raised.value.__notes__[0]


# --------------------------------------------------------------------------- what is provided


def test_what_a_class_lacks_is_provided() -> None:
    model = ml(model=Plain, lr=0.2, **QUICK).agent.model
    assert isinstance(model.net, MammothBackbone)
    assert isinstance(model.opt, torch.optim.SGD)
    assert model.opt.param_groups[0]["lr"] == model.args.lr == 0.2
    assert model.opt.param_groups[0]["params"] == list(model.net.parameters())
    assert isinstance(model.loss, nn.CrossEntropyLoss)
    assert model.device == torch.device("cpu")
    assert isinstance(model.args, Namespace)
    assert (model.args.batch_size, model.args.n_epochs, model.args.seed) == (32, 1, 0)
    assert isinstance(model.transform, Transform)
    assert isinstance(model.dataset, ContinualDataset)


def test_what_a_class_sets_itself_stays() -> None:
    class Own(Plain):
        def __init__(self) -> None:
            self.net = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
            self.opt = self.first = torch.optim.Adam(self.net.parameters())
            self.args, self.device, self.transform = "mine", "here", "none"
            self.current_task, self.n_seen_classes = -7, "many"

        def loss(self, output: Tensor, labels: Tensor) -> Tensor:
            return F.cross_entropy(output, labels)

    model = ml(model=Own, **QUICK).agent.model
    assert model.opt is model.first
    assert (model.args, model.device, model.transform) == ("mine", "here", "none")
    assert (model.current_task, model.n_seen_classes, model.n_past_classes) == (-7, "many", 8)
    assert type(model).loss is Own.loss


@pytest.mark.filterwarnings("ignore:No loss reaches")
def test_the_optimiser_is_of_all_that_a_module_trains() -> None:
    class Head(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(10, 10)

        def observe(self, inputs: Tensor, labels: Tensor) -> float:
            return step(self, inputs, labels)

    run = ml(model=Head, **QUICK)
    trained = {id(p) for p in run.agent.opt.param_groups[0]["params"]}
    assert trained == {id(p) for p in run.agent.parameters()}


def test_the_usual_arguments_are_inferred_too() -> None:
    class Sized(Plain):
        def __init__(self, in_features: int, num_classes: int, num_tasks: int, width: int = 7):
            assert num_tasks == 5
            self.net = nn.Sequential(
                nn.Flatten(), nn.Linear(in_features, width), nn.Linear(width, num_classes)
            )

    run = ml(model=Sized, **{"model.width": 9}, **QUICK)
    assert run.agent.model.net[1].out_features == 9


@pytest.mark.parametrize(
    ("settings", "kind", "expected"),
    [
        ({}, "SGD", {"lr": 0.03, "momentum": 0.0, "weight_decay": 0.0}),
        ({"lr": 0.5, "weight_decay": 0.1}, "SGD", {"lr": 0.5, "weight_decay": 0.1}),
        ({"optim": "SGD", "optim.momentum": 0.9, "lr": 0.1}, "SGD", {"lr": 0.1, "momentum": 0.9}),
        ({"optim": "Adam"}, "Adam", {"lr": 1e-3, "betas": (0.9, 0.999)}),
        ({"optim": "AdamW", "optim.lr": 0.2}, "AdamW", {"lr": 0.2, "weight_decay": 0.01}),
        ({"optim": torch.optim.RMSprop, "optim.alpha": 0.5}, "RMSprop", {"alpha": 0.5}),
    ],
)
def test_the_optimiser_is_the_one_that_the_settings_name(
    settings: dict[str, Any], kind: str, expected: dict[str, Any]
) -> None:
    optimizer = ml(model=Plain, **settings, **QUICK).agent.model.opt
    assert type(optimizer).__name__ == kind
    assert {key: optimizer.defaults[key] for key in expected} == expected


def test_settings_of_the_optimiser_have_an_effect(capsys: pytest.CaptureFixture[str]) -> None:
    ml(model=Plain, lr=0.1, clip_grad=1.0, **QUICK)
    out, err = capsys.readouterr()
    assert "`clip_grad` had no effect" in out + err
    assert "`lr` had no effect" not in out + err


@pytest.mark.parametrize("how", ["instance", "class", "name", "dict"])
def test_the_backbone_may_be_given(how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path.cwd()))
    Path("nets.py").write_text(
        "from torch import nn\n"
        "class Linear(nn.Module):\n"
        "    def __init__(self, in_features, out_features, scale=1):\n"
        "        super().__init__()\n"
        "        self.layer, self.scale = nn.Linear(in_features, out_features), scale\n"
        "    def forward(self, x):\n"
        "        return self.layer(x.flatten(1)) * self.scale\n"
    )
    if how == "name":
        run = ml("model.backbone=nets.Linear", model=Module, **QUICK)
    else:
        import nets  # type: ignore[import-not-found]

        given = {
            "instance": nets.Linear(64, 10),
            "class": nets.Linear,
            "dict": {"_target_": "nets.Linear", "scale": 3},
        }[how]
        run = ml(model={"_target_": Module, "backbone": given}, **QUICK)
    assert type(run.agent.net).__name__ == "Linear"
    assert run.agent.net.scale == (3 if how == "dict" else 1)


def test_a_plain_class_is_given_the_backbone_named() -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    assert ml(model={"_target_": Plain, "backbone": net}, **QUICK).agent.model.net is net


@pytest.mark.parametrize(
    ("shape", "kind"),
    [((64,), "MLP"), ((1, 28, 28), "MLP"), ((3, 32, 32), "CNN"), ((1, 64, 64), "CNN")],
)
def test_the_network_fits_the_data(shape: tuple[int, ...], kind: str) -> None:
    net = default_backbone(Spec(Space(shape), Space((7,), torch.int64, discrete=True)))
    has = any(isinstance(part, nn.Conv2d) for part in net.modules())
    assert has is (kind == "CNN")
    x = torch.rand(2, *shape)
    out, features = net(x, returnt="both")
    assert out.shape == (2, 7)
    assert torch.equal(net.classifier(net(x, returnt="features")), net.classifier(features))
    with pytest.raises(ValueError, match="out, features, both or full"):
        net(x, returnt="all")


def test_parameters_and_gradients_of_the_network_in_a_row() -> None:
    net = default_backbone(Spec(Space((5,)), Space((2,), torch.int64, discrete=True)))
    total = 5 * 100 + 100 + 100 * 100 + 100 + 200 + 2
    assert net.get_params().shape == net.get_grads().shape == (total,)
    assert not net.get_grads().any()
    net(torch.ones(1, 5)).sum().backward()
    assert net.get_grads().shape == (total,)
    assert torch.equal(net.get_grads()[-2:], torch.ones(2))
    net.set_params(torch.ones(total))
    assert all(bool((p == 1).all()) for p in net.parameters())


# ------------------------------------------------------------------------------ tasks and epochs


def test_hooks_are_called_around_tasks_and_epochs() -> None:
    calls: list[Any] = []

    class Hooked(Plain):
        def begin_task(self, dataset: ContinualDataset) -> None:
            calls.append(f"task {dataset.c_task}")
            assert self.net.training  # type: ignore[attr-defined]

        def begin_epoch(self, epoch: int, dataset: ContinualDataset) -> None:
            calls.append(f"epoch {epoch}")

        def observe(self, inputs: Tensor, labels: Tensor) -> float:  # type: ignore[override]
            calls.append("o")
            return step(self, inputs, labels)

        def end_epoch(self, epoch: int) -> None:
            calls.append(f"/epoch {epoch}")

        def end_task(self) -> None:
            calls.append("/task")
            self.net.eval()  # type: ignore[attr-defined]

    run = ml(model=Hooked, **QUICK | {"epochs": 2, "batch_size": 100})
    batches = [-(-int(sum(run.replay.storage.columns["label"] // 2 == k)) // 100) for k in range(5)]
    expected = []
    for task, n in enumerate(batches):
        expected.append(f"task {task}")
        for epoch in range(2):
            expected += [f"epoch {epoch}", *["o"] * n, f"/epoch {epoch}"]
        expected.append("/task")
    assert calls == expected


def test_an_epoch_that_is_cut_short_ends_with_its_task() -> None:
    calls: list[str] = []

    class Hooked(Plain):
        def begin_epoch(self, epoch: int) -> None:
            calls.append(f"{epoch}")

        def end_epoch(self, epoch: int) -> None:
            calls.append(f"/{epoch}")

        def end_task(self, task: int) -> None:
            calls.append(f"task {task}")

    ml(model=Hooked, train_steps=3, **QUICK | {"epochs": None, "tasks": 2})
    assert calls == ["0", "/0", "task 0", "0", "/0", "task 1"]


COUNTERS = (
    "current_task",
    "n_past_classes",
    "n_classes_current_task",
    "n_seen_classes",
    "n_remaining_classes",
)


def counted(**settings: Any) -> tuple[list[tuple[Any, ...]], Any]:
    """The counters at the start of every task, and the model afterwards."""
    seen: list[tuple[Any, ...]] = []

    class Counting(Plain):
        def begin_task(self, dataset: Any) -> None:
            seen.append(tuple(getattr(self, name) for name in COUNTERS))

        def end_task(self, dataset: Any) -> None:
            assert self.current_task == seen[-1][0]  # type: ignore[attr-defined]

    return seen, ml(model=Counting, **QUICK | settings).agent.model


def test_task_counters_are_kept() -> None:
    seen, model = counted()
    assert seen == [(task, 2 * task, 2, 2 * task + 2, 8 - 2 * task) for task in range(5)]
    assert model.current_task == 5
    assert (model.n_tasks, model.num_classes, model.cpt) == (5, 10, 2)
    assert (model.N_TASKS, model.N_CLASSES) == (5, 10)


def test_task_counters_of_unequal_tasks() -> None:
    seen, model = counted(tasks=None, classes_per_task=[5, 3, 2])
    assert seen == [(0, 0, 5, 5, 5), (1, 5, 3, 8, 2), (2, 8, 2, 10, 0)]
    assert model.cpt == [5, 3, 2]
    assert model.dataset.get_offsets(1) == (5, 8)


def test_task_counters_where_tasks_share_their_outputs() -> None:
    seen, model = counted(scenario="domain")
    assert seen == [(task, 0, 2, 2, 0) for task in range(5)]
    assert model.dataset.SETTING == "domain-il"


def test_nothing_is_told_of_tasks_in_a_stream() -> None:
    seen, model = counted(online=True, epochs=None)
    assert seen == [(0, 0, 10, 10, 0)]
    assert model.dataset.SETTING == "general-continual"
    assert model.n_tasks == 1


def test_epochs_of_a_stream_do_not_give_its_borders_away() -> None:
    calls: list[str] = []

    class Hooked(Plain):
        def begin_epoch(self, epoch: int) -> None:
            calls.append("begin")

        def end_epoch(self, epoch: int) -> None:
            calls.append("end")

    ml(model=Hooked, online=True, **QUICK | {"epochs": None})
    assert calls == ["begin", "end"]


def test_a_counter_of_its_own_counts_as_the_model_wants() -> None:
    seen: list[int] = []

    class Own(Plain):
        current_task = -1

        def begin_task(self, dataset: Any) -> None:
            self.current_task += 1
            seen.append(self.current_task)

    ml(model=Own, **QUICK)
    assert seen == [0, 1, 2, 3, 4]


def test_labels_come_in_the_order_of_the_classes() -> None:
    order = [7, 2, 0, 9, 1, 3, 8, 4, 6, 5]
    seen: dict[int, set[int]] = {}

    class Labelled(Plain):
        def observe(  # type: ignore[override]
            self, inputs: Tensor, labels: Tensor, task: int, indexes: Tensor
        ) -> float:
            seen.setdefault(task, set()).update(labels.tolist())
            here = run_labels[indexes] if run_labels is not None else None
            assert here is None or torch.equal(torch.tensor(order)[labels], here)
            return step(self, inputs, labels)

    run_labels = ml(model=Plain, **QUICK).replay.storage.columns["label"]
    run = ml(model=Labelled, class_order=order, **QUICK | {"epochs": 3})
    assert seen == {task: {2 * task, 2 * task + 1} for task in range(5)}
    assert run.metrics["task_il_accuracy"] > 0.9  # Outputs are put back.
    assert run.accuracy_matrix[4, 4] > 0.8


def test_the_tasks_data_can_be_gone_through_again() -> None:
    sizes: list[int] = []

    class Again(Plain):
        def end_task(self, dataset: ContinualDataset) -> None:
            loader = dataset.train_loader
            assert isinstance(loader, TaskLoader)
            batches = list(loader)
            assert len(batches) == len(loader)
            inputs, labels, rows = (torch.cat(part) for part in zip(*batches, strict=True))
            assert set(labels.tolist()) == {2 * dataset.c_task, 2 * dataset.c_task + 1}
            again = torch.cat([batch[2] for batch in loader])
            assert not torch.equal(rows, again)  # In another order.
            torch.testing.assert_close(rows.sum(0), again.sum(0))
            assert rows.min() == 0
            assert 1 - 1e-6 < rows.max() <= 1
            torch.testing.assert_close(dataset.get_normalization_transform()(rows), inputs)
            sizes.append(len(labels))
            assert loader is dataset.train_loader
            assert loader.dataset.data.shape == (len(labels), 8, 8)

    run = ml(model=Again, **QUICK)
    assert sum(sizes) == len(run.replay.storage)


# ------------------------------------------------------------------------------- COMPATIBILITY


@pytest.mark.parametrize(
    ("fits", "settings", "right"),
    [
        (["class-il"], {"scenario": "task"}, "this run is task-il. Set scenario=class"),
        (["task-il", "domain-il"], {}, "Set scenario=task or scenario=domain"),
        (["class-il", "task-il"], {"online": True, "epochs": None}, "is general-continual"),
        ("general-continual", {}, "Set online=true"),
        (["cssl"], {}, "this run is class-il. Extend it"),
    ],
)
def test_a_scenario_that_does_not_fit_is_an_error_at_the_start(
    fits: Any, settings: dict[str, Any], right: str
) -> None:
    class Picky(Plain):
        COMPATIBILITY = fits

        def __init__(self) -> None:
            raise AssertionError

    with pytest.raises(ConfigError, match=re.escape(right)):
        ml(model=Picky, **QUICK | settings)


@pytest.mark.parametrize(
    "settings",
    [{"scenario": "domain"}, {"online": True, "epochs": None}, {"tasks": None}],
)
def test_a_scenario_that_fits_is_learnt(settings: dict[str, Any]) -> None:
    class Easy(Plain):
        COMPATIBILITY = ("domain-il", "general-continual")

    assert ml(model=Easy, **QUICK | settings).metrics["accuracy"] > 0


def test_a_strategy_that_rehearses_works_around_it() -> None:
    run = ml(model=Plain, strategy="er", **QUICK | {"epochs": 3})
    assert run.metrics["accuracy"] > 0.7
    with pytest.raises(ConfigError, match="strategy=ewc_online works on the loss"):
        ml(model=Plain, strategy="ewc_online", **QUICK)


def test_environments_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"Plain.observe needs a data set.*write learn"):
        ml(model=Plain, env="CartPole-v1", progress=False, plot=False)


# -------------------------------------------------------------------------------------- options


class Declared(Plain):
    """With options of every kind."""

    @staticmethod
    def get_parser(parser: ArgumentParser) -> ArgumentParser:
        parser.add_argument("--buffer_size", type=int, required=True, help="Rows of the memory.")
        parser.add_argument("--alpha", type=float, required=True)
        parser.add_argument("--mode", choices=["mean", "sum"], default="mean")
        parser.add_argument("--steps", type=int, nargs="+", default=[1])
        parser.add_argument("--warm", action="store_true")
        parser.add_argument("--flag", type=lambda text: bool(int(text)), default="1")
        parser.add_argument("--text")
        parser.set_defaults(lr=0.5)
        return parser


GIVEN = {"model.buffer_size": 20, "model.alpha": 1}


def test_options_become_typed_settings() -> None:
    words = ["model.buffer_size=7", "model.alpha=1", "model.steps=[2,3]", "model.warm=true"]
    run = ml(*words, "model.text=5", model=Declared, **QUICK)
    args = run.agent.model.args
    assert (args.buffer_size, args.alpha, args.mode) == (7, 1.0, "mean")
    assert isinstance(args.alpha, float)
    assert (args.steps, args.warm, args.flag, args.text) == ([2, 3], True, True, "5")
    assert args.lr == 0.5
    assert run.agent.model.opt.param_groups[0]["lr"] == 0.5
    saved = (run.path / "config.yaml").read_text()
    assert "buffer_size: 7" in saved


def test_what_is_said_wins_over_a_models_own_default() -> None:
    assert ml(model=Declared, lr=0.1, **GIVEN, **QUICK).agent.model.args.lr == 0.1


def test_all_mistakes_in_options_are_told_at_once() -> None:
    with pytest.raises(ConfigError) as raised:
        ml(
            "model.buffer_sizee=3",
            "model.mode=max",
            "model.steps=[1,x]",
            "model.warm=2",
            "model.batch_size=3",
            model=Declared,
            **QUICK,
        )
    message = str(raised.value)
    assert "no option `buffer_sizee` (`model.buffer_sizee`). Did you mean `buffer_size`?" in message
    assert "It has: buffer_size, alpha, mode, steps, warm, flag, text, backbone." in message
    assert "model.mode=max: expected one of mean, sum." in message
    assert "model.steps=[1, 'x']: expected a list of int." in message
    assert "model.warm=2: expected true or false." in message
    assert "model.batch_size=3: this is a setting of the run. Pass batch_size=..." in message
    assert (
        "Declared needs `buffer_size` (Rows of the memory) and `alpha`, which were not given. "
        "Pass model.buffer_size=... model.alpha=..." in message
    )


@pytest.mark.parametrize("value", ["abc", 1.5])
def test_an_option_of_another_type_is_an_error(value: Any) -> None:
    options = Options(Declared, {"buffer_size": value, "alpha": 0.1})
    assert options.mistakes == [f"model.buffer_size={value}: expected int."]


def test_the_older_get_parser_is_understood() -> None:
    class Older(Plain):
        @staticmethod
        def get_parser() -> ArgumentParser:
            parser = ArgumentParser()
            parser.add_argument("--beta", type=float, default=0.25)
            parser.add_argument("--lr", type=float, required=True)  # The run has one.
            return parser

    assert ml(model=Older, **QUICK).agent.model.args.beta == 0.25
    assert ml(model=Older, **{"model.lr": 0.7}, **QUICK).agent.model.args.lr == 0.7


def test_without_get_parser_a_model_that_takes_args_reads_what_it_likes() -> None:
    run = ml(model=Module, **{"model.anything": 3}, **QUICK)
    assert run.agent.args.anything == 3


def test_without_get_parser_and_args_an_option_is_unknown() -> None:
    with pytest.raises(ConfigError, match=r"Plain has no option `anything`.*It has: backbone"):
        ml(model=Plain, **{"model.anything": 3}, **QUICK)


# ---------------------------------------------------------------------------------- predictions


def test_its_own_forward_predicts() -> None:
    class Turned(Plain):
        def forward(self, x: Tensor) -> Tensor:
            return -self.net(x)  # type: ignore[attr-defined]

    ours, other = ml(model=Turned, **QUICK), ml(model=Plain, **QUICK)
    obs = torch.rand(2, 1, 8, 8)
    assert torch.equal(ours.agent(obs), -other.agent(obs))


def test_a_forward_that_must_have_learnt_first_is_replaced_until_then() -> None:
    class Means(nn.Module):
        """Nearest class mean, of the classes seen."""

        def __init__(self, backbone: nn.Module, loss: Any):
            super().__init__()
            self.net, self.loss, self.means = backbone, loss, None

        def observe(self, inputs: Tensor, labels: Tensor) -> float:
            return step(self, inputs, labels)

        def end_task(self, dataset: ContinualDataset) -> None:
            batches = list(dataset.train_loader)
            inputs, labels = (torch.cat([batch[i] for batch in batches]) for i in (0, 1))
            new = [inputs[labels == y].mean(0) for y in labels.unique()]
            self.means = torch.stack([*(self.means if self.means is not None else []), *new])

        def forward(self, x: Tensor) -> Tensor:
            return -torch.cdist(x.flatten(1), self.means.flatten(1))  # type: ignore[union-attr]

    with pytest.warns(UserWarning, match=r"Means.forward raised.*Until then, its `net`"):
        run = ml(model=Means, **QUICK)
    assert run.metrics["accuracy"] > 0.8
    assert run.accuracy_matrix[0, 0] > 0.9
    assert run.accuracy_matrix[0, 1] == 0


def test_a_forward_of_the_wrong_width_is_an_error() -> None:
    class Narrow(Plain):
        def __init__(self) -> None:
            self.net = nn.Sequential(nn.Flatten(), nn.Linear(64, 5))

    with pytest.raises(ConfigError, match=r"Narrow.forward: expected output \[2, 10\]"):
        ml(model=Narrow, **QUICK)


# --------------------------------------------------------------------------------------- resume


class Crash(Exception):
    """The model's own failure."""


class Bomb:
    """Goes off at one call of `observe`."""

    calls, at = 0, 0

    def __call__(self) -> None:
        self.calls += 1
        if self.calls == self.at:
            raise Crash


bomb = Bomb()


class Rehearsing(Plain):
    """A plain class with a memory of its own, a generator, and a count."""

    def __init__(self) -> None:
        self.rows: list[tuple[Tensor, Tensor]] = []
        self.generator = torch.Generator().manual_seed(3)
        self.seen = 0

    def observe(  # type: ignore[override]
        self, inputs: Tensor, labels: Tensor, not_aug_inputs: Tensor
    ) -> float:
        bomb()
        fresh = inputs, labels
        if self.rows:
            i = int(torch.randint(len(self.rows), (), generator=self.generator))
            rows, old = self.rows[i]
            inputs = torch.cat((inputs, self.transform(rows)))  # type: ignore[attr-defined]
            labels = torch.cat((labels, old))
        if self.seen % 3 == 0:
            self.rows.append((not_aug_inputs, fresh[1]))
        self.seen += 1
        return step(self, inputs, labels)


class Teacher(nn.Module):
    """A copy of its network is made at the end of each task, and frozen."""

    def __init__(self, backbone: nn.Module, loss: Any, args: Any):
        super().__init__()
        self.net, self.loss, self.args = backbone, loss, args
        self.opt = torch.optim.SGD(self.net.parameters(), lr=args.lr, momentum=0.5)
        self.teacher = None

    def observe(self, inputs: Tensor, labels: Tensor, epoch: int) -> float:
        bomb()
        self.opt.zero_grad()
        output = self.net(inputs)
        loss = self.loss(output, labels)
        if self.teacher is not None:
            with torch.no_grad():
                target = self.teacher(inputs)
            loss = loss + 0.01 * F.mse_loss(output, target)
        loss.backward()
        self.opt.step()
        return loss.item()

    def end_task(self, dataset: Any) -> None:
        self.teacher = copy.deepcopy(self.net).eval().requires_grad_(False)


class PlainTeacher(Plain):
    """The same, without being a module."""

    teacher: Any = None

    def observe(self, inputs: Tensor, labels: Tensor, epoch: int) -> float:  # type: ignore[override]
        return Teacher.observe(self, inputs, labels, epoch)  # type: ignore[arg-type]

    def end_task(self, dataset: Any) -> None:
        Teacher.end_task(self, dataset)  # type: ignore[arg-type]


def state_of(run: Any) -> Any:
    state = Checkpoints(run.path / "checkpoints").newest()[0]
    assert state is not None
    del state["settings"]
    return state


def same(a: Any, b: Any) -> bool:
    if isinstance(a, np.ndarray):
        return np.array_equal(a, b, equal_nan=True)
    if isinstance(a, Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and a == b


INTERRUPTED: dict[str, Any] = QUICK | {
    "epochs": 2,
    "batch_size": 80,
    "save_every": 3,
    "lr": 0.1,
}


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Runs that nothing interrupted, one for each model."""

    @functools.cache
    def run(model: Any) -> Any:
        bomb.calls, bomb.at = 0, 0
        path = tmp_path_factory.mktemp("runs") / "reference"
        made = ml(model=model, path=path, aug=_shift, **INTERRUPTED)
        assert bomb.calls == 40
        return made

    return run


@pytest.mark.parametrize("model", [Rehearsing, Teacher, PlainTeacher])
@pytest.mark.parametrize("at", [14, 22, 40])  # In mid-epoch, in the next, and the very last.
def test_a_resumed_run_ends_as_if_it_had_never_stopped(model: Any, at: int, reference: Any) -> None:
    uninterrupted = reference(model)
    bomb.calls, bomb.at = 0, at
    with pytest.raises(Crash):
        ml(model=model, path="run", aug=_shift, **INTERRUPTED)
    bomb.at = 0
    run = ml(model=model, path="run", resume=True, aug=_shift, **INTERRUPTED)
    for name in ("train.csv", "eval.csv"):
        assert (run.path / name).read_bytes() == (uninterrupted.path / name).read_bytes()
    states = state_of(run), state_of(uninterrupted)
    assert [key for key in states[0] if not same(states[0][key], states[1][key])] == []


def _shift(images: Tensor) -> Tensor:
    return images.roll(int(torch.randint(2, ())), -1)


def test_of_two_parts_that_a_copy_may_be_of_none_is_guessed() -> None:
    class Two(nn.Module):
        def __init__(self, second: type[nn.Module]):
            super().__init__()
            self.a = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
            self.b = nn.Sequential(nn.Linear(2, 2), second())

    trained = Two(nn.ReLU)
    trained.teacher = copy.deepcopy(trained.b)
    resumed = Two(nn.ReLU)
    load_weights(resumed, trained.state_dict())
    assert torch.equal(resumed.teacher[0].weight, trained.b[0].weight)
    trained = Two(nn.Tanh)
    trained.teacher = copy.deepcopy(trained.b)
    with pytest.raises(CheckpointError, match=r"`teacher.0.weight` is not in Two"):
        load_weights(Two(nn.Tanh), trained.state_dict())


def test_a_copy_of_a_model_does_not_copy_the_data() -> None:
    class Copying(Module):
        def end_task(self, dataset: ContinualDataset) -> None:
            assert copy.deepcopy(self).dataset is self.dataset is dataset

    ml(model=Copying, **QUICK)


def test_a_weight_is_saved_once() -> None:
    run = ml(model=Rehearsing, **QUICK)
    state = state_of(run)["learner"]
    assert {key.split(".")[0] for key in state["agent"]} == {"net"}
    held = state["attributes"]["values"]["model"]["$object"]
    assert held["net"] == {"$same": "net"}
    assert "$state" in held["opt"]


def test_weights_can_be_loaded_into_another_run() -> None:
    first = ml(model=Module, **QUICK)
    second = ml(model=Module, load=first.path, path="second", **QUICK)
    assert second.metrics["learning_accuracy"] >= 0.8


def test_the_wrapper_wears_the_users_name() -> None:
    run = ml(model=Plain, **QUICK)
    assert isinstance(run.agent, Observer)
    assert type(run.agent).__name__ == "Plain"
