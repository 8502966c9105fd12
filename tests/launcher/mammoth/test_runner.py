"""What was written for Mammoth Lite runs here after its import line is changed."""

from __future__ import annotations

import copy
import warnings
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from antelope import ConfigError, ml
from antelope.launcher import mammoth
from antelope.launcher.mammoth import (
    Buffer,
    ContinualModel,
    add_rehearsal_args,
    load_runner,
    register_model,
    registry,
    runner,
    train,
)
from antelope.launcher.record.state import load_object_state, object_state
from antelope.launcher.settings.compose import compose

ARGS: dict[str, Any] = {"lr": 0.1, "n_epochs": 3, "batch_size": 32}
QUIET: dict[str, Any] = {"progress": False, "plot": False}
REHEARSAL: dict[str, Any] = {**ARGS, **QUIET, "buffer_size": 200}


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@register_model("test_er")
class Er(ContinualModel):
    """Experience replay, as such a model is written."""

    NAME = "test_er"
    COMPATIBILITY = ["class-il", "domain-il", "task-il", "general-continual"]  # noqa: RUF012

    @staticmethod
    def get_parser(parser: ArgumentParser) -> ArgumentParser:
        add_rehearsal_args(parser)
        return parser

    def __init__(self, backbone, loss, args, transform, dataset=None):  # type: ignore[no-untyped-def]
        super().__init__(backbone, loss, args, transform, dataset=dataset)
        self.buffer = Buffer(self.args.buffer_size)

    def observe(self, inputs, labels, not_aug_inputs, epoch=None):  # type: ignore[no-untyped-def]
        real_batch_size = inputs.shape[0]
        self.opt.zero_grad()
        if not self.buffer.is_empty():
            buf_inputs, buf_labels = self.buffer.get_data(
                self.args.minibatch_size, transform=self.transform, device=self.device
            )
            inputs = torch.cat((inputs, buf_inputs))
            labels = torch.cat((labels, buf_labels))
        loss = self.loss(self.net(inputs), labels)
        loss.backward()
        self.opt.step()
        self.buffer.add_data(examples=not_aug_inputs, labels=labels[:real_batch_size])
        return loss.item()


@register_model("test-derpp")
class Derpp(ContinualModel):
    """DER++, whose constructor takes whatever it is given."""

    @staticmethod
    def get_parser(parser: ArgumentParser) -> ArgumentParser:
        add_rehearsal_args(parser)
        parser.add_argument("--alpha", type=float, required=True, help="weight of the logits")
        parser.add_argument("--beta", type=float, required=True, help="weight of the labels")
        return parser

    def __init__(self, *args, **kwargs):  # type: ignore[no-untyped-def]
        super().__init__(*args, **kwargs)
        self.buffer = Buffer(buffer_size=self.args.buffer_size)

    def observe(self, inputs, labels, not_aug_inputs, epoch=None):  # type: ignore[no-untyped-def]
        self.opt.zero_grad()
        outputs = self.net(inputs)
        loss = self.loss(outputs, labels)
        if len(self.buffer) > 0:
            examples, _, logits = self.buffer.get_data(
                size=self.args.minibatch_size, transform=self.transform, device=self.device
            )
            loss = loss + self.args.alpha * F.mse_loss(self.net(examples), logits)
            examples, targets, _ = self.buffer.get_data(
                size=self.args.minibatch_size, transform=self.transform, device=self.device
            )
            loss = loss + self.args.beta * self.loss(self.net(examples), targets)
        loss.backward()
        self.opt.step()
        self.buffer.add_data(not_aug_inputs, labels, outputs.detach())
        return loss.item()


