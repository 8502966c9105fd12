"""Folders of class folders of images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torchvision.datasets import ImageFolder

from ..replay import DataError


def folder(path: Path, *, train: bool) -> Any:
    """A folder of class folders of images, or of `train/` and `test/` folders of these.

    Returns:
        A torchvision `ImageFolder`, or None for a test part that is not there.

    Raises:
        DataError: If it holds no images in class folders.
    """
    parts = [path / "train"] if train else [path / n for n in ("test", "val", "valid")]
    if (path / "train").is_dir():
        part = next((part for part in parts if part.is_dir()), None)
    else:
        part = path if train else None
    if part is None:
        return None
    try:
        if train:
            return ImageFolder(str(part))
        return _HeldOutFolder(str(part), ImageFolder(str(path / "train")).class_to_idx)
    except (FileNotFoundError, OSError) as error:
        raise DataError(
            f"{path} is not a folder of class folders of images ({error}). Expected, for example, "
            f"{path}/cat/1.png and {path}/dog/2.png."
        ) from error


class _HeldOutFolder(ImageFolder):
    """A folder whose classes are numbered as those of the training folder are."""

    def __init__(self, root: str, class_to_idx: dict[str, int]):
        self._numbers = class_to_idx
        super().__init__(root, allow_empty=True)

    def find_classes(self, directory: str) -> tuple[list[str], dict[str, int]]:
        found, _ = super().find_classes(directory)
        if unknown := [name for name in found if name not in self._numbers]:
            raise DataError(
                f"{directory} holds the class {unknown[0]}, which is not among the training data's: "
                f"{', '.join(self._numbers)}."
            )
        return list(self._numbers), self._numbers
