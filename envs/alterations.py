"""Turns one data set into a sequence of tasks: a function of stored observations for each task."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..replay import ConfigError

# Maps stored rows `[B, *shape]` to those of a task (a number, or int64 `[B]`), same shape and dtype.
TaskTransform = Callable[[Tensor, int | Tensor], Tensor]


class Permutations:
    """Reorders the values of an observation, in a random order for each task.

    Args:
        tasks: Number of tasks, each with an order int64 `[values of an observation]`.
        seed: Seeds the orders.
    """

    def __init__(self, tasks: int, seed: int):
        self.tasks, self.seed = tasks, seed
        self._orders: dict[tuple[int, torch.device], Tensor] = {}

    def __len__(self) -> int:
        return self.tasks

    def __call__(self, obs: Tensor, task: int | Tensor) -> Tensor:
        """`[B, *shape]`, the task a number or int64 `[B]`, to the same shape and dtype."""
        flat = obs.flatten(1)
        orders = self.orders(flat.shape[1], obs.device)  # (tasks, values)
        if not isinstance(task, int):
            return flat.gather(1, orders.index_select(0, task)).view(obs.shape)
        # One order for all rows, but index_select along a row is 5 times slower on bytes.
        return flat.gather(1, orders[task].expand_as(flat)).view(obs.shape)

    def orders(self, size: int, device: torch.device) -> Tensor:
        """int64 `[tasks, size]`: which value comes first, second, ... in each task."""
        if (size, device) not in self._orders:
            # Drawn on the CPU: generators of other devices give other numbers for the same seed.
            generator = torch.Generator().manual_seed(self.seed)
            drawn = [torch.randperm(size, generator=generator) for _ in range(self.tasks)]
            self._orders[size, device] = torch.stack(drawn).to(device)
        return self._orders[size, device]


class Rotations:
    """Rotates images counter-clockwise by an angle for each task: bilinear, black outside.

    Args:
        tasks: Number of tasks, each with an angle in [0, 180) degrees.
        seed: Seeds the angles.

    Attributes:
        degrees: float64 `[tasks]` in [0, 180).
    """

    def __init__(self, tasks: int, seed: int):
        generator = torch.Generator().manual_seed(seed)
        self.degrees = torch.rand(tasks, generator=generator, dtype=torch.float64) * 180
        self._grids: dict[tuple[int, int, torch.device], Tensor] = {}

    def __len__(self) -> int:
        return len(self.degrees)

    def __call__(self, obs: Tensor, task: int | Tensor) -> Tensor:
        """`[B, C, H, W]`, the task a number or int64 `[B]`, to the same shape and dtype."""
        if obs.dim() != 4:
            raise ValueError("only images, [B, C, H, W], can be rotated")
        height, width = obs.shape[-2:]
        grids = self.grids(height, width, obs.device)
        if isinstance(task, int):
            # One image of many channels: the grid's weights are computed once for all of them.
            images, grid = obs.reshape(1, -1, height, width), grids[task][None]
        else:
            images, grid = obs, grids.index_select(0, task)
        turned = F.grid_sample(images.float(), grid, align_corners=False).view(obs.shape)
        return turned.to(obs.dtype) if obs.is_floating_point() else turned.round_().to(obs.dtype)

    def grids(self, height: int, width: int, device: torch.device) -> Tensor:
        """float32 `[tasks, H, W, 2]`: where each pixel comes from, x then y, -1 to 1 edge to edge."""
        key = (height, width, device)
        if key not in self._grids:
            # Backwards, from each output pixel to its source, as grid_sample expects.
            angle = self.degrees.deg2rad()[:, None, None]
            y = (torch.arange(height, dtype=torch.float64) - (height - 1) / 2)[:, None]
            x = torch.arange(width, dtype=torch.float64) - (width - 1) / 2
            source_x = angle.cos() * x - angle.sin() * y
            source_y = angle.sin() * x + angle.cos() * y
            grid = torch.stack((source_x / (width / 2), source_y / (height / 2)), -1)
            self._grids[key] = grid.float().to(device)
        return self._grids[key]


class EachTask:
    """A function per task as one function, which also accepts batches of several tasks.

    Args:
        functions: Each from `[B, *shape]` to the same shape and dtype.
    """

    def __init__(self, functions: Sequence[Callable[[Tensor], Tensor]]):
        self.functions = functions

    def __len__(self) -> int:
        return len(self.functions)

    def __call__(self, obs: Tensor, task: int | Tensor) -> Tensor:
        """`[B, *shape]`, the task a number or int64 `[B]`, to the same shape and dtype."""
        if isinstance(task, int):
            return self.functions[task](obs)
        altered = torch.empty_like(obs)
        for number in task.unique().tolist():
            rows = (task == number).nonzero().flatten()
            altered.index_copy_(0, rows, self.functions[number](obs.index_select(0, rows)))
        return altered


def alterations_of(
    make: Callable[..., Any], tasks: int | None, seed: int, *, name: str
) -> tuple[TaskTransform, int]:
    """The function that alters a batch for its tasks, and the number of tasks.

    Args:
        make: The data set's own method `alterations`, which returns functions of rows `[B, *shape]`.
        tasks: How many tasks to make; None: as many as it makes by itself.
        name: What errors call the data set.

    Raises:
        ConfigError: If `make` needs a number of tasks, or makes another number than asked for.
    """
    parameters = inspect.signature(make).parameters
    if (
        tasks is None
        and "tasks" in parameters
        and parameters["tasks"].default is inspect.Parameter.empty
    ):
        raise ConfigError(f"{name} does not say how many tasks it makes. Give tasks=.")
    made = make(seed=seed) if tasks is None else make(tasks, seed=seed)
    if len(made) != (tasks or max(1, len(made))):
        raise ConfigError(
            f"{name}.alterations made {len(made)} tasks, not {tasks or 'one or more'}."
        )
    return (made if callable(made) else EachTask(made)), len(made)


def altered(task_transform: TaskTransform, name: str, obs: Tensor) -> Tensor:
    """The rows `[B, *shape]` as the first task has them, to try the transform out.

    Raises:
        ConfigError: If they cannot be altered, or do not keep their shape and dtype.
    """
    try:  # Its code is the user's own, so that any exception may come from it.
        changed = task_transform(obs, 0)
    except Exception as error:
        raise ConfigError(
            f"{name}.alterations raised {type(error).__name__} on stored inputs of shape "
            f"{list(obs.shape)} on {obs.device}: {error}"
        ) from error
    if changed.shape != obs.shape or changed.dtype != obs.dtype:
        raise ConfigError(
            f"{name}.alterations turn stored inputs {_in_words(obs)} into {_in_words(changed)}; they must "
            "keep their shape and dtype."
        )
    return changed


def _in_words(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)}"
