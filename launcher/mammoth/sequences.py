"""A sequence of tasks from a model's `args`."""

from __future__ import annotations

from argparse import Namespace

from ...replay import ConfigError
from .tasks.sequence import ContinualDataset


def get_dataset(args: Namespace) -> ContinualDataset:
    """The sequence of tasks of the run that `args` belongs to.

    Raises:
        ConfigError: If it belongs to none.
    """
    sequence = getattr(args, "sequence", None)
    if not isinstance(sequence, ContinualDataset):
        raise ConfigError(
            "get_dataset(args) needs the args that a model receives. Elsewhere, load_runner(model, "
            "dataset, args) returns the model and its sequence of tasks."
        )
    return sequence
