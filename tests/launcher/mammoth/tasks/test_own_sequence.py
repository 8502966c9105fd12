"""Data sets and networks of the user's own, registered as Mammoth Lite does it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torchvision import transforms

from antelope import ConfigError, DataError, ml
from antelope.envs import Digits
from antelope.launcher.mammoth import (
    Buffer,
    ContinualDataset,
    ContinualModel,
    MammothBackbone,
    MammothDataset,
    ReturnTypes,
    base_path,
    get_backbone_names,
    get_dataset_names,
    get_model_names,
    load_runner,
    register_backbone,
    register_dataset,
    register_model,
    registry,
    store_masked_loaders,
    train,
)

ARGS: dict[str, Any] = {
    "lr": 0.1,
    "n_epochs": 2,
    "batch_size": 32,
    "progress": False,
    "plot": False,
}
MEAN, STD = (0.3,), (0.4,)
PLAIN = transforms.Compose([transforms.ToTensor(), transforms.Normalize(MEAN, STD)])
CROPPED = transforms.Compose([transforms.RandomCrop(8, padding=2), *PLAIN.transforms])


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for table in ("MODELS", "SEQUENCES", "BACKBONES"):
        monkeypatch.setattr(registry, table, getattr(registry, table), raising=True)
        for name in list(getattr(registry, table)):
            if name.startswith("mine"):
                getattr(registry, table).pop(name)


class Pictures(MammothDataset):
    """The digits as pictures, a fifth of them to test with."""

    def __init__(self, train: bool = True, transform: Any = None):
        inputs, targets = Digits().tensors
        rows = np.arange(len(targets)) % 5 != 0
        rows = rows if train else ~rows
        self.data = (inputs[:, 0].numpy() * 15).astype(np.uint8)[rows]
        self.targets = targets.numpy()[rows].tolist()
        self.transform = transform

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> tuple[Any, int, Any]:
        picture = Image.fromarray(self.data[index])
        unchanged = self.not_aug_transform(picture.copy())
        return self.transform(picture), self.targets[index], unchanged


class Sequence(ContinualDataset):
    NAME = "own-digits"
    SETTING = "class-il"
    N_CLASSES_PER_TASK: Any = 2
    N_TASKS = 5
    SIZE = (8, 8)
    MEAN, STD = MEAN, STD
    TRANSFORM = PLAIN
    TEST_TRANSFORM = PLAIN

    def get_data_loaders(self) -> Any:
        return (
            Pictures(train=True, transform=self.TRANSFORM),
            Pictures(train=False, transform=self.TEST_TRANSFORM),
        )


class Seen(ContinualModel):
    """Keeps what it observes, and learns it."""

    NAME = "seen"
    COMPATIBILITY = ("class-il", "task-il", "domain-il")

    def __init__(self, backbone: Any, loss: Any, args: Any, transform: Any, dataset: Any = None):
        super().__init__(backbone, loss, args, transform, dataset=dataset)
        self.batches: list[tuple[Tensor, Tensor, Tensor, int]] = []

    def observe(self, inputs: Any, labels: Any, not_aug_inputs: Any, epoch: Any = None) -> float:
        self.batches.append((inputs.clone(), labels.clone(), not_aug_inputs.clone(), epoch))
        self.opt.zero_grad()
        loss = self.loss(self.net(inputs), labels)
        loss.backward()
        self.opt.step()
        return loss.item()


def runner(sequence: Any, model: Any = Seen, **more: Any) -> Any:
    register_model("mine")(model)
    register_dataset("mine")(sequence)
    return load_runner("mine", "mine", {**ARGS, **more})


def by_picture(rows: Tensor) -> dict[bytes, int]:
    return {row.numpy().tobytes(): i for i, row in enumerate(rows)}


# ----------------------------------------------------------------------------------- sequences


def test_a_registered_sequence_is_learnt() -> None:
    model, dataset = runner(Sequence, n_epochs=3)
    assert type(dataset) is Sequence
    assert model.dataset is dataset
    assert (dataset.N_CLASSES, dataset.SIZE, dataset.NAME) == (10, (8, 8), "own-digits")
    run = train(model, dataset)
    assert run.metrics["task_il_accuracy"] > 0.9
    assert run.metrics["learning_accuracy"] > 0.95
    assert run.path.parts[-2] == "own-digits"


def test_a_model_observes_the_items_of_the_data_set_to_the_bit() -> None:
    model, dataset = runner(Sequence)
    train(model, dataset)
    own = Pictures(transform=PLAIN)
    items = [own[i] for i in range(len(own))]
    place = by_picture(torch.stack([item[0] for item in items]))
    seen = []
    for inputs, labels, unchanged, _ in model.batches:
        for row, label, plain in zip(inputs, labels, unchanged, strict=True):
            i = place[row.numpy().tobytes()]
            assert int(label) == items[i][1]
            assert torch.equal(plain, items[i][2])
            seen.append(i)
    assert np.bincount(seen, minlength=len(own)).min() >= 1
    assert len(seen) == 2 * len(own)  # Two epochs.
    tasks = [sorted(set(labels.tolist())) for _, labels, _, _ in model.batches]
    assert tasks[0] == [0, 1]
    assert tasks[-1] == [8, 9]


def test_its_random_transform_is_drawn_at_each_reading_and_not_for_what_a_memory_keeps() -> None:
    class Cropped(Sequence):
        TRANSFORM = CROPPED

    model, dataset = runner(Cropped)
    run = train(model, dataset)
    assert run.metrics["learning_accuracy"] > 0.6
    by_epoch: dict[int, list[Tensor]] = {0: [], 1: []}
    kept: dict[int, list[Tensor]] = {0: [], 1: []}
    for inputs, labels, unchanged, epoch in model.batches:
        if int(labels[0]) in (0, 1):
            by_epoch[epoch].append(inputs)
            kept[epoch].append(unchanged)
    shown = [set(by_picture(torch.cat(rows))) for rows in by_epoch.values()]
    assert len(shown[0] & shown[1]) < 0.3 * len(shown[0])
    raw = [set(by_picture(torch.cat(rows))) for rows in kept.values()]
    assert raw[0] == raw[1]


def test_the_test_transform_is_what_it_is_evaluated_with() -> None:
    class Blind(Sequence):
        TEST_TRANSFORM = transforms.Compose(
            [PLAIN, transforms.Lambda(lambda x: torch.zeros(1, 8, 8))]
        )

    run = train(*runner(Blind))
    assert run.metrics["task_il_accuracy"] < 0.7


def test_a_memorys_rows_are_transformed_as_the_class_says() -> None:
    class Cropped(Sequence):
        TRANSFORM = CROPPED

    model, _ = runner(Cropped)
    rows = torch.stack([Pictures(transform=PLAIN)[i][2] for i in range(20)])
    torch.manual_seed(3)
    mine = torch.stack([transforms.Compose([transforms.ToPILImage(), CROPPED])(r) for r in rows])
    torch.manual_seed(3)
    assert torch.equal(model.transform(rows), mine)
    buffer = Buffer(20)
    buffer.add_data(rows, torch.arange(20))
    assert buffer.get_data(5, transform=model.transform)[0].shape == (5, 1, 8, 8)
    assert torch.allclose(model.normalization_transform(rows), (rows - 0.3) / 0.4)


def test_sizes_of_tasks_and_joint_and_permuted_classes() -> None:
    class Uneven(Sequence):
        N_CLASSES_PER_TASK = (4, 3, 3)
        N_TASKS = 3

    model, dataset = runner(Uneven, n_epochs=1)
    train(model, dataset)
    labels = [set(batch[1].tolist()) for batch in model.batches]
    assert labels[0] == {0, 1, 2, 3}
    assert labels[-1] == {7, 8, 9}
    assert [dataset.get_offsets(t) for t in range(3)] == [(0, 4), (4, 7), (7, 10)]
    registry.SEQUENCES.pop("mine")
    _, joint = runner(Sequence, joint=1)
    assert (joint.N_TASKS, joint.N_CLASSES_PER_TASK) == (1, 10)
    model, dataset = load_runner("mine", "mine", {**ARGS, "permute_classes": 1, "seed": 4})
    train(model, dataset)
    new = np.random.RandomState(4).permutation(10)
    own = Pictures(transform=PLAIN)
    place = by_picture(torch.stack([own[i][0] for i in range(len(own))]))
    inputs, labels = model.batches[0][:2]
    was = [own[place[row.numpy().tobytes()]][1] for row in inputs]
    assert labels.tolist() == new[was].tolist()
    assert set(labels.tolist()) == {0, 1}


def test_a_domain_sequence_has_other_data_in_each_task() -> None:
    class Turned(Sequence):
        SETTING = "domain-il"
        N_CLASSES_PER_TASK = 10
        N_TASKS = 2

        def get_data_loaders(self) -> Any:
            parts = super().get_data_loaders()
            for part in parts:
                part.data = np.rot90(part.data, self.c_task + 1, axes=(1, 2)).copy()
            return store_masked_loaders(*parts, self)

    model, dataset = runner(Turned, n_epochs=1)
    run = train(model, dataset)
    assert run.accuracy_matrix.shape == (2, 2)
    half = len(model.batches) // 2
    assert sorted(set(model.batches[half][1].tolist())) == list(range(10))
    first = torch.cat([b[2] for b in model.batches[:half]])
    second = torch.cat([b[2] for b in model.batches[half:]])
    assert set(by_picture(second)) == set(by_picture(torch.rot90(first, 1, (2, 3)).contiguous()))


def test_what_a_model_puts_into_the_data_set_is_learnt() -> None:
    class Twice(Seen):
        def begin_task(self, dataset: Any) -> None:
            rows = dataset.train_loader.dataset
            assert isinstance(rows.data, np.ndarray)
            if dataset.c_task:
                rows.data = np.concatenate([rows.data, self.kept[0]])
                rows.targets = np.concatenate([rows.targets, self.kept[1]])

        def end_task(self, dataset: Any) -> None:
            rows = dataset.train_loader.dataset
            self.kept = rows.data[:50], rows.targets[:50]

    model, dataset = runner(Sequence, model=Twice, n_epochs=1)
    train(model, dataset)
    last = torch.cat([labels for _, labels, _, _ in model.batches[-8:]])
    assert set(last.tolist()) >= {6, 7, 8, 9}
    own = Pictures().targets
    assert sum(len(b[1]) for b in model.batches) == len(own) + 4 * 50


def check_continues(sequence: Any, model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that crashes at its 20th batch and is resumed ends with the weights of one that does not."""
    more = {"n_epochs": 1, "save_every": 3}
    reference = train(*runner(sequence, model=model, path="reference", **more))
    inner, calls = model.observe, []

    def observe(
        self: Any, inputs: Any, labels: Any, not_aug_inputs: Any, epoch: Any = None
    ) -> float:
        calls.append(1)
        if len(calls) == 20:
            raise KeyError("crash")
        return inner(self, inputs, labels, not_aug_inputs, epoch)

    monkeypatch.setattr(model, "observe", observe)
    with pytest.raises(KeyError):
        train(*runner(sequence, model=model, path="run", **more))
    run = train(*runner(sequence, model=model, path="run", **more), {"resume": True})
    for key, weight in reference.agent.state_dict().items():
        assert torch.equal(run.agent.state_dict()[key], weight), key


