"""Bad input: one clear message before training, and nothing left behind."""

from __future__ import annotations

import os
import urllib.error
import urllib.request
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import Dataset

from antelope import CheckpointError, ConfigError, DataError, Diverged, ml

SHORT: dict[str, Any] = {"train_steps": 2, "plot": False, "progress": False}


pytestmark = pytest.mark.usefixtures("workdir")


def refused(
    *words: str, says: list[str], error: type[Exception] = ConfigError, **settings: Any
) -> str:
    """The message of the error that `ml` raises; it holds `says`, and no file was made or lost."""
    before = sorted(Path.cwd().rglob("*"))
    with pytest.raises(error) as raised:
        ml(*words, **SHORT | settings)
    message = str(raised.value)
    assert type(raised.value) is error
    for part in says:
        assert part in message
    assert len(message) < 1500
    assert sorted(Path.cwd().rglob("*")) == before
    return message


class Linear(nn.Module):
    """A model with nothing wrong about it."""

    def __init__(self, in_features: int, out_features: int, hidden: int = 8):
        super().__init__()
        self.first = nn.Linear(in_features, hidden)
        self.last = nn.Linear(hidden, out_features)

    def forward(self, obs: Tensor) -> Tensor:
        return self.last(self.first(obs.flatten(1)).relu())


class Learns(Linear):
    def loss(self, replay: Any) -> Tensor:
        batch = next(replay)
        return F.cross_entropy(self(batch.obs), batch.label)


# ------------------------------------------------------------------------------------- settings


@pytest.mark.parametrize(
    ("word", "says"),
    [
        ("lrr=1e-3", ["Unknown setting `lrr`", "Did you mean `lr`?", "ml --help"]),
        ("epoch=3", ["Unknown setting `epoch`", "`epochs`"]),
        ("Batch_Size=3", ["Unknown setting `Batch_Size`", "Did you mean `batch_size`"]),
        ("patience=3", ["Unknown setting `patience`", "Did you mean `early_stopping.patience`?"]),
        ("early_stopping.patiance=3", ["early_stopping.patiance", "early_stopping.patience"]),
        ("optimizer.lr=3", ["Unknown setting `optimizer`", "Did you mean `optim`"]),
        ("seed.x=3", ["`seed` has no sub-keys", "seed.x"]),
        ("epochs=0", ["epochs=0", "expected int >= 1"]),
        ("epochs=1.5", ["epochs=1.5", "expected int >= 1"]),
        ("epochs=true", ["epochs=True", "expected int >= 1"]),
        ("epochs=many", ["epochs=many", "expected int >= 1"]),
        ("epochs=inf", ["epochs=inf", "expected int >= 1"]),
        ("epochs=nan", ["epochs=nan", "expected int >= 1"]),
        ("train_steps=-1", ["train_steps=-1", "expected int >= 1"]),
        ("batch_size=-32", ["batch_size=-32", "expected int >= 1"]),
        ("batch_size=", ["batch_size=''", "expected int >= 1"]),
        ("log_every=null", ["log_every=", "expected int >= 1"]),
        ("lr=fast", ["lr=fast", "expected float > 0"]),
        ("classes_per_task=two", ["classes_per_task=two", "whole number, or a list"]),
        ("classes_per_task=[2,a]", ["classes_per_task=", "whole number, or a list"]),
        ("class_order=random", ["class_order=random", "shuffled, or a list of all classes"]),
        ("scenario=classes", ["scenario=classes", "one of class task domain", "`class`"]),
        ("validation=0.7", ["validation=0.7", "float 0..0.5"]),
        ("lr=-1", ["lr=-1", "expected float > 0"]),
        ("lr=0", ["lr=0", "expected float > 0"]),
        ("lr=nan", ["lr=nan", "expected float > 0"]),
        ("lr=inf", ["lr=inf", "expected float > 0"]),
        ("weight_decay=-1", ["weight_decay=-1", "expected float >= 0"]),
        ("clip_grad=0", ["clip_grad=0", "expected float > 0"]),
        ("ema=2", ["ema=2", "expected float 0..1"]),
        ("seed=-1", ["seed=-1", "expected int >= 0"]),
        ("save_every=0", ["save_every=0", "expected int >= 1"]),
        ("early_stopping.patience=0", ["early_stopping.patience=0", "expected int >= 1"]),
        ("resume=maybe", ["resume=maybe", "expected bool"]),
        ("precision=64", ["precision=64", "one of 32 tf32 bf16 16"]),
        ("loggers=[csv,tensorbord]", ["tensorbord", "list of csv tensorboard mlflow wandb"]),
        ("experiment=[a]", ["experiment=", "expected text"]),
        ("lr=1e-3,1e-2", ["`lr=1e-3,1e-2`", "-m", "lr=[...]"]),
        ("lr", ["`lr`", "key=value"]),
        ("=3", ["`=3`", "key=value"]),
        ("task=classify/nonesuch", ["No preset `classify/nonesuch`", "Presets: "]),
        ("optim.lr={a", ["optim.lr={a", "quote"]),
        ("lr=${nonesuch}", ["nonesuch", "${"]),
    ],
)
def test_setting_is_refused_with_what_would_be_right(word: str, says: list[str]) -> None:
    refused(word, says=says, model=Linear)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"lrr": 1e-3}, ["Unknown setting `lrr`", "Did you mean `lr`?"]),
        ({"epochs": 0}, ["epochs=0", "expected int >= 1"]),
        ({"epochs": "3"}, ["epochs=3", "expected int >= 1"]),
        ({"lr": "1e-3"}, ["lr=1e-3", "expected float > 0"]),
        ({"lr": torch.tensor(-1.0)}, ["lr=", "expected float > 0"]),
        ({"seed": [1, 2]}, ["seed=[1, 2]", "expected int >= 0"]),
        ({"task": 5}, ["task=5", "preset"]),
        ({"optim": {"lr": 1e-3, "_target_": 5}}, ["optim", "expected name"]),
        ({"model": 5}, ["model", "5", "expected name"]),
        ({"dataset": 5}, ["dataset", "5", "expected names"]),
        ({"path": 5.5, "epochs": -1}, ["epochs=-1", "expected int >= 1"]),
    ],
)
def test_keyword_is_refused_with_what_would_be_right(
    settings: dict[str, Any], says: list[str]
) -> None:
    refused(says=says, **{"model": Linear} | settings)


