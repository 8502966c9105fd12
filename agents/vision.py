"""torchvision's and timm's networks, made to fit the images at hand."""

from __future__ import annotations

from torch import nn

from ..replay import Space

_SMALL = 64  # Pixels below which ImageNet's stem would leave a network almost nothing to see.


def fit_to_images(network: nn.Module, obs: Space) -> nn.Module:
    """Adapt a network for 3-channel photographs to `obs`, in place.

    The first convolution takes as many channels as the images have. For images under 64 pixels a
    ResNet's stem (stride 2 twice) becomes a 3x3 convolution of stride 1 without pooling, as in
    He et al. (2015, arXiv 1512.03385, section 4.2) for CIFAR-10.
    """
    if len(obs.shape) != 3:
        return network
    channels, height, width = obs.shape
    name, first = next(
        ((n, m) for n, m in network.named_modules() if isinstance(m, nn.Conv2d)), ("", None)
    )
    if first is None:
        return network
    small = min(height, width) < _SMALL and name == "conv1" and hasattr(network, "maxpool")
    if small:
        network.maxpool = nn.Identity()
    if small or first.in_channels != channels:
        parent, _, attribute = name.rpartition(".")
        replacement = nn.Conv2d(
            channels,
            first.out_channels,
            3 if small else first.kernel_size,  # type: ignore[arg-type]
            1 if small else first.stride,  # type: ignore[arg-type]
            1 if small else first.padding,  # type: ignore[arg-type]
            bias=first.bias is not None,
        )
        setattr(network.get_submodule(parent), attribute, replacement)
    return network
