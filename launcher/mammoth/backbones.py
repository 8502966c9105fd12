"""The networks that Mammoth's models use: an MLP and residual networks.

Their names, arguments and attributes (`classifier`, `returnt=`, `get_params`, ...) are Mammoth's.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from math import prod
from typing import Any, Literal, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...replay import Spec

ReturnTypes = Literal["out", "features", "both", "full"]  # What `returnt=` can be.


class MammothBackbone(nn.Module):
    """The base of a network: write `forward(x, returnt="out")`.

    Args:
        **kwargs: `device`, which the network reports until it has parameters.

    Attributes:
        device: Where its parameters are.
    """

    def __init__(self, **kwargs: Any):
        super().__init__()
        self._device = torch.device(kwargs.get("device") or "cpu")

    @property
    def device(self) -> torch.device:
        # Read from the parameters: a stored device would be wrong after `net.to(...)`.
        first = next(self.parameters(), None)
        return self._device if first is None else first.device

    @device.setter
    def device(self, device: torch.device | str) -> None:
        self._device = torch.device(device)

    def forward(self, x: Tensor, returnt: ReturnTypes = "out") -> Any:
        """`[B, *in_shape]` to logits `[B, n]` (`out`), `features` `[B, D]`, or a pair (`both`, `full`)."""
        raise NotImplementedError(f"{type(self).__name__} has no forward(x, returnt='out').")

    def features(self, x: Tensor) -> Tensor:
        """The features `[B, D]` that the classifier reads."""
        features: Tensor = self(x, returnt="features")
        return features

    def get_params(self) -> Tensor:
        """All parameters as one vector `[P]`, through which gradients flow back to them."""
        return nn.utils.parameters_to_vector(self.parameters())

    def set_params(self, new_params: Tensor) -> None:
        """Set the parameters from `[P]`, as `get_params` returns them."""
        nn.utils.vector_to_parameters(new_params.detach().clone(), self.parameters())

    def get_grads(self) -> Tensor:
        """All gradients as one vector `[P]`, zero where there is none."""
        grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in self.parameters()]
        return torch.cat([grad.flatten() for grad in grads])

    def set_grads(self, new_grads: Tensor) -> None:
        """Set the gradients from `[P]`, as `get_grads` returns them."""
        parameters = list(self.parameters())
        pieces = new_grads.split([p.numel() for p in parameters])
        for parameter, piece in zip(parameters, pieces, strict=True):
            # A copy: clipping a view in place would write into the caller's vector.
            parameter.grad = piece.view_as(parameter).clone()


class BaseMNISTMLP(MammothBackbone):
    """Two hidden layers with ReLU, Xavier-uniform weights and no bias at first.

    Source: Buzzega et al. (2020, arXiv 2004.07211), on MNIST.

    Args:
        input_size: int, numbers in a row `[B, *shape]`, whatever its shape.
        output_size: int, number of classes.
        hidden_size: int, units of each hidden layer.
    """

    def __init__(self, input_size: int, output_size: int, hidden_size: int = 100):
        super().__init__()
        self.input_size, self.output_size, self.hidden_size = input_size, output_size, hidden_size
        self.fc1 = nn.Linear(input_size, hidden_size)
        self.fc2 = nn.Linear(hidden_size, hidden_size)
        self.classifier = nn.Linear(hidden_size, output_size)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw new weights."""
        self.apply(xavier)

    def forward(self, x: Tensor, returnt: ReturnTypes = "out") -> Any:
        features = F.relu(self.fc2(F.relu(self.fc1(x.reshape(len(x), -1)))))
        return answer(self, features, returnt, [features])


MNISTMLP = BaseMNISTMLP  # Its name in earlier releases.