def test_position_takes_strings_only() -> None:
    refused(Linear, says=["strings such as 'lr=1e-3'", "Linear"])  # type: ignore[arg-type]


def test_every_wrong_setting_is_reported_at_once() -> None:
    message = refused(
        "lrr=1e-3", "batch_size=-1", "epochs=0", "lr=fast", model=Linear, seed=-1, tsks=2, says=[]
    )
    for part in ("`lrr`", "batch_size=-1", "epochs=0", "lr=fast", "seed=-1", "`tsks`"):
        assert part in message
    assert len(message.splitlines()) == 6


def test_unknown_names_are_reported_at_once() -> None:
    refused(
        model="AC2Agnet",
        dataset="Digitts",
        optim="AdamV",
        scheduler="StepRL",
        says=["`AC2Agent`", "`Digits`", "`Adam`", "`StepLR`"],
    )


def test_settings_and_names_are_reported_at_once() -> None:
    refused("lrr=1", model="AC2Agnet", says=["Did you mean `lr`?", "Did you mean `AC2Agent`?"])


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"lr": 1e-3, "optim.lr": 1e-2}, ["lr=0.001", "optim.lr=0.01", "Set only one of them"]),
        ({"env": "CartPole-v1", "dataset": "Digits"}, ["dataset=", "env=", "one of them"]),
        (
            {"lr_decay_epochs": 2, "scheduler": "StepLR"},
            ["scheduler=", "lr_decay_epochs="],
        ),
        ({"tasks": 3}, ["Cannot split the 10 classes of Digits", "1, 2, 5 or 10"]),
        ({"tasks": 20}, ["Cannot split the 10 classes of Digits", "1, 2, 5 or 10"]),
        ({"tasks": 2, "dataset": "Diabetes"}, ["tasks=2", "values"]),
        ({"tasks": 2, "dataset": ["Digits", "Digits"]}, ["tasks=", "already a sequence"]),
        ({"test_dataset": "Digitts"}, ["No data set `Digitts`", "`Digits`"]),
        ({"test_dataset": ["Digits", "Digits"]}, ["test_dataset= names 2", "dataset= names 1"]),
        ({"device": "cuda:99"}, ["device=cuda:99", "device=cpu"]),
        ({"device": "gpu"}, ["device=gpu", "device=cpu"]),
        ({"env": "Blackjack-v1"}, ["the observation is a dict of 0, 1, 2", "obs_shapes"]),
        ({"model": "null", "model.hidden": 3}, ["model"]),
        ({"scheduler.T_max": 5}, ["scheduler", "T_max", "scheduler=NAME"]),
    ],
)
def test_settings_that_contradict_each_other(settings: dict[str, Any], says: list[str]) -> None:
    refused(says=says, **{"model": Linear} | settings)


