"""The data sets that are shipped hold what their documentation says."""

from __future__ import annotations

import pytest
import torch

from antelope import envs
from antelope.envs import Diabetes, Digits, read


def test_digits() -> None:
    arrays = read(Digits(), name="Digits")
    assert (arrays.inputs.shape, arrays.inputs.dtype) == ((1797, 1, 8, 8), torch.uint8)
    assert int(arrays.inputs.max()) == arrays.high == 16
    # Counts of the digits 0 to 9 in the UCI test part.
    assert arrays.targets.bincount().tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]


def test_diabetes() -> None:
    arrays = read(Diabetes(), name="Diabetes")
    assert arrays.inputs.shape == (442, 10)
    assert arrays.targets.shape == (442, 1)
    assert not arrays.discrete
    # Efron et al. (2004), table 1: the first patient, and the targets' known mean.
    assert arrays.inputs[0, :3].tolist() == pytest.approx([59, 2, 32.1])
    assert float(arrays.targets.mean()) == pytest.approx(152.13, abs=0.01)


@pytest.mark.parametrize("name", envs.__all__)
def test_every_public_name_can_be_imported(name: str) -> None:
    assert callable(getattr(envs, name))


def test_every_registered_name_is_public() -> None:
    assert {name for names in envs.NAMES.values() for name in names} <= set(envs.__all__)