@register_model("test-lwf")
class Lwf(ContinualModel):
    """Learning without forgetting, which counts its tasks itself and asks for optional logits."""

    def __init__(self, backbone, loss, args, transform, dataset=None):  # type: ignore[no-untyped-def]
        super().__init__(backbone, loss, args, transform, dataset=dataset)
        self.eye = torch.eye(self.dataset.N_CLASSES_PER_TASK * self.dataset.N_TASKS)
        self.old_net = None
        self.current_task = 0

    def end_task(self, dataset):  # type: ignore[no-untyped-def]
        self.old_net = copy.deepcopy(self.net.eval())
        self.net.train()
        self.current_task += 1

    def observe(self, inputs, labels, not_aug_inputs, logits=None, epoch=None):  # type: ignore[no-untyped-def]
        past = self.current_task * self.dataset.N_CLASSES_PER_TASK
        now = past + self.dataset.N_CLASSES_PER_TASK
        targets = self.eye[labels][:, :now]
        if self.current_task > 0:
            with torch.no_grad():
                logits = torch.sigmoid(self.old_net(inputs))
            targets = torch.cat((logits[:, :past], targets[:, past:]), dim=1)
        self.opt.zero_grad()
        loss = F.binary_cross_entropy_with_logits(self.net(inputs)[:, :now], targets)
        loss.backward()
        self.opt.step()
        return loss.item()


# -------------------------------------------------------------------------------------- models


def test_er_runs_unmodified_and_forgets_less_than_sgd() -> None:
    model, dataset = load_runner("test_er", "seq-digits", REHEARSAL)
    run = train(model, dataset)
    assert run.agent is model
    assert run.metrics["accuracy"] > 0.7
    assert len(model.buffer) == 200
    assert model.buffer.num_seen_examples == 3 * len(run.replay.storage)
    naive = train(*load_runner("sgd", "seq-digits", {**ARGS, **QUIET, "path": "sgd"}))
    assert naive.metrics["accuracy"] < 0.3


def test_derpp_runs_unmodified() -> None:
    model, dataset = load_runner("test-derpp", "seq-digits", {**REHEARSAL, "alpha": 1, "beta": 0.5})
    run = train(model, dataset)
    assert run.metrics["accuracy"] > 0.7
    assert model.buffer.used_attributes == ["examples", "labels", "logits"]
    assert model.buffer.logits.shape == (200, 10)


def test_lwf_runs_unmodified() -> None:
    model, dataset = load_runner("test-lwf", "seq-digits", {**ARGS, **QUIET})
    run = train(model, dataset)
    assert model.current_task == 5
    assert run.metrics["task_il_accuracy"] > 0.9


