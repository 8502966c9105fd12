"""The networks of `backbones` as columns of a progressive network.

A column reads the hidden layers of all earlier columns, whose weights are frozen: nothing is forgotten, at
the price of one column per task.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .backbones import BasicBlock, MammothBackbone, ResNet, ReturnTypes, answer, conv3x3, xavier


class MNISTMLP_PNN(MammothBackbone):
    """A column of a progressive network, with the layers of `BaseMNISTMLP`.

    The second hidden layer and the outputs also read the layer below of every earlier column:
    `h = relu(W h_below + U relu(V (a * earlier)))`. Earlier columns are copied and frozen.

    Source: Rusu et al. (2016, arXiv 1606.04671), eq. 2.

    Args:
        input_size: int, numbers in a row `[B, *shape]`, whatever its shape.
        output_size: int, number of classes.
        old_cols: The earlier columns, first to last.
        hidden_size: int, units of each hidden layer.
    """

    def __init__(
        self,
        input_size: int,
        output_size: int,
        old_cols: Sequence[MNISTMLP_PNN] | None = None,
        hidden_size: int = 100,
    ):
        super().__init__()
        self.input_size, self.output_size = input_size, output_size
        self.fc1 = nn.Linear(input_size, hidden_size)
        self.fc2 = nn.Linear(hidden_size, hidden_size)
        self.classifier = nn.Linear(hidden_size, output_size)
        self.adaptor1: nn.Module = nn.Identity()
        self.adaptor2: nn.Module = nn.Identity()
        # Sizes are read from the columns, since a user may make them of different widths.
        earlier = [old.fc1.out_features for old in old_cols or ()]
        if earlier:
            self.adaptor1 = _lateral(sum(earlier), hidden_size, hidden_size)
            self.adaptor2 = _lateral(sum(earlier), hidden_size, output_size)
        # Columns are attached after the weights are drawn: `apply` would draw theirs again.
        self.apply(xavier)
        self.columns = _frozen(old_cols, ("fc1", "fc2", "adaptor1"))

    def forward(self, x: Tensor, returnt: ReturnTypes = "out") -> Any:
        x = x.reshape(len(x), -1)
        # Outputs `[B, hidden]` of the first and the second layer of each column so far.
        below: list[Tensor] = []
        above: list[Tensor] = []
        # Nothing in an earlier column is learnt, so that its activations need not be stored for a backward.
        with torch.no_grad():
            for column in self.columns:
                first, second = self._hidden(column, x, below)
                below.append(first)
                above.append(second)
        _, features = self._hidden(self, x, below)
        lateral = self.adaptor2(torch.cat(above, 1)) if above else 0
        return answer(self, features, returnt, [features], lateral)

    @staticmethod
    def _hidden(column: nn.Module, x: Tensor, below: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Outputs `[B, hidden]` of a column's two hidden layers, from rows `[B, input_size]`."""
        # The first layer has no layer below in another column, hence no adaptor.
        first = F.relu(column.get_submodule("fc1")(x))
        lateral = column.get_submodule("adaptor1")(torch.cat(below, 1)) if below else 0
        return first, F.relu(column.get_submodule("fc2")(first) + lateral)


