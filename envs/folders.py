"""Folders of class folders of pictures, as people have them."""

from __future__ import annotations

import copy
import os
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch.utils.data import Dataset

from ..replay import DataError
from .arrays import held_out_rows
from .images import load
from .media import media_of_file, refusal

_PICTURES = frozenset(
    f".{end}"
    for end in (
        "jpg", "jpeg", "jpe", "jfif", "png", "gif", "bmp", "webp", "tif", "tiff", "ppm", "pgm", "pbm",
        "pnm", "jp2", "avif",
    )
)  # fmt: skip
# Left behind by operating systems and tools; names that begin with a dot are skipped too.
_LEFT_BEHIND = frozenset(
    ("__macosx", "@eadir", "__pycache__", "thumbs.db", "desktop.ini", "$recycle.bin", "lost+found")
)
_WORDS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")
_FILLERS = "set|sets|data|dataset|image|images|img|imgs|picture|pictures|photos|folder|split|part"
_KINDS = {
    "train": re.compile(rf"(train|training|trn|trainval)({_FILLERS})?"),
    "test": re.compile(rf"(test|testing|tst|heldout|holdout)({_FILLERS})?"),
    "val": re.compile(rf"(val|valid|validation|dev|eval|evaluation)({_FILLERS})?"),
    "unlabelled": re.compile(r"pred|predict|prediction|predictions|unlabell?ed|unsup|extra"),
}
# Sibling folders that hold inputs and a target for each pixel: segmentation, which has no classes here.
_INPUTS = re.compile(r"(?i)(images?|imgs?|inputs?|jpegimages|leftimg8bit|pictures?|photos?|rgb)")
_BY_PIXEL = re.compile(
    r"(?i)(masks?|labels?|annotations?|annots?|gts?|ground_?truths?|segmentations?|segs?|targets?|"
    r"outputs?|trimaps?|depths?|segmentationclass|gtfine|gtcoarse)"
)
# Whole names only: too short to be words in one.
_SHORT = {"tr": "train", "te": "test", "ts": "test"}


class PictureFolder(Dataset[Any]):
    """Pictures in a folder per class, read as a viewer shows them; the label is the class's number.

    Args:
        root: What errors call it.
        files: The pictures of each class.
        classes: Names in the order of their numbers; None: those of `files`, sorted.
    """

    def __init__(self, root: Path, files: dict[str, list[str]], classes: list[str] | None = None):
        self.root, self.files = root, files
        self.classes = sorted(files) if classes is None else list(classes)
        self.class_to_idx = {name: number for number, name in enumerate(self.classes)}
        if unknown := [name for name in files if name not in self.class_to_idx]:
            raise DataError(
                f"{root} holds the class {unknown[0]}, which is not among the training data's: "
                f"{', '.join(self.classes)}."
            )
        names = sorted(files)
        self.paths = [file for name in names for file in files[name]]
        self.targets = [self.class_to_idx[name] for name in names for _ in files[name]]
        # The pictures that this is a part of, and the part's name: at first, all of them.
        self.all_paths, self.part = self.paths, ""

    @property
    def samples(self) -> list[tuple[str, int]]:
        """The file and the label of each picture."""
        return list(zip(self.paths, self.targets, strict=True))

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, i: int) -> tuple[Any, int]:
        return load(self.paths[i]), self.targets[i]

    def numbered_as(self, other: PictureFolder) -> PictureFolder:
        """The same pictures with the class numbers of another folder.

        Raises:
            DataError: If the other folder lacks one of their classes.
        """
        return PictureFolder(self.root, self.files, other.classes)

    def split(self) -> tuple[PictureFolder, PictureFolder]:
        """Its pictures to learn from and those held out, a fixed fifth."""
        rows = zip(("train", "held out"), held_out_rows(len(self)), strict=True)
        one, other = (self._part(part, index.tolist()) for part, index in rows)
        return one, other

    def _part(self, part: str, rows: list[int]) -> PictureFolder:
        twin = copy.copy(self)
        twin.part = part
        twin.paths = [self.paths[i] for i in rows]
        twin.targets = [self.targets[i] for i in rows]
        return twin


