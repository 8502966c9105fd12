"""Data sets that are sequences of tasks: the same rows, altered differently for each task."""

from __future__ import annotations

import os

from torchvision.datasets import MNIST

from .alterations import Permutations, Rotations


class _AlteredMNIST(MNIST):
    """Reads torchvision's MNIST folder, which torchvision would look for under the subclass's name."""

    @property
    def raw_folder(self) -> str:
        return os.path.join(self.root, "MNIST", "raw")

    @property
    def processed_folder(self) -> str:
        return os.path.join(self.root, "MNIST", "processed")


class PermutedMNIST(_AlteredMNIST):
    """MNIST with its pixels permuted differently in every task (`dataset=PermutedMNIST tasks=20`).

    Domain-incremental: the tasks share rows and labels, and nothing is stored twice. The orders are
    drawn from the run's seed, the first task's too.

    A data set of your own becomes such a sequence with one method:

        def alterations(self, tasks=10, seed=0):
            return [functools.partial(torch.roll, shifts=task, dims=-1) for task in range(tasks)]

    It returns a function per task, each from stored observations `[B, *shape]` to altered ones of the
    same shape and dtype (or an object with a `len`, called with `(obs, task)`, like `Permutations`).

    Source: Goodfellow et al. (2014), arXiv 1312.6211.
    """

    def alterations(self, tasks: int = 20, seed: int = 0) -> Permutations:
        return Permutations(tasks, seed)


class RotatedMNIST(_AlteredMNIST):
    """MNIST, rotated by a different angle in every task (`dataset=RotatedMNIST tasks=20`).

    Domain-incremental, as `PermutedMNIST` is; angles are uniform in [0, 180) degrees, drawn from the
    run's seed.

    Source: Lopez-Paz & Ranzato (2017), arXiv 1706.08840.
    """

    def alterations(self, tasks: int = 20, seed: int = 0) -> Rotations:
        return Rotations(tasks, seed)
