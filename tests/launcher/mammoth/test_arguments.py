"""Arguments of `load_runner`: what each does, and that none is swallowed."""

from __future__ import annotations

import pickle
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from antelope import CheckpointError, ConfigError
from antelope.launcher.mammoth import (
    Buffer,
    ContinualModel,
    add_rehearsal_args,
    get_avail_args,
    load_runner,
    register_model,
    registry,
    train,
)
from antelope.launcher.mammoth.runner import Asked

ARGS: dict[str, Any] = {
    "lr": 0.1,
    "n_epochs": 1,
    "batch_size": 32,
    "progress": False,
    "plot": False,
}


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    registry.MODELS.pop("mine", None)


class Rates(ContinualModel):
    """Notes the learning rate of each step."""

    COMPATIBILITY = ("class-il",)

    def __init__(self, backbone: Any, loss: Any, args: Any, transform: Any, dataset: Any = None):
        super().__init__(backbone, loss, args, transform, dataset=dataset)
        self.seen: list[tuple[int, int, float]] = []

    def observe(self, inputs: Any, labels: Any, not_aug_inputs: Any, epoch: Any = None) -> float:
        self.seen.append((self.dataset.c_task, epoch, self.opt.param_groups[0]["lr"]))
        self.opt.zero_grad()
        loss = self.loss(self.net(inputs), labels)
        loss.backward()
        self.opt.step()
        return loss.item()


class Rehearsing(Rates):
    @staticmethod
    def get_parser(parser: Any) -> Any:
        add_rehearsal_args(parser)
        return parser

    def __init__(self, backbone: Any, loss: Any, args: Any, transform: Any, dataset: Any = None):
        super().__init__(backbone, loss, args, transform, dataset=dataset)
        self.buffer = Buffer(args.buffer_size)

    def observe(self, inputs: Any, labels: Any, not_aug_inputs: Any, epoch: Any = None) -> float:
        new = inputs, labels
        if not self.buffer.is_empty():
            old = self.buffer.get_data(32, transform=self.transform)
            new = torch.cat([inputs, old[0]]), torch.cat([labels, old[1]])
        loss = super().observe(*new, not_aug_inputs, epoch)
        self.buffer.add_data(not_aug_inputs, labels=labels)
        return loss


def runner(model: Any = Rates, **more: Any) -> Any:
    registry.MODELS.pop("mine", None)
    register_model("mine")(model)
    return load_runner("mine", "seq-digits", {**ARGS, **more})


# --------------------------------------------------------------------------------- those known


def test_the_arguments_there_are_can_be_listed() -> None:
    required, optional = get_avail_args()
    assert set(required) == {"dataset", "model", "lr", "batch_size", "n_epochs"}
    assert all(set(entry) == {"description"} for entry in required.values())
    assert all(set(entry) == {"default", "description"} for entry in optional.values())
    assert {"optimizer", "loadcheck", "savecheck", "joint", "device", "backbone"} <= set(optional)
    assert optional["optimizer"]["default"] == "sgd"


