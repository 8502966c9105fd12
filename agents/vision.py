"""Adapts torchvision's and timm's networks to the images at hand.

arguments = vision_arguments(target, obs)          what its constructor needs to know about the images
network = fit_to_images(target(**arguments), obs)  strides and channels, which are not arguments
features = headless(network)                       an encoder, without the last layer
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import gcd
from typing import Any

import torch
from torch import Tensor, nn

from ..replay import ConfigError, Space
from .blocks.pool import AveragePool

_SMALL = 64  # Pixels below which ImageNet's strides would leave a network almost nothing to see.
_LAST = 4  # Side of the last feature map that small images are to keep.
_GRID = 7  # Patches a side, at least, that a transformer is to see.
_MOMENTUM = 0.1  # Of BatchNorm's running statistics, torch's default.
_WIDE = 96  # An image that all networks without a fixed size can take: for finding their strides.
_FITTING = (  # Of torchvision's.
    "resnet18, mobilenet_v3_small, efficientnet_b0, densenet121, convnext_tiny, vgg11, vit_b_16, swin_t"
)


def vision_arguments(target: Callable[..., Any], obs: Space | dict[str, Space]) -> dict[str, Any]:
    """Arguments for a torchvision or timm builder that depend on the images, by parameter name.

    Raises:
        ConfigError: If it cannot be built for images of this size.
    """
    if isinstance(obs, dict) or len(obs.shape) != 3:
        return {}
    name = getattr(target, "__name__", "")
    if (getattr(target, "__module__", "") or "").startswith("timm"):
        return _timm_arguments(target, name, obs)
    _, height, width = obs.shape
    if name in ("googlenet", "inception_v3"):
        # Their second outputs, in training only, fit no loss of ours.
        return {"aux_logits": False, "init_weights": True}
    if name.startswith("vit_"):
        if height != width:
            raise _misfit(name, obs, "it takes square images only")
        # Built for images with as many of its patches as ours will have of smaller ones: `fit_to_images`
        # shrinks the patches, for which the builder has no argument.
        patch = int(name.rpartition("_")[2])
        return {"image_size": patch * (height // _patch(patch, height, width))}
    if name.startswith("maxvit"):
        if height % 224 or width % 224:
            raise _misfit(name, obs, "it takes images of multiples of 224 pixels")
        return {"input_size": (height, width)}
    return {}


def fit_to_images(network: nn.Module, obs: Space | dict[str, Space], name: str = "") -> nn.Module:
    """Adapt a network for 3-channel photographs to `obs`, in place.

    The first convolution accepts as many channels as the images have. For images under 64 pixels, strides
    and poolings are removed from the front until the last feature map keeps 4 pixels a side (or a quarter
    of the image's). In a ResNet on 32x32 that affects the stem, which becomes a 3x3 convolution, as in He
    et al. (2015, arXiv 1512.03385, section 4.2) for CIFAR-10. The running statistics of BatchNorm use
    torch's default momentum.

    Args:
        network: Built with `vision_arguments`.
        obs: Space of the images, `[B, C, H, W]`.
        name: Its name in errors; default: its class.

    Raises:
        ConfigError: If it still does not accept such images.
    """
    if isinstance(obs, dict) or len(obs.shape) != 3:
        return network
    channels, *sides = obs.shape
    name = name or type(network).__name__
    first = next((n for n, m in network.named_modules() if isinstance(m, nn.Conv2d)), None)
    if first is None:
        return network
    convolution: Any = network.get_submodule(first)
    if first == "conv_proj" and hasattr(network, "seq_length"):
        _shrink_patches(network, convolution, obs)
    elif min(sides) < _SMALL:
        _keep_resolution(network, convolution.in_channels, min(sides))
        for module in network.modules():
            # MobileNetV3's 0.01 and MNASNet's 0.0003 suit ImageNet's many steps: after 500 steps on digits
            # they reached 98 % accuracy in training mode, and chance level in evaluation mode.
            if isinstance(module, nn.BatchNorm2d) and module.momentum is not None:
                module.momentum = max(module.momentum, _MOMENTUM)
    convolution = network.get_submodule(first)
    if convolution.in_channels != channels:
        _replace(network, first, _like(convolution, in_channels=channels))
    if torch.are_deterministic_algorithms_enabled():
        for path, pool in list(network.named_modules()):
            if isinstance(pool, nn.AdaptiveAvgPool2d) and (size := _fixed_size(pool)) is not None:
                _replace(network, path, AveragePool(size))
    _try(network, obs, name)
    return network


def headless(network: nn.Module) -> nn.Module:
    """Remove a network's last layer, in place: it then maps images to the features before it.

    Raises:
        ConfigError: If it does not end in a linear layer or a convolution.
    """
    if callable(reset := getattr(network, "reset_classifier", None)):  # timm's
        reset(0)
        return network
    layers = list(network.named_modules())
    for kind in (nn.Linear, nn.Conv2d):  # SqueezeNet ends with a convolution.
        last = [name for name, module in layers if isinstance(module, kind)]
        if last and last[-1]:
            _replace(network, last[-1], nn.Identity())
            return network
    raise ConfigError(
        f"{type(network).__name__} has no last layer to remove. An encoder ends in features already, "
        "or in a torch.nn.Linear."
    )


def _timm_arguments(target: Callable[..., Any], name: str, obs: Space) -> dict[str, Any]:
    """The channels; for networks built for a fixed image size, also the size, and smaller patches."""
    from timm.models import get_pretrained_cfg

    channels, height, width = obs.shape
    arguments: dict[str, Any] = {"in_chans": channels}
    config = get_pretrained_cfg(name)
    if config is None or not config.fixed_input_size:
        return arguments
    written = re.search(r"(?:patch|_p)(\d+)", name)
    patch = int(written[1]) if written else 16
    if patch > 4:
        patch = _patch(patch, height, width)
    else:  # Patches are merged three times: 32 patches end as 4 pixels.
        patch = max(1, min(patch, min(height, width) // (8 * (_LAST - 1))))
    sized = {"img_size": (height, width)}
    for fit in ({**sized, "patch_size": patch}, sized):
        try:
            with torch.device("meta"), _same_randomness():
                target(**arguments, **fit)
        except Exception:
            # Which of them a network accepts is not documented, and it may raise anything.
            continue
        return {**arguments, **fit}
    return arguments


def _patch(largest: int, height: int, width: int) -> int:
    """The largest patch up to `largest` pixels that divides both sides and leaves enough patches."""
    common = gcd(height, width)
    fits = (p for p in range(largest, 1, -1) if common % p == 0 and min(height, width) >= _GRID * p)
    return next(fits, 1)


def _shrink_patches(network: Any, convolution: nn.Conv2d, obs: Space) -> None:
    """Shrink the patches of torchvision's ViT, so that there are as many as it was built for."""
    channels, height, width = obs.shape
    grid = network.image_size // network.patch_size
    if (height, width) == (network.image_size, network.image_size):
        return
    if height != width or height % grid:
        raise _misfit("VisionTransformer", obs, f"it has {grid}x{grid} patches")
    patch = height // grid
    network.conv_proj = _like(
        convolution, in_channels=channels, kernel_size=patch, stride=patch, padding=0
    )
    network.image_size, network.patch_size = height, patch


def _keep_resolution(network: nn.Module, channels: int, side: int) -> None:
    """Remove the first strides until the last feature map is large enough."""
    stages = _stages(network, channels)
    total = 1
    for _, stride in stages:
        total *= stride
    enough = min(_LAST, max(1, side // 4))
    for names, stride in stages:
        if -(-side // total) >= enough:
            return
        if names:
            total //= stride
        for name in names:
            _unstride(network, name)


def _stages(network: nn.Module, channels: int) -> list[tuple[list[str], int]]:
    """The layers that reduce the resolution, in the order of computation, and by how much.

    Layers that receive the same resolution (a block's shortcut, parallel branches) form one stage. A stage
    without layers reduces the resolution but cannot be changed. A network built for a fixed image size has
    no stages.
    """
    stages: dict[int, tuple[list[str], int]] = {}

    def remember(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            merges = type(module).__name__.startswith("PatchMerging")
            stride: Any = 2 if merges else module.stride
            stride = max(stride) if isinstance(stride, tuple) else stride
            if stride == 1:
                return
            # Swin's images are [B, H, W, C].
            names, _ = stages.setdefault(inputs[0].shape[-2 - merges], ([], stride))
            if not merges:
                names.append(name)

        return hook

    handles = [
        module.register_forward_hook(remember(name))
        for name, module in network.named_modules()
        if isinstance(module, nn.Conv2d | nn.MaxPool2d | nn.AvgPool2d)
        or type(module).__name__.startswith("PatchMerging")
    ]
    try:
        with _inference(network):
            network(torch.zeros(1, channels, _WIDE, _WIDE))
    except Exception:  # Built for another image size, which was an argument of its constructor.
        return []
    finally:
        for handle in handles:
            handle.remove()
    return list(stages.values())


def _unstride(network: nn.Module, name: str) -> None:
    layer = network.get_submodule(name)
    if not isinstance(layer, nn.Conv2d):
        _replace(network, name, nn.Identity())
    elif type(layer) is nn.Conv2d and (
        layer.kernel_size[0] > 5 or 2 * int(layer.padding[0]) + 1 != layer.kernel_size[0]
    ):
        _replace(network, name, _like(layer, kernel_size=3, stride=1, padding=1))
    else:
        layer.stride = (1, 1)


def _like(layer: nn.Conv2d, **changed: object) -> nn.Conv2d:
    """A new convolution with the arguments of `layer`, except for `changed`."""
    names = (
        "in_channels",
        "out_channels",
        "kernel_size",
        "stride",
        "padding",
        "dilation",
        "groups",
    )
    arguments = {name: getattr(layer, name) for name in names} | changed
    return type(layer)(**arguments, bias=layer.bias is not None)


def _fixed_size(pool: nn.AdaptiveAvgPool2d) -> tuple[int, int] | None:
    """The size it pools to; None for one pixel (a mean, which is deterministic) or the image's own size."""
    size: Any = pool.output_size
    height, width = (size, size) if isinstance(size, int) else size
    return None if None in (height, width) or height == width == 1 else (height, width)


def _replace(network: nn.Module, name: str, layer: nn.Module) -> None:
    parent, _, attribute = name.rpartition(".")
    setattr(network.get_submodule(parent), attribute, layer)


def _try(network: nn.Module, obs: Space, name: str) -> None:
    """Run one forward, so that an error names the network."""
    try:
        with _inference(network):
            network(torch.zeros(2, *obs.shape, device=next(network.parameters()).device))
    except Exception as error:
        reason = str(error).split("\n")[0]
        raise _misfit(name, obs, f"{type(error).__name__}: {reason}") from error
    for module in network.modules():
        patches = getattr(module, "num_patches", None)
        if isinstance(patches, int) and patches < _LAST**2:
            raise _misfit(name, obs, f"of which it would see {patches} patches only")


def _misfit(name: str, obs: Space, reason: str) -> ConfigError:
    channels, height, width = obs.shape
    return ConfigError(
        f"{name} cannot be made to fit images of {height}x{width} pixels and {channels} channel"
        f"{'s' if channels > 1 else ''} ({reason}). These can: {_FITTING}, and ResidualCNN."
    )


@contextmanager
def _inference(network: nn.Module) -> Iterator[None]:
    """Runs the block with the network in eval mode, then restores its mode and the random streams."""
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        with torch.no_grad(), _same_randomness():
            yield
    finally:
        for module, training in modes:
            module.training = training


def _same_randomness() -> Any:
    return torch.random.fork_rng(devices=[])