class BasicBlock(nn.Module):
    """`relu(shortcut(x) + conv(relu(conv(x))))`, each convolution followed by BatchNorm.

    Attributes:
        return_prerelu: Whether each call stores the sum before the last ReLU as `prerelu`, `[B, C, H, W]`.
    """

    expansion = 1
    prerelu: Tensor

    def __init__(self, in_planes: int, planes: int, stride: int = 1):
        super().__init__()
        self.return_prerelu = False
        self.conv1, self.bn1 = conv3x3(in_planes, planes, stride), nn.BatchNorm2d(planes)
        self.conv2, self.bn2 = conv3x3(planes, planes), nn.BatchNorm2d(planes)
        self.shortcut = nn.Sequential()
        if stride != 1 or in_planes != planes:
            self.shortcut.append(nn.Conv2d(in_planes, planes, 1, stride, bias=False))
            self.shortcut.append(nn.BatchNorm2d(planes))

    def forward(self, x: Tensor) -> Tensor:
        out = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        total: Tensor = self.shortcut(x) + out
        if self.return_prerelu:
            self.prerelu = total
        return F.relu(total)


class ResNet(MammothBackbone):
    """A stem and three or four stages of residual blocks, each but the first at half the resolution.

    Source: He et al. (2015, arXiv 1512.03385), in the form for small images (section 4.2).

    Args:
        block: `BasicBlock`, or a class with its constructor.
        num_blocks: int `[3]` or `[4]`, blocks in each stage.
        num_classes: int, number of classes.
        nf: int, channels of the first stage; each later one has twice as many.
        initial_conv_k: int, kernel size of the first convolution in pixels. Any other than 3 has stride 2,
            and is followed by a pooling of stride 2.
        in_channels: int, channels of the images.
    """

    def __init__(
        self,
        block: type[BasicBlock],
        num_blocks: Sequence[int],
        num_classes: int,
        nf: int,
        initial_conv_k: int = 3,
        in_channels: int = 3,
    ):
        super().__init__()
        self.block, self.num_classes, self.nf = block, num_classes, nf
        self.return_prerelu = False
        self.in_planes = nf
        if initial_conv_k == 3:
            self.conv1: nn.Module = conv3x3(in_channels, nf)
        else:
            self.conv1 = nn.Conv2d(
                in_channels, nf, initial_conv_k, 2, initial_conv_k // 2, bias=False
            )
        self.bn1 = nn.BatchNorm2d(nf)
        small = initial_conv_k == 3
        self.maxpool = nn.Identity() if small else nn.MaxPool2d(3, stride=2, padding=1)
        for stage, count in enumerate(num_blocks):
            setattr(self, f"layer{stage + 1}", self._stage(nf << stage, count, 1 + (stage > 0)))
        # `stages` and models' own code read `layer4` whatever the depth.
        if len(num_blocks) == 3:
            self.layer4: nn.Module = nn.Identity()
        self.feature_dim = self.in_planes
        self.classifier = nn.Linear(self.feature_dim, num_classes)

    def _stage(self, planes: int, count: int, stride: int) -> nn.Sequential:
        blocks: list[nn.Module] = []
        for at in range(count):
            blocks.append(self.block(self.in_planes, planes, stride if at == 0 else 1))
            self.in_planes = planes * self.block.expansion
        return nn.Sequential(*blocks)

    @property
    def stages(self) -> list[nn.Module]:
        """`layer1`, `layer2`, ..., without those that do nothing."""
        layers = [self.get_submodule(f"layer{number}") for number in (1, 2, 3, 4)]
        return [layer for layer in layers if not isinstance(layer, nn.Identity)]

    def set_return_prerelu(self, enable: bool = True) -> None:
        """Whether the maps of `returnt="full"` are those before each stage's last ReLU."""
        self.return_prerelu = enable
        for module in self.modules():
            if isinstance(module, self.block):
                module.return_prerelu = enable

    def forward(self, x: Tensor, returnt: ReturnTypes = "out") -> Any:
        """See `MammothBackbone.forward`; `full` is the logits, and the maps of the stem and of each stage."""
        stem = self.bn1(self.conv1(x))
        x = self.maxpool(F.relu(stem))
        maps = [stem if self.return_prerelu else x]
        for stage in self.stages:
            x = stage(x)
            maps.append(stage[-1].prerelu if self.return_prerelu else x)  # type: ignore[index]
        return answer(self, x.mean((2, 3)), returnt, maps)


