"""Networks by their names."""

from __future__ import annotations

from argparse import Namespace

import pytest

from antelope import ConfigError
from antelope.launcher.mammoth import (
    ResNet,
    get_backbone,
)


def test_networks_by_name() -> None:
    net = get_backbone(Namespace(backbone="reduced_resnet18", num_classes=4))
    assert isinstance(net, ResNet)
    assert (net.num_classes, net.nf) == (4, 20)
    with pytest.raises(ConfigError, match="Did you mean `resnet18`"):
        get_backbone(Namespace(backbone="resnet81", num_classes=4))
    with pytest.raises(ConfigError, match="needs num_classes"):
        get_backbone(Namespace(backbone="resnet18"))
