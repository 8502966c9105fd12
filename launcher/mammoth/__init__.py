"""The names of Mammoth Lite: models written for it are trained here once their import says so.

    from antelope.launcher.mammoth import ContinualModel, load_runner, register_model, train

    model, dataset = load_runner("er", "seq-mnist", {"lr": 0.1, "batch_size": 10, "n_epochs": 1})
    run = train(model, dataset)

Two runners share nothing. Source of the interface: https://github.com/aimagelab/mammoth
(Boschini et al., 2022, arXiv 2201.00766) and https://github.com/aimagelab/mammoth-lite.
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from typing import TYPE_CHECKING

from ...replay.lazy import lazily

if TYPE_CHECKING:
    from .args import (
        add_rehearsal_args,
        binary_to_boolean_type,
        custom_str_underscore,
        none_or_float,
    )
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
    from .available import get_avail_args
    from .registered_backbones import get_backbone
    from .batch_norm import bn_track_stats
    from .buffer import Buffer
    from .gradient_buffer import GradientBuffer
    from .gradients import overwrite_grad, project, project2cone2, store_grad
    from .loaders import create_seeded_dataloader
    from .losses import SPKDLoss, SupConLoss
    from .model import ContinualModel
    from .namespace import get_device
    from .backbones import (MNISTMLP, BaseMNISTMLP, BasicBlock, MammothBackbone, ResNet, ReturnTypes, conv3x3, mnistmlp, num_flat_features, reduced_resnet18, resnet18, resnet34, xavier)
    from .tasks.own_sequence import (MammothDataset, base_path, store_masked_loaders)
    from .progressive import (MNISTMLP_PNN, ResNetPNN, mnistmlp_pnn, resnet18_pnn)
    from .schedulers import (CosineSchedule, CosineSchedulerWithLinearWarmup, get_scheduler)
    from .tasks.sequence import ContinualDataset
    from .perturber import Perturber, add_perturb_args
    from .registry import (
        get_backbone_names,
        get_dataset_names,
        get_model_names,
        register_backbone,
        register_dataset,
        register_model,
    )
    from .rehearsal import fill_buffer, icarl_replay
    from .reports import progress_bar, warn_once
    from .ring_buffer import RingBuffer
    from .runner import load_runner, train
    from .sequences import get_dataset

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

# The names that each module has; imported when first used.
_NAMES = {
    "observe.backbones": (
        "MNISTMLP",
        "BaseMNISTMLP",
        "BasicBlock",
        "MammothBackbone",
        "ResNet",
        "ReturnTypes",
        "conv3x3",
        "mnistmlp",
        "num_flat_features",
        "reduced_resnet18",
        "resnet18",
        "resnet34",
        "xavier",
    ),
    "buffer": ("Buffer",),
    "observe.sequence": ("ContinualDataset",),
    "model": ("ContinualModel",),
    "observe.schedulers": ("CosineSchedule", "CosineSchedulerWithLinearWarmup", "get_scheduler"),
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
    "gradient_buffer": ("GradientBuffer",),
    "observe.progressive": ("MNISTMLP_PNN", "ResNetPNN", "mnistmlp_pnn", "resnet18_pnn"),
    "observe.own_sequence": ("MammothDataset", "base_path", "store_masked_loaders"),
    "perturber": ("Perturber", "add_perturb_args"),
    "ring_buffer": ("RingBuffer",),
    "losses": ("SPKDLoss", "SupConLoss"),
    "args": (
        "add_rehearsal_args",
        "binary_to_boolean_type",
        "custom_str_underscore",
        "none_or_float",
    ),
    "batch_norm": ("bn_track_stats",),
    "loaders": ("create_seeded_dataloader",),
    "rehearsal": ("fill_buffer", "icarl_replay"),
    "available": ("get_avail_args",),
    "backbones": ("get_backbone",),
    "registry": (
        "get_backbone_names",
        "get_dataset_names",
        "get_model_names",
        "register_backbone",
        "register_dataset",
        "register_model",
    ),
    "sequences": ("get_dataset",),
    "observe.arguments": ("get_device",),
    "runner": ("load_runner", "train"),
    "gradients": ("overwrite_grad", "project", "project2cone2", "store_grad"),
    "reports": ("progress_bar", "warn_once"),
}
_HOME = {name: module for module, names in _NAMES.items() for name in names}

__getattr__ = lazily(__name__, _HOME)