def test_rows_that_a_model_put_there_are_there_after_a_crash(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Cropped(Sequence):
        TRANSFORM = CROPPED

    class Twice(Seen):
        def begin_task(self, dataset: Any) -> None:
            rows = dataset.train_loader.dataset
            rows.data = np.concatenate([rows.data, rows.data[:40]])
            rows.targets = np.concatenate([rows.targets, rows.targets[:40]])

        def observe(
            self, inputs: Any, labels: Any, not_aug_inputs: Any, epoch: Any = None
        ) -> float:
            self.batches = []
            return super().observe(inputs, labels, not_aug_inputs, epoch)

    check_continues(Cropped, Twice, monkeypatch)


def test_a_sequence_is_a_data_set_of_ml_too() -> None:
    class Net(nn.Module):
        def __init__(self, in_features: int, num_classes: int):
            super().__init__()
            self.layers = nn.Sequential(nn.Flatten(), nn.Linear(in_features, num_classes))

        def forward(self, x: Tensor) -> Tensor:
            assert abs(float(x.min()) - (0 - 0.3) / 0.4) < 1e-5
            return self.layers(x)

    run = ml(model=Net, dataset=Sequence, strategy="er", epochs=2, progress=False, plot=False)
    assert run.accuracy_matrix.shape == (5, 5)
    assert run.metrics["accuracy"] > 0.4
    with pytest.raises(
        ConfigError, match=r"tasks=2 conflicts with dataset=Sequence.*Leave tasks= out"
    ):
        ml(model=Net, dataset=Sequence, tasks=2, progress=False)
    with pytest.raises(ConfigError, match=r"standardize=.*its own transforms"):
        ml(model=Net, dataset=Sequence, standardize=False, progress=False)


def test_a_run_over_a_sequence_continues_exactly(monkeypatch: pytest.MonkeyPatch) -> None:
    class Cropped(Sequence):
        TRANSFORM = CROPPED

    class Plain(Seen):
        def observe(
            self, inputs: Any, labels: Any, not_aug_inputs: Any, epoch: Any = None
        ) -> float:
            self.batches = []
            return super().observe(inputs, labels, not_aug_inputs, epoch)

    check_continues(Cropped, Plain, monkeypatch)


def test_options_of_a_sequence_are_arguments_of_the_runner() -> None:
    class Some(Sequence):
        def __init__(self, args: Any, rows: int, shade: float = 1.0):
            super().__init__(args)
            self.rows, self.shade = rows, shade

    _, dataset = runner(Some, rows=7)
    assert (dataset.rows, dataset.shade) == (7, 1.0)
    with pytest.raises(ConfigError, match="Some needs rows"):
        runner(Some)
    with pytest.raises(ConfigError, match=r"no option `shad`.*Did you mean `shade`"):
        runner(Some, rows=7, shad=2)


def test_epochs_and_batch_size_of_the_class_hold_unless_others_are_given() -> None:
    class Own(Sequence):
        def get_epochs(self) -> int:
            return 1

        @staticmethod
        def get_batch_size() -> int:
            return 50

    register_model("mine")(Seen)
    register_dataset("mine")(Own)
    quiet = {"lr": 0.1, "progress": False, "plot": False}
    model, dataset = load_runner("mine", "mine", quiet)
    train(model, dataset)
    assert {len(b[1]) for b in model.batches} >= {50}
    assert {b[3] for b in model.batches} == {0}
    assert load_runner("mine", "mine", {**quiet, "batch_size": 9})[0].args.batch_size == 9


def test_where_data_lies() -> None:
    found = []

    class Placed(Sequence):
        def get_data_loaders(self) -> Any:
            found.append(base_path() + "CIFAR10")
            return super().get_data_loaders()

    runner(Placed, base_path="/somewhere")
    assert set(found) == {"/somewhere/CIFAR10"}
    assert base_path().endswith("/")
    assert not base_path().startswith("/somewhere")


class TwoParts(Pictures):
    def __getitem__(self, index: int) -> Any:
        return super().__getitem__(index)[:2]


class WholeList(Pictures):
    def __init__(self, train: bool = True, transform: Any = None):
        super().__init__(train, transform)
        self.pictures, self.labels = self.data, self.targets

    def __getitem__(self, index: int) -> Any:
        picture = Image.fromarray(self.pictures[index])
        return self.transform(picture), self.labels[index], self.not_aug_transform(picture)


class Untransformed(Pictures):
    def __getitem__(self, index: int) -> Any:
        return (Image.fromarray(self.data[index]), *super().__getitem__(index)[1:])


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (TwoParts, r"\(Tensor, int64\).*input, label, input without augmentation"),
        (WholeList, r"should have classes 0 to 1 .* holds a row of class 2.*data\[index\]"),
        (Untransformed, r"holds a Image instead of a tensor.*ToTensor"),
    ],
)
def test_data_that_cannot_be_learnt_is_refused(kind: Any, expected: str) -> None:
    class Wrong(Sequence):
        def get_data_loaders(self) -> Any:
            return kind(True, self.TRANSFORM), kind(False, self.TEST_TRANSFORM)

    with pytest.raises(DataError, match=expected):
        runner(Wrong)