def test_one_setting_given_twice() -> None:
    refused("lr=1e-3", "lr=1e-2", model=Linear, says=["`lr` is given twice", "0.001", "0.01"])
    refused("model=AC2Agent", "agent=Random", says=["`model` is given twice", "AC2Agent", "Random"])


# ---------------------------------------------------------------------------------------- names


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"model": "AC2Agnet"}, ["No model `AC2Agnet`", "Did you mean `AC2Agent`", "ml models"]),
        ({"model": "resnet19"}, ["No model `resnet19`", "`resnet18`", "ml models"]),
        ({"model": None, "agent": "AC2Agnet"}, ["`AC2Agnet`", "Did you mean `AC2Agent`"]),
        ({"dataset": "Digit"}, ["No data set `Digit`", "Did you mean `Digits`", "ml datasets"]),
        ({"dataset": "cifar-10"}, ["No data set `cifar-10`", "`CIFAR10`", "ml datasets"]),
        ({"dataset": "./nowhere"}, ["No data set `./nowhere`", "no such folder"]),
        ({"optim": "adam"}, ["No optimiser `adam`", "`Adam`"]),
        ({"optim": "AdamX"}, ["No optimiser `AdamX`", "`Adam`", "torch.optim"]),
        ({"optim": "zzz"}, ["No optimiser `zzz`", "There are: ", "AdamW", "SGD"]),
        ({"scheduler": "CosineAnealingLR"}, ["No scheduler", "`CosineAnnealingLR`"]),
        ({"aug": "RandomCorp"}, ["No augmentation `RandomCorp`", "`RandomCrop`"]),
        ({"env": "CartPol-v1"}, ["No environment `CartPol-v1`", "`CartPole-v1`", "ml envs"]),
        ({"env": "CartPole-v9"}, ["CartPole-v9", "`CartPole-v1`"]),
        ({"model": "nofile.py:Model"}, ["There is no file nofile.py"]),
        ({"model": "torch.nn.Linaer"}, ["torch.nn has no `Linaer`", "`Linear`"]),
        ({"model": "nopackage.Model"}, ["nopackage.Model"]),
    ],
)
def test_unknown_name_is_answered_with_the_nearest(
    settings: dict[str, Any], says: list[str]
) -> None:
    refused(says=says, **{"model": Linear} | settings)


def test_class_of_the_working_directory_is_among_the_nearest_names() -> None:
    Path("nets.py").write_text("class Classifier: ...\n")
    refused(model="Classifer", says=["No model `Classifer`", "Did you mean `Classifier`?"])
    refused(model="nets.py:Classifer", says=["nets.py has no `Classifer`", "`Classifier`"])


def test_two_classes_of_one_name() -> None:
    for name in ("one", "two"):
        Path(f"{name}.py").write_text("raise RuntimeError('imported')\nclass Model: ...\n")
    refused(model="Model", says=["defined in 2 files", "one.py:Model or two.py:Model"])


def test_model_file_that_cannot_be_imported() -> None:
    Path("broken.py").write_text("import nonesuch_package\nclass Broken: ...\n")
    refused(model="Broken", says=["Importing broken.py raised", "nonesuch_package", "line 1"])
    Path("broken2.py").write_text("class Broken2:\n    x = 1 +\n")
    message = refused(model="broken2.py:Broken2", says=["broken2.py", "SyntaxError", "line 2"])
    assert "importlib" not in message


# ------------------------------------------------------------------------------------- the model


class NeedsWidth(nn.Module):
    def __init__(self, in_features: int, width: int, depth: int):
        super().__init__()


class Raises(nn.Module):
    def __init__(self, in_features: int):
        super().__init__()
        raise ValueError("heads must divide width")


class Bare(nn.Module):
    pass


class NoModule:
    def __init__(self, spec: Any): ...


class NoArgument(Learns):
    def learn(self) -> None: ...


class ThreeArguments(Learns):
    def learn(self, replay: Any, log: Any, step: Any) -> None: ...


class KeywordOnly(Learns):
    def learn(self, replay: Any, *, step: Any) -> None: ...


class NoMethod(Learns):
    learn = 5


class Wide(Linear):
    def __init__(self, in_features: int):
        super().__init__(in_features, 5)


class Columns(Linear):
    def forward(self, obs: Tensor) -> Tensor:
        return super().forward(obs).argmax(1)


class Pair(Linear):
    def forward(self, obs: Tensor) -> Any:
        return super().forward(obs), obs


