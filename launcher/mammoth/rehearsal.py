"""Stores rows of a task, and adds them to the rows of the next."""

from __future__ import annotations

import copy
from argparse import Namespace
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from ...replay import ConfigError
from .backbones import MammothBackbone
from .buffer import Buffer
from .tasks.loaders import create_seeded_dataloader
from .tasks.own_rows import OwnRows
from .tasks.rows import TaskRows
from .tasks.sequence import ContinualDataset

Array = Tensor | np.ndarray[Any, Any]


class ReplaysBuffer(Protocol):
    """A model with a buffer, to which `icarl_replay` adds a validation set."""

    current_task: int
    buffer: Buffer
    args: Namespace
    val_dataset: TaskRows
    val_loader: DataLoader[Any]


def icarl_replay(model: ReplaysBuffer, dataset: ContinualDataset, val_set_split: float = 0) -> None:
    """Add the rows of `model.buffer` to the task that is about to be learnt.

    Does nothing in the first task. With a split it sets `model.val_dataset` and `model.val_loader`.

    Args:
        model: Has the `buffer`.
        dataset: Its `train_loader.dataset` receives the rows.
        val_set_split: float in [0, 1], share of the buffer's rows that go to a validation set instead,
            with as many rows of the task.
    """
    if model.current_task == 0:
        return
    rows, buffer = dataset.train_loader.dataset, model.buffer
    examples, labels = buffer.examples.cpu(), buffer.labels.cpu()
    # Drawn from torch's global stream, like Mammoth's; the buffer's own streams stay untouched.
    held_out = torch.rand(len(buffer)) < val_set_split
    new_held_out = torch.zeros(len(rows), dtype=torch.bool)
    new_held_out[torch.randperm(len(rows))[: int(held_out.sum())]] = True
    data, targets = rows.data, rows.targets
    if val_set_split > 0:
        # The table is shared by the copy; only the rows that are replaced below take memory twice.
        model.val_dataset = copy.deepcopy(rows)
        _fill(model.val_dataset, data, targets, new_held_out, examples[held_out], labels[held_out])
        model.val_loader = create_seeded_dataloader(
            model.args, model.val_dataset, batch_size=model.args.batch_size, shuffle=True
        )
    _fill(rows, data, targets, ~new_held_out, examples[~held_out], labels[~held_out])


def _fill(
    rows: TaskRows, data: Array, targets: Array, chosen: Tensor, examples: Tensor, labels: Tensor
) -> None:
    """Replace the rows by the chosen ones of `data` (bool `[N]`), followed by those of a buffer."""
    more = rows.data_of(examples)
    mask = chosen if isinstance(data, Tensor) else chosen.numpy()
    kept = [torch.as_tensor(part) for part in (data[mask], more)]
    both = torch.cat(kept)
    rows.data = both if isinstance(data, Tensor) else both.numpy()
    label = torch.cat([torch.as_tensor(targets)[chosen], labels.to(torch.as_tensor(targets).dtype)])
    rows.targets = label if isinstance(targets, Tensor) else label.numpy()