def test_a_class_that_does_not_call_its_base_is_refused() -> None:
    class Own(Sequence):
        def __init__(self, args: Any):
            self.own = args

    with pytest.raises(ConfigError, match=r"Own.__init__ does not call super\(\).__init__\(args\)"):
        runner(Own)


def test_names_of_the_classes_are_those_of_the_class() -> None:
    class Named(Sequence):
        class_names = None

        def get_class_names(self) -> list[str]:
            return [f"digit {k}" for k in range(10)]

    run = train(*runner(Named, n_epochs=1))
    assert run.spec.action.names[3] == "digit 3"


def test_a_class_that_says_too_little_is_refused() -> None:
    class Silent(ContinualDataset):
        N_TASKS = 5

        def get_data_loaders(self) -> Any:
            return ()

    with pytest.raises(
        ConfigError, match="Silent lacks the class attributes SETTING, N_CLASSES_PER_TASK"
    ):
        runner(Silent)
    registry.SEQUENCES.pop("mine")

    class Misspelt(Sequence):
        SETTING = "clas-il"

    with pytest.raises(ConfigError, match=r"'clas-il'\. Did you mean `class-il`"):
        runner(Misspelt)
    registry.SEQUENCES.pop("mine")

    class Bare(Sequence):
        MEAN = property()  # type: ignore[assignment]

    with pytest.raises(ConfigError, match="Bare has no MEAN and STD"):
        runner(Bare)


