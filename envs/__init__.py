"""Where data comes from: data sets, gymnasium environments, and sequences of them.

`NAMES` is the registry: what can be named in the settings, by kind.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..replay.lazy import lazily

if TYPE_CHECKING:
    from .atari import Atari
    from .augment import RandomCrop, RandomHorizontalFlip
    from .datasets import Arrays, read
    from .embedded import Diabetes, Digits
    from .env_world import EnvWorld
    from .environments import EnvTask
    from .errand import Errand
    from .recall import Recall
    from .sequences import PermutedMNIST, RotatedMNIST
    from .tasks import DataTask, DataWorld
    from .workshop import Workshop

NAMES = {
    "dataset": ("Digits", "Diabetes", "PermutedMNIST", "RotatedMNIST"),
    "aug": ("RandomCrop", "RandomHorizontalFlip"),
    "env": ("Atari", "Errand", "Recall", "Workshop"),
}

_HOME = {
    "Arrays": "datasets",
    "read": "datasets",
    "DataTask": "tasks",
    "DataWorld": "tasks",
    "EnvTask": "environments",
    "EnvWorld": "env_world",
    "Atari": "atari",
    "Errand": "errand",
    "Recall": "recall",
    "Workshop": "workshop",
    "PermutedMNIST": "sequences",
    "RotatedMNIST": "sequences",
    "Digits": "embedded",
    "Diabetes": "embedded",
    "RandomCrop": "augment",
    "RandomHorizontalFlip": "augment",
}

__all__ = [
    "Arrays",
    "Atari",
    "DataTask",
    "DataWorld",
    "Diabetes",
    "Digits",
    "EnvTask",
    "EnvWorld",
    "Errand",
    "PermutedMNIST",
    "RandomCrop",
    "RandomHorizontalFlip",
    "Recall",
    "RotatedMNIST",
    "Workshop",
    "read",
]


__getattr__ = lazily(__name__, _HOME)
