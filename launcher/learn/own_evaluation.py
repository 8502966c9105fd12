"""A module's own evaluation: `evaluate(batch)`, which replaces `forward` and the built-in metrics."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from ...agents.traits import hook
from ...envs.held_out import HeldOut
from ...replay import Batch, ConfigError
from ...replay.batch import describe
from ..metrics import METRICS, PLACES
from ..settings.frames import user_frame
from ..settings.warn import warn_caller

_OTHERS = {"validation_step": "Lightning", "test_step": "Lightning or Keras"}
_OF_RUNS = {metric.name for metric in METRICS if metric.of in ("tasks", "episodes")}


class OwnEvaluation:
    """Averages what a module's `evaluate(batch)` returns over the held-out rows.

    Args:
        module: The user's module, which has such a method.

    Raises:
        ConfigError: If the method cannot be called with a batch.
    """

    def __init__(self, module: object):
        found = hook(module, "evaluate")
        assert found is not None
        self.method: Callable[[Batch], object] = found
        self.name = f"{type(module).__name__}.evaluate"
        self.names: dict[str, None] = {}  # What it returned so far, in order.
        self._check()

    def tried(self, rows: HeldOut) -> dict[str, float]:
        """Each number's mean over a few rows, before training.

        Raises:
            ConfigError: If the method raises, or returns anything but a dict of numbers.
        """
        try:
            return self(rows)
        except ConfigError:
            raise
        except Exception as error:
            raise ConfigError(
                f"{self.name} raised {type(error).__name__}: {error}{user_frame(error)}. "
                f"{' '.join(error.__notes__)}"
            ) from error

    def __call__(self, rows: HeldOut) -> dict[str, float]:
        """Each number's mean over the rows; empty without rows. Call it within `learner.evaluating()`.

        Raises:
            ConfigError: If it returns anything but a dict of numbers.
        """
        sums: dict[str, list[Tensor]] = {}
        counts: dict[str, int] = {}
        done = 0
        for fields in rows:
            batch = Batch(**fields)
            size = len(batch)
            batch["index"] = rows.index[done : done + size].to(rows.device)
            batch["task"] = torch.full((size,), rows.task or 0, device=rows.device)
            for name, value in self._values(batch, size):
                sums.setdefault(name, []).append(value * size)
                counts[name] = counts.get(name, 0) + size
            done += size
        # Read once for all batches: each reading waits for the device.
        means = {name: float(torch.stack(parts).sum()) for name, parts in sums.items()}
        means = {name: total / counts[name] for name, total in means.items()}
        self.names |= dict.fromkeys(means)
        return means

    def _values(self, batch: Batch, size: int) -> list[tuple[str, Tensor]]:
        """What it returned for one batch: means over its rows, 0-d on the host or the device."""
        described = describe(batch)  # Before the module may change the batch.
        try:
            returned = self.method(batch)
        except Exception as error:
            error.add_note(f"In {self.name}. Batch: {described}.")
            raise
        if not isinstance(returned, Mapping):
            raise ConfigError(
                f"{self.name} returned {_described(returned)}. Return a dict of numbers, such as "
                '{"loss": loss, "accuracy": share}: each is averaged over the held-out rows.'
            )
        return [(self._name(key), self._mean(key, value, size)) for key, value in returned.items()]

    def _name(self, key: object) -> str:
        if not isinstance(key, str) or not key or key in PLACES or "/task_" in key:
            raise ConfigError(
                f"{self.name} returned {key!r:.40} as the name of a number. Names are text, other than "
                f"{', '.join(PLACES)}, and without `/task_`, which marks one task's value."
            )
        if key in _OF_RUNS:
            raise ConfigError(
                f"{self.name} returned `{key}`, which Antelope itself computes over tasks or episodes. "
                "Choose another name."
            )
        return key

    def _mean(self, key: str, value: object, size: int) -> Tensor:
        """A number, or the mean of one per row, float64 where the device has it."""
        try:
            values = torch.as_tensor(value)
        except (TypeError, ValueError, RuntimeError):
            raise ConfigError(
                f"{self.name} returned {_described(value)} as `{key}`; return a number."
            ) from None
        if values.is_complex():
            raise ConfigError(
                f"{self.name} returned a complex number as `{key}`; return a real one."
            )
        if values.numel() != 1 and values.shape != (size,):
            raise ConfigError(
                f"{self.name} returned values {list(values.shape)} as `{key}`; return a number, or one for "
                f"each of the {size} rows."
            )
        values = values.detach()
        wide = torch.float32 if values.device.type == "mps" else torch.float64
        return values.to(wide).mean()

    def _check(self) -> None:
        if inspect.iscoroutinefunction(self.method) or inspect.isgeneratorfunction(self.method):
            raise ConfigError(f"{self.name} is not a plain method: write evaluate(self, batch).")
        try:
            signature = inspect.signature(self.method)
            signature.bind(None)
        except ValueError:  # Written in C.
            return
        except TypeError:
            raise ConfigError(
                f"{self.name}{signature} cannot be called. In Antelope, evaluate(self, batch) returns a dict "
                "of numbers for one held-out batch; rename a method of your own."
            ) from None


def _described(value: object) -> str:
    """`nothing`, `the int 3`, `the Tensor tensor([1.])`."""
    return "nothing" if value is None else f"the {type(value).__name__} {value!r:.40}"


def own_evaluation(module: object) -> OwnEvaluation | None:
    """What a module evaluates by itself; None if it has no `evaluate`.

    Raises:
        ConfigError: If the method cannot be called, or its name is misspelt.
    """
    if hook(module, "evaluate") is not None:
        return OwnEvaluation(module)
    name = type(module).__name__
    own = [kind for kind in type(module).__mro__ if not kind.__module__.startswith("torch")]
    for method in (
        m for kind in own for m, value in vars(kind).items() if inspect.isroutine(value)
    ):
        if method in _MISSPELT:
            raise ConfigError(
                f"{name} has a method `{method}`, which is never called. Did you mean "
                "`evaluate(self, batch)`?"
            )
        if method in _OTHERS:
            warn_caller(
                f"`{name}.{method}` is {_OTHERS[method]}'s and is not called here. Write evaluate(self, "
                "batch), which returns a dict of numbers for one held-out batch."
            )
    return None


def _misspellings(word: str) -> set[str]:
    """`word` with one letter missing, doubled, or two neighbours exchanged."""
    cuts = [(word[:i], word[i:]) for i in range(len(word))]
    missing = {a + b[1:] for a, b in cuts}
    doubled = {a + b[0] + b for a, b in cuts}
    exchanged = {a + b[1] + b[0] + b[2:] for a, b in cuts if len(b) > 1}
    return (missing | doubled | exchanged) - {word}


# A longer distance would take names of the user's own, such as `evaluated`, for it.
_MISSPELT = _misspellings("evaluate") | {"eval_batch", "evaluate_batch"}
