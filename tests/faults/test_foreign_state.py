"""Rows 9 and 51: checkpoints and manifests that somebody else wrote, or changed with right hashes."""

from __future__ import annotations

import copy
import enum
import hashlib
import json
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import antelope
from antelope import CheckpointError, ml
from antelope.launcher.record import checkpoint as checkpoints

State = dict[str, Any]
ROWS = (torch.randn(64, 3), torch.arange(64) % 2)
RUN: dict[str, Any] = {
    "dataset": ROWS,
    "test_dataset": ROWS,
    "batch_size": 16,
    "train_steps": 6,
    "save_every": 3,
    "plot": False,
    "progress": False,
    "optim": "Adam",
}


class Phase(enum.Enum):
    WARM = 1
    COLD = 2


class Counter:
    def __init__(self) -> None:
        self.taken = 0

    def take(self) -> None:
        self.taken += 1


class Net(nn.Module):
    """Holds one of each kind of thing that a checkpoint describes, and makes `seen` while it learns."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.loss = nn.Linear(3, 2), F.cross_entropy
        self.n, self.name, self.phase, self.counter = 0, "net", Phase.WARM, Counter()
        self.draws, self.dice, self.numbers = (
            torch.Generator().manual_seed(0),
            random.Random(0),
            np.random.default_rng(0),
        )
        self.mask, self.list, self.empty = torch.ones(3), [1], None

    def forward(self, obs: Tensor) -> Tensor:
        return self.layer(obs * self.mask)

    def learn(self, replay: antelope.Replay) -> Tensor:
        batch = next(replay)
        self.n, self.seen, self.phase = self.n + 1, self.n, Phase.COLD
        self.counter.take()
        return self.loss(self(batch.obs), batch.label)


def values(state: State) -> State:
    return state["learner"]["attributes"]["values"]


def setting(name: str, value: Any) -> Callable[[State], None]:
    return lambda state: values(state).update({name: value})


def at(*path: Any, value: Any = None, pop: bool = False) -> Callable[[State], None]:
    """Set or remove one entry, by its path."""

    def edit(state: State) -> None:
        *owners, last = path
        for key in owners:
            state = state[key]
        if pop:
            del state[last]
        else:
            state[last] = value

    return edit


def inside(name: str, **entries: Any) -> Callable[[State], None]:
    return lambda state: values(state)[name].update(entries)


_LARGE: State = {
    "class": "Linear",
    "parameters": {"weight": {"shape": [10**7, 10**7], "dtype": "torch.float32"}},
    "buffers": [],
    "transient": [],
    "parts": {},
}
_GROWN: State = {"built": {}, "now": {"": _LARGE}, "facts": {}, "tasks": 1}

# What is wrong, and a word of the message.
WRONG: dict[str, tuple[Callable[[State], None], str]] = {
    "no learner": (at("learner", pop=True), "lacks `learner`"),
    "a learner that is a list": (at("learner", value=[1]), "expected a dict"),
    "no step": (at("progress", "step", pop=True), "lacks `step`"),
    "a step that is a text": (at("progress", "step", value="3"), "whole number"),
    "a negative step": (at("progress", "step", value=-3), "whole number"),
    "a task that is not there": (at("progress", "task", value=7), "this run has 1"),
    "a method of the progress": (at("progress", "begin_task", value=1), "begin_task"),
    "a part that no run writes": (at("evil", value=1), "`evil`"),
    "a new attribute": (setting("evil", 1), "`evil`"),
    "a method of the model": (setting("learn", 1), "`learn`"),
    "a method that is another module": (setting("forward", {"$same": "layer"}), "`forward`"),
    "torch's own attribute": (setting("training", False), "`training`"),
    "Python's own attribute": (setting("__class__", "str"), "`__class__`"),
    "a weight as attribute": (setting("layer.weight", 1), "layer.weight"),
    "an attribute of no part": (setting("other.n", 1), "no part"),
    "a text instead of a number": (setting("n", "3"), "n"),
    "a number instead of a text": (setting("name", 3), "name"),
    "a raw list": (setting("n", [3]), "n"),
    "an unknown kind": (setting("n", {"$call": "os.system"}), "`n`"),
    "a function": (setting("loss", 3), "`loss`"),
    "an object instead of a number": (setting("n", {"$object": {"a": 1}}), "`n`"),
    "another stream": (setting("draws", {"$generator": torch.zeros(3)}), "draws"),
    "a plain value instead of a stream": (setting("draws", 3), "draws"),
    "words of a stream": (setting("dice", {"$random": [3, [1], None]}), "dice"),
    "another bit generator": (setting("numbers", {"$numpy": {"bit_generator": "x"}}), "numbers"),
    "an unknown member": (setting("phase", {"$enum": "HOT"}), "phase"),
    "a new field of an object": (inside("counter", **{"$object": {"evil": 1}}), "evil"),
    "a method of an object": (inside("counter", **{"$object": {"take": 1}}), "take"),
    "an object's class": (inside("counter", **{"$object": {"__class__": 1}}), "__class__"),
    "a list of a number": (inside("list", **{"$sequence": 3}), "list"),
    "an unknown sequence": (inside("list", kind="popen"), "sequence"),
    "a reference to nothing": (setting("empty", {"$same": "nowhere"}), "nowhere"),
    "a constructor's tensor of another shape": (
        inside("mask", **{"$tensor": torch.ones(4)}),
        "mask",
    ),
    "weights of another shape": (
        at("learner", "agent", "layer.weight", value=torch.ones(2, 4)),
        "layer.weight",
    ),
    "weights of another kind": (
        at("learner", "agent", "layer.weight", value=torch.ones(2, 3, dtype=torch.int64)),
        "int64",
    ),
    "weights that are missing": (at("learner", "agent", "layer.bias", pop=True), "is missing"),
    "weights that are numbers": (at("learner", "agent", "layer.bias", value=1), "a tensor"),
    "averages of another shape": (
        at("learner", "optimizer", "state", 0, "exp_avg", value=torch.ones(5)),
        "exp_avg",
    ),
    "a learning rate that is a text": (
        at("learner", "optimizer", "param_groups", 0, "lr", value="1"),
        "lr",
    ),
    "no learning rate": (at("learner", "optimizer", "param_groups", 0, "lr", pop=True), "lr"),
    "another number of parameters": (
        at("learner", "optimizer", "param_groups", 0, "params", value=[0]),
        "optimizer",
    ),
    "modules larger than the weights": (at("learner", "grown", value=_GROWN), "weight"),
    "no random stream": (at("random", "torch", pop=True), "random"),
    "a stream outside of its words": (
        at("random", "numpy", value=("MT19937", np.zeros(624, np.uint32), 10**6, 0, 0.0)),
        "random",
    ),
    "a sampler without its order": (at("replay", "sampler", "order", pop=True), "order"),
    "logged texts": (at("log", value={"loss": ["x"]}), "log"),
    "rows that are no number": (at("journal", value={"train": "x", "eval": 1}), "journal"),
    "settings that are a list": (at("settings", value=[1]), "settings"),
}


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a run."""
    path = tmp_path_factory.mktemp("written") / "run"
    ml(model=Net(), path=str(path), **RUN)
    return path