def test_every_argument_listed_can_be_given_its_default() -> None:
    _, optional = get_avail_args()
    given = {name: entry["default"] for name, entry in optional.items()}
    _, dataset = load_runner("sgd", "seq-digits", {**given, **ARGS})
    assert dataset.N_TASKS == 5


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"optimizr": "adam"}, r"no option `optimizr`.*Did you mean `optimizer`"),
        ({"loadchek": "x"}, r"no option `loadchek`.*Did you mean `loadcheck`"),
        ({"alpha": 0.5}, r"no option `alpha`"),
        ({"lr_scheduler": "cosin"}, r"lr_scheduler=cosin: expected one of multisteplr, cosine"),
        ({"lr_scheduler": "multisteplr"}, r"multisteplr needs lr_milestones"),
        ({"lr_milestones": [2]}, r"lr_milestones needs lr_scheduler=multisteplr"),
        ({"inference_only": 1}, r"inference_only=1 needs loadcheck=PATH"),
        ({"loadcheck": "no-file.pt"}, r"loadcheck=no-file.pt: no such file"),
        ({"savecheck": "always"}, r"savecheck=always: expected one of last, task"),
        ({"permute_classes": "maybe"}, r"permute_classes=maybe: expected 0 or 1"),
        ({"validation": 80}, r"validation=80.0: expected a share"),
        ({"fitting_mode": "iters"}, r"fitting_mode=iters and n_iters=N go together"),
        ({"n_iters": 2.5, "fitting_mode": "iters"}, r"n_iters=2.5: expected a whole number"),
        ({"lr": "fast"}, r"lr=fast: expected a number"),
        ({"n_epochs": 1.5}, r"n_epochs=1.5: expected a whole number"),
        ({"backbone": 5}, r"backbone=5: expected a name, a class or a module"),
        ({"noise_rate": 0.2}, r"noise_rate=0.2 is not supported"),
        ({"early_stopping_patience": 3}, r"is not supported.*early_stopping.patience"),
    ],
)
def test_an_argument_that_means_nothing_is_refused(given: dict[str, Any], expected: str) -> None:
    with pytest.raises(ConfigError, match=expected):
        runner(**given)


def test_several_mistakes_are_told_at_once() -> None:
    with pytest.raises(ConfigError) as raised:
        runner(optimizr="adam", lr_scheduler="cosin", loadcheck="nowhere")
    assert len(str(raised.value).splitlines()) == 3


def test_values_may_be_text_as_on_a_command_line() -> None:
    model, _ = runner(joint="0", lr_scheduler="Cosine", permute_classes="true", validation="0.1")
    assert (model.args.lr_scheduler, model.args.permute_classes) == ("cosine", 1)
    model, _ = runner(lr="0.2", batch_size="8", n_epochs="2", optim_wd="0.1", optim_nesterov="0")
    assert (model.args.lr, model.args.batch_size, model.args.n_epochs) == (0.2, 8, 2)
    assert model.opt.defaults["weight_decay"] == 0.1


# ------------------------------------------------------------------------------------ learning


def test_a_learning_rate_falls_at_milestones_in_each_task() -> None:
    model, dataset = runner(
        n_epochs=4, lr_scheduler="multisteplr", lr_milestones=[1, 3], sched_multistep_lr_gamma=0.5
    )
    train(model, dataset)
    for task in range(5):
        by_epoch = {epoch: lr for t, epoch, lr in model.seen if t == task}
        assert by_epoch == pytest.approx({0: 0.1, 1: 0.05, 2: 0.05, 3: 0.025})


def test_a_learning_rate_falls_along_a_cosine_by_epochs() -> None:
    model, dataset = runner(n_epochs=2, lr_scheduler="cosine")
    train(model, dataset)
    assert {round(lr, 6) for _, epoch, lr in model.seen if epoch == 0} == {0.1}
    assert {round(lr, 6) for _, epoch, lr in model.seen if epoch == 1} == {0.05}


def test_a_learning_rate_may_fall_by_steps() -> None:
    model, dataset = runner(lr_scheduler="multisteplr", lr_milestones="3", scheduler_mode="iter")
    train(model, dataset)
    first = [round(lr, 6) for task, _, lr in model.seen if task == 1]
    assert first[:5] == [0.1, 0.1, 0.1, 0.01, 0.01]


def test_steps_may_be_counted_instead_of_epochs() -> None:
    registry.MODELS.pop("mine", None)
    register_model("mine")(Rates)
    args = {key: value for key, value in ARGS.items() if key != "n_epochs"}
    model, dataset = load_runner(
        "mine", "seq-digits", {**args, "fitting_mode": "iters", "n_iters": 7}
    )
    train(model, dataset)
    assert len(model.seen) == 35


