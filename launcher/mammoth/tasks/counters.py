"""A model's counters: the current task, the classes seen, the calls of `observe`."""

from __future__ import annotations

from typing import Any

ITERATIONS = ("task_iteration", "epoch_iteration")


class _OfSequence:
    """An attribute read from the model's sequence of tasks, until the model sets its own."""

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, model: object, owner: type | None = None) -> Any:
        if model is None:
            return self
        sequence = vars(model).get("dataset")
        if sequence is None:
            raise AttributeError(
                f"{type(model).__name__}.{self.name}: the model has no dataset yet. Pass `dataset` on to "
                "super().__init__(backbone, loss, args, transform, dataset=dataset)."
            )
        return sequence.counters(0)[self.name]


class Counters:
    """A model's progress in its sequence. A separate base: its attributes do not count as the model's own."""

    current_task = task_iteration = epoch_iteration = 0
    n_classes_current_task = n_past_classes = n_seen_classes = n_remaining_classes = -1
    cpt, n_tasks, N_TASKS = _OfSequence(), _OfSequence(), _OfSequence()
    num_classes, N_CLASSES = _OfSequence(), _OfSequence()


# Stored on the model itself: an object that a second run trains would otherwise seem to have set the counters
# that the first run wrote. No user's attribute has this name.
_COUNTED = "_antelope_counted"


def counted_for(model: object, names: tuple[str, ...]) -> tuple[str, ...]:
    """The counters that the run updates for a model; the model sets the others itself."""
    held = vars(model)
    if _COUNTED not in held:
        setattr(model, _COUNTED, tuple(name for name in names if not _sets(model, name)))
    counted: tuple[str, ...] = vars(model)[_COUNTED]
    return counted


def _sets(model: object, name: str) -> bool:
    """Whether a model, or a class that it derives from, defines the attribute itself."""
    kinds = (kind for kind in type(model).__mro__ if kind is not Counters)
    return name in vars(model) or any(name in vars(kind) for kind in kinds)