def changed(run: Path, to: Path, edit: Callable[[State], None]) -> Path:
    """A copy of a run whose only checkpoint is changed, and hashed again."""
    shutil.copytree(run, to)
    newest, *others = checkpoints.Checkpoints(to / "checkpoints").numbered()
    state = checkpoints.read(newest)
    edit(state)
    for folder in (newest, *others):
        shutil.rmtree(folder)
    newest.mkdir()
    checkpoints.write(newest, state)
    return to


def test_what_was_not_changed_is_continued(written: Path, tmp_path: Path) -> None:
    path = changed(written, tmp_path / "r", lambda state: None)
    net = Net()
    ml(model=net, path=str(path), resume=True, **RUN | {"train_steps": 9})
    assert (net.n, net.seen, net.counter.taken, net.phase) == (9, 8, 9, Phase.COLD)


@pytest.mark.row(9)
@pytest.mark.row(38)
@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_state_is_refused_before_anything_is_set(
    wrong: str, written: Path, tmp_path: Path
) -> None:
    edit, word = WRONG[wrong]
    path = changed(written, tmp_path / "r", edit)
    net = Net()
    before = copy.deepcopy(net.state_dict())
    held = {name: repr(value) for name, value in vars(net).items()}
    with pytest.raises(CheckpointError, match=word):
        ml(model=net, path=str(path), resume=True, **RUN)
    assert {name: repr(value) for name, value in vars(net).items()} == held
    assert all(torch.equal(net.state_dict()[name], weight) for name, weight in before.items())
    assert net.counter.taken == 0
    assert torch.equal(net.draws.get_state(), Net().draws.get_state())


@pytest.mark.row(9)
@pytest.mark.parametrize(
    "wrong", ["no learner", "a step that is a text", "weights of another shape"]
)
def test_load_refuses_it_too(wrong: str, written: Path, tmp_path: Path) -> None:
    path = changed(written, tmp_path / "r", WRONG[wrong][0])
    with pytest.raises(CheckpointError, match=WRONG[wrong][1]):
        ml(model=Net(), load=str(path), path=str(tmp_path / "new"), **RUN)
    with pytest.raises(CheckpointError, match=WRONG[wrong][1]):
        antelope.load(path, model=Net())


@pytest.mark.row(51)
@pytest.mark.parametrize("name", ["/dev/zero", "../outside", "pipe", "link", "sparse", "deep"])
def test_a_manifest_names_regular_files_of_its_own_folder(
    name: str, written: Path, tmp_path: Path
) -> None:
    path = changed(written, tmp_path / "r", lambda state: None)
    (newest,) = checkpoints.Checkpoints(path / "checkpoints").numbered()
    (newest.parent / "outside").write_bytes(b"")
    file = newest / "state.json"
    if name in ("pipe", "link", "sparse", "deep"):
        data = file.read_bytes()
        file.unlink()
    if name == "pipe":
        os.mkfifo(file)
    elif name == "link":
        (tmp_path / "elsewhere").write_bytes(data)
        file.symlink_to(tmp_path / "elsewhere")
    elif name == "sparse":
        with open(file, "wb") as opened:
            opened.truncate(2**42)
    else:
        manifest = json.loads((newest / "manifest.json").read_bytes())
        if name == "deep":
            data = b'{"state":' + b"[" * 100_000
            file.write_bytes(data)
            manifest["sha256"]["state.json"] = hashlib.sha256(data).hexdigest()
            manifest.setdefault("size", {})["state.json"] = len(data)
        else:
            manifest["sha256"][name] = "0" * 64
            manifest.setdefault("size", {})[name] = 0
        (newest / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(CheckpointError, match=r"checkpoint|state\.json"):
        antelope.load(path, model=Net())