@torch.no_grad()
def fill_buffer(
    buffer: Buffer,
    dataset: ContinualDataset,
    t_idx: int,
    net: MammothBackbone | None = None,
    use_herding: bool = False,
    required_attributes: Sequence[str] | None = None,
    normalize_features: bool = False,
    extend_equalize_buffer: bool = False,
) -> None:
    """Fill a buffer with equally many rows of each class seen so far, dropping some of the old classes.

    Args:
        buffer: Receives the rows.
        dataset: Its `train_loader` has the task's rows; those that `icarl_replay` added are left out.
        t_idx: int, number of the task, from 0.
        net: Computes features and, if required, logits, whose sigmoid in (0, 1) is stored.
        use_herding: Store the rows whose mean feature is nearest to the class's, best first (iCaRL:
            Rebuffi et al., 2017, arXiv 1611.07725); else random rows.
        required_attributes: Fields of the rows, in the buffer's order; None: examples and labels.
        normalize_features: Scale features to length 1.
        extend_equalize_buffer: Round the rows per class up, and let the buffer grow to hold them.

    Raises:
        ConfigError: If it lacks a network, or the buffer holds other fields.
    """
    fields = list(required_attributes or ("examples", "labels"))
    if net is None and (use_herding or "logits" in fields):
        raise ConfigError("fill_buffer: herding and logits need net=.")
    if len(buffer) and (lacking := [name for name in fields if name not in buffer.used_attributes]):
        raise ConfigError(
            f"fill_buffer: the buffer's rows have no {', '.join(lacking)}, only "
            f"{', '.join(buffer.used_attributes)}."
        )
    past, seen = dataset.get_offsets(t_idx)
    rows = dataset.train_loader.dataset
    _take_out_earlier(rows, past)
    if buffer.sample_selection_strategy == "unlimited":
        share = len(rows) + len(buffer)
    else:
        assert dataset.args is not None  # A run has begun.
        size = int(dataset.args.buffer_size)
        share = -(-size // seen) if extend_equalize_buffer else size // seen
        buffer.buffer_size = share * seen if extend_equalize_buffer else size
    # First of all, so that the buffer has room: a full one would replace rows at random.
    _shrink(buffer, fields, share)
    examples, labels, features, logits = _computed(dataset, net, normalize=normalize_features)
    for label in labels.unique():
        of_class = (labels == label).nonzero().flatten()
        if use_herding:
            chosen = of_class[_nearest_to_mean(features[of_class], share)]
        else:
            chosen = of_class[torch.randperm(len(of_class))[:share]]
        given = {"examples": examples[chosen], "labels": labels[chosen]}
        if "logits" in fields:
            given["logits"] = logits[chosen]
        if "task_labels" in fields:
            given["task_labels"] = torch.full((len(chosen),), t_idx)
        buffer.add_data(**given)


def _take_out_earlier(rows: TaskRows | OwnRows, past: int) -> None:
    """Remove the rows of earlier classes, those below `past`."""
    new = torch.as_tensor(rows.targets) >= past
    if not bool(new.all()):
        mask = new if isinstance(rows.data, Tensor) else new.numpy()
        data, targets = rows.data[mask], rows.targets[mask]
        rows.data, rows.targets = data, targets


def _shrink(buffer: Buffer, fields: Sequence[str], share: int) -> None:
    """Keep the first `share` rows of each class."""
    # The first are the best ones of herding.
    if not len(buffer):
        return
    data = dict(zip(buffer.used_attributes, buffer.get_all_data(), strict=True))
    buffer.empty()
    for label in data["labels"].unique():
        of_class = (data["labels"] == label).nonzero().flatten()[:share]
        buffer.add_data(**{name: data[name][of_class] for name in fields})


def _computed(
    dataset: ContinualDataset, net: MammothBackbone | None, *, normalize: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The rows of the task in [0, 1], their labels, and the network's features and outputs in (0, 1)."""
    transform = dataset.get_normalization_transform() or (lambda rows: rows)
    examples, labels, features, outputs = [], [], [], []
    training = net is not None and net.training
    if net is not None:
        net.eval()
    for _, label, rows, *_ in dataset.train_loader:
        examples.append(rows)
        labels.append(label)
        if net is not None:
            found = net(transform(rows), returnt="features")
            # iCaRL learns with a binary cross-entropy: its targets are sigmoids.
            outputs.append(torch.sigmoid(net.get_submodule("classifier")(found)))
            if normalize:
                found = found / found.norm(dim=1, keepdim=True)
            features.append(found)
    if net is not None:
        net.train(training)
    none = torch.empty(0)
    return (
        torch.cat(examples),
        torch.cat(labels),
        torch.cat(features) if features else none,
        torch.cat(outputs) if outputs else none,
    )


def _nearest_to_mean(features: Tensor, n: int) -> Tensor:
    """Places of at most `n` rows, each bringing the mean of the chosen ones nearest to the mean of all."""
    mean, chosen = features.mean(0), []
    taken, total = torch.zeros(len(features), dtype=torch.bool, device=features.device), 0 * mean
    for k in range(min(n, len(features))):
        distance = (mean - (features + total) / (k + 1)).norm(dim=1)
        best = int(distance.masked_fill(taken, torch.inf).argmin())
        taken[best] = True
        total = total + features[best]
        chosen.append(best)
    return torch.tensor(chosen, dtype=torch.int64, device=features.device)
