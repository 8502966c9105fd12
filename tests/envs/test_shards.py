"""Tar shards as webdataset writes them, and the arrays of Hugging Face's files, with storage=mmap."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from antelope import ConfigError, DataError, Run, ml
from antelope.envs.shards import open_shards, shards_named
from antelope.replay import Mapped
from antelope.replay.mapped import Chunks

PIXELS = np.random.default_rng(0).integers(0, 255, (60, 8, 8, 3), dtype=np.uint8)
Parts = dict[str, Callable[[int], bytes]]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ANTELOPE_DATA", str(tmp_path / "data"))


def png(i: int) -> bytes:
    held = io.BytesIO()
    Image.fromarray(PIXELS[i]).save(held, "png")
    return held.getvalue()


def npy(i: int) -> bytes:
    held = io.BytesIO()
    np.save(held, PIXELS[i, :, :, 0].astype(np.float32))
    return held.getvalue()


def cls(i: int) -> bytes:
    return str(i % 3).encode()


def write(
    pattern: str, rows: range, *, per_shard: int = 25, **parts: Callable[[int], bytes]
) -> None:
    for number, start in enumerate(range(rows.start, rows.stop, per_shard)):
        path = Path(pattern.format(number))
        path.parent.mkdir(parents=True, exist_ok=True)
        with tarfile.open(path, "w") as archive:
            for i in range(start, min(rows.stop, start + per_shard)):
                for ending, make in parts.items():
                    about, content = tarfile.TarInfo(f"s/{i:05}.{ending}"), make(i)
                    about.size = len(content)
                    archive.addfile(about, io.BytesIO(content))


def run(path: str, **settings: Any) -> Run:
    return ml(path=path, epochs=2, batch_size=16, progress=False, plot=False, **settings)


def assert_same(one: Run, other: Run) -> None:
    weights = one.agent.state_dict()
    for key, value in other.agent.state_dict().items():
        assert torch.equal(weights[key], value), key
    assert (one.path / "eval.csv").read_bytes() == (other.path / "eval.csv").read_bytes()


def test_shards_are_learnt_as_a_folder_of_the_same_pictures() -> None:
    write("shards/{:03}.tar", range(60), png=png, cls=cls)
    for i in range(60):
        path = Path("test" if i >= 48 else "train", str(i % 3), f"{i:05}.png")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png(i))
    mapped = run("mapped", dataset="shards/{000..002}.tar", storage="mmap")
    obs = mapped.replay.storage.columns["obs"]  # type: ignore[union-attr]
    assert isinstance(obs, Mapped)
    train, _ = open_shards(Path("shards"), None).train.split()
    want = torch.from_numpy(PIXELS[train.rows]).permute(0, 3, 1, 2)
    assert torch.equal(obs[:], want)
    for number, name in enumerate(("shards", "shards/*.tar")):
        assert_same(run(f"ram{number}", dataset=name), mapped)


def test_a_changed_shard_is_decoded_again_and_refused_by_a_resume() -> None:
    write("shards/{:03}.tar", range(60), png=png, cls=cls)
    run("run", dataset="shards", storage="mmap")
    write("shards/{:03}.tar", range(59), png=png, cls=cls)
    with pytest.raises(ConfigError, match="rows"):
        run("run", dataset="shards", storage="mmap", resume=True)


def test_parts_labels_and_arrays_are_told_apart() -> None:
    def word(i: int) -> bytes:
        return json.dumps({"kind": "ab"[i % 2], "id": i}).encode()

    write("a/train-{:03}.tar", range(50), npy=npy, json=word)
    write("a/val-{:03}.tar", range(50, 60), npy=npy, json=word)
    found = run("run", dataset="a", target="kind")
    assert len(found.replay.storage) == 50
    assert found.spec.action.names == ("a", "b")
    with pytest.raises(DataError, match=r"which of kind, id is to be predicted\? Set target=NAME"):
        run("other", dataset="a")
    write("b/{:03}.tar", range(20), npy=npy, txt=word)
    with pytest.raises(
        DataError, match=r"sample s/00000 has no \.cls and no \.json \(it has npy, txt\)"
    ):
        run("other", dataset="b")


def test_missing_and_broken_shards_are_named() -> None:
    write("shards/{:03}.tar", range(50), png=png, cls=cls)
    with pytest.raises(
        DataError, match=r"There is no shard shards/002\.tar \(1 of 3 are missing\)"
    ):
        run("run", dataset="shards/{000..002}.tar")
    Path("shards/001.tar").write_bytes(b"no archive" * 100)
    with pytest.raises(DataError, match=r"shards/001\.tar cannot be read as a tar archive"):
        run("run", dataset="shards")
    assert shards_named("Digits") is None
    write("broken/{:03}.tar", range(50), png=lambda i: png(i) if i != 30 else b"nothing", cls=cls)
    with pytest.raises(
        DataError, match=r"s/00030\.png in broken/001\.tar cannot be read as a picture"
    ):
        run("run", dataset="broken", storage="mmap")


def test_arrays_of_hugging_face_stay_in_their_files() -> None:
    datasets = pytest.importorskip("datasets")
    pixels = np.random.default_rng(0).integers(0, 255, (2500, 3, 4, 4), dtype=np.uint8)
    features = {
        "x": datasets.Array3D((3, 4, 4), "uint8"),
        "z": datasets.Sequence(datasets.Value("float32")),
        "label": datasets.ClassLabel(names=["a", "b", "c"]),
    }
    rows = {"x": pixels, "z": pixels[:, 0, 0].astype(np.float32), "label": np.arange(2500) % 3}
    made = datasets.Dataset.from_dict(rows, features=datasets.Features(features))
    made.save_to_disk("saved")
    some = datasets.load_from_disk("saved").shuffle(seed=1).select(range(400))
    sources = {"whole": {"dataset": "saved"}, "some": {"dataset": some, "inputs": ["x"]}}
    for name, settings in sources.items():
        mapped = run(f"{name}_mapped", storage="mmap", **settings)
        assert_same(run(name, **settings), mapped)
        obs = mapped.replay.storage.columns["obs"]  # type: ignore[union-attr]
        column = obs["x"] if isinstance(obs, dict) else obs
        assert isinstance(column, Mapped)
        assert isinstance(column.source, Chunks)
        # No copies: each array is a view of a buffer of Arrow's.
        assert all(not array.flags.owndata for array in column.source.arrays)


@pytest.mark.parametrize(
    ("ending", "labels"), [("cls", ["1", "2", "cat"]), ("json", ['{"y": [1, 2]}', '{"y": [1]}'])]
)
def test_labels_of_different_forms_are_refused(ending: str, labels: list[str]) -> None:
    label = {ending: lambda i: labels[i % len(labels)].encode()}
    write("{}.tar", range(6), png=png, **label)
    with pytest.raises(DataError, match="all as words, all as numbers, or all as lists of one"):
        open_shards(Path("0.tar"), None)
