"""Data that the blocks' tests share."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from antelope.envs import Digits


@pytest.fixture(scope="session")
def digits() -> tuple[Tensor, Tensor]:
    """The first 64 embedded digits, standardised, `[64, 1, 8, 8]`, and their labels."""
    data = Digits()
    images = torch.stack([torch.as_tensor(data[i][0]) for i in range(64)]).float()
    images = images.reshape(64, 1, 8, 8)
    return (images - images.mean()) / images.std(), torch.tensor(
        [int(data[i][1]) for i in range(64)]
    )