@pytest.mark.parametrize("name", ["er", "derpp", "lwf"])
def test_a_runner_that_is_interrupted_continues_exactly(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    more = {"er": {"buffer_size": 50}, "lwf": {}}
    more["derpp"] = {"buffer_size": 50, "alpha": 0.1, "beta": 0.5}
    args = {**ARGS, **QUIET, **more[name], "n_epochs": 1, "batch_size": 60, "save_every": 2}
    first, sequence = load_runner(f"test-{name}", "seq-digits", {**args, "path": "reference"})
    reference = train(first, sequence)

    class Crash(Exception):
        pass

    calls = 0
    inner = type(first).observe

    def observe(self: Any, inputs: Any, labels: Any, not_aug_inputs: Any, epoch: Any = None) -> Any:
        nonlocal calls
        calls += 1
        if calls == 12:
            raise Crash
        return inner(self, inputs, labels, not_aug_inputs, epoch=epoch)

    monkeypatch.setattr(type(first), "observe", observe)
    args["path"] = "run"
    with pytest.raises(Crash):
        train(*load_runner(f"test-{name}", "seq-digits", args))
    second, sequence = load_runner(f"test-{name}", "seq-digits", args)
    run = train(second, sequence, {"resume": True})
    for key, weight in first.state_dict().items():
        assert torch.equal(second.state_dict()[key], weight), key
    assert (run.path / "train.csv").read_bytes() == (reference.path / "train.csv").read_bytes()
    if name != "lwf":
        assert torch.equal(second.buffer.examples, first.buffer.examples)
        assert second.buffer.num_seen_examples == first.buffer.num_seen_examples


def test_a_mammoth_model_is_a_model_of_ml_too() -> None:
    settings = {"model.buffer_size": 100, "tasks": 5, "epochs": 3, "lr": 0.1, **QUIET}
    run = ml(model=Er, standardize=False, **settings)
    assert type(run.agent) is Er
    assert run.agent.args.minibatch_size == 32
    assert run.metrics["accuracy"] > 0.6
    assert ml(model=Er, online=True, **settings | {"epochs": None, "path": "o"}).metrics


def test_what_an_er_needs_is_said_before_it_is_made() -> None:
    with pytest.raises(ConfigError, match=r"Er needs `buffer_size` \(rows of the memory\)"):
        ml(model=Er, tasks=5, **QUIET)


class NothingObserved(ContinualModel):
    COMPATIBILITY = ("class-il",)


def test_a_model_that_does_not_observe_is_refused_before_any_training() -> None:
    with pytest.raises(ConfigError, match="NothingObserved has no observe"):
        ml(model=NothingObserved, tasks=5, progress=False)
    assert not Path("runs").exists()


def test_a_model_may_pass_no_dataset_on() -> None:
    class Older(ContinualModel):
        def __init__(self, backbone, loss, args, transform):  # type: ignore[no-untyped-def]
            super().__init__(backbone, loss, args, transform)
            self.first = self.current_task

        def observe(self, inputs, labels, not_aug_inputs):  # type: ignore[no-untyped-def]
            assert self.n_tasks == 5
            assert self.num_classes == 10
            assert self.n_seen_classes == 2 * self.current_task + 2
            assert self.dataset.N_TASKS == 5
            return 0.0

    run = ml(model=Older, tasks=5, epochs=1, **QUIET)
    assert (run.agent.first, run.agent.current_task) == (0, 5)


@pytest.mark.parametrize(
    ("args", "kind", "expected"),
    [
        ({}, "SGD", {"lr": 0.1, "momentum": 0.0, "weight_decay": 0.0}),
        ({"optim_mom": 0.9, "optim_nesterov": 1}, "SGD", {"momentum": 0.9, "nesterov": True}),
        ({"optimizer": "adam", "optim_wd": 0.5}, "Adam", {"lr": 0.1, "weight_decay": 0.5}),
        ({"optimizer": "adamw"}, "AdamW", {"lr": 0.1}),
        ({"optim_wd": 0.25}, "SGD", {"weight_decay": 0.25, "lr": 0.1}),
    ],
)
def test_the_optimiser_is_the_one_asked_for(
    args: dict[str, Any], kind: str, expected: dict[str, Any]
) -> None:
    model, _ = load_runner("sgd", "seq-digits", {**ARGS, **args})
    assert type(model.opt).__name__ == kind
    assert {key: model.opt.defaults[key] for key in expected} == expected


def test_a_model_can_make_optimisers_of_its_own() -> None:
    model, _ = load_runner("sgd", "seq-digits", ARGS)
    other = model.get_optimizer([nn.Parameter(torch.zeros(2))], lr=0.7)
    assert (type(other), other.defaults["lr"]) == (torch.optim.SGD, 0.7)
    model.args.optimizer = "sdg"
    with pytest.raises(ConfigError, match=r"optimizer=sdg.*Did you mean `sgd`"):
        model.get_optimizer()


# ------------------------------------------------------------------------------------- runners


def test_a_runner_is_a_model_and_a_sequence() -> None:
    model, dataset = load_runner("test_er", "seq_digits", REHEARSAL)
    assert type(model) is Er
    assert (dataset.N_TASKS, dataset.N_CLASSES_PER_TASK, dataset.N_CLASSES) == (5, 2, 10)
    assert (dataset.SETTING, dataset.SIZE) == ("class-il", (8, 8))
    assert model.dataset is dataset
    assert (model.args.buffer_size, model.args.lr, model.args.n_epochs) == (200, 0.1, 3)
    assert model.net(torch.zeros(2, 1, 8, 8)).shape == (2, 10)


def test_arguments_may_be_named_either_way() -> None:
    one, _ = load_runner(model="sgd", dataset="seq-digits", args=ARGS)
    other, _ = load_runner(
        model_name="sgd", dataset_name="seq-digits", experiment_args=Namespace(**ARGS)
    )
    assert type(one) is type(other)
    with pytest.raises(ConfigError, match="load_runner has no argument arguments"):
        load_runner("sgd", "seq-digits", arguments=ARGS)


def test_loading_a_runner_leaves_random_streams_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    load_runner("sgd", "seq-digits", ARGS)
    assert torch.equal(torch.rand(3), expected)


def test_weights_are_those_of_the_seed() -> None:
    one, two, other = (
        load_runner("sgd", "seq-digits", {**ARGS, "seed": seed})[0].net.get_params()
        for seed in (1, 1, 2)
    )
    assert torch.equal(one, two)
    assert not torch.equal(one, other)


def test_two_runners_are_independent() -> None:
    def runner(name: str, **more: Any) -> Any:
        return load_runner("test-er", "seq-digits", {**REHEARSAL, "path": name, **more})

    alone = {}
    for name, lr in (("a", 0.1), ("b", 0.02)):
        model, dataset = runner(name, lr=lr)
        alone[name] = train(model, dataset).metrics, model.state_dict()
    (first, one), (second, two) = runner("c", lr=0.1), runner("d", lr=0.02, buffer_size=199)
    (third, three) = runner("e", lr=0.02)
    assert first.args.lr == 0.1
    assert first.net is not second.net
    assert len(second.buffer) == 0
    results = {"b": (train(third, three).metrics, third.state_dict())}
    train(second, two)
    results["a"] = (train(first, one).metrics, first.state_dict())
    assert (len(first.buffer), len(second.buffer)) == (200, 199)
    for name in ("a", "b"):
        assert results[name][0] == alone[name][0]
        for key, weight in alone[name][1].items():
            assert torch.equal(results[name][1][key], weight)
    assert alone["a"][0] != alone["b"][0]


def test_train_may_change_how_long_and_where() -> None:
    model, dataset = load_runner("sgd", "seq-digits", {**ARGS, **QUIET})
    run = train(model, dataset, {"n_epochs": 1, "path": "here"})
    assert run.path == Path("here").absolute()
    assert run.replay.step == sum(-(-int(n) // 32) for n in _rows(run))
    assert train(model, dataset, model.args).metrics  # The same ones again say nothing new.
    with pytest.raises(ConfigError, match=r"train: lr=0\.5 comes too late"):
        train(model, dataset, {"lr": 0.5})
    with pytest.raises(ConfigError, match="train: alpha=2 comes too late"):
        train(model, dataset, Namespace(alpha=2))


def _rows(run: Any) -> list[int]:
    return np.bincount(run.replay.storage.columns["label"].numpy() // 2).tolist()


def test_a_model_trained_again_goes_on_from_what_it_has_learnt() -> None:
    model, dataset = load_runner("test_er", "seq-digits", {**REHEARSAL, "n_epochs": 1})
    first = train(model, dataset, {"path": "one"})
    tasks: list[int] = []
    model.begin_task = lambda dataset: tasks.append(model.current_task)
    second = train(model, dataset, {"path": "two"})
    assert tasks == [0, 1, 2, 3, 4]
    assert second.metrics["accuracy"] > first.metrics["accuracy"]


def test_model_and_dataset_must_belong_together() -> None:
    model, _ = load_runner("sgd", "seq-digits", ARGS)
    _, other = load_runner("sgd", "seq-digits", ARGS)
    with pytest.raises(ConfigError, match="that one load_runner"):
        train(model, other)


def test_joint_training_is_a_single_task() -> None:
    _, dataset = load_runner("sgd", "seq-digits", {**ARGS, "joint": 1})
    assert (dataset.N_TASKS, dataset.N_CLASSES_PER_TASK) == (1, 10)


def test_mistakes_are_told_all_at_once() -> None:
    with pytest.raises(ConfigError) as raised:
        load_runner("test_err", "seq-digit", {"lr": 0.1})
    message = str(raised.value)
    assert "No model `test_err` is registered. Did you mean `test-er`" in message
    assert "No data set `seq-digit`. Did you mean `seq-digits`" in message
    assert "load_runner needs batch_size, n_epochs in args." in message


def test_an_unknown_option_is_an_error_that_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"no option `bufer_size`.*Did you mean `buffer_size`"):
        load_runner("test_er", "seq-digits", {**REHEARSAL, "bufer_size": 3})
    with pytest.raises(ConfigError, match=r"model.buffer_size=many: expected int"):
        load_runner("test_er", "seq-digits", {**REHEARSAL, "buffer_size": "many"})


def test_arguments_without_a_meaning_here_are_named() -> None:
    with pytest.warns(UserWarning, match="`num_workers` has no effect"):
        load_runner("sgd", "seq-digits", {**ARGS, "num_workers": 4})


def test_a_model_that_does_not_observe_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"AC2Agent has no `observe`.*ml\(model"):
        load_runner("AC2Agent", "seq-digits", ARGS)


def test_a_name_is_taken_once() -> None:
    register_model("test-er")(Er)  # The same class again, as when a cell of a notebook is rerun.
    with pytest.raises(ConfigError, match="`test-er` is already registered, by"):
        register_model("test-er")(Derpp)


def test_a_registered_class_has_a_name() -> None:
    assert Derpp.NAME == "test-derpp"


@pytest.mark.parametrize("name", registry.DATASETS)
def test_every_named_sequence_is_made_of_settings_that_exist(name: str) -> None:
    code = runner.Asked("sgd", name, ARGS).settings()
    settings = compose((), code)
    assert settings.dataset["_target_"] == registry.DATASETS[name]["dataset"]
    assert (settings.epochs, settings.batch_size, settings.lr) == (3, 32, 0.1)


def test_sequences_of_colour_images_are_augmented() -> None:
    settings = compose((), runner.Asked("sgd", "seq-cifar10", ARGS).settings())
    settings.values["dataset"] = {"_target_": "Digits"}
    settings.live.pop("dataset", None)
    kinds = [a if isinstance(a, str) else a["_target_"] for a in settings.aug]
    assert kinds == ["RandomCrop", "RandomHorizontalFlip"]


@pytest.mark.slow
def test_er_on_mnist_as_published(mnist_dir: Path) -> None:
    args = {"lr": 0.1, "batch_size": 10, "n_epochs": 1, "buffer_size": 500, **QUIET}
    model, dataset = load_runner("test_er", "seq-mnist", {**args, "base_path": str(mnist_dir)})
    metrics = train(model, dataset).metrics
    # Buzzega et al. (2020): 86.12 +- 1.9 and 99.04.
    assert abs(metrics["accuracy"] - 0.8612) < 0.0475
    assert metrics["task_il_accuracy"] > 0.98


# -------------------------------------------------------------------------------------- buffer


def filled(capacity: int, rows: int, **fields: Any) -> Buffer:
    buffer = Buffer(capacity)
    numbers = torch.arange(rows)
    buffer.add_data(numbers[:, None].float(), labels=numbers, **fields)
    return buffer


def test_a_buffer_gives_a_tensor_of_each_field_it_was_given() -> None:
    buffer = Buffer(10)
    assert buffer.is_empty()
    assert buffer.used_attributes == []
    rows = torch.rand(4, 3)
    buffer.add_data(rows, torch.tensor([1, 2, 3, 4]), task_labels=torch.ones(4, dtype=torch.int32))
    assert not buffer.is_empty()
    assert buffer.used_attributes == ["examples", "labels", "task_labels"]
    examples, labels, tasks = buffer.get_data(4)
    assert (examples.dtype, labels.dtype, tasks.dtype) == (torch.float32, torch.int64, torch.int64)
    assert torch.equal(rows[labels - 1], examples)
    assert tasks.tolist() == [1, 1, 1, 1]


def test_a_buffer_gives_fewer_rows_when_it_holds_fewer_and_none_twice() -> None:
    buffer = filled(10, 6)
    assert len(buffer) == len(buffer.examples) == 6
    assert not buffer.is_full()
    for _ in range(20):
        examples, labels = buffer.get_data(50)
        assert sorted(labels.tolist()) == list(range(6))
        assert torch.equal(examples[:, 0].long(), labels)
        assert len(set(buffer.get_data(4)[1].tolist())) == 4


def test_a_buffer_draws_all_rows_alike() -> None:
    buffer, n = filled(10, 10), 2000
    counts = torch.bincount(torch.cat([buffer.get_data(3)[1] for _ in range(n)]), minlength=10)
    expected = 0.3 * n
    chi_square = float(((counts - expected) ** 2 / expected).sum())
    assert chi_square < 27.9  # The 0.1 % point of 9 degrees of freedom.


def test_a_buffer_keeps_a_uniform_sample_of_its_stream() -> None:
    counts = torch.zeros(20)
    for seed in range(400):
        torch.manual_seed(seed)
        buffer = Buffer(5)
        for rows in torch.arange(20).split(3):
            buffer.add_data(rows[:, None], rows)
        assert (len(buffer), buffer.num_seen_examples) == (5, 20)
        assert buffer.is_full()
        counts[buffer.labels] += 1
    chi_square = float(((counts - 100) ** 2 / 100).sum())
    assert chi_square < 43.8  # The 0.1 % point of 19 degrees of freedom.


def test_rows_of_a_buffer_can_be_changed_by_their_places() -> None:
    buffer = filled(8, 8, logits=torch.zeros(8, 2))
    places, _, labels, _ = buffer.get_data(3, return_index=True)
    assert torch.equal(buffer.labels[places], labels)
    buffer.logits[places] = 7.0
    again = buffer.get_data_by_index(places)
    assert torch.equal(again[1], labels)
    assert bool((again[2] == 7).all())
    assert int((buffer.logits == 7).all(1).sum()) == 3


def test_a_transform_of_ones_own_meets_row_after_row() -> None:
    shapes = []

    def double(row: Tensor) -> Tensor:
        shapes.append(row.shape)
        return 2 * row

    buffer = filled(4, 4)
    examples, labels = buffer.get_data(4, transform=double)
    assert torch.equal(examples[:, 0], 2.0 * labels)
    assert shapes == [(1,)] * 4
    assert torch.equal(buffer.get_all_data(transform=double)[0][:, 0], 2.0 * torch.arange(4))


def test_the_models_transform_meets_all_rows_at_once() -> None:
    model, _ = load_runner("sgd", "seq-digits", {**ARGS, "standardize": True})
    calls = []
    model.transform.augment = lambda rows: calls.append(rows.shape) or rows
    buffer = Buffer(6)
    buffer.add_data(torch.rand(6, 1, 8, 8), torch.arange(6))
    batch = buffer.get_data(6, transform=model.transform)[0]
    assert calls == [(6, 1, 8, 8)]
    assert batch.mean() > 0  # No longer in [0, 1]: standardised.
    assert batch.max() > 1
    single = model.transform(torch.zeros(1, 8, 8))
    assert single.shape == (1, 8, 8)
    assert calls[-1] == (1, 1, 8, 8)


def test_a_buffer_that_is_reset_begins_again() -> None:
    buffer = filled(4, 9)
    buffer.reset()
    assert (len(buffer), buffer.num_seen_examples, buffer.buffer_size) == (0, 0, 4)
    assert not hasattr(buffer, "examples")
    buffer.add_data(torch.rand(2, 5))  # Other fields than before.
    assert [field.shape for field in buffer.get_all_data()] == [(2, 5)]
    with pytest.raises(AttributeError, match="no `labels`; it holds examples"):
        _ = buffer.labels


def test_drawing_from_an_empty_buffer_is_an_error() -> None:
    with pytest.raises(ConfigError, match="The buffer is empty"):
        Buffer(3).get_data(2)


def test_a_buffer_does_not_keep_graphs() -> None:
    buffer = Buffer(2)
    buffer.add_data(torch.rand(2, 1, requires_grad=True), logits=torch.rand(2, 3).requires_grad_())
    assert not any(field.requires_grad for field in buffer.get_data(2))


def test_a_resumed_buffer_keeps_and_draws_the_same_rows() -> None:
    one, two = filled(5, 12), Buffer(5)
    load_object_state(two, object_state(one))
    for buffer in (one, two):
        buffer.add_data(torch.arange(100.0, 130)[:, None], torch.arange(100, 130))
    assert one.num_seen_examples == two.num_seen_examples == 42
    assert torch.equal(one.labels, two.labels)
    for _ in range(5):
        assert torch.equal(one.get_data(2)[1], two.get_data(2)[1])


def test_a_buffer_leaves_random_streams_alone() -> None:
    torch.manual_seed(1)
    np.random.seed(1)
    expected = torch.rand(2), np.random.rand(2)
    torch.manual_seed(1)
    np.random.seed(1)
    filled(5, 50).get_data(3)
    assert torch.equal(torch.rand(2), expected[0])
    assert (np.random.rand(2) == expected[1]).all()


def test_rows_are_kept_where_asked() -> None:
    buffer = Buffer(3, device="cpu").to("cpu")
    buffer.add_data(torch.rand(5, 2), torch.arange(5))
    assert buffer.get_data(2, device="cpu")[0].device.type == "cpu"
    assert copy.deepcopy(buffer).labels.tolist() == buffer.labels.tolist()


def test_importing_the_names_warns_of_nothing() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for name in mammoth.__all__:
            assert getattr(mammoth, name) is not None