def test_classes_are_permuted_as_mammoth_permutes_them() -> None:
    model, dataset = runner(permute_classes=1, seed=3, n_epochs=4)
    order = np.random.RandomState(3).permutation(10).argsort()
    run = train(model, dataset)
    assert dataset.N_CLASSES_PER_TASK == 2
    assert dataset.labels(torch.from_numpy(order)).tolist() == list(range(10))
    assert run.metrics["task_il_accuracy"] > 0.8


@pytest.mark.parametrize("share", [0.25, 25])
def test_a_share_of_the_rows_is_kept_to_validate_with(share: float) -> None:
    model, dataset = runner(validation=share)
    run = train(model, dataset)
    everything, _ = runner(path="all")
    whole = train(everything, everything.dataset)
    rows = run.replay.storage
    assert len(rows) == len(whole.replay.storage)
    assert len(model.seen) < 0.8 * len(everything.seen)


# --------------------------------------------------------------------------------- checkpoints


def test_a_checkpoint_of_the_end_is_mammoths_and_evaluates_to_the_same() -> None:
    model, dataset = runner(model=Rehearsing, buffer_size=50, savecheck="last", ckpt_name="mine")
    run = train(model, dataset)
    path = Path("checkpoints/mine_last.pt")
    saved = torch.load(path, weights_only=True)
    assert set(saved) == {"model", "args", "results", "optimizer", "buffer"}
    assert saved["args"]["buffer_size"] == 50
    assert torch.equal(saved["model"]["net.classifier.weight"], model.net.classifier.weight)
    assert saved["results"][0][-1] == pytest.approx([100 * x for x in run.accuracy_matrix[-1]])
    other, sequence = runner(
        model=Rehearsing, buffer_size=50, loadcheck=str(path), inference_only=1, seed=9
    )
    assert torch.equal(other.buffer.labels, model.buffer.labels)
    again = train(other, sequence)
    assert other.seen == []
    assert again.metrics["accuracy"] == run.metrics["accuracy"]
    assert again.metrics["task_il_accuracy"] == run.metrics["task_il_accuracy"]
    assert np.array_equal(again.accuracy_matrix[-1], run.accuracy_matrix[-1])


def test_a_checkpoint_after_each_task() -> None:
    model, dataset = runner(savecheck="task", checkpoint_path="kept")
    run = train(model, dataset)
    names = sorted(p.name for p in Path("kept").iterdir())
    assert [name[-4:] for name in names] == ["0.pt", "1.pt", "2.pt", "3.pt", "4.pt"] or len(
        names
    ) == 5
    first = torch.load(Path("kept") / names[0], weights_only=True)
    last = torch.load(Path("kept") / names[-1], weights_only=True)
    assert not torch.equal(first["model"]["net.fc1.weight"], last["model"]["net.fc1.weight"])
    assert len(first["results"][0]) == 1
    assert first["results"][0][0] == pytest.approx([100 * run.accuracy_matrix[0][0]])


def test_learning_goes_on_from_a_checkpoint() -> None:
    model, dataset = runner(model=Rehearsing, buffer_size=50, savecheck="last", ckpt_name="a")
    train(model, dataset)
    other, sequence = runner(
        model=Rehearsing, buffer_size=50, loadcheck="checkpoints/a_last.pt", path="second"
    )
    assert torch.equal(other.net.get_params(), model.net.get_params())
    train(other, sequence)
    assert len(other.seen) == len(model.seen)
    assert not torch.equal(other.net.get_params(), model.net.get_params())


def test_a_run_directory_is_a_checkpoint_too() -> None:
    model, dataset = runner(model=Rehearsing, buffer_size=50, path="first")
    run = train(model, dataset)
    other, sequence = runner(
        model=Rehearsing, buffer_size=50, loadcheck="first", inference_only=1, seed=4
    )
    assert torch.equal(other.buffer.examples, model.buffer.examples)
    again = train(other, sequence)
    assert again.metrics["accuracy"] == run.metrics["accuracy"]
    third, sequence = runner(model=Rehearsing, buffer_size=50, loadcheck="first", path="third")
    assert torch.equal(third.buffer.labels, model.buffer.labels)
    assert third.seen == []
    train(third, sequence)