# ----------------------------------------------------------------------------------- backbones


class OwnNet(MammothBackbone):
    def __init__(self, num_classes: int, width: int = 16):
        super().__init__()
        self.first = nn.Linear(64, width)
        self.classifier = nn.Linear(width, num_classes)

    def forward(self, x: Tensor, returnt: ReturnTypes = "out") -> Any:
        features = torch.relu(self.first(x.flatten(1)))
        logits = self.classifier(features)
        return {"out": logits, "features": features, "both": (logits, features)}[returnt]


def test_a_registered_backbone_is_the_network_of_a_model() -> None:
    @register_backbone(name="mine_net")
    def mine(num_classes: int, width: int = 24) -> OwnNet:
        return OwnNet(num_classes, width)

    more = {"progress": False, "plot": False, "backbone": "mine-net"}
    model, dataset = load_runner("sgd", "seq-digits", {**ARGS, **more})
    assert type(model.net) is OwnNet
    assert (model.net.first.out_features, model.net.classifier.out_features) == (24, 10)
    assert model.args.backbone == "mine-net"
    before = model.net.first.weight.clone()
    run = train(model, dataset)
    assert run.agent.net is model.net
    assert not torch.equal(before, model.net.first.weight)
    assert model.net(torch.zeros(2, 1, 8, 8), returnt="both")[1].shape == (2, 24)
    assert model.net.features(torch.zeros(2, 1, 8, 8)).shape == (2, 24)
    wide, _ = load_runner("sgd", "seq-digits", {**ARGS, **more, "width": 5})
    assert wide.net.first.out_features == 5
    with pytest.raises(ConfigError, match=r"No backbone `mine-nets`.*Did you mean `mine-net`"):
        load_runner("sgd", "seq-digits", {**ARGS, "backbone": "mine-nets"})


