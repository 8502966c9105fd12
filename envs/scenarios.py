"""Divides the classes of a data set into tasks, and holds rows out of each.

The three scenarios are those of van de Ven & Tolias (2019), arXiv 1904.07734: the task is unknown and
must be inferred from the input (`class`), is known (`task`), or is unknown and not needed, because all
tasks share their outputs (`domain`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import torch
from torch import Tensor

from ..replay import ConfigError

SCENARIOS = ("class", "task", "domain")


def divide(
    n: int,
    name: str,
    *,
    tasks: int | None = None,
    classes_per_task: int | Sequence[int] | None = None,
    class_order: str | Sequence[int] | None = None,
    seed: int = 0,
    names: Sequence[str] | None = None,
) -> list[list[int]]:
    """The classes of each task, in the order in which they are learnt.

    Args:
        n: Number of classes, labelled int64 0 to n - 1.
        name: What errors call the data set.
        tasks: Number of tasks, all of the same size.
        classes_per_task: Number of classes in every task, or a list with the number in each.
        class_order: Every class once; None: 0, 1, 2, ...; "shuffled": drawn from `seed`.
        names: Names of the classes, for errors.

    Raises:
        ConfigError: If the classes cannot be divided like this.

    >>> divide(4, "mine", tasks=2, class_order=[3, 1, 0, 2])
    [[3, 1], [0, 2]]
    """
    sizes = _sizes(n, name, tasks, classes_per_task)
    order = _order(n, name, class_order, seed, names)
    ends = [sum(sizes[: task + 1]) for task in range(len(sizes))]
    return [order[end - size : end] for size, end in zip(sizes, ends, strict=True)]


def _sizes(
    n: int, name: str, tasks: int | None, classes_per_task: int | Sequence[int] | None
) -> list[int]:
    if classes_per_task is None:
        assert tasks is not None
        if tasks < 1 or n % tasks:
            raise ConfigError(
                f"Cannot split the {n} classes of {name} into {tasks} equal tasks "
                f"(tasks={tasks}). Set `tasks` to {_divisors(n)}."
            )
        return [n // tasks] * tasks
    if isinstance(classes_per_task, int):
        if classes_per_task < 1 or n % classes_per_task:
            raise ConfigError(
                f"Cannot split the {n} classes of {name} into tasks of {classes_per_task} "
                f"(classes_per_task={classes_per_task}). Set it to {_divisors(n)}, or list the size of "
                "each task."
            )
        sizes = [classes_per_task] * (n // classes_per_task)
    else:
        sizes = list(classes_per_task)
        if any(size < 1 for size in sizes) or sum(sizes) != n:
            raise ConfigError(
                f"classes_per_task={sizes} sums to {sum(sizes)}; {name} has {n} classes, and every task "
                "needs one or more of them."
            )
    if tasks is not None and tasks != len(sizes):
        raise ConfigError(
            f"tasks={tasks} and classes_per_task={classes_per_task} disagree: the latter makes "
            f"{len(sizes)} tasks of the {n} classes of {name}. Give only one of the two."
        )
    return sizes


def _divisors(n: int) -> str:
    *others, last = [d for d in range(1, n + 1) if n % d == 0]
    return f"{', '.join(map(str, others))} or {last}" if others else str(last)


def _order(
    n: int,
    name: str,
    class_order: str | Sequence[int] | None,
    seed: int,
    names: Sequence[str] | None,
) -> list[int]:
    if class_order is None:
        return list(range(n))
    if isinstance(class_order, str):
        if class_order != "shuffled":
            raise ConfigError(
                f"class_order={class_order}: write class_order=shuffled, or list the classes."
            )
        return torch.randperm(n, generator=torch.Generator().manual_seed(seed)).tolist()
    order, times = list(class_order), Counter(class_order)
    wrong = {
        "missing": [c for c in range(n) if c not in times],
        "repeated": [c for c in times if times[c] > 1],
        "unknown": [c for c in times if c not in range(n)],
    }
    if any(wrong.values()):
        found = "; ".join(f"{what}: {listed(some)}" for what, some in wrong.items() if some)
        raise ConfigError(
            f"class_order must name each of the {n} classes of {name} once, 0 to {n - 1} ({found})."
            f"{by_number(names)}"
        )
    return order


def by_number(names: Sequence[str] | None) -> str:
    """A sentence on which class has which number; empty if classes have no names."""
    if names is None:
        return ""
    named = [f"{i} is {name}" for i, name in enumerate(names)]
    return f" Classes are counted from 0: {', '.join(named[:10])}{', ...' * (len(named) > 10)}."


def listed(classes: Sequence[int]) -> str:
    """Classes in a few words: `3`, `0-4`, `7, 2, 5`, and the first ones of many."""
    first, last = classes[0], classes[-1]
    if len(classes) > 1 and list(classes) == list(range(first, last + 1)):
        return f"{first}-{last}"
    shown = ", ".join(map(str, classes[:8]))
    return shown if len(classes) <= 8 else f"{shown}, ... ({len(classes)} in all)"


def held_out_share(labels: Tensor, share: float) -> Tensor:
    """Which rows to hold out, bool `[N]`: the same share of every class, and the same rows in every run.

    At least one row of a class that has two or more, so that every class is evaluated.

    Args:
        labels: int64 `[N]`.
        share: Share of the rows of each class, float in [0, 0.5].
    """
    # Rows in random order, then by class: the first rows of each class are those held out.
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    order = order[labels[order].argsort(stable=True)]
    by_class, count = labels[order], labels.bincount()
    rank = torch.arange(len(labels)) - (count.cumsum(0) - count)[by_class]
    quota = (count * share).round().clamp(min=1) * (count > 1)
    chosen = torch.zeros(len(labels), dtype=torch.bool)
    chosen[order] = rank < quota[by_class]
    return chosen
