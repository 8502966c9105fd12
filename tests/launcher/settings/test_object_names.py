"""How Python objects are named in `config.yaml`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from torch import nn

from antelope.launcher.settings.names import resolve
from antelope.launcher.settings.object_names import name_of


def test_names_of_objects() -> None:
    assert name_of(nn.Linear) == "torch.nn.modules.linear.Linear"
    assert name_of(nn.Linear(1, 1)) == "instance of torch.nn.modules.linear.Linear"
    assert name_of(np.zeros((3, 2))) == "instance of numpy.ndarray 3x2"


def test_names_of_classes_here_hold_their_file(workdir: Path) -> None:
    (workdir / "net.py").write_text("class Net:\n    class Inner: pass\n")
    net = resolve("Net", "model")
    assert name_of(net) == "net.py:Net"
    assert name_of(net.Inner) == "net.py:Net.Inner"
    assert resolve(name_of(net.Inner), "model") is net.Inner
