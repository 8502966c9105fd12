"""The names of Mammoth Lite: models written for it are trained here once their import says so.

    from antelope.launcher.mammoth import ContinualModel, load_runner, register_model, train

    model, dataset = load_runner("er", "seq-mnist", {"lr": 0.1, "batch_size": 10, "n_epochs": 1})
    run = train(model, dataset)

Nothing is shared between two runners. Source of the interface: https://github.com/aimagelab/mammoth
(Boschini et al., 2022, arXiv 2201.00766) and https://github.com/aimagelab/mammoth-lite.
"""

from __future__ import annotations

from ..observe.arguments import get_device
from ..observe.backbones import (
    MNISTMLP_PNN,
    BaseMNISTMLP,
    BasicBlock,
    MammothBackbone,
    ResNet,
    ReturnTypes,
    mnistmlp,
    num_flat_features,
    reduced_resnet18,
    resnet18,
    resnet18_pnn,
    resnet34,
    xavier,
)
from ..observe.own_sequence import MammothDataset, base_path, store_masked_loaders
from ..observe.sequence import ContinualDataset
from .args import add_rehearsal_args
from .arguments import get_avail_args
from .backbones import get_backbone
from .buffer import Buffer
from .model import ContinualModel
from .registry import (
    get_backbone_names,
    get_dataset_names,
    get_model_names,
    register_backbone,
    register_dataset,
    register_model,
)
from .runner import load_runner, train

__all__ = [
    "MNISTMLP_PNN",
    "BaseMNISTMLP",
    "BasicBlock",
    "Buffer",
    "ContinualDataset",
    "ContinualModel",
    "MammothBackbone",
    "MammothDataset",
    "ResNet",
    "ReturnTypes",
    "add_rehearsal_args",
    "base_path",
    "get_avail_args",
    "get_backbone",
    "get_backbone_names",
    "get_dataset_names",
    "get_device",
    "get_model_names",
    "load_runner",
    "mnistmlp",
    "num_flat_features",
    "reduced_resnet18",
    "register_backbone",
    "register_dataset",
    "register_model",
    "resnet18",
    "resnet18_pnn",
    "resnet34",
    "store_masked_loaders",
    "train",
    "xavier",
]
