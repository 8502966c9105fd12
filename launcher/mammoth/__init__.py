"""The names of Mammoth Lite: models written for it are trained here once their import says so.

    from antelope.launcher.mammoth import ContinualModel, load_runner, register_model, train

    model, dataset = load_runner("er", "seq-mnist", {"lr": 0.1, "batch_size": 10, "n_epochs": 1})
    run = train(model, dataset)

Nothing is shared between two runners. Source of the interface: https://github.com/aimagelab/mammoth
(Boschini et al., 2022, arXiv 2201.00766) and https://github.com/aimagelab/mammoth-lite.
"""

from __future__ import annotations

from ..observe.provided import ContinualDataset
from .args import add_rehearsal_args
from .buffer import Buffer
from .model import ContinualModel
from .registry import register_model
from .runner import load_runner, train

__all__ = [
    "Buffer",
    "ContinualDataset",
    "ContinualModel",
    "add_rehearsal_args",
    "load_runner",
    "register_model",
    "train",
]