def resnet18(num_classes: int, num_filters: int = 64) -> ResNet:
    """Eighteen layers."""
    return ResNet(BasicBlock, [2, 2, 2, 2], num_classes, num_filters)


def resnet34(num_classes: int, num_filters: int = 64) -> ResNet:
    """Thirty-four layers."""
    return ResNet(BasicBlock, [3, 4, 6, 3], num_classes, num_filters)


def reduced_resnet18(num_classes: int) -> ResNet:
    """With a third of the channels (Lopez-Paz & Ranzato, 2017, arXiv 1706.08840)."""
    return ResNet(BasicBlock, [2, 2, 2, 2], num_classes, 20)


def mnistmlp(num_classes: int, mlp_hidden_size: int = 100, input_size: int = 784) -> BaseMNISTMLP:
    return BaseMNISTMLP(input_size, num_classes, mlp_hidden_size)


def default_backbone(spec: Spec) -> MammothBackbone:
    """A network of the spec's sizes.

    A small `ResNet` of three stages for colour images and for those above 32 pixels, `BaseMNISTMLP` for
    everything else.
    """
    shape, width = spec.obs.shape, prod(spec.action.shape)
    # Two of the three stages halve the resolution: below 4 pixels nothing would be left of an image.
    if len(shape) == 3 and min(shape[1:]) >= 4 and (shape[0] == 3 or min(shape[1:]) > 32):
        return ResNet(BasicBlock, [1, 1, 1], width, 32, in_channels=shape[0])
    return BaseMNISTMLP(prod(shape), width)


def conv3x3(in_planes: int, out_planes: int, stride: int = 1) -> nn.Conv2d:
    """A convolution of 3x3 pixels without bias."""
    return nn.Conv2d(in_planes, out_planes, 3, stride, padding=1, bias=False)


def xavier(module: nn.Module) -> None:
    """Xavier-uniform weights and no bias, where `module` is linear: for `net.apply(xavier)`."""
    if isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def num_flat_features(x: Tensor) -> int:
    """Numbers in a row of a batch."""
    return prod(x.shape[1:])


class Classifies(Protocol):
    """A network whose last layer is `classifier`."""

    @property
    def classifier(self) -> nn.Module: ...


def answer(
    net: Classifies, features: Tensor, returnt: str, maps: list[Tensor], lateral: Tensor | int = 0
) -> Any:
    """The output of a network in the form that `returnt` names.

    Args:
        net: Its `classifier` turns features into logits `[B, n]`.
        features: `[B, D]`, what the classifier reads.
        maps: Outputs of each part of the network, `[B, ...]`.
        lateral: `[B, n]`, what earlier columns of a progressive network add to the logits.

    Raises:
        ValueError: If `returnt` is none of `ReturnTypes`.
    """
    if returnt == "features":
        return features
    if returnt not in ("out", "both", "full"):
        raise ValueError(f"returnt={returnt!r} must be out, features, both or full.")
    out = net.classifier(features) + lateral
    if returnt == "out":
        return out
    # `full` of a network without maps is its features, as Mammoth's MLP has it.
    return out, features if returnt == "both" or len(maps) == 1 else maps


@contextmanager
def bn_track_stats(module: nn.Module, condition: bool = True) -> Iterator[None]:
    """Runs the block without updating running statistics of batch normalisation, unless `condition`."""
    layers = [] if condition else [m for m in module.modules() if isinstance(m, _NORMS)]
    before = [layer.track_running_stats for layer in layers]
    for layer in layers:
        layer.track_running_stats = False
    try:
        yield
    finally:
        for layer, tracked in zip(layers, before, strict=True):
            layer.track_running_stats = tracked


_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