@dataclass
class Parts:
    """A folder of pictures.

    Attributes:
        train: What to learn from.
        held_out: Its own held-out part, with the class numbers of `train`, or None.
        notes: Remarks on how it was read, for the run's header.
    """

    path: Path
    train: PictureFolder
    held_out: PictureFolder | None = None
    notes: list[str] = field(default_factory=list)

    def numbered_as(self, other: Parts) -> Parts:
        """The held-out data for another folder: this one's own held-out part, if it has one, or all of it.

        Raises:
            DataError: If the other folder lacks one of its classes.
        """
        held_out = (self.held_out or self.train).numbered_as(other.train)
        return Parts(self.path, held_out, None, self.notes)

    def split(self) -> Parts:
        """The folder with a held-out part, its own or a fixed fifth; itself if it has too few pictures."""
        if self.held_out is not None or len(self.train) < 2:
            return self
        return Parts(self.path, *self.train.split(), self.notes)


def open_folder(path: Path) -> Parts:
    """A folder of class folders of pictures, or of a training and a held-out part of such.

    Parts are recognised by their names (`train`, `Training`, `seg_train`; `test`, `Testing`,
    `validation`), if they hold class folders; `test` is preferred to `val`. A folder that holds only
    another one stands for that. Hidden files and folders are skipped.

    Raises:
        DataError: If it holds no pictures in class folders, or it is unclear which of its folders are
            classes and which are parts.
    """
    try:
        whole = _unwrapped(_scan(path, frozenset()))
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error}") from error
    train = _best([f for f in whole.folders if _kind(f.name) == "train" and f.has_classes], path)
    if train is None:
        _check_classes(whole, path)
        return Parts(path, PictureFolder(path, _classes(whole, path)), None, _passed_over(whole))
    notes = []
    held_out = None
    for kind in ("test", "val"):
        if held_out is None:
            found = [f for f in whole.folders if _kind(f.name) == kind and f.has_classes]
            held_out = _best(found, path)
    for other in whole.folders:
        if other in (train, held_out) or not other.total:
            continue
        if held_out is None and _kind(other.name) is None:
            raise DataError(
                f"{path} holds {train.name}/ with class folders, and {other.name}/ with pictures: are "
                "its folders classes, or parts? Keep the pictures of a class directly in its folder, and "
                f"name the parts train and test; or give dataset={path / train.name}."
            )
        why = f" ({held_out.name}/ is held out)" if held_out is not None else ""
        why = why if other.has_classes else " (no class folders)"
        notes.append(f"{other.name}/ skipped{why}")
    inner = _unwrapped(train)
    made = PictureFolder(train.path, _classes(inner, train.path))
    notes += _passed_over(inner)
    if held_out is None:
        return Parts(path, made, None, notes)
    files = _classes(_unwrapped(held_out), held_out.path, empty_too=True)
    return Parts(path, made, PictureFolder(held_out.path, files, made.classes), notes)


def is_picture(path: Path) -> bool:
    """Whether a file is a picture, judging by its suffix."""
    return path.suffix.lower() in _PICTURES


def part_of(name: str) -> str | None:
    """The part that a folder's or a file's name means: `train`, `test`, `val`; None: none of them."""
    kind = _kind(name)
    return None if kind == "unlabelled" else kind


def pictures_in(path: Path) -> list[Path]:
    """All pictures of a folder, those in folders below included, in the order of their names.

    Raises:
        DataError: If it cannot be read.
    """
    try:
        scanned = _scan(path, frozenset())
        return [Path(file) for below in scanned.walk() for file in below.pictures]
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error}") from error


