"""The names of Mammoth Lite: models written for it train in Antelope once they import from here.

    from antelope.launcher.mammoth import ContinualModel, load_runner, register_model, train

    model, dataset = load_runner("er", "seq-mnist", {"lr": 0.1, "batch_size": 10, "n_epochs": 1})
    run = train(model, dataset)

Two runners share no state. Source of the interface: https://github.com/aimagelab/mammoth
(Boschini et al., 2022, arXiv 2201.00766) and https://github.com/aimagelab/mammoth-lite.
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from typing import TYPE_CHECKING

from ...replay.lazy import lazily

if TYPE_CHECKING:
    from .augmentations import (
        CustomRandomCrop,
        CustomRandomHorizontalFlip,
        DoubleCompose,
        DoubleTransform,
        RepeatedTransform,
        apply_transform,
        cutmix_data,
        normalize,
        rand_bbox,
        random_crop,
        random_flip,
        random_grayscale,
        soft_aug,
        strong_aug,
    )
    from .backbones import (
        MNISTMLP,
        BaseMNISTMLP,
        BasicBlock,
        MammothBackbone,
        ResNet,
        ReturnTypes,
        bn_track_stats,
        conv3x3,
        mnistmlp,
        num_flat_features,
        reduced_resnet18,
        resnet18,
        resnet34,
        xavier,
    )
    from .buffer import Buffer, GradientBuffer
    from .gradients import overwrite_grad, project, project2cone2, store_grad
    from .losses import SPKDLoss, SupConLoss
    from .model import ContinualModel, progress_bar, warn_once
    from .options import (
        add_rehearsal_args,
        binary_to_boolean_type,
        custom_str_underscore,
        none_or_float,
    )
    from .perturber import Perturber, add_perturb_args
    from .progressive import MNISTMLP_PNN, ResNetPNN, mnistmlp_pnn, resnet18_pnn
    from .provided import get_dataset, get_device
    from .registry import (
        get_avail_args,
        get_backbone,
        get_backbone_names,
        get_dataset_names,
        get_model_names,
        register_backbone,
        register_dataset,
        register_model,
    )
    from .rehearsal import fill_buffer, icarl_replay
    from .ring_buffer import RingBuffer
    from .runner import load_runner, train
    from .schedulers import CosineSchedule, CosineSchedulerWithLinearWarmup, get_scheduler
    from .tasks.loaders import create_seeded_dataloader
    from .tasks.own_sequence import MammothDataset, base_path, store_masked_loaders
    from .tasks.sequence import ContinualDataset

__all__ = [
    "MNISTMLP",
    "MNISTMLP_PNN",
    "ArgumentParser",
    "BaseMNISTMLP",
    "BasicBlock",
    "Buffer",
    "ContinualDataset",
    "ContinualModel",
    "CosineSchedule",
    "CosineSchedulerWithLinearWarmup",
    "CustomRandomCrop",
    "CustomRandomHorizontalFlip",
    "DoubleCompose",
    "DoubleTransform",
    "GradientBuffer",
    "MammothBackbone",
    "MammothDataset",
    "Namespace",
    "Perturber",
    "RepeatedTransform",
    "ResNet",
    "ResNetPNN",
    "ReturnTypes",
    "RingBuffer",
    "SPKDLoss",
    "SupConLoss",
    "add_perturb_args",
    "add_rehearsal_args",
    "apply_transform",
    "base_path",
    "binary_to_boolean_type",
    "bn_track_stats",
    "conv3x3",
    "create_seeded_dataloader",
    "custom_str_underscore",
    "cutmix_data",
    "fill_buffer",
    "get_avail_args",
    "get_backbone",
    "get_backbone_names",
    "get_dataset",
    "get_dataset_names",
    "get_device",
    "get_model_names",
    "get_scheduler",
    "icarl_replay",
    "load_runner",
    "mnistmlp",
    "mnistmlp_pnn",
    "none_or_float",
    "normalize",
    "num_flat_features",
    "overwrite_grad",
    "progress_bar",
    "project",
    "project2cone2",
    "rand_bbox",
    "random_crop",
    "random_flip",
    "random_grayscale",
    "reduced_resnet18",
    "register_backbone",
    "register_dataset",
    "register_model",
    "resnet18",
    "resnet18_pnn",
    "resnet34",
    "soft_aug",
    "store_grad",
    "store_masked_loaders",
    "strong_aug",
    "train",
    "warn_once",
    "xavier",
]

# Each module's names, imported when first used: most files need three of them, and all of them take a second
# to import.
_NAMES = {
    "augmentations": (
        "CustomRandomCrop",
        "CustomRandomHorizontalFlip",
        "DoubleCompose",
        "DoubleTransform",
        "RepeatedTransform",
        "apply_transform",
        "cutmix_data",
        "normalize",
        "rand_bbox",
        "random_crop",
        "random_flip",
        "random_grayscale",
        "soft_aug",
        "strong_aug",
    ),
    "backbones": (
        "BaseMNISTMLP",
        "BasicBlock",
        "MNISTMLP",
        "MammothBackbone",
        "ResNet",
        "ReturnTypes",
        "bn_track_stats",
        "conv3x3",
        "mnistmlp",
        "num_flat_features",
        "reduced_resnet18",
        "resnet18",
        "resnet34",
        "xavier",
    ),
    "buffer": (
        "Buffer",
        "GradientBuffer",
    ),
    "gradients": (
        "overwrite_grad",
        "project",
        "project2cone2",
        "store_grad",
    ),
    "losses": (
        "SPKDLoss",
        "SupConLoss",
    ),
    "model": (
        "ContinualModel",
        "progress_bar",
        "warn_once",
    ),
    "options": (
        "add_rehearsal_args",
        "binary_to_boolean_type",
        "custom_str_underscore",
        "none_or_float",
    ),
    "perturber": (
        "Perturber",
        "add_perturb_args",
    ),
    "progressive": (
        "MNISTMLP_PNN",
        "ResNetPNN",
        "mnistmlp_pnn",
        "resnet18_pnn",
    ),
    "provided": (
        "get_dataset",
        "get_device",
    ),
    "registry": (
        "get_avail_args",
        "get_backbone",
        "get_backbone_names",
        "get_dataset_names",
        "get_model_names",
        "register_backbone",
        "register_dataset",
        "register_model",
    ),
    "rehearsal": (
        "fill_buffer",
        "icarl_replay",
    ),
    "ring_buffer": ("RingBuffer",),
    "runner": (
        "load_runner",
        "train",
    ),
    "schedulers": (
        "CosineSchedule",
        "CosineSchedulerWithLinearWarmup",
        "get_scheduler",
    ),
    "tasks.loaders": ("create_seeded_dataloader",),
    "tasks.own_sequence": (
        "MammothDataset",
        "base_path",
        "store_masked_loaders",
    ),
    "tasks.sequence": ("ContinualDataset",),
}
_HOME = {name: module for module, names in _NAMES.items() for name in names}

__getattr__ = lazily(__name__, _HOME)