def test_the_backbone_that_a_sequence_names_is_used() -> None:
    register_backbone("mine-small")(OwnNet)

    class Named(Sequence):
        @staticmethod
        def get_backbone() -> str:
            return "mine_small"

    model, dataset = runner(Named, n_epochs=1)
    assert type(model.net) is OwnNet
    assert dataset.get_backbone() == "mine_small"
    other, _ = load_runner("mine", "mine", {**ARGS, "backbone": "mnistmlp", "input_size": 64})
    assert type(other.net).__name__ == "BaseMNISTMLP"


def test_what_is_registered_can_be_listed() -> None:
    register_backbone("mine-listed")(OwnNet)
    register_dataset("mine_listed")(Sequence)
    assert "mine-listed" in get_backbone_names(names_only=True)
    assert "mine-listed" in get_dataset_names(names_only=True)
    assert {"seq-mnist", "seq-cifar10"} <= set(get_dataset_names())
    assert "sgd" in get_model_names(names_only=True)
    entry = get_backbone_names()["mine-listed"]
    assert entry["class"] is OwnNet
    assert entry["parsable_args"]["width"] == {"type": "int", "required": False, "default": 16}
    with pytest.raises(ConfigError, match="`mine-listed` is already registered"):
        register_backbone("mine-listed")(nn.Linear)