class NotFlattened(Linear):
    def forward(self, obs: Tensor) -> Tensor:
        return self.last(self.first(obs))


@pytest.mark.parametrize(
    ("model", "says"),
    [
        (NeedsWidth, ["NeedsWidth needs `width` and `depth`", "model.width=... model.depth=..."]),
        (NeedsWidth, ["in_features", "out_features", "obs_spec", "num_classes"]),
        (Raises, ["Raises(in_features=64) raised ValueError: heads must divide width"]),
        (Raises, ["test_errors.py, line "]),
        (Bare, ["Bare has none of `forward`, `act` and `learn`"]),
        (NoModule, ["NoModule", "not a torch.nn.Module"]),
        (NoArgument, ["NoArgument.learn()", "learn(self, replay) or learn(self, replay, log)"]),
        (ThreeArguments, ["ThreeArguments.learn(replay", "learn(self, replay, log)"]),
        (KeywordOnly, ["KeywordOnly.learn(replay", "learn(self, replay, log)"]),
        (NoMethod, ["NoMethod.learn is a int"]),
        (Wide, ["Wide.forward: expected output [2, 10] for one of 10, got [2, 5]"]),
        (Wide, ["last: Linear", "given obs float32 [2, 1, 8, 8]", "`out_features`"]),
        (Columns, ["Columns.forward: expected output [2, 10]", "got [2]"]),
        (Pair, ["Pair.forward returned a tuple", "a tensor of shape [2, 10]"]),
        (
            NotFlattened,
            ["raised RuntimeError in first: Linear", "[2, 1, 8, 8]"],
        ),
        (Wide(64), ["expected output [2, 10]", "got [2, 5]"]),
    ],
)
@pytest.mark.row(18)
@pytest.mark.row(20)
@pytest.mark.row(21)
def test_model_is_refused_with_what_it_needs(model: Any, says: list[str]) -> None:
    refused(model=model, says=says)


