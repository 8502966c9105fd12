"""Data sets that are a sequence by themselves: the same rows, altered in another way for each task."""

from __future__ import annotations

import os

from torchvision.datasets import MNIST

from .alterations import Permutations, Rotations


class _AlteredMNIST(MNIST):
    """Reads torchvision's own MNIST folder, whatever the subclass is called."""

    @property
    def raw_folder(self) -> str:
        return os.path.join(self.root, "MNIST", "raw")

    @property
    def processed_folder(self) -> str:
        return os.path.join(self.root, "MNIST", "processed")


class PermutedMNIST(_AlteredMNIST):
    """MNIST, its pixels in an order of their own in every task (`dataset=PermutedMNIST tasks=20`).

    Domain-incremental: the tasks share rows and labels, and nothing is stored twice. The orders are
    drawn from the run's seed, the first task's too.

    A data set of your own becomes such a sequence with one method:

        def alterations(self, tasks=10, seed=0):
            return [functools.partial(torch.roll, shifts=task, dims=-1) for task in range(tasks)]

    It gives a function per task, each from stored observations `[B, *shape]` to altered ones of the
    same shape and dtype (or an object with a `len`, called with `(obs, task)`, as `Permutations` is).

    Source: Goodfellow et al. (2014), arXiv 1312.6211.
    """

    def alterations(self, tasks: int = 20, seed: int = 0) -> Permutations:
        return Permutations(tasks, seed)


class RotatedMNIST(_AlteredMNIST):
    """MNIST, turned by an angle of its own in every task (`dataset=RotatedMNIST tasks=20`).

    Domain-incremental, as `PermutedMNIST` is; angles are uniform in [0, 180) degrees, drawn from the
    run's seed.

    Source: Lopez-Paz & Ranzato (2017), arXiv 1706.08840.
    """

    def alterations(self, tasks: int = 20, seed: int = 0) -> Rotations:
        return Rotations(tasks, seed)
