"""Where data comes from: data sets, gymnasium environments, and sequences of them.

`NAMES` is the registry: what can be named in the settings, by kind.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..replay.lazy import lazily

if TYPE_CHECKING:
    from .arrays import Arrays
    from .atari import Atari
    from .augment import RandomCrop, RandomHorizontalFlip
    from .datasets import read
    from .embedded import Diabetes, Digits
    from .env_world import EnvWorld
    from .environments import EnvTask
    from .errand import Errand
    from .language import Language
    from .recall import Recall
    from .sequences import PermutedMNIST, RotatedMNIST
    from .task_rows import DataTask
    from .tasks import DataWorld
    from .workshop import Workshop

NAMES = {
    "dataset": ("Digits", "Diabetes", "Language", "PermutedMNIST", "RotatedMNIST"),
    "aug": ("RandomCrop", "RandomHorizontalFlip"),
    "env": ("Atari", "Errand", "Recall", "Workshop"),
}

# The file of each name: its own in lower case, unless it says otherwise.
_HOME = {name: name.lower() for names in NAMES.values() for name in names} | {
    "Arrays": "arrays",
    "DataTask": "task_rows",
    "DataWorld": "tasks",
    "Diabetes": "embedded",
    "Digits": "embedded",
    "EnvTask": "environments",
    "EnvWorld": "env_world",
    "PermutedMNIST": "sequences",
    "RandomCrop": "augment",
    "RandomHorizontalFlip": "augment",
    "RotatedMNIST": "sequences",
    "read": "datasets",
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
    "Language",
    "PermutedMNIST",
    "RandomCrop",
    "RandomHorizontalFlip",
    "Recall",
    "RotatedMNIST",
    "Workshop",
    "read",
]


__getattr__ = lazily(__name__, _HOME)
