"""The metrics that `metrics=` names, beside the built-in ones: functions, classes, and torchmetrics'."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ...agents.traits import hook
from ...replay import ConfigError, Spec
from ..metrics import METRICS, PLACES, Metric, better
from ..settings.frames import user_frame
from ..settings.named import Named
from ..settings.object_names import class_name
from ..settings.warn import warn_caller
from .metric_arguments import Subject, build_metric, column_of, members, without_arguments
from .outputs import Outputs

Better = Literal["more", "less"] | None

Measure = Callable[[Tensor, Tensor], object]
"""Computes a metric from outputs and labels, in whatever form its library returns it."""


@dataclass(frozen=True)
class OwnMetric:
    """One metric of the user's.

    Attributes:
        name: Its column, and the first part of its columns if it has several values.
        measure: Computes it from all held-out rows.
        better: "more" or "less", whichever is better; None: not known.
    """

    name: str
    measure: Measure
    better: Better = None


class OwnMetrics:
    """Measures what `metrics=` names on a model's answers, from scratch at every call.

    Args:
        metrics: The metrics, with different names.
        builtin: Names of built-in metrics that were asked for too.
        spec: The spec that the model was built from.

    Attributes:
        names: The columns that were measured so far, in order.
    """

    def __init__(self, metrics: Sequence[OwnMetric], spec: Spec, builtin: Sequence[str] = ()):
        self.metrics, self.spec, self.builtin = list(metrics), spec, list(builtin)
        self.names: dict[str, None] = {}  # An ordered set.
        self._warned: set[str] = set()

    def __bool__(self) -> bool:
        return bool(self.metrics or self.builtin)

    def __call__(self, found: Outputs, *, told: bool) -> dict[str, float]:
        """Each metric's value, or values: `f1`, or `f1/cat`, `f1/dog`.

        NaN is a value, of a class without rows for example: it is reported once. A run ends only if the
        metric has been finite before.

        Args:
            told: Whether the scenario lets the model know the task.
        """
        values: dict[str, float] = {}
        if not self.metrics:
            return values
        output = found.as_scored(told=told)
        for metric in self.metrics:
            try:
                result = metric.measure(output, found.label)
            except Exception as error:
                error.add_note(f"In metrics={metric.name}, given {_given(output, found.label)}.")
                raise
            values |= self._columns(metric.name, result)
        self.names |= dict.fromkeys(values)
        for name in values.keys() - self._warned:
            if values[name] != values[name]:
                self._warned.add(name)
                warn_caller(f"metrics={name} is NaN for task {found.task}.")
        return values

    def tried(
        self, found: Outputs | None, measured: Mapping[str, float], *, told: bool
    ) -> dict[str, float]:
        """Every metric of a few rows, before training.

        Args:
            found: A model's answers for these rows; None for a model that makes no predictions.
            measured: The built-in metrics of these rows.

        Raises:
            ConfigError: With every metric that cannot be computed.
        """
        if found is None:
            raise ConfigError(
                "metrics= needs predictions, and this model makes none: it has neither `forward` nor `act`. "
                "Write evaluate(self, batch), which returns a dict of numbers."
            )
        mistakes = [
            f"metrics={name}: not measured here, where targets are {self.spec.action.kind}. This run "
            f"measures {', '.join(measured)}."
            for name in self.builtin
            if name not in measured
        ]
        output = found.as_scored(told=told)
        values: dict[str, float] = {}
        for metric in self.metrics:
            try:
                result = metric.measure(output, found.label)
                values |= self._columns(metric.name, result, rows=len(found.label))
            except ConfigError as error:
                mistakes.append(str(error))
            except Exception as error:
                mistakes.append(
                    f"metrics={metric.name} raised {type(error).__name__}: {error}{user_frame(error)}. It "
                    f"was tried on {len(found.index)} held-out rows: {_given(output, found.label)}."
                )
        if mistakes:
            raise ConfigError("\n".join(mistakes))
        return values

    def better(self, name: str) -> Better:
        """Whether more or less of a metric is better, built-in ones included; None if that is not known."""
        base = name.partition("/")[0]
        own = next((metric.better for metric in self.metrics if metric.name == base), None)
        return own or better(name)

    def _columns(self, name: str, result: object, rows: int | None = None) -> dict[str, float]:
        """A metric's result as numbers by column.

        Args:
            rows: How many rows it was computed from, if one number for each of them is to be refused.

        Raises:
            ConfigError: If it is not a number, one per class, or a dict of numbers.
        """
        if isinstance(result, Mapping):
            if not result:
                raise ConfigError(f"metrics={name} returned an empty dict.")
            parts = [
                self._columns(f"{name}/{_safe(key)}", value, rows) for key, value in result.items()
            ]
            return {column: value for part in parts for column, value in part.items()}
        values = _numbers(result)
        # A metric that forgets its mean returns as many numbers as there are rows.
        each_row = values is not None and len(values.shape) == 1 and len(values) == rows
        if each_row and rows != Subject.of(self.spec).n:
            raise ConfigError(
                f"metrics={name} returned a number for each of {rows} rows; return their mean."
            )
        if values is None or values.dim() > 1 or not values.numel():
            what = type(result).__name__ if values is None else f"values {list(values.shape)}"
            drawn = " The confusion matrix is drawn in plots/." if "confusion" in name else ""
            raise ConfigError(
                f"metrics={name} returned {what}; a metric is a number, one per class, or a dict of "
                f"numbers.{drawn}"
            )
        if values.dim() == 0:
            return {name: float(values)}
        keys = map(str, range(len(values)))
        names = self.spec.action.names if self.spec.discrete else None
        if names is not None and len(names) == len(values):
            keys = map(_safe, names)
        return {f"{name}/{key}": float(value) for key, value in zip(keys, values, strict=True)}


def build_own_metrics(
    named: Sequence[Named], spec: Spec, inferred: Mapping[str, object]
) -> OwnMetrics:
    """The metrics that a plan, or a caller, names.

    Args:
        inferred: Values by parameter name, for classes of the user's own.

    Raises:
        ConfigError: For those that cannot be constructed or called, or share a name; all at once.
    """
    metrics: list[OwnMetric] = []
    builtin: list[str] = []
    mistakes: list[str] = []
    subject = Subject.of(spec)
    ours = _measured_by_antelope(subject.kind)
    for given in named:
        name = column_of(given)
        if isinstance(given.target, Metric) or (
            name in ours and not inspect.isroutine(given.target)
        ):
            builtin.append(name)
            if given.arguments:
                mistakes.append(_no_arguments(name, next(iter(given.arguments))))
            continue
        try:
            made = build_metric(given, subject, inferred)
            metrics += [_own(each, part, subject) for each, part in members(name, made)]
        except ConfigError as error:
            mistakes.append(str(error))
    names = [metric.name for metric in metrics]
    for name in dict.fromkeys(names):
        if names.count(name) > 1:
            mistakes.append(
                f"metrics= has {names.count(name)} metrics named `{name}`. Give your functions or classes "
                "different names, or pass torchmetrics.MetricCollection({name: metric, ...})."
            )
        elif name in ours:
            mistakes.append(f"metrics={name}: Antelope's own metric has that name. Choose another.")
        elif name in PLACES:
            mistakes.append(f"metrics={name}: eval.csv has a column of that name. Choose another.")
    if mistakes:
        raise ConfigError("\n".join(mistakes))
    return OwnMetrics(metrics, spec, builtin)


def _numbers(result: object) -> Tensor | None:
    """A metric's result as float64 on the CPU; None if it is not a number, or several."""
    try:
        values = torch.as_tensor(result).detach().cpu()
    except (TypeError, ValueError, RuntimeError):
        return None
    return None if values.is_complex() else values.double()


