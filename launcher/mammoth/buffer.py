"""Mammoth's `Buffer`, on our `Memory`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from ...replay import ConfigError
from ...replay.suggestions import did_you_mean
from .fields import FieldMemory, dtype_of
from .selection import NAMES, Bounds, make_selection

_ROOM = 64  # Rows of an unlimited buffer at first.


class Buffer(FieldMemory):
    """Mammoth's name for a reservoir of rows; a `Memory` whose fields are given by position.

    >>> buffer = Buffer(100)
    >>> buffer.add_data(torch.rand(8, 2), labels=torch.arange(8))
    >>> [field.shape for field in buffer.get_data(4)]
    [torch.Size([4, 2]), torch.Size([4])]

    Called like GSS's own buffer, `Buffer(size, device, minibatch_size, model)`, with a number in place of the
    strategy's name, it constructs a `GradientBuffer`.

    Args:
        buffer_size: int, the largest number of rows.
        device: Device that stores the rows; None: that of the first rows.
        sample_selection_strategy: Which rows a full buffer replaces: `reservoir`, `lars` (low loss), `labrs`
            (also large classes), `abs` (for noisy labels; needs `dataset=`),
            `balancoir` (keeps classes balanced), or `unlimited` (keeps everything).
        dataset: The sequence of tasks, for `abs`.

    Attributes:
        sample_selection_fn: The strategy, whose `update(indexes, scores)` changes rows' scores.

    Raises:
        ConfigError: If the strategy is unknown.
    """

    def __new__(cls, *args: object, **kwargs: object) -> Buffer:
        # Mammoth's GSS file has a class of the same name, so that only the arguments tell them apart.
        if cls is Buffer and (
            (len(args) > 2 and not isinstance(args[2], str))
            or {"minibatch_size", "model"} & {*kwargs}
        ):
            return super().__new__(GradientBuffer)
        return super().__new__(cls)

    def __init__(
        self,
        buffer_size: int,
        device: torch.device | str | None = None,
        sample_selection_strategy: str = "reservoir",
        *,
        dataset: Bounds | None = None,
    ):
        name = str(sample_selection_strategy).lower()
        if name not in NAMES:
            raise ConfigError(
                f"Buffer: no sample_selection_strategy {sample_selection_strategy!r}."
                f"{did_you_mean(name, NAMES)} There are {', '.join(NAMES)}."
            )
        self.sample_selection_strategy = name
        super().__init__(_ROOM if name == "unlimited" else buffer_size, device)
        self.sample_selection_fn = make_selection(name, self.capacity, dataset)

    @property
    def buffer_size(self) -> int:
        return self.capacity

    @buffer_size.setter
    def buffer_size(self, value: int) -> None:
        # `fill_buffer` and models set the size of any buffer; an unlimited one grows by itself.
        if self.sample_selection_strategy != "unlimited":
            self._resize(value)

    def is_full(self) -> bool:
        return len(self) == self.capacity and self.sample_selection_strategy != "unlimited"

    def add_data(
        self,
        examples: Tensor,
        labels: Tensor | None = None,
        logits: Tensor | None = None,
        task_labels: Tensor | None = None,
        attention_maps: object = None,
        true_labels: Tensor | None = None,
        sample_selection_scores: Tensor | None = None,
    ) -> None:
        """Offer rows. The first call decides which fields rows have.

        A field may be longer than `examples`: the first `B` values count.

        Args:
            examples: `[B, *shape]`, stored as float32.
            labels: `[B]`, stored as int64.
            logits: `[B, n]`, stored as float32.
            task_labels: `[B]`, stored as int64.
            attention_maps: Not supported.
            true_labels: `[B]`, stored as int64, for rows whose labels are noisy.
            sample_selection_scores: `[B]` float32, by which rows are chosen: losses for `abs`, negative
                losses for `lars` and `labrs`.

        Raises:
            ConfigError: If a field is missing that stored rows have or the strategy needs.
        """
        if attention_maps is not None:
            raise ConfigError(
                "Buffer.add_data: attention_maps are not supported. Keep them in the model."
            )
        given = {"labels": labels, "logits": logits, "task_labels": task_labels}
        given |= {"true_labels": true_labels}
        rows = len(examples)
        fields = {"examples": examples.float()}
        for name, field in given.items():
            if field is not None:
                fields[name] = field[:rows].to(dtype_of(name))
        device = self._wanted or examples.device
        fields = {name: field.to(device) for name, field in fields.items()}
        strategy, scores = self.sample_selection_fn, sample_selection_scores
        self._check_given(labels, scores)
        if self.sample_selection_strategy == "unlimited" and len(self) + rows > self.capacity:
            # Doubling: a resize copies every row, which would be quadratic for one batch after another.
            self._resize(max(2 * self.capacity, len(self) + rows))
        # A plain reservoir draws the places of a whole batch at once.
        if not (strategy.scored or strategy.labelled):
            self.add(fields)
            return
        assert labels is not None
        self._add_chosen(fields, labels[:rows].tolist(), scores)

    def _check_given(self, labels: Tensor | None, scores: Tensor | None) -> None:
        """Raise ConfigError if the strategy needs labels or scores that were not passed."""
        name, strategy = self.sample_selection_strategy, self.sample_selection_fn
        if strategy.labelled and labels is None:
            raise ConfigError(f"Buffer.add_data: {name} needs labels=.")
        if strategy.scored and scores is None:
            losses = "the rows' losses" if name == "abs" else "minus the rows' losses"
            raise ConfigError(f"Buffer.add_data: {name} needs sample_selection_scores=, {losses}.")

    def _add_chosen(
        self, fields: Mapping[str, Tensor], labels: list[int], scores: Tensor | None
    ) -> None:
        """Offer rows one by one, since each choice depends on the rows that the previous one left.

        Args:
            fields: Tensors `[B, ...]`.
            labels: int `[B]`.
            scores: float32 `[B]`, for strategies that need them.
        """
        checked = self._checked(fields, {})
        if not labels:
            return
        if not self._columns:
            self._make(checked, next(iter(checked.values())).device)
        strategy, values = (
            self.sample_selection_fn,
            None if scores is None else scores.detach().cpu(),
        )
        for row, label in enumerate(labels):
            if self._size < self.capacity:
                place = self._size
                self._size += 1
            else:
                place = strategy.select(self, label)
            self.seen += 1
            if place >= 0:
                self._write(checked, {place: row})
                if values is not None:
                    strategy.update(place, values[row])

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "scores": self.sample_selection_fn.state()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        # The saved buffer may have grown, or a model may have changed its size, after construction.
        self._resize(state.get("capacity", self.capacity))
        super().load_state_dict(state)
        self.sample_selection_fn.load(state.get("scores"))

    def _resize(self, capacity: int) -> None:
        """Change the capacity, keeping the first rows."""
        if capacity == self.capacity:
            return
        held = {path: column[: min(self._size, capacity)] for path, column in self._columns.items()}
        self.capacity, self._size = capacity, min(self._size, capacity)
        if held:
            self._make(held, next(iter(held.values())).device)
            for path, column in self._columns.items():
                column[: self._size] = held[path]
        if (scores := self.sample_selection_fn.state()) is not None:
            kept = scores.new_full((capacity,), -torch.inf)
            kept[: self._size] = scores[: self._size]
            self.sample_selection_fn.load(kept)


class HasGradients(Protocol):
    """A model that computes gradients for given rows."""

    def get_grads(self, inputs: Tensor, labels: Tensor) -> Tensor:
        """The gradient of the loss of rows `[B, *shape]` with labels `[B]`, as one vector `[1, P]`."""


class GradientBuffer(Buffer):
    """Keeps rows whose gradients point in many directions.

    The score of a row is the largest cosine between its gradient and those of `minibatch_size` stored rows,
    plus 1. A batch whose gradient points away from all of them may replace rows, preferably of a high score:
    Aljundi et al. (2019), "Gradient based sample selection", arXiv 1903.08671, algorithm 2.

    Args:
        buffer_size: int, the largest number of rows.
        device: Device that stores the rows; None: that of the first rows.
        minibatch_size: int, number of stored rows whose gradients a new one is compared with.
        model: Its `get_grads(examples, labels)` returns a gradient, `[1, P]`.
    """

    model: HasGradients | None

    def __init__(
        self,
        buffer_size: int,
        device: torch.device | str | None = None,
        minibatch_size: int = 10,
        model: HasGradients | None = None,
    ):
        super().__init__(buffer_size, device)
        self.minibatch_size = int(minibatch_size)
        self.model = model
        self.scores = torch.zeros(self.capacity)
        # Gradients `[1, P]` by place: one backward each, the costliest part of GSS.
        self.cache: dict[int, Tensor] = {}
        self.reset_fathom()

    def reset_fathom(self) -> None:
        """Start over with the rows in a new order."""
        self.fathom, self.fathom_mask = 0, torch.empty(0, dtype=torch.int64)
        if len(self):
            self.fathom_mask = torch.from_numpy(self._draws.permutation(len(self)))

    def drop_cache(self) -> None:
        """Forget all gradients, after the weights have changed."""
        self.cache = {}

    def get_data(  # type: ignore[override]
        self,
        size: int,
        transform: Callable[..., Any] | None = None,
        give_index: bool = False,
        random: bool = False,
        device: torch.device | str | None = None,
    ) -> tuple[Tensor, ...]:
        """The next rows in order, each once before any repeats; fewer at the end.

        Args:
            size: int, rows at most.
            transform: Applied to the examples; None: none.
            give_index: Return their places too, int64 `[B]`, after the fields.
            random: Draw rows at random instead.
            device: Device of the result; None: that of the buffer.

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
        # The first rows have none to compare with. A small score: they are seldom replaced.
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
                self.cache.pop(place, None)  # It was the replaced row's.

    def _replaced(
        self, example: Tensor, label: Tensor, known: tuple[Tensor, ...]
    ) -> tuple[int, float]:
        """The place in a full buffer for a row, or -1 if it is declined, and the row's score."""
        score = self._score(example, label, *known)
        chances = self.scores.double().numpy()
        place = int(self.choices.choice(self.capacity, p=chances / chances.sum()))
        old = float(self.scores[place])
        return (place if self.choices.random() < old / (old + score) else -1), score

    def _score(
        self, examples: Tensor, labels: Tensor, known: Tensor, their_labels: Tensor, places: Tensor
    ) -> float:
        """The largest cosine between the rows' gradient and that of a known row, plus 1: in [0, 2]."""
        assert self.model is not None  # Only a caller that passes it compares gradients.
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