class Boom:
    def __reduce__(self) -> Any:
        return (Path("executed").write_text, ("yes",))


def test_nothing_in_a_checkpoint_is_executed() -> None:
    Path("bad.pt").write_bytes(pickle.dumps({"model": Boom()}))
    torch.save({"model": Boom()}, "worse.pt")
    for name in ("bad.pt", "worse.pt"):
        with pytest.raises(CheckpointError, match="cannot be loaded without executing"):
            runner(loadcheck=name)
    assert not Path("executed").exists()


def test_a_checkpoint_that_does_not_fit_is_refused() -> None:
    torch.save({"model": {"net.other.weight": torch.zeros(3)}}, "other.pt")
    with pytest.raises(CheckpointError, match="does not fit"):
        runner(loadcheck="other.pt")
    model, dataset = runner(model=Rehearsing, buffer_size=50, savecheck="last", ckpt_name="b")
    train(model, dataset)
    with pytest.raises(CheckpointError, match=r"buffer of 50 rows.*buffer_size=50"):
        runner(model=Rehearsing, buffer_size=20, loadcheck="checkpoints/b_last.pt")
    with pytest.raises(CheckpointError, match="has no `buffer`"):
        runner(model=Rates, loadcheck="checkpoints/b_last.pt")


def test_weights_of_the_network_alone_will_do() -> None:
    model, _ = runner(seed=5)
    torch.save(model.net.state_dict(), "net.pt")
    other, _ = runner(seed=6, loadcheck="net.pt")
    assert torch.equal(other.net.get_params(), model.net.get_params())


# ------------------------------------------------------------------------- what Mammoth says itself


@pytest.mark.parametrize(
    "given",
    [
        {
            "label_perc": 1,
            "noise_rate": 0.0,
            "noise_type": "symmetric",
            "validation_mode": "current",
        },
        {"early_stopping_patience": 5, "early_stopping_metric": "loss", "drop_last": False},
        {"model_config": "default", "load_best_args": False, "save_after_interrupt": 1},
        {"results_path": "results/", "nowand": True, "conf_jobnum": "a1", "num_classes": 10},
    ],
)
def test_what_mammoth_takes_by_default_is_no_mistake(
    given: dict[str, Any], recwarn: pytest.WarningsRecorder
) -> None:
    runner(**given)
    assert not [w for w in recwarn if "has no effect" in str(w.message)]


def test_incomplete_batches_are_not_left_out_in_silence() -> None:
    with pytest.raises(ConfigError, match="drop_last=1 is not supported"):
        runner(drop_last=1)


def test_the_arguments_in_a_checkpoint_can_be_given_again() -> None:
    model, dataset = runner(Rehearsing, buffer_size=40, savecheck="last", path="first")
    train(model, dataset)
    [file] = Path("checkpoints").glob("*.pt")
    args = torch.load(file, weights_only=True)["args"] | {"progress": False, "plot": False}
    again, _ = load_runner("mine", "seq-digits", args)
    assert (again.args.buffer_size, again.args.batch_size) == (40, ARGS["batch_size"])


def test_arguments_have_to_be_named() -> None:
    with pytest.raises(ConfigError, match="expected a dict"):
        load_runner("sgd", "seq-digits", "lr=0.1")  # type: ignore[arg-type]