@dataclass(eq=False)
class _Folder:
    """The visible contents of a folder.

    Attributes:
        pictures: Those directly in it.
        folders: In the order of their names.
        others: Number of other files directly in it, by file extension.
    """

    path: Path
    pictures: list[str]
    folders: list[_Folder]
    others: Counter[str]

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def total(self) -> int:
        return len(self.pictures) + sum(folder.total for folder in self.folders)

    @property
    def has_classes(self) -> bool:
        inner = _unwrapped(self)
        return not inner.pictures and any(folder.total for folder in inner.folders)

    def walk(self) -> Iterator[_Folder]:
        yield self
        for folder in self.folders:
            yield from folder.walk()


def _scan(path: Path, above: frozenset[str]) -> _Folder:
    """The tree of a folder; `above` has the real paths of its parents, since links may form a circle."""
    above |= {os.path.realpath(path)}
    found = _Folder(path, [], [], Counter())
    with os.scandir(path) as entries:
        # Sorted: file systems list entries in any order, and row numbers must not depend on it.
        for entry in sorted(entries, key=lambda entry: entry.name):
            name = entry.name
            if name.startswith(".") or name.lower() in _LEFT_BEHIND:
                continue
            if entry.is_dir():  # Or a link to one: data sets are often linked from a shared disk.
                here = path / name
                if os.path.realpath(here) not in above:
                    found.folders.append(_scan(here, above))
                continue
            stem, dot, ending = name.rpartition(".")
            if (ending := (dot + ending).lower() if stem and ending else "") in _PICTURES:
                # Text: a `Path` for each of a million files would take seconds.
                found.pictures.append(entry.path)
            else:
                found.others[ending or "without an extension"] += 1
    return found


def _unwrapped(folder: _Folder) -> _Folder:
    """The folder that holds the classes or parts: archives often unpack to a folder in a folder."""
    while not folder.pictures:
        inside = [inner for inner in folder.folders if inner.total]
        if len(inside) != 1 or inside[0].pictures:
            break
        folder = inside[0]
    return folder


def _kind(name: str) -> str | None:
    """The part that a folder's name means: train, test, val, unlabelled; None: none, or several."""
    if short := _SHORT.get(name.lower()):
        return short
    words = [
        word.lower() for word in _WORDS.findall(re.sub(r"(?i)(held|hold)[-_ ]out", "heldout", name))
    ]
    kinds = {kind for kind, known in _KINDS.items() if any(known.fullmatch(w) for w in words)}
    if kinds == {"train", "val"}:
        return "train"  # `train_val`: both, to learn from.
    return kinds.pop() if len(kinds) == 1 else None


def _is_plain(name: str) -> bool:
    """Whether a name means only a part: `train`, `Test_Images`, but not `seg_train`."""
    known = [*_KINDS.values(), re.compile(_FILLERS)]
    return name.lower() in _SHORT or all(
        any(words.fullmatch(word.lower()) for words in known) for word in _WORDS.findall(name)
    )


def _best(found: list[_Folder], path: Path) -> _Folder | None:
    """The only one of several folders of one part, or the only one with a plain name."""
    plain = [folder for folder in found if _is_plain(folder.name)]
    if len(chosen := plain or found) > 1:
        names = " and ".join(f"{folder.name}/" for folder in chosen)
        raise DataError(
            f"{path} holds {names}: which of them is meant? Give dataset=FOLDER test_dataset=FOLDER."
        )
    return chosen[0] if chosen else None


