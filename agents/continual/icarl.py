"""Incremental classifier and representation learning."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...replay import Batch, ConfigError, Memory, Replay
from ...replay.padding import padded_alike
from ...replay.tree import zip_trees
from ..calling import call
from .context import HIDDEN
from .er import joined
from .layers import features, output_layer
from .strategy import Strategy

_ROWS = 256  # Of a forward over the exemplars.


class ICaRL(Strategy):
    """Learn features with the help of exemplars, and classify by the nearest class mean.

    Source: Rebuffi et al., 2017 (arXiv 1611.07725). Exemplars join every batch. With the model's outputs o,
    and its outputs o' before the task (algorithm 3),

        L = mean BCE(sigmoid(o_y), q_y),    q_y = sigmoid(o'_y)    for classes of earlier tasks
                                            q_y = [y is the label] for the task's own classes

    where the mean is over rows and over the classes so far (the paper has the sum over both). It replaces
    the model's own loss. Herding chooses exemplars at the end of a task (algorithms 4 and 5, `Memory`).
    With phi the input of the output layer, scaled to length 1, a row is assigned to the class with the
    nearest mean, which is scaled to length 1 too (algorithm 1):

        y* = argmin_y || phi(x) - mu_y ||,    mu_y = mean of phi over the exemplars of y

    A task's own classes have no exemplars before it ends; until then the outputs o predict.

    Args:
        capacity: Exemplars in memory, equally many from each class.
        batch_size: Exemplars that join a batch; None: so many that each is seen as often as a new row,
            as in the paper. With more of them the results are better than published.
    """

    owns = frozenset({"batch", "loss", "output"})
    no_environments = "it classifies by the nearest mean of a class"
    needs_new_classes = True
    needs_borders = needs_classes = needs_forward = True
    recalls = True
    scenarios = ("class", "task")  # Herding needs all rows of a class at once.

    def __init__(self, capacity: int = 500, batch_size: int | None = None):
        self.memory = Memory(capacity, "herding")
        self.batch_size = batch_size
        self.old: dict[str, Tensor] = {}  # The model before the task.
        self.rows, self.due = 0, 0.0  # Of the task; exemplars that are still to join a batch.
        self.herded = 0  # Tasks of which there are exemplars.
        self.means: tuple[Tensor, Tensor] | None = None  # Of `class_means`; None: look again.

    def setup(self, agent: nn.Module) -> None:
        self.layer = output_layer(agent, self.context, "icarl", weights=False)
        n = self.context.spec.action.n
        if self.memory.capacity < n:
            raise ConfigError(
                f"strategy.icarl.capacity={self.memory.capacity} is less than one exemplar for each of the "
                f"{n} classes. Raise it."
            )

    def parameters_changed(self, agent: nn.Module) -> None:
        self.layer, self.means = output_layer(agent, self.context, "icarl", weights=False), None

    def begin_task(self, agent: nn.Module, replay: Replay) -> None:
        self.old = self.context.snapshot() if self.context.task else {}
        self.rows = len(replay)

    def before_batch(self, agent: nn.Module, batch: Batch) -> Batch:
        if self.batch_size is None:
            self.due += len(batch) / self.rows * len(self.memory)
            number = int(self.due)
            self.due -= number
        else:
            number = self.batch_size if len(self.memory) else 0
        if not number:
            return batch
        return joined(batch, self.context.augmented(self.memory.sample(number)))

    def after_loss(self, agent: nn.Module, batch: Batch, loss: Tensor) -> Tensor:
        seen = self.context.seen
        outputs = self.context.logits(batch.obs).index_select(1, seen)  # [B, classes so far]
        target = (batch.label[:, None] == seen).to(outputs.dtype)
        if self.old:
            earlier = seen[: len(seen) - len(self.context.classes[self.context.task])]
            before = self.context.recall(self.old, batch.obs).index_select(1, earlier)
            target[:, : len(earlier)] = before.sigmoid()
        return F.binary_cross_entropy_with_logits(outputs, target)

    def after_step(self, agent: nn.Module, batch: Batch) -> None:
        self.means = None

    def end_task(self, agent: nn.Module, replay: Replay) -> None:
        if self.herded > self.context.task:
            return  # A finished run that learns for longer: its exemplars are chosen.
        rows = [
            (self.context.rows_to_store(b), features(agent, self.layer, b.obs))
            for b in replay.once()
        ]
        parts = padded_alike([{**batch} for batch, _ in rows])
        fields = zip_trees(lambda *parts: torch.cat(parts), *parts)
        self.memory.add(Batch(**fields), features=torch.cat([found for _, found in rows]))
        self.herded, self.means = self.context.task + 1, None

    def predict(self, agent: nn.Module, obs: Tensor, task: int | None) -> Tensor:
        """Negated distances to the class means, `[B, n]`; hugely negative for classes without exemplars.

        During a task, whose classes have no exemplars yet, the network's outputs instead: early stopping
        needs a loss that moves.
        """
        if self.herded <= self.context.task:
            return call(agent, obs)
        if self.means is None:
            self.means = self.class_means(agent)
        classes, means = self.means
        found = F.normalize(features(agent, self.layer, obs).float(), dim=1)
        distance = torch.cdist(found, means, compute_mode="donot_use_mm_for_euclid_dist")
        outputs = found.new_full((len(found), self.context.spec.action.n), HIDDEN)
        return outputs.index_copy_(1, classes, -distance)

    def class_means(self, agent: nn.Module) -> tuple[Tensor, Tensor]:
        """The classes that have exemplars, int64 `[k]`, and their mean features, `[k, D]`."""
        exemplars = self.memory.all().to(self.context.device)
        kept = {"obs": exemplars["raw" if "raw" in exemplars else "obs"]}
        kept |= {name: exemplars[name] for name in ("length", "mask") if name in exemplars}
        obs = Batch(**kept)
        parts = [obs[start : start + _ROWS].obs for start in range(0, len(obs), _ROWS)]
        found = torch.cat([features(agent, self.layer, part) for part in parts])
        classes, which = exemplars.label.unique(return_inverse=True)
        sums = found.new_zeros(len(classes), found.shape[1], dtype=torch.float32)
        sums.index_add_(0, which, F.normalize(found.float(), dim=1))
        return classes, F.normalize(sums, dim=1)  # A sum has the direction of its mean.