def test_a_data_set_has_epochs_and_a_batch_size_of_its_own() -> None:
    required, optional = get_avail_args(dataset="seq-mnist")
    assert set(required) == {"dataset", "model", "lr"}
    assert (optional["n_epochs"]["default"], optional["batch_size"]["default"]) == (1, 64)
    asked = Asked("sgd", "seq-cifar100", {"lr": 0.1})
    assert (asked.args["n_epochs"], asked.args["batch_size"]) == (50, 32)
    assert (asked.values["lr_scheduler"], asked.values["lr_milestones"]) == (
        "multisteplr",
        [35, 45],
    )
    asked = Asked("sgd", "seq-cifar100", {"lr": 0.1, "n_epochs": 2, "lr_scheduler": "cosine"})
    assert (asked.args["n_epochs"], asked.values["lr_scheduler"]) == (2, "cosine")


def test_options_of_a_model_are_listed() -> None:
    registry.MODELS["mine"] = Rehearsing
    required, optional = get_avail_args(model="mine")
    assert "buffer_size" in required
    assert "minibatch_size" in optional
    with pytest.raises(ConfigError, match=r"No model `mien` is registered. Did you mean `mine`"):
        get_avail_args(model="mien")


class OneByOne(Rates):
    """Decides on its batches itself, as MER does, and on its epochs, as GDumb does."""

    @staticmethod
    def get_parser(parser: Any) -> Any:
        parser.set_defaults(batch_size=40, n_epochs=1)
        return parser

    def __init__(self, backbone: Any, loss: Any, args: Any, transform: Any, dataset: Any = None):
        args.batch_size, args.n_epochs = 40, 1
        super().__init__(backbone, loss, args, transform, dataset=dataset)
        self.rows: set[int] = set()

    def observe(self, inputs: Any, labels: Any, not_aug_inputs: Any, epoch: Any = None) -> float:
        self.rows.add(len(inputs))
        return super().observe(inputs, labels, not_aug_inputs, epoch)


def test_a_model_decides_on_its_epochs_and_batches() -> None:
    model, dataset = runner(OneByOne, batch_size=5, n_epochs=3)
    train(model, dataset)
    assert max(model.rows) == 40
    assert {epoch for _, epoch, _ in model.seen} == {0}
    quiet = {"lr": 0.1, "progress": False, "plot": False}
    model, _ = load_runner("mine", "seq-digits", quiet)
    assert (model.args.batch_size, model.args.n_epochs) == (40, 1)


# --------------------------------------------------------------------------- what a file holds


class Means(Rehearsing):
    """Predicts with what it makes of its memory at a task's end, and counts classes as it goes."""

    ready = False

    def observe(self, inputs: Any, labels: Any, not_aug_inputs: Any, epoch: Any = None) -> float:
        seen = labels.unique()
        if hasattr(self, "classes_so_far"):
            seen = torch.cat((self.classes_so_far, seen)).unique()
        self.register_buffer("classes_so_far", seen)
        self.ready = False
        return super().observe(inputs, labels, not_aug_inputs, epoch)

    def begin_task(self, dataset: Any) -> None:
        dataset.train_loader.dataset.targets = dataset.train_loader.dataset.targets[:64]
        dataset.train_loader.dataset.data = dataset.train_loader.dataset.data[:64]

    def end_task(self, dataset: Any) -> None:
        self.ready = True

    def forward(self, x: Any) -> Any:
        if self.training or not (self.ready or self.loaded):
            raise RuntimeError("no means yet")
        return self.net(x) + 0 * self.classes_so_far.sum()

    @property
    def loaded(self) -> bool:
        return self.args.loadcheck is not None


@pytest.mark.filterwarnings("ignore:Means.forward raised RuntimeError .* before anything")
def test_a_forward_that_needs_the_end_of_a_task_is_not_needed_before() -> None:
    model, dataset = runner(Means, buffer_size=40, joint=1, n_epochs=3, eval_every=1)
    with pytest.warns(
        UserWarning, match=r"Means.forward raised RuntimeError .* in the middle of a"
    ):
        run = train(model, dataset)
    assert len(run.history) > 1


