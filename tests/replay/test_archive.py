"""A saved replay is whole, unharmed and plain data, or it is refused."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from antelope.replay import CheckpointError, Replay, Space, Spec, Transitions
from antelope.replay.archive import load, save

STATE = {
    "count": 3,
    "share": 0.1,
    "nothing": None,
    "nested": {"a/b": np.arange(6, dtype=np.uint8).reshape(2, 3), "": np.zeros(0), "flag": True},
    "generator": torch.Generator().manual_seed(3).get_state(),
}


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    save(STATE, tmp_path / "runs" / "replay")
    return tmp_path / "runs" / "replay"


def test_gives_back_what_was_saved(saved: Path) -> None:
    state = load(saved)
    assert (state["count"], state["share"], state["nothing"]) == (3, 0.1, None)
    assert state["nested"]["flag"] is True
    assert state["nested"]["a/b"].dtype == np.uint8
    assert state["nested"]["a/b"].tolist() == [[0, 1, 2], [3, 4, 5]]
    assert state["nested"][""].shape == (0,)
    assert torch.equal(state["generator"], STATE["generator"])


def test_numbers_that_json_does_not_have(tmp_path: Path) -> None:
    save({"a": float("nan"), "b": {"c": float("-inf")}}, tmp_path / "replay")
    assert repr(load(tmp_path / "replay")) == "{'a': nan, 'b': {'c': -inf}}"
    json.loads((tmp_path / "replay" / "replay.json").read_text(), parse_constant=pytest.fail)


def test_nothing_is_pickled_and_nothing_left_beside_it(saved: Path) -> None:
    assert {path.suffix for path in saved.iterdir()} == {".json", ".npy"}
    for path in saved.glob("*.npy"):
        np.load(path, allow_pickle=False)
    assert list(saved.parent.iterdir()) == [saved]


def test_an_earlier_one_is_replaced(saved: Path) -> None:
    save({"count": 4}, saved)
    assert load(saved) == {"count": 4}


def test_a_folder_that_is_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(CheckpointError, match="is not a saved replay"):
        save(STATE, tmp_path)
    assert (tmp_path / "thesis.tex").read_text() == "years of work"
    with pytest.raises(CheckpointError, match=r"is not a (readable )?saved replay"):
        load(tmp_path)
    with pytest.raises(CheckpointError, match=r"is not a (readable )?saved replay"):
        save(STATE, tmp_path / "thesis.tex")


def test_a_save_that_fails_leaves_the_earlier_one(saved: Path) -> None:
    with pytest.raises(ValueError, match="array of Python objects"):
        save({"count": 9, "objects": np.array([object()])}, saved)
    assert load(saved)["count"] == 3
    assert list(saved.parent.iterdir()) == [saved]


def test_every_flipped_bit_and_missing_file_is_noticed(saved: Path) -> None:
    random = np.random.default_rng(0)
    for path in sorted(saved.iterdir()):
        whole = path.read_bytes()
        for place in random.integers(0, len(whole), 20):
            flipped = bytearray(whole)
            flipped[place] ^= 1 << random.integers(8)
            path.write_bytes(flipped)
            with pytest.raises(CheckpointError, match="not a readable saved replay"):
                load(saved)
        for short in (b"", whole[:-1]):
            path.write_bytes(short)
            with pytest.raises(CheckpointError, match="not a readable saved replay"):
                load(saved)
        path.unlink()
        with pytest.raises(CheckpointError, match="not a readable saved replay"):
            load(saved)
        path.write_bytes(whole)
    assert load(saved)["count"] == 3


@pytest.mark.parametrize("foreign", ["[]", "{}", "3", '{"format": "else", "sha256": {}}', "\x00"])
def test_a_foreign_manifest_is_refused(saved: Path, foreign: str) -> None:
    (saved / "manifest.json").write_text(foreign)
    with pytest.raises(CheckpointError, match="not a readable saved replay"):
        load(saved)


def forge(saved: Path, tree: Any, **hashes: str) -> None:
    """Replace the tree, and the manifest with one that fits it."""
    data = json.dumps(tree).encode()
    (saved / "replay.json").write_bytes(data)
    hashes = {"replay.json": hashlib.sha256(data).hexdigest(), **hashes}
    manifest = {"format": "antelope-replay-1", "sha256": hashes}
    (saved / "manifest.json").write_text(json.dumps(manifest))


def test_files_elsewhere_are_not_read(saved: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "secret.npy", np.ones(3))
    name = "../../secret.npy"
    forge(saved, {"dict": [["x", {"array": name}]]})
    with pytest.raises(CheckpointError, match=r"secret\.npy is not in the manifest"):
        load(saved)
    forge(saved, {"value": 3}, **{name: "0" * 64})
    with pytest.raises(CheckpointError, match="not the name of a file in the folder"):
        load(saved)


def test_files_that_the_manifest_does_not_name_are_not_even_opened(saved: Path) -> None:
    os.mkfifo(saved / "pipe.npy")  # To open it would take forever.
    forge(saved, {"dict": [["x", {"array": "pipe.npy"}]]})
    with pytest.raises(CheckpointError, match=r"pipe\.npy is not in the manifest"):
        load(saved)


@pytest.mark.parametrize("storage", ["ram", "mmap"])
def test_a_replay_is_loaded_whatever_it_lies_in(tmp_path: Path, storage: str) -> None:
    spec = Spec(Space((1, 20, 20), torch.uint8), Space((2,)))

    def replay(storage: str) -> Replay:
        ring = Transitions(spec, capacity=30, num_envs=2, discount=0.9, storage=storage)
        return Replay(ring, lambda fields: fields, batch_size=4)

    one, two = replay(storage), replay("gpu")
    assert isinstance(one.storage, Transitions)
    random = np.random.default_rng(0)
    one.storage.start(random.integers(0, 255, (2, 1, 20, 20)))
    for _ in range(20):
        fields = {
            "action": random.random((2, 2), np.float32),
            "reward": random.random(2),
            "terminated": np.zeros(2, np.bool_),
            "truncated": np.zeros(2, np.bool_),
            "next_obs": random.integers(0, 255, (2, 1, 20, 20)),
        }
        one.storage.add(fields)
    one.save(tmp_path / "replay")
    two.load(str(tmp_path / "replay"))
    for _ in range(3):
        a, b = next(one), next(two)
        assert all(torch.equal(a[name], b[name]) for name in a)
    assert os.listdir(tmp_path) == ["replay"]
