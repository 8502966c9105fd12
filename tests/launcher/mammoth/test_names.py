"""What is imported from `antelope.launcher.mammoth`, and what that costs."""

from __future__ import annotations

import sys
import warnings
from typing import Any

import pytest

from antelope.launcher import mammoth as m


def test_something_is_warned_of_once() -> None:
    with pytest.warns(UserWarning, match="a thing of this test"):
        m.warn_once("a thing", "of this test")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        m.warn_once("a thing of this test")


def test_names_come_without_torchvision() -> None:
    named: dict[str, Any] = {}
    exec("from antelope.launcher.mammoth import *", named)
    assert "torchvision" not in vars(sys.modules["antelope.launcher.mammoth.augmentations"])
    assert {"strong_aug", "Buffer", "ArgumentParser", "fill_buffer"} <= named.keys()