@pytest.mark.filterwarnings("ignore:Means.forward raised")
@pytest.mark.parametrize("source", ["run", "file"])
def test_buffers_and_rows_made_in_learning_are_loaded(source: str) -> None:
    model, dataset = runner(Means, buffer_size=40, savecheck="last", path="run")
    learnt = train(model, dataset).metrics["accuracy"]
    path = "run" if source == "run" else str(next(Path("checkpoints").glob("*.pt")))
    model, dataset = runner(Means, buffer_size=40, loadcheck=path, inference_only=1)
    assert train(model, dataset).metrics["accuracy"] == learnt
    assert model.classes_so_far.tolist() == list(range(10))


@pytest.mark.filterwarnings("ignore:Means.forward raised")
def test_a_checkpoint_of_another_model_that_cannot_predict_is_an_error() -> None:
    model, dataset = runner(Rehearsing, buffer_size=40, savecheck="last")
    train(model, dataset)
    path = str(next(Path("checkpoints").glob("*.pt")))
    model, dataset = runner(Means, buffer_size=40, loadcheck=path, inference_only=1)
    with pytest.raises(CheckpointError, match=r"Means cannot predict with what .* no attribute"):
        train(model, dataset)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"hello", "cannot be loaded without executing"),
        ({"model": [1]}, "its `model` is a list"),
        ({"buffer": [1]}, "its `buffer` holds no `examples`"),
    ],
)
def test_a_file_that_is_no_checkpoint_is_an_error(content: Any, expected: str) -> None:
    if isinstance(content, bytes):
        Path("x.pt").write_bytes(content)
    else:
        model, _ = runner(Rehearsing, buffer_size=40)
        torch.save({"model": model.state_dict(), **content}, "x.pt")
    with pytest.raises(CheckpointError, match=expected):
        runner(Rehearsing, buffer_size=40, loadcheck="x.pt")


def test_learning_on_from_a_file_is_told_by_the_seed() -> None:
    model, dataset = runner(Rehearsing, buffer_size=40, savecheck="last", seed=0)
    train(model, dataset)
    path = str(next(Path("checkpoints").glob("*.pt")))

    def drawn() -> list[float]:
        torch.manual_seed(time.time_ns() % 2**32)  # As another process would have it.
        model, _ = runner(Rehearsing, buffer_size=40, loadcheck=path, seed=0)
        rows: list[float] = model.buffer.get_data(20)[0].flatten().tolist()
        return rows

    assert drawn() == drawn()


class Keeping(Rates):
    """Has one optimiser for all tasks, as models have in Mammoth Lite."""

    def get_optimizer(self, params: Any = None, lr: Any = None) -> Any:
        return getattr(self, "opt", None) or super().get_optimizer(params, lr)

    def begin_task(self, dataset: Any) -> None:
        self.steps_before = [*getattr(self, "steps_before", []), len(self.opt.state)]


def test_an_optimiser_is_kept_over_tasks_by_a_model_that_wants_it() -> None:
    model, dataset = runner(Keeping, optim_mom=0.9)
    train(model, dataset)
    assert model.steps_before[0] == 0
    assert min(model.steps_before[1:]) > 0


def test_an_argument_that_cannot_be_read_is_not_called_missing_as_well() -> None:
    with pytest.raises(ConfigError) as raised:
        load_runner("sgd", "seq-digits", {**ARGS, "lr": "fast", "batch_size": "ten"})
    assert "lr=fast: expected a number" in str(raised.value)
    assert "batch_size=ten: expected a whole number" in str(raised.value)
    assert "load_runner needs" not in str(raised.value)


def test_a_model_reads_n_epochs_where_steps_bound_a_task() -> None:
    register_model("mine")(Rates)
    steps = {"fitting_mode": "iters", "n_iters": 2}
    model, dataset = load_runner("mine", "seq-digits", {**ARGS, "n_epochs": 3, **steps})
    train(model, dataset)
    assert model.args.n_epochs == 3
    assert len(model.seen) == 2 * dataset.N_TASKS
