"""GSS's buffer, which keeps rows whose gradients differ most from each other."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ...replay import ConfigError
from .buffer import Buffer


class GradientBuffer(Buffer):
    """Keeps rows whose gradients point in many directions.

    The score of a row is the largest cosine of its gradient with those of `minibatch_size` rows held,
    plus 1. A batch with a gradient that points away from all of them may replace rows, of high score
    first: Aljundi et al. (2019), "Gradient based sample selection", arXiv 1903.08671, algorithm 2.

    Args:
        buffer_size: Rows, at most.
        device: Where rows are kept; None: where the first ones come from.
        minibatch_size: Rows that a gradient is compared with.
        model: Its `get_grads(examples, labels)` gives a gradient, `[1, P]`.
    """

    model: Any

    def __init__(
        self,
        buffer_size: int,
        device: torch.device | str | None = None,
        minibatch_size: int = 10,
        model: Any = None,
    ):
        super().__init__(buffer_size, device)
        self.minibatch_size = int(minibatch_size)
        self.model = model
        self.scores = torch.zeros(self.capacity)
        self.cache: dict[int, Tensor] = {}  # The gradient of the row at a place.
        self.reset_fathom()

    def reset_fathom(self) -> None:
        """Start over with the rows in a new order."""
        self.fathom, self.fathom_mask = 0, torch.empty(0, dtype=torch.int64)
        if len(self):
            self.fathom_mask = torch.from_numpy(self._draws.permutation(len(self)))

    def drop_cache(self) -> None:
        """Forget gradients: the weights have changed."""
        self.cache = {}

    def get_data(  # type: ignore[override]
        self,
        size: int,
        transform: Any = None,
        give_index: bool = False,
        random: bool = False,
        device: torch.device | str | None = None,
    ) -> tuple[Tensor, ...]:
        """The next rows in order, each once before any repeats; fewer at the end.

        Args:
            give_index: Return their indices too, after the fields.
            random: Any rows instead.

        Raises:
            ConfigError: If the buffer is empty.
        """
        if self.is_empty():
            raise ConfigError("The buffer is empty. Check `is_empty()` before sampling.")
        if random:
            count = min(size, len(self))
            places = torch.from_numpy(self._draws.choice(len(self), count, replace=False))
        else:
            if self.fathom >= len(self.fathom_mask):
                self.reset_fathom()
            places = self.fathom_mask[self.fathom : self.fathom + size]
            self.fathom += len(places)
        data = self.get_data_by_index(places, transform, device)
        return (*data, places) if give_index else data

    def add_data(self, examples: Tensor, labels: Tensor | None = None) -> None:  # type: ignore[override]
        """Offer rows with their labels.

        Raises:
            ConfigError: Without labels.
        """
        if labels is None:
            raise ConfigError("Buffer.add_data: GSS compares gradients, which need labels=.")
        device = self._wanted or examples.device
        rows = {"examples": examples.float().to(device), "labels": labels.long().to(device)}
        rows["labels"] = rows["labels"][: len(examples)]
        score, known = 0.1, None
        if len(self):
            known = self.get_data(min(self.minibatch_size, len(self)), give_index=True, random=True)
            score = self._score(examples, labels, *known)
        checked: Any = self._checked(rows, {})
        if not self._columns and len(examples):
            self._make(checked, device)
        for row in range(len(examples)):
            place, kept = self._size, score
            if place < self.capacity:
                self._size += 1
            else:
                place = -1
                if score < 1 and known is not None:
                    one = slice(row, row + 1)
                    place, kept = self._replaced(examples[one], labels[one], known)
            self.seen += 1
            if place >= 0:
                self._write(checked, {place: row})
                self.scores[place] = kept
                self.cache.pop(place, None)

    def _replaced(
        self, example: Tensor, label: Tensor, known: tuple[Tensor, ...]
    ) -> tuple[int, float]:
        """The index that a row takes in a full buffer, or -1, and its score."""
        score = self._score(example, label, *known)
        chances = self.scores.double().numpy()
        place = int(self.choices.choice(self.capacity, p=chances / chances.sum()))
        old = float(self.scores[place])
        return (place if self.choices.random() < old / (old + score) else -1), score

    def _score(
        self, examples: Tensor, labels: Tensor, known: Tensor, their_labels: Tensor, places: Tensor
    ) -> float:
        """The largest cosine of the rows' gradient with one of the rows known, plus 1."""
        gradient = self.model.get_grads(examples, labels)
        for number, place in enumerate(places.tolist()):
            if place not in self.cache:
                one = slice(number, number + 1)
                self.cache[place] = self.model.get_grads(known[one], their_labels[one])
        theirs = torch.cat([self.cache[place] for place in places.tolist()]).to(gradient.device)
        return float(F.cosine_similarity(gradient, theirs, dim=1).max()) + 1

    def state_dict(self) -> dict[str, Any]:
        order = {"fathom": self.fathom, "fathom_mask": self.fathom_mask}
        return {**super().state_dict(), "gradient_scores": self.scores, **order}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        super().load_state_dict(state)
        self.scores = state["gradient_scores"].clone()
        self.fathom, self.fathom_mask = state["fathom"], state["fathom_mask"].clone()
        self.cache = {}