def _check_classes(whole: _Folder, path: Path) -> None:
    """Refuse folders that would be learnt as classes but look like something else.

    Raises:
        DataError: If there are such folders.
    """
    folders = [folder for folder in whole.folders if folder.total]
    # `train` and `test` among others, or nothing but such as `seg_train` and `seg_test`.
    plain = {_kind(folder.name) for folder in folders if _is_plain(folder.name)} - {None}
    kinds = {_kind(folder.name) for folder in folders}
    if "train" in kinds and (len(plain) > 1 or None not in kinds):
        named = ", ".join(f"{folder.name}/" for folder in folders)
        raise DataError(
            f"{path} holds {named}, which hold pictures but no class folders: there are no labels to "
            f"learn. Expected, for example, {path}/train/cat/1.png and {path}/train/dog/2.png."
        )
    if odd := [f for f in folders if f.has_classes and _kind(f.name) and _is_plain(f.name)]:
        others = [folder for folder in folders if folder.pictures]
        if others:
            raise DataError(
                f"{path} holds {odd[0].name}/ with folders in it, and {others[0].name}/ with pictures: "
                "are they parts, or classes? Keep the pictures of a class directly in its folder, or "
                f"put those to learn from into {path / 'train'}."
            )
    inside = [{f.name for f in folder.folders if f.total} for folder in folders]
    shared = sorted(set.intersection(*inside)) if len(inside) > 1 else []
    # `images/1.png` and `masks/1.png`, or `images/train/1.png` and `masks/train/1.png`.
    if len(folders) == 2 and (shared or not any(folder.has_classes for folder in folders)):
        for one, other in (folders, folders[::-1]):
            if _INPUTS.fullmatch(one.name) and _BY_PIXEL.fullmatch(other.name):
                raise DataError(
                    f"{path} holds {one.name}/ and {other.name}/: they look like inputs and their targets, "
                    "not like two classes. Give a torch.utils.data.Dataset whose items are (input, "
                    "target); or name the folders after their classes."
                )
    if len(shared) > 1 and all(folder.has_classes for folder in folders):
        names = " and ".join(f"{folder.name}/" for folder in (folders[0], folders[-1]))
        raise DataError(
            f"{names} of {path} both hold {', '.join(shared[:3])}: they look like parts, not "
            "like classes. Name the parts train and test, or give dataset=FOLDER test_dataset=FOLDER."
        )


def _classes(folder: _Folder, path: Path, *, empty_too: bool = False) -> dict[str, list[str]]:
    """The pictures of each class folder, those in folders below included.

    Raises:
        DataError: If there are none, or a class of the training part has none.
    """
    files = {
        inner.name: [file for below in inner.walk() for file in below.pictures]
        for inner in folder.folders
    }
    expected = f"Expected, for example, {path}/cat/1.png and {path}/dog/2.png."
    if not any(files.values()):
        found = f"{len(folder.pictures)} pictures are directly in it" if folder.pictures else ""
        if others := sum((below.others for below in folder.walk()), Counter()):
            if (kind := media_of_file(f"x{others.most_common(1)[0][0]}")) is not None:
                raise DataError(refusal(str(path), kind))
            kinds = ", ".join(f"{count} {kind}" for kind, count in others.most_common(3))
            found = found or f"it holds no pictures, but {kinds}"
        raise DataError(
            f"{path} is not a folder of class folders of images ({found or 'it is empty'}). {expected}"
        )
    empty = [f"{name}/" for name, pictures in files.items() if not pictures]
    if empty and not empty_too:
        raise DataError(
            f"{path} holds {', '.join(empty[:5])} without pictures. Remove folders that are not "
            f"classes. File names of pictures end in {', '.join(sorted(_PICTURES))}."
        )
    return {name: pictures for name, pictures in files.items() if pictures}


def _passed_over(folder: _Folder) -> list[str]:
    """Remarks on what a folder of class folders holds that was not read."""
    notes = []
    if folder.pictures:
        notes.append(f"{len(folder.pictures)} pictures outside class folders skipped")
    others = sum((b.others for inner in folder.folders for b in inner.walk()), Counter())
    if others:
        kinds = ", ".join(kind for kind, _ in others.most_common(3))
        notes.append(f"{others.total()} files that are not pictures ({kinds}) skipped")
    return notes