def test_line_of_a_constructor_in_the_running_script_is_shown(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("sys.argv", [__file__])
    refused(model=Raises, says=["test_errors.py, line "])


@pytest.mark.row(20)
def test_unknown_argument_lists_the_constructor_s_parameters() -> None:
    lists = "It has: in_features, out_features, hidden."
    refused("model.hiden=3", model=Linear, says=["`model.hiden`", "Did you mean `hidden`?", lists])
    refused(
        "optim.momentm=1", model=Linear, optim="SGD", says=["`momentm`", "`momentum`", "nesterov"]
    )
    refused("dataset.rot=1", model=Linear, dataset="Digits", says=["`dataset.rot`", "It has: none"])
    refused("model.hidden=1", model=NeedsNothing, says=["`model.hidden`", "It has: none"])
    refused("scheduler.Tmax=1", model=Linear, scheduler="CosineAnnealingLR", says=["`T_max`"])
    refused("aug.pad=1", model=Linear, aug="RandomCrop", says=["`aug.pad`", "padding"])


def test_all_wrong_arguments_of_a_constructor_at_once() -> None:
    refused(
        "model.dpth=3", "model.hiden=3", model=NeedsWidth, says=["`dpth`", "`hiden`", "`width`"]
    )


def test_instance_takes_no_arguments() -> None:
    refused(
        "model.hidden=3",
        model=Linear(64, 10),
        says=["already constructed", "hidden", "Give its class"],
    )


def test_argument_of_the_wrong_type_names_the_constructor() -> None:
    wanted = ["Linear(", "hidden='wide'", "raised TypeError", "test_errors.py, line "]
    refused("model.hidden=wide", model=Linear, says=wanted)
    refused("optim.betas=1", model=Linear, says=["AdamW", "betas=1", "raised TypeError"])
    refused("optim.lr=-1", model=Linear, says=["AdamW", "Invalid learning rate"])
    refused(scheduler="CosineAnnealingLR", model=Linear, says=["`T_max`", "scheduler.T_max=..."])


def test_optimiser_of_another_model() -> None:
    other = torch.optim.SGD(Linear(3, 3).parameters(), 0.1)
    refused(
        model=Linear,
        optim=other,
        says=["none of the model's parameters", "Give the optimiser's class"],
    )
    refused(model=Linear, optim=nn.Linear(2, 2), says=["not a torch.optim.Optimizer"])


class Smaller:
    def __call__(self, images: Tensor) -> Tensor:
        return images[..., 1:]


class Fails:
    def __call__(self, images: Tensor) -> Tensor:
        raise ValueError("no such colour")


def test_augmentation_that_does_not_fit() -> None:
    refused(
        model=Linear, aug=Smaller(), says=["[2, 1, 8, 8] into [2, 1, 8, 7]", "keep their shape"]
    )
    refused(model=Linear, aug=Fails(), says=["aug raised ValueError", "[2, 1, 8, 8]", "colour"])
    refused("aug.size=20", model=Linear, aug="RandomCrop", says=["20x20 does not fit into 8x8"])


# -------------------------------------------------------------------------------------- the loss


class NotScalar(Learns):
    def learn(self, replay: Any) -> Tensor:
        batch = next(replay)
        return F.cross_entropy(self(batch.obs), batch.label, reduction="none")


class NoGraph(Learns):
    def learn(self, replay: Any) -> Tensor:
        return self.loss(replay).detach()


class Number(Learns):
    def learn(self, replay: Any) -> float:
        return self.loss(replay).item()


class TwoLosses(Learns):
    def learn(self, replay: Any) -> Any:
        return self.loss(replay), 0


@pytest.mark.parametrize(
    ("model", "says"),
    [
        (
            NotScalar,
            ["NotScalar.learn returned a tensor of shape [32]", "scalar", "mean()"],
        ),
        (NoGraph, ["NoGraph.learn returned a loss without a graph", "Return None when the model"]),
        (Number, ["Number.learn returned a float", "Return the loss tensor itself"]),
        (TwoLosses, ["TwoLosses.learn returned a tuple", "Return the loss tensor itself"]),
    ],
)
@pytest.mark.row(19)
def test_loss_that_cannot_be_trained_on(model: type[nn.Module], says: list[str]) -> None:
    refused(model=model, says=says)


class LogsVector(Learns):
    def learn(self, replay: Any, log: Any) -> Tensor:
        log.logits = self(next(replay).obs)
        return self.loss(replay)


class LogsText(Learns):
    def learn(self, replay: Any, log: Any) -> Tensor:
        log.phase = "warm-up"
        return self.loss(replay)


def test_what_cannot_be_logged() -> None:
    refused(model=LogsVector, says=["log.logits records a scalar", "[32, 10]", "mean"])
    refused(model=LogsText, says=["log.phase records a number", "str 'warm-up'"])


class Unlucky(Learns):
    """Raises, or turns NaN, at one learning step."""

    def __init__(self, in_features: int, out_features: int, step: int = 1, nan: bool = False):
        super().__init__(in_features, out_features)
        self.step, self.nan, self.steps = step, nan, 0

    def learn(self, replay: Any) -> Tensor:
        self.steps += 1
        batch = next(replay)
        if self.steps < self.step:
            return F.cross_entropy(self(batch.obs), batch.label)
        if not self.nan:
            raise KeyError("no such head")
        return F.cross_entropy(self(batch.obs) * float("nan"), batch.label)


@pytest.mark.row(17)
def test_error_inside_learn_is_the_user_s_own_with_step_and_shapes(tmp_path: Path) -> None:
    with pytest.raises(KeyError, match="no such head") as raised:
        ml("model.step=3", model=Unlucky, **SHORT | {"train_steps": 9})
    note = "\n".join(raised.value.__notes__)
    assert "Unlucky.learn" in note
    assert "learning step 3" in note
    assert "obs float32 [32, 1, 8, 8]" in note
    assert "label int64 [32]" in note
    (status,) = tmp_path.rglob("status.json")
    assert '"failed"' in status.read_text()


def test_error_inside_the_first_learn_leaves_no_run(tmp_path: Path) -> None:
    with pytest.raises(KeyError, match="no such head"):
        ml(model=Unlucky, **SHORT)
    assert list(tmp_path.iterdir()) == []


def test_error_inside_backward_has_the_step_too() -> None:
    class InPlace(Learns):
        def learn(self, replay: Any) -> Tensor:
            hidden = self.first(next(replay).obs.flatten(1)).sigmoid()
            loss = hidden.square().mean()
            hidden.zero_()
            return loss

    with pytest.raises(RuntimeError, match="inplace operation") as raised:
        ml(model=InPlace, **SHORT)
    assert "learning step 1" in "\n".join(raised.value.__notes__)


def test_loss_that_turns_nan_stops_and_keeps_the_last_good_checkpoint(tmp_path: Path) -> None:
    words = ["model.step=8", "model.nan=true", "save_every=3"]
    with pytest.raises(Diverged) as raised:
        ml(*words, model=Unlucky, path="run", **SHORT | {"train_steps": 20})
    message = str(raised.value)
    assert "NaN at learning step 8" in message
    kept = tmp_path / "run/checkpoints/000002"
    assert f"The last good checkpoint is {kept}" in message
    assert "smaller lr" in message
    assert '"diverged"' in (tmp_path / "run/status.json").read_text()
    run = ml(model=Unlucky, **{"model.step": 99}, load=kept, path="next", **SHORT)
    assert all(p.isfinite().all() for p in run.agent.parameters())


def test_loss_that_turns_infinite_is_stopped_too() -> None:
    class Infinite(Learns):
        def learn(self, replay: Any) -> Tensor:
            return self.loss(replay) / 0

    with pytest.raises(Diverged, match="infinite at learning step 1") as raised:
        ml(model=Infinite, **SHORT)
    assert "no checkpoint yet" in str(raised.value)


def test_loss_of_a_model_that_updates_itself_is_watched_by_its_log() -> None:
    class Own(Learns):
        def learn(self, replay: Any, log: Any) -> None:
            log.loss = self.loss(replay) * (float("nan") if replay.step == 4 else 1)

    with pytest.raises(Diverged, match="NaN at learning step 4"):
        ml(model=Own, **SHORT | {"train_steps": 9})


class BadGradient(Learns):
    """A finite loss whose gradient is NaN: the weights are lost one step before the loss tells."""

    def learn(self, replay: Any) -> Tensor:
        loss = self.loss(replay)
        return loss + (self.last.bias * 0).sum().abs().sqrt() if replay.step == 5 else loss


def test_checkpoint_called_good_holds_no_nan(tmp_path: Path) -> None:
    with pytest.raises(Diverged, match=r"`last\.bias` became NaN at learning step 5") as raised:
        ml("save_every=1", model=BadGradient, path="run", **SHORT | {"train_steps": 9})
    named = str(raised.value).split("last good checkpoint is ")[1].split(". ")[0]
    run = ml(model=Linear, load=named, path="next", **SHORT)
    assert all(p.isfinite().all() for p in run.agent.parameters())


# -------------------------------------------------------------------------------------- the data


INPUTS = np.random.default_rng(0).normal(size=(50, 4)).astype(np.float32)
LABELS = np.arange(50) % 3


def changed(array: np.ndarray, index: Any, value: Any) -> np.ndarray:
    array = array.copy()
    array[index] = value
    return array


class Declared(Dataset):
    """Says that there are two classes, and gives three."""

    classes = ("cat", "dog")

    def __len__(self) -> int:
        return 50

    def __getitem__(self, i: int) -> Any:
        return INPUTS[i], int(LABELS[i])


class Empty(Declared):
    def __len__(self) -> int:
        return 0


class Ragged(Declared):
    def __getitem__(self, i: int) -> Any:
        return INPUTS[i, None, : 4 - i // 49], 0


class OnlyInputs(Declared):
    def __getitem__(self, i: int) -> Any:
        return torch.from_numpy(INPUTS[i])


class ItemRaises(Declared):
    def __getitem__(self, i: int) -> Any:
        if i == 7:
            raise OSError("disk on fire")
        return INPUTS[i], 0


@pytest.mark.parametrize(
    ("dataset", "says"),
    [
        (Declared(), ["Labels out of range", "label 2", "2 classes (0 to 1)"]),
        ((changed(INPUTS, (7, 2), np.nan), LABELS), ["NaN", "1 of 50 rows (first: row 7)"]),
        ((changed(INPUTS, (7, 2), np.inf), LABELS), ["infinite", "first: row 7", "Fill or drop"]),
        ((INPUTS, changed(INPUTS[:, 0], 9, np.nan)), ["targets", "NaN", "first: row 9"]),
        ((INPUTS[:0], LABELS[:0]), ["is empty"]),
        (Empty(), ["Empty is empty"]),
        ((INPUTS, LABELS[:-1]), ["50 inputs but 49 targets"]),
        ((INPUTS[:1], LABELS[:1]), ["1 row", "test_dataset="]),
        ((INPUTS.astype(str), LABELS), ["not numbers", "Encode"]),
        ((INPUTS, np.stack([LABELS, LABELS], 1)), ["[50, 2]", "floats (regression)"]),
        (Ragged(), ["differ in shape", "[1, 4] at 0, [1, 3] at 49"]),
        (OnlyInputs(), ["OnlyInputs is a Tensor", "An item is (input, target)"]),
        (ItemRaises(), ["Item 7 of ItemRaises raised OSError: disk on fire"]),
        (iter([1]), ["not a data set", "torch.utils.data.Dataset"]),
        ((INPUTS, np.array(3)), ["50 inputs but 1 targets"]),
        ((INPUTS, torch.tensor(3)), ["targets of arrays are a single number"]),
        ((INPUTS.astype(complex), LABELS), ["not real numbers", "view_as_real"]),
    ],
)
@pytest.mark.row(22)
@pytest.mark.row(25)
def test_data_is_refused_with_what_is_wrong_in_it(dataset: Any, says: list[str]) -> None:
    refused(model=Linear, dataset=dataset, says=says, error=DataError)


@pytest.mark.parametrize(
    ("test_dataset", "says"),
    [
        ((INPUTS, LABELS + 1), ["Labels out of range", "label 3", "training data's: 0 to 2"]),
        ((INPUTS[:, :3], LABELS), ["[4]", "[3]", "the same shape"]),
        ((INPUTS, INPUTS[:, 0]), ["classes as targets", "values"]),
        ((changed(INPUTS, (7, 2), np.nan), LABELS), ["NaN", "first: row 7"]),
    ],
)
def test_held_out_data_that_does_not_fit(test_dataset: Any, says: list[str]) -> None:
    data = {"dataset": (INPUTS, LABELS), "test_dataset": test_dataset}
    message = refused(model=Linear, **data, says=says, error=DataError)
    assert "held-out" in message or "test_dataset" in message  # Which of the two is meant.


def test_data_sets_of_one_sequence_that_do_not_fit_together() -> None:
    pairs = [(INPUTS, LABELS), (INPUTS[:, :3], LABELS)]
    wanted = ["inputs of shape [4]", "of [3]", "the same shape"]
    refused(model=Linear, dataset=pairs, says=wanted, error=DataError)
    wanted = ["Digits has inputs of", "Diabetes of"]
    refused(model=Linear, dataset=["Digits", "Diabetes"], says=wanted, error=DataError)


def test_folder_without_class_folders(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    wanted = ["photos is not a folder of class folders of images", "cat/1.png"]
    refused(model=Linear, dataset="photos", says=wanted, error=DataError)
    refused(model=Linear, dataset=tmp_path / "photos", says=wanted, error=DataError)
    (tmp_path / "photos/cat").mkdir()
    refused(model=Linear, dataset="photos", says=wanted, error=DataError)


def test_class_that_the_data_has_not_got() -> None:
    wanted = ["subset=[1, 11]", "Digits has no class 11"]
    dataset = [{"_target_": "Digits", "subset": [1, 11]}]
    refused(model=Linear, dataset=dataset, says=wanted, error=DataError)


@pytest.mark.parametrize("name", ["MNIST", "CIFAR10", "SVHN"])
def test_download_without_a_network(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreachable(*_: Any, **__: Any) -> Any:
        raise urllib.error.URLError("Network is unreachable")

    monkeypatch.setattr(urllib.request, "urlopen", unreachable)
    data = tmp_path / "data"
    with pytest.raises(DataError) as raised:
        ml(model=Linear, dataset=name, data_dir=data, **SHORT)
    message = str(raised.value)
    for part in (name, str(data), "ANTELOPE_DATA", "dataset=Digits", "network"):
        assert part in message
    assert not (tmp_path / "runs").exists()


# ------------------------------------------------------------------------- directory, checkpoints


def test_path_below_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path in ("file", "file/run"):
        refused(model=Linear, path=path, says=["Cannot write the run to", str(tmp_path), "path="])


def test_path_that_no_file_system_takes() -> None:
    refused(model=Linear, path="x" * 300, says=["Cannot write the run to", "path="])
    refused(model=Linear, path="new/folder/" + "x" * 300, says=["Cannot write the run", "path="])
    refused(model=Linear, experiment="x" * 300, says=["Cannot write the run", "path="])


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_path_without_permission(tmp_path: Path) -> None:
    (tmp_path / "locked").mkdir(mode=0o500)
    refused(model=Linear, path="locked/run", says=["Permission denied", "path="])
    (tmp_path / "closed").mkdir(mode=0o000)
    refused(model=Linear, path="closed/a/run", says=["Permission denied", "path="])


def test_file_system_that_is_read_only(monkeypatch: pytest.MonkeyPatch) -> None:
    def read_only(self: Path, *_: Any, **__: Any) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(Path, "mkdir", read_only)
    refused(model=Linear, path="a/run", says=["Read-only file system", "Set another path="])


def test_weights_from_nowhere(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "model.pt").write_bytes(b"PK")
    for path in ("nowhere", "empty", "model.pt"):
        wanted = [f"Cannot load {path}", "run directory or one of its checkpoints"]
        refused(model=Linear, load=path, says=wanted, error=CheckpointError)


def test_weights_of_another_model(tmp_path: Path) -> None:
    ml(model=Linear, path="run", **SHORT)
    wanted = ["does not fit Linear", "`first.weight` is [8, 64], the model's is [9, 64]"]
    refused("model.hidden=9", model=Linear, load="run", says=wanted, error=CheckpointError)
    wanted = ["does not fit NeedsNothing", "`head.weight` is missing", "`first.weight` is not in"]
    refused(model=NeedsNothing, load="run", says=wanted, error=CheckpointError)


class NeedsNothing(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(64, 10)

    def forward(self, obs: Tensor) -> Tensor:
        return self.head(obs.flatten(1))


def test_damaged_weights(tmp_path: Path) -> None:
    ml(model=Linear, path="run", **SHORT)
    (checkpoint,) = (tmp_path / "run/checkpoints").iterdir()
    tensors = checkpoint / "tensors.safetensors"
    tensors.write_bytes(tensors.read_bytes()[:-1] + b"!")
    for path in (checkpoint, "run"):
        wanted = ["is damaged: tensors.safetensors does not match its SHA-256"]
        refused(model=Linear, load=path, says=wanted, error=CheckpointError)
    (checkpoint / "manifest.json").write_text('{"format": "zip", "sha256": {}}')
    refused(
        model=Linear,
        load=checkpoint,
        says=["unknown checkpoint format: 'zip'"],
        error=CheckpointError,
    )
    (checkpoint / "manifest.json").write_text("[]")
    refused(model=Linear, load=checkpoint, says=["manifest.json"], error=CheckpointError)


class Nested(Learns):
    """Starts a second run in the directory of the first, from inside of it."""

    met: Exception | None = None

    def learn(self, replay: Any) -> Tensor:
        if Nested.met is None:
            try:
                ml(model=Linear, path="run", **SHORT)
            except ConfigError as error:
                Nested.met = error
        return self.loss(replay)


def test_two_runs_in_one_directory_at_once_are_refused(tmp_path: Path) -> None:
    Nested.met = None
    ml(model=Nested, path="run", **SHORT)
    assert isinstance(Nested.met, ConfigError)
    assert f"Another run is writing to {tmp_path / 'run'}" in str(Nested.met)
    assert "another seed, experiment or path" in str(Nested.met)
    assert '"finished"' in (tmp_path / "run/status.json").read_text()
    ml(model=Linear, path="run", **SHORT)  # And free again afterwards.


def test_an_earlier_run_is_moved_aside(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    ml(model=Linear, path="run", seed=1, **SHORT)
    first = {p.relative_to(run): p.read_bytes() for p in run.rglob("*") if p.is_file()}
    ml(model=Linear, path="run", seed=2, **SHORT | {"progress": True})
    assert f"The earlier run in {run} was moved to {run}.1" in capsys.readouterr().out
    ml(model=Linear, path="run", seed=3, **SHORT)
    aside = tmp_path / "run.1"
    kept = {p.relative_to(aside): p.read_bytes() for p in aside.rglob("*") if p.is_file()}
    assert kept == first
    seeds = [(tmp_path / n / "config.yaml").read_text() for n in ("run.1", "run.2", "run")]
    assert ["seed: 1" in seeds[0], "seed: 2" in seeds[1], "seed: 3" in seeds[2]] == [True] * 3


def test_bad_input_leaves_an_earlier_run_alone(tmp_path: Path) -> None:
    ml(model=Linear, path="run", **SHORT)
    refused(model=NotScalar, path="run", says=["Return a scalar loss"])
    refused(model=Wide, path="run", says=["expected output"])
    refused("epochs=0", model=Linear, path="run", says=["epochs=0"])


def test_wrong_settings_names_and_arguments_are_reported_together() -> None:
    says = [
        "Did you mean `lr`?",
        "Linear has no parameter `hiden`",
        "SGD has no parameter `momentm`",
    ]
    refused("lrr=1", "model.hiden=3", "optim=SGD", "optim.momentm=3", model=Linear, says=says)


@pytest.mark.parametrize("logarithm", [False, True])
def test_probabilities_in_the_place_of_logits_are_said(logarithm: bool) -> None:
    class Sums(Linear):
        def forward(self, obs: Tensor) -> Tensor:
            logits = super().forward(obs)
            return logits.log_softmax(-1) if logarithm else logits.softmax(-1)

    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        ml(model=Sums, dataset=(INPUTS, LABELS), **SHORT)
    texts = [str(warning.message) for warning in said]
    assert texts == [] if logarithm else "returns probabilities (its rows sum to 1)" in texts[0]