def _own(name: str, made: object, subject: Subject) -> OwnMetric:
    higher = inspect.getattr_static(without_arguments(made), "higher_is_better", None)
    direction: Better = "more" if higher is True else "less" if higher is False else None
    if hook(made, "update") is not None and hook(made, "compute") is not None:
        return OwnMetric(name, _on_copies(_Stateful(made, subject)), direction)
    if callable(made):
        return OwnMetric(name, _on_copies(subject.called(made, name)), direction)
    raise ConfigError(
        f"metrics={name} is a {class_name(type(made))}, which is neither a function (output, label) -> "
        "number nor an object with update(output, label) and compute()."
    )


def _on_copies(measure: Measure) -> Measure:
    """A user's metric may work in place, on what the next one measures too."""
    return lambda output, label: measure(output.clone(), label.clone())


class _Stateful:
    """An object with `update` and `compute`, of which every evaluation uses a fresh copy."""

    def __init__(self, metric: object, subject: Subject):
        self._metric, self._prepared = metric, subject.prepared_for(metric)

    def __call__(self, output: Tensor, label: Tensor) -> object:
        metric = copy.deepcopy(self._metric)
        if (reset := hook(metric, "reset")) is not None:
            reset()
        return self._prepared(metric, output, label)


def _measured_by_antelope(kind: str) -> set[str]:
    """Names of the built-in metrics of one kind of targets."""
    subjects = {kind, "tasks"}
    if kind in ("classes", "pixels"):
        subjects |= {"classes", "logits", "told"}
    return {"loss", *(metric.name for metric in METRICS if metric.of in subjects)}


def _no_arguments(name: str, argument: str) -> str:
    return (
        f"metrics.{name}.{argument}: {name} is Antelope's own metric, without arguments. torchmetrics' "
        "classes have some, such as MulticlassAccuracy, MultilabelF1Score and MeanAbsoluteError."
    )


def _given(output: Tensor, label: Tensor) -> str:
    parts = {"output": output, "label": label}.items()
    return " and ".join(
        f"{name} {str(part.dtype).removeprefix('torch.')} {list(part.shape)}"
        for name, part in parts
    )


def _safe(key: object) -> str:
    """A part of a column's name; `/task_0` would read as one task's value."""
    text = str(key)
    return f"class {text}" if text.startswith("task_") else text
