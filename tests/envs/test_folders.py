"""Folders of pictures as people have them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torchvision.datasets import ImageFolder

from antelope import ConfigError, DataError, Run, ml
from antelope.envs.folders import open_folder

CLASSES = ("cat", "dog", "fox")


class Linear(nn.Module):
    def __init__(self, in_features: int, out_features: int):
        super().__init__()
        self.layer = nn.Sequential(nn.Flatten(), nn.Linear(in_features, out_features))

    def forward(self, obs: torch.Tensor) -> Any:
        return self.layer(obs)


@pytest.fixture
def learnt(tmp_path: Path) -> Any:
    """`ml` on a folder, in a step."""

    def run(dataset: Any, **settings: Any) -> Run:
        usual = {"model": Linear, "train_steps": 1, "plot": False, "progress": False}
        return ml(dataset=dataset, **usual | {"path": tmp_path / "a run"} | settings)

    return run


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "pets").mkdir()
    return tmp_path / "pets"


def save(
    root: Path,
    classes: Iterable[str] = CLASSES,
    n: int = 4,
    *,
    size: tuple[int, int] = (6, 4),
    grey: int = 0,
) -> None:
    """`n` pictures of each class, all pixels `grey` and more: 10 for each class, 1 for each picture."""
    for number, name in enumerate(classes):
        (root / name).mkdir(parents=True, exist_ok=True)
        for i in range(n):
            color = (grey + 10 * number + i,) * 3
            Image.new("RGB", size, color).save(root / name / f"{i}.png")


def greys(run: Run) -> list[int]:
    stored = run.replay.storage.gather(torch.arange(len(run.replay)))["obs"]
    assert bool((stored == stored[:, :1, :1, :1]).all())
    return stored[:, 0, 0, 0].tolist()


class TestClasses:
    def test_are_read_in_the_order_of_torchvision(self, root: Path, learnt: Any) -> None:
        save(root, ["10", "2", "b", "B"])
        ours, theirs = open_folder(root).train, ImageFolder(str(root))
        assert [(str(file), label) for file, label in ours.samples] == theirs.samples
        assert (ours.classes, ours.class_to_idx) == (theirs.classes, theirs.class_to_idx)
        assert ours.targets == theirs.targets
        run = learnt(root)
        assert (run.spec.action.n, len(run.replay)) == (4, 13)  # A fifth of 16 is held out.

    def test_hold_pictures_at_any_depth(self, root: Path) -> None:
        save(root / "cat", ["old", "new"])
        save(root / "dog", ["images"])
        assert open_folder(root).train.targets == [0] * 8 + [1] * 4

    @pytest.mark.parametrize("above", ["pets/pets", "archive", "a/b c/d"])
    def test_in_a_folder_in_a_folder_are_found(self, root: Path, above: str) -> None:
        save(root / above)
        assert open_folder(root).train.classes == list(CLASSES)

    def test_what_is_hidden_or_left_behind_is_passed_over(self, root: Path) -> None:
        save(root)
        for folder in (
            ".ipynb_checkpoints",
            "__MACOSX",
            "@eaDir",
            ".git",
            "cat/.ipynb_checkpoints",
        ):
            save(root, [folder])
        for file in ("._0.png", ".DS_Store", "Thumbs.db", "desktop.ini", ".hidden.jpg"):
            (root / "cat" / file).write_bytes(b"not a picture")
            (root / file).write_bytes(b"not a picture")
        parts = open_folder(root)
        assert parts.train.classes == list(CLASSES)
        assert len(parts.train) == 12
        assert parts.notes == []

    def test_other_files_are_passed_over_and_said(
        self, root: Path, learnt: Any, capsys: Any
    ) -> None:
        save(root)
        (root / "cat" / "notes.txt").write_text("about cats")
        (root / "dog" / "0.heic").write_text("not known")
        Image.new("RGB", (6, 4)).save(root / "cover.png")
        learnt(root, progress=True)
        header = " ".join(capsys.readouterr().out.split())
        assert "1 pictures outside class folders skipped" in header
        assert "2 files that are not pictures (.txt, .heic) skipped" in header

    @pytest.mark.parametrize("end", [".PNG", ".Jpg", ".JPEG", ".bmp", ".TIF", ".webp", ".GIF"])
    def test_ends_of_names_in_any_case(self, root: Path, end: str) -> None:
        for name in CLASSES:
            (root / name).mkdir()
            Image.new("RGB", (6, 4)).save(root / name / f"0{end}")
        assert len(open_folder(root).train) == 3

    def test_links_that_go_round_end(self, root: Path) -> None:
        save(root)
        (root / "cat" / "again").symlink_to(root, target_is_directory=True)
        (root / "dog" / "more").symlink_to(root / "fox", target_is_directory=True)
        parts = open_folder(root)
        assert parts.train.classes == list(CLASSES)
        assert parts.train.targets == [0] * 4 + [1] * 8 + [2] * 4


class TestParts:
    @pytest.mark.parametrize(
        ("train", "test"),
        [
            ("train", "test"),
            ("Training", "Testing"),
            ("TRAIN", "VAL"),
            ("train", "validation"),
            ("trn", "dev"),
            ("trainval", "test"),
            ("tr", "te"),
            ("train", "held_out"),
            ("seg_train", "seg_test"),
            ("seg_train/seg_train", "seg_test/seg_test"),
            ("TrainSet", "TestSet"),
            ("trainset", "testset"),
            ("training-images", "test-images"),
            ("data.train", "data.valid"),
            ("train data", "eval data"),
            ("train2017", "val2017"),
            ("1_train", "2_test"),
            ("data/train", "data/test"),
            ("train/images", "test/images"),
        ],
    )
    def test_are_known_by_their_names(self, root: Path, learnt: Any, train: str, test: str) -> None:
        save(root / train, grey=0)
        save(root / test, n=2, grey=100)
        run = learnt(root)
        assert greys(run) == [0, 1, 2, 3, 10, 11, 12, 13, 20, 21, 22, 23]
        assert run.spec.action.n == 3
        held_out = open_folder(root).held_out
        assert held_out is not None
        assert held_out.targets == [0, 0, 1, 1, 2, 2]

    def test_what_is_evaluated_is_test_and_not_val_which_is_said(self, root: Path) -> None:
        for part in ("val", "test", "train"):
            save(root / part)
        parts = open_folder(root)
        assert parts.held_out is not None
        assert parts.held_out.root == root / "test"
        assert parts.notes == ["val/ skipped (test/ is held out)"]

    def test_pictures_without_classes_are_passed_over_and_said(
        self, root: Path, learnt: Any, capsys: Any
    ) -> None:
        save(root / "train")
        save(root, ["test"])
        run = learnt(root, progress=True)
        assert (run.spec.action.n, len(run.replay)) == (3, 10)
        header = " ".join(capsys.readouterr().out.split())
        assert "10 to learn from, 2 held out; test/ skipped (no class folders)" in header

    def test_a_class_that_is_not_held_out_shifts_no_label(self, root: Path) -> None:
        save(root / "train", n=1)
        save(root / "test", ["dog", "fox"], n=1)
        (root / "test" / "cat").mkdir()
        held_out = open_folder(root).held_out
        assert held_out is not None
        assert held_out.targets == [1, 2]
        assert held_out.classes == list(CLASSES)

    def test_a_folder_to_test_on_has_the_numbers_of_the_one_to_learn_from(
        self, root: Path, learnt: Any
    ) -> None:
        class Constant(nn.Module):  # Whatever it sees is a dog.
            def __init__(self) -> None:
                super().__init__()
                self.bias = nn.Parameter(torch.zeros(3))

            def forward(self, obs: torch.Tensor) -> Any:
                dog = torch.tensor([0.0, 9.0, 0.0])
                return (dog + 0 * self.bias).expand(len(obs), 3)

        save(root / "mine")
        save(root / "other", ["dog"])
        run = learnt(root / "mine", test_dataset=root / "other", model=Constant)
        assert run.metrics["accuracy"] == 1
        save(root / "other", ["eel"])
        with pytest.raises(DataError, match=r"class eel, which is not among.*: cat, dog, fox"):
            learnt(root / "mine", test_dataset=root / "other")

    def test_a_class_may_have_the_name_of_a_part(self, root: Path) -> None:
        save(root, ["train", "car", "bus"])
        assert open_folder(root).train.classes == ["bus", "car", "train"]


class TestSizes:
    def test_of_the_training_part_hold_for_the_other_and_that_is_said(
        self, root: Path, learnt: Any, capsys: Any
    ) -> None:
        save(root / "train", ["cat", "dog"], size=(6, 4))
        save(root / "train", ["fox"], size=(30, 20))
        save(root / "test", size=(16, 16))
        run = learnt(root, progress=True)
        assert run.spec.obs.shape == (3, 4, 6)
        assert "images of 3 sizes resized to 6 x 4 pixels" in " ".join(
            capsys.readouterr().out.split()
        )

    def test_of_large_pictures_stay_if_they_are_all_the_same(self, root: Path, learnt: Any) -> None:
        save(root / "train", n=1, size=(300, 260))
        save(root / "test", n=1, size=(9, 9))
        assert learnt(root).spec.obs.shape == (3, 260, 300)

    def test_as_said(self, root: Path, learnt: Any, capsys: Any) -> None:
        save(root, size=(6, 4))
        assert learnt(root, image_size=5, progress=True).spec.obs.shape == (3, 5, 5)
        assert "images of 6 x 4 resized to 5 x 5 pixels" in " ".join(
            capsys.readouterr().out.split()
        )

    def test_have_no_effect_on_arrays_nor_channels_on_pictures(
        self, root: Path, learnt: Any
    ) -> None:
        with pytest.warns(UserWarning, match="`image_size` has no effect.*its inputs are arrays"):
            learnt("Digits", image_size=16)
        save(root)
        with pytest.warns(UserWarning, match="`channels` has no effect.*not arrays of images"):
            learnt(root, channels="last")

    def test_that_are_alike_are_not_worth_a_word(
        self, root: Path, learnt: Any, capsys: Any
    ) -> None:
        save(root)
        learnt(root, progress=True)
        assert "resized" not in capsys.readouterr().out


class TestNames:
    def test_in_any_form(
        self, root: Path, learnt: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        save(root)
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("HOME", str(tmp_path))
        for name in (root, str(root), "pets", "./pets/", Path("pets"), "~/pets"):
            assert learnt(name).spec.action.n == 3
        sequence = learnt([root, "~/pets"])
        assert sequence.spec.num_tasks == 2

    def test_a_subset_of_the_classes(self, root: Path, learnt: Any) -> None:
        save(root)
        run = learnt({"_target_": str(root), "subset": [2, 0]})
        assert (run.spec.action.n, len(run.replay)) == (2, 7)
        with pytest.raises(
            ConfigError, match=r"A folder has no argument `foo`\. It accepts: subset"
        ):
            learnt({"_target_": str(root), "foo": 1})


def flat(root: Path) -> None:
    save(root, ["train", "test1"])


def flat_and_alone(root: Path) -> None:
    save(root, ["train"])


def decorated(root: Path) -> None:
    save(root, ["seg_train", "seg_test"])


def empty_class(root: Path) -> None:
    save(root)
    (root / "eel").mkdir()


def unknown_class(root: Path) -> None:
    save(root / "train")
    save(root / "test", [*CLASSES, "eel"])


def classes_and_a_part(root: Path) -> None:
    save(root)
    save(root / "test")


def a_part_and_classes(root: Path) -> None:
    save(root / "train")
    save(root, ["car"])


def two_training_parts(root: Path) -> None:
    for part in ("train_a", "train_b", "test"):
        save(root / part)


def unnamed_parts(root: Path) -> None:
    for part in ("site A", "site B"):
        save(root / part)


def masks(root: Path) -> None:
    save(root, ["images", "Masks"])


def masks_of_a_part(root: Path) -> None:
    save(root / "images", ["train"])
    save(root / "masks", ["train"])


def masks_of_cities(root: Path) -> None:
    save(root / "leftImg8bit", ["aachen"])
    save(root / "gtFine", ["aachen"])


def no_classes(root: Path) -> None:
    save(root.parent, ["pets"])


def arrays(root: Path) -> None:
    for name in CLASSES:
        (root / name).mkdir()
        np.save(root / name / "0.npy", np.zeros(3))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (flat, r"test1/, train/, which hold pictures but no class folders.*pets/train/cat/1\.png"),
        (flat_and_alone, "holds train/, which hold pictures but no class folders"),
        (decorated, "seg_test/, seg_train/, which hold pictures but no class folders"),
        (empty_class, "holds eel/ without pictures. Remove"),
        (unknown_class, "test holds the class eel, which is not among.*: cat, dog, fox"),
        (
            classes_and_a_part,
            "holds test/ with folders in it, and cat/ with pictures: are they parts",
        ),
        (a_part_and_classes, "train/ with class folders, and car/ with pictures.*dataset=.*/train"),
        (two_training_parts, "train_a/ and train_b/: which of them is meant"),
        (unnamed_parts, "site A/ and site B/.* both hold cat, dog, fox: they look like parts"),
        (masks, "Masks/: they look like inputs and their targets, not like two classes"),
        (masks_of_a_part, "images/ and masks/: they look like inputs and their targets"),
        (masks_of_cities, "leftImg8bit/ and gtFine/: they look like inputs and their targets"),
        (no_classes, r"4 pictures are directly in it\). Expected, for example, .*cat/1\.png"),
        (arrays, r"it holds no pictures, but 3 \.npy\). Expected"),
        (Path.exists, r"it is empty\). Expected, for example, .*cat/1\.png"),
    ],
)
def test_folders_that_cannot_be_learnt_from(
    root: Path, learnt: Any, build: Callable[[Path], Any], message: str
) -> None:
    build(root)
    with pytest.raises(DataError, match=message):
        learnt(root)


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", r"dog/0\.png cannot be read.*It is empty"), (b"words", r"dog/0\.png cannot be read")],
)
def test_a_broken_picture_is_named(root: Path, learnt: Any, content: bytes, message: str) -> None:
    save(root)
    (root / "dog" / "0.png").write_bytes(content)
    with pytest.raises(DataError, match=message):
        learnt(root)
    save(root)
    whole = (root / "dog" / "0.png").read_bytes()
    (root / "dog" / "0.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(
        DataError, match=r"dog/0\.png cannot be read as a picture.*Repair or remove"
    ):
        learnt(root)


def test_an_archive_is_no_folder(root: Path, learnt: Any) -> None:
    (root / "pets.zip").write_bytes(b"")
    with pytest.raises(ConfigError, match=r"pets\.zip is a file.*unpack an archive first"):
        learnt(str(root / "pets.zip"))
