"""The module with the preparation of its inputs in front, as one graph for any batch size."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ...replay import Space
from ...replay.batch import Tensors
from ...replay.transform import affine
from ...replay.tree import leaves, map_tree, slashed, zip_trees
from ..inference.trained import Trained

SIZES = (3, 1, 5)  # Batch sizes at which outputs are compared; the first one is traced.


class Graph(nn.Module):
    """A module that accepts inputs as the data had them, `[B, ...]` or a dict, and prepares them itself.

    In environments it accepts observations as the module receives them.

    Args:
        trained: The trained module.

    Attributes:
        prepares: Whether it prepares its inputs.
        examples: Inputs for each of `SIZES`, on the CPU.
        expected: The trained module's outputs for these, `[B, ...]` or a dict.
    """

    def __init__(self, trained: Trained):
        super().__init__()
        self.module, self.prepares = trained.on_cpu(), not trained.world.acts
        space, standardize = trained.world.spec.obs, trained.plan.standardize
        spaces = leaves(space) if self.prepares else []
        self._parts = nn.ModuleList(Preparation(s, standardize=standardize) for s in spaces)
        self._places = _numbered(space)
        self.examples: list[Tensors] = []
        self.expected: list[Tensors] = []
        for size in SIZES:
            if self.prepares:
                raw = map_tree(partial(_random, n=size), space)
                received = trained.observed(zip_trees(_stored, raw, space))
                self.examples.append(raw)
            else:
                received = trained.observed(trained.world.example(size, torch.device("cpu")))
                self.examples.append(map_tree(Tensor.cpu, received))
            self.expected.append(trained.outputs(received))

    def forward(self, inputs: Any) -> Any:
        """The module's output: logits or values `[B, ...]`, or a dict."""
        if not self.prepares:
            return self.module(inputs)
        return self.module(zip_trees(lambda i, x: self._parts[i](x), self._places, inputs))

    @property
    def input_names(self) -> list[str]:
        """The names of the inputs in the order of the dict, keys joined by `/`; `obs` for a single one."""
        return [name or "obs" for name in slashed(self.examples[0])]

    @property
    def output_names(self) -> list[str]:
        """The names of the outputs, likewise; `output` for a single one."""
        return [name or "output" for name in slashed(self.expected[0])]


class Preparation(nn.Module):
    """One input as the data had it, `[B, *shape]`, as in training: standardised float32; ids unchanged.

    Args:
        space: Its space, with its statistics.
        standardize: The run's setting.
    """

    shift: Tensor | None
    factor: Tensor | None
    base: Tensor | None
    origin: Tensor | None
    unit: Tensor | None

    def __init__(self, space: Space, *, standardize: bool):
        super().__init__()
        places, scale = affine(space, standardize=standardize), space.scale
        shift, factor = (None, None) if places is None else (places[0], 1 / places[1])
        base, origin, unit = (
            (None,) * 3 if scale is None else (scale.base, scale.offset, scale.unit)
        )
        found = {"shift": shift, "factor": factor, "base": base, "origin": origin, "unit": unit}
        for name, tensor in found.items():
            self.register_buffer(name, None if tensor is None else tensor.detach().cpu().clone())

    def forward(self, x: Tensor) -> Tensor:
        """The input as the module receives it."""
        if self.base is not None and self.origin is not None and self.unit is not None:
            # In the source's precision, before rounding.
            x = ((x - self.base).double() - self.origin) / self.unit
        if self.shift is None or self.factor is None:
            return x
        return (x.float() - self.shift) * self.factor


def raw_dtype(space: Space) -> torch.dtype:
    """The dtype in which the graph accepts an input."""
    return space.dtype if space.scale is None else space.scale.base.dtype


def _stored(raw: Tensor, space: Space) -> Tensor:
    return raw if space.scale is None else space.scale.stored(raw)


def _random(space: Space, n: int) -> Tensor:
    """Random inputs between the smallest and the largest that were trained on, `[n, *shape]`."""
    shape, dtype = (n, *space.shape), raw_dtype(space)
    if space.ids is not None:
        most = torch.tensor(space.nvec or space.ids, dtype=torch.float64)
        return (torch.rand(shape, dtype=torch.float64) * most).long()
    if dtype == torch.bool:
        return torch.randint(2, shape).bool()
    low, high = (torch.as_tensor(end, dtype=torch.float64) for end in (space.low, space.high))
    return (low + torch.rand(shape, dtype=torch.float64) * (high - low)).to(dtype)


def _numbered(tree: object) -> Any:
    """The tree with its leaves numbered, in the order of `leaves`."""
    count = iter(range(len(leaves(tree))))
    return map_tree(lambda _: next(count), tree)
