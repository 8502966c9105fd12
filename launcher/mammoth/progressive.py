"""The networks of `backbones` as columns of a progressive network, which learn beside the earlier ones."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .backbones import BasicBlock, MammothBackbone, ResNet, ReturnTypes, answer, conv3x3, xavier


class MNISTMLP_PNN(MammothBackbone):
    """A column of a progressive network, of the sizes of `BaseMNISTMLP`.

    Every hidden layer and the outputs also read what the columns before it have one layer below:
    `h = relu(W h_below + U relu(V (a * earlier)))`. The earlier columns are copied, and stay as they are.

    Source: Rusu et al. (2016, arXiv 1606.04671), eq. 2.

    Args:
        input_size, output_size: As of `BaseMNISTMLP`.
        old_cols: The columns before it.
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
        earlier = [old.fc1.out_features for old in old_cols or ()]
        if earlier:
            self.adaptor1 = _lateral(sum(earlier), hidden_size, hidden_size)
            self.adaptor2 = _lateral(sum(earlier), hidden_size, output_size)
        self.apply(xavier)
        self.columns = _frozen(old_cols, ("fc1", "fc2", "adaptor1"))

    def forward(self, x: Tensor, returnt: ReturnTypes = "out") -> Any:
        x = x.reshape(len(x), -1)
        below: list[Tensor] = []  # Of the columns so far, after their first layer and their second.
        above: list[Tensor] = []
        with torch.no_grad():
            for column in self.columns:
                first, second = self._hidden(column, x, below)
                below.append(first)
                above.append(second)
        _, features = self._hidden(self, x, below)
        lateral = self.adaptor2(torch.cat(above, 1)) if above else 0
        return answer(self, features, returnt, [features], lateral)

    @staticmethod
    def _hidden(column: Any, x: Tensor, below: list[Tensor]) -> tuple[Tensor, Tensor]:
        first = F.relu(column.fc1(x))
        lateral = column.adaptor1(torch.cat(below, 1)) if below else 0
        return first, F.relu(column.fc2(first) + lateral)


class ResNetPNN(ResNet):
    """A column of a progressive network that is a `ResNet`; see `MNISTMLP_PNN`.

    Args:
        block, num_blocks, num_classes, nf: As of `ResNet`.
        old_cols: The columns before it.
        x_shape: Not needed, since a weight belongs to a channel and not to a pixel.
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
            for stage in range(len(num_blocks) - 1):
                planes = nf << stage
                self.adaptors.append(_lateral_maps(planes * earlier, planes, planes * 2))
            top = self.feature_dim
            self.lateral_classifier = _lateral(top * earlier, top, num_classes)
        names = ("conv1", "bn1", "layer1", "layer2", "layer3", "layer4", "adaptors")
        self.columns = _frozen(old_cols, names)

    def forward(self, x: Tensor, returnt: ReturnTypes = "out") -> Any:
        earlier: list[list[Tensor]] = []  # Maps of each column so far.
        with torch.no_grad():
            for column in self.columns:
                earlier.append(self._maps(column, x, earlier))
        maps = self._maps(self, x, earlier)
        lateral: Any = 0
        if earlier:
            above = [column[-1].mean((2, 3)) for column in earlier]
            lateral = self.lateral_classifier(torch.cat(above, 1))
        return answer(self, maps[-1].mean((2, 3)), returnt, maps, lateral)

    @staticmethod
    def _maps(column: Any, x: Tensor, earlier: list[list[Tensor]]) -> list[Tensor]:
        x = F.relu(column.bn1(column.conv1(x)))
        maps = [x]
        for number in range(1, 5):
            x = column.get_submodule(f"layer{number}")(x)
            if earlier and number > 1:
                below = torch.cat([each[number - 1] for each in earlier], 1)
                x = F.relu(x + column.adaptors[number - 2](below))
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
    """A learnt factor of each channel, small at first."""

    def __init__(self, channels: int, dims: int):
        super().__init__()
        self.alpha = nn.Parameter(torch.rand(channels, *[1] * dims) * 0.1)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.alpha


def _lateral(earlier: int, hidden: int, out: int) -> nn.Sequential:
    layers = [nn.Linear(earlier, hidden), nn.ReLU(), nn.Linear(hidden, out, bias=False)]
    return nn.Sequential(_Scale(earlier, 0), *layers)


def _lateral_maps(earlier: int, hidden: int, out: int) -> nn.Sequential:
    layers = [nn.Conv2d(earlier, hidden, 1), nn.ReLU(), conv3x3(hidden, out, 2)]
    return nn.Sequential(_Scale(earlier, 2), *layers)


def _frozen(columns: Sequence[nn.Module] | None, names: Sequence[str]) -> nn.ModuleList:
    """Copies of these parts of each column, whose weights do not change any more."""
    kept = nn.ModuleList()
    for column in columns or ():
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
        return super().train(False)  # In training mode its running means would still move.