class ResNetPNN(ResNet):
    """A column of a progressive network that is a `ResNet`; see `MNISTMLP_PNN`.

    Args:
        block: `BasicBlock`, or a class with its constructor.
        num_blocks: int `[4]`, blocks in each stage.
        num_classes: int, number of classes.
        nf: int, channels of the first stage; each later one has twice as many.
        old_cols: The earlier columns, first to last.
        x_shape: Has no effect: an adaptor has one weight per channel, whatever the resolution.
    """

    def __init__(
        self,
        block: type[BasicBlock],
        num_blocks: Sequence[int],
        num_classes: int,
        nf: int,
        old_cols: Sequence[ResNetPNN] | None = None,
        x_shape: Sequence[int] | None = None,
    ):
        super().__init__(block, num_blocks, num_classes, nf)
        earlier = len(old_cols or ())
        self.adaptors = nn.ModuleList()
        self.lateral_classifier: nn.Module = nn.Identity()
        if earlier:
            # A lateral connection enters each stage but the first, whose input has no stage below.
            for stage in range(len(num_blocks) - 1):
                planes = nf << stage
                self.adaptors.append(_lateral_maps(planes * earlier, planes, planes * 2))
            top = self.feature_dim
            self.lateral_classifier = _lateral(top * earlier, top, num_classes)
        names = ("conv1", "bn1", "layer1", "layer2", "layer3", "layer4", "adaptors")
        self.columns = _frozen(old_cols, names)

    def forward(self, x: Tensor, returnt: ReturnTypes = "out") -> Any:
        earlier: list[list[Tensor]] = []  # Of each column so far, its maps `[B, C, H, W]`.
        # As in `MNISTMLP_PNN`: no backward goes through an earlier column.
        with torch.no_grad():
            for column in self.columns:
                earlier.append(self._maps(column, x, earlier))
        maps = self._maps(self, x, earlier)
        lateral: Tensor | int = 0
        if earlier:
            above = [column[-1].mean((2, 3)) for column in earlier]
            lateral = self.lateral_classifier(torch.cat(above, 1))
        return answer(self, maps[-1].mean((2, 3)), returnt, maps, lateral)

    @staticmethod
    def _maps(column: nn.Module, x: Tensor, earlier: list[list[Tensor]]) -> list[Tensor]:
        """The maps `[B, C, H, W]` of a column after its stem and each stage, from images `[B, 3, H, W]`.

        Args:
            column: The column itself, or the copied parts of an earlier one.
            x: `[B, 3, H, W]`.
            earlier: For each earlier column, its maps.
        """
        # `ResNet`'s pooling is left out: with a stem of 3x3 pixels it is the identity.
        x = F.relu(column.get_submodule("bn1")(column.get_submodule("conv1")(x)))
        maps = [x]
        for number in range(1, 5):
            # An adaptor halves the resolution, as the stage beside it does.
            x = column.get_submodule(f"layer{number}")(x)
            if earlier and number > 1:
                below = torch.cat([each[number - 1] for each in earlier], 1)
                x = F.relu(x + column.get_submodule(f"adaptors.{number - 2}")(below))
            maps.append(x)
        return maps


def resnet18_pnn(
    num_classes: int,
    nf: int = 64,
    old_cols: Sequence[ResNetPNN] | None = None,
    x_shape: Sequence[int] | None = None,
) -> ResNetPNN:
    """A column of the size of `resnet18`."""
    return ResNetPNN(BasicBlock, [2, 2, 2, 2], num_classes, nf, old_cols, x_shape)


def mnistmlp_pnn(
    num_classes: int, input_size: int = 784, old_cols: Sequence[MNISTMLP_PNN] | None = None
) -> MNISTMLP_PNN:
    return MNISTMLP_PNN(input_size, num_classes, old_cols)


class _Scale(nn.Module):
    """A learnt factor for each channel: `a` of the formula.

    Args:
        channels: int, channels of the input.
        dims: int, dimensions after the channel: 0 for features `[B, C]`, 2 for maps `[B, C, H, W]`.
    """

    def __init__(self, channels: int, dims: int):
        super().__init__()
        # Small at first, so that a new column starts from its own features and not from the old tasks'.
        self.alpha = nn.Parameter(torch.rand(channels, *[1] * dims) * 0.1)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.alpha


def _lateral(earlier: int, hidden: int, out: int) -> nn.Sequential:
    """`U relu(V (a * earlier))`, from features `[B, earlier]` to `[B, out]`."""
    # The last layer has no bias: it is added to one that has.
    layers = [nn.Linear(earlier, hidden), nn.ReLU(), nn.Linear(hidden, out, bias=False)]
    return nn.Sequential(_Scale(earlier, 0), *layers)


def _lateral_maps(earlier: int, hidden: int, out: int) -> nn.Sequential:
    """The same for maps, `[B, earlier, H, W]` to `[B, out, H / 2, W / 2]`."""
    layers = [nn.Conv2d(earlier, hidden, 1), nn.ReLU(), conv3x3(hidden, out, 2)]
    return nn.Sequential(_Scale(earlier, 2), *layers)


def _frozen(columns: Sequence[nn.Module] | None, names: Sequence[str]) -> nn.ModuleList:
    """Frozen copies of these parts of each column."""
    kept = nn.ModuleList()
    for column in columns or ():
        # Copies, since a model may go on to train its old networks. Only the parts that a later column reads:
        # a column's own `columns` would otherwise double the memory with each task.
        parts = {name: copy.deepcopy(column.get_submodule(name)) for name in names}
        kept.append(_Column(parts).requires_grad_(False))
    return kept


class _Column(nn.Module):
    """The parts of an earlier column, always in evaluation mode."""

    def __init__(self, parts: dict[str, nn.Module]):
        super().__init__()
        for name, part in parts.items():
            setattr(self, name, part)

    def train(self, mode: bool = True) -> _Column:
        # In training mode, batch normalisation would still move its running statistics.
        return super().train(False)
