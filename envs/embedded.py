"""The two data sets shipped with Antelope, a few kilobytes each."""

from __future__ import annotations

from importlib.resources import as_file, files

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import TensorDataset


class Digits(TensorDataset):
    """1,797 handwritten digits, uint8 `[1, 8, 8]` with values 0 to 16, in ten classes.

    Source: Alpaydin & Kaynak (1998), UCI Machine Learning Repository, CC BY 4.0.
    """

    high = 16

    def __init__(self) -> None:
        inputs, targets = _read("digits")
        super().__init__(inputs, targets.long())


class Diabetes(TensorDataset):
    """442 patients, ten measurements each (float32), and the disease's progression after a year.

    Source: Efron, Hastie, Johnstone & Tibshirani (2004), Least Angle Regression, table 1.
    """

    def __init__(self) -> None:
        super().__init__(*_read("diabetes"))


def _read(name: str) -> tuple[Tensor, Tensor]:
    # As a resource, since an installed package may be a zip file.
    with as_file(files(__package__) / "data" / f"{name}.npz") as path, np.load(path) as file:
        return torch.from_numpy(file["inputs"]), torch.from_numpy(file["targets"])
