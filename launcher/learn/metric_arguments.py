"""How metrics of other libraries are constructed and called: what each expects of outputs and labels."""

from __future__ import annotations

import functools
import inspect
import math
import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor, nn

from ...agents.traits import hook
from ...replay import ConfigError, Spec
from ...replay.spec import TargetKind
from ..assembly.argument_order import first_two, label_first
from ..settings.construct import unknown_arguments
from ..settings.metric_names import snake
from ..settings.named import Named
from ..settings.object_names import name_of

_PROBABILITIES = {"y_score", "y_prob", "y_proba"}  # scikit-learn's names for them.
# Of torchmetrics' classes for values, those whose default refuses several columns.
_ONE_COLUMN = ("PearsonCorrCoef", "SpearmanCorrCoef", "ConcordanceCorrCoef", "KendallRankCorrCoef")


@dataclass(frozen=True)
class Subject:
    """What a run predicts.

    Attributes:
        kind: What the targets are.
        n: Number of classes, labels or columns of values.
        ignored: The label of pixels that are not counted.
    """

    kind: TargetKind
    n: int
    ignored: int = -1

    @classmethod
    def of(cls, spec: Spec) -> Subject:
        """The subject of a data set's spec."""
        action = spec.action
        n = prod(action.shape) if action.kind == "values" else action.n
        return cls(action.kind, n, action.ignored)

    @property
    def task(self) -> str:
        """torchmetrics' name for it: "binary" (two classes), "multiclass" or "multilabel"."""
        if self.kind == "labels":
            return "multilabel"
        return "binary" if self.n == 2 else "multiclass"

    def inferred(self, target: object) -> dict[str, object]:
        """Values for the parameters that a metric of torchmetrics or scikit-learn has for them."""
        short = name_of(target).rpartition(".")[2]
        if self.kind == "values":
            return {"num_outputs": self.n} if self.n > 1 and short in _ONE_COLUMN else {}
        size = "num_labels" if self.kind == "labels" else "num_classes"
        table: dict[str, object] = {"task": self.task, size: self.n}
        if self.kind == "pixels":
            table["ignore_index"] = self.ignored
        defaults = {name: p.default for name, p in _parameters(target).items()}
        # Micro averages of single labels are the accuracy, whatever the metric is called.
        if defaults.get("average") == "micro" or (
            defaults.get("average") == "binary" and self.n > 2
        ):
            table["average"] = "macro"
        if defaults.get("multi_class") == "raise":
            table["multi_class"] = "ovr"
        return table

    def prepared_for(self, metric: object) -> Callable[[Any, Tensor, Tensor], object]:
        """What updates and computes a fresh metric from outputs and labels, on the host."""
        kind = _kind_of(metric)
        if kind is None:
            return _update
        if not kind:
            return _of_values
        return functools.partial(_of_probabilities, kind=kind)

    def called(
        self, function: Callable[..., object], name: str
    ) -> Callable[[Tensor, Tensor], object]:
        """`function` as `(output, label) -> value`.

        Raises:
            ConfigError: If it does not accept two arguments.
        """
        try:
            signature = inspect.signature(function)
            signature.bind(None, None)
        except ValueError:  # Written in C.
            return function
        except TypeError as error:
            raise ConfigError(
                f"metrics={name}: {name}{signature} cannot be called ({error}). Write "
                f"{name}(output, label), with the outputs and labels of all held-out rows."
            ) from None
        first, second = first_two(function)
        call, wants = function, first
        if label_first(first, second):
            call, wants = _swapped(function), second
        if _home(function) == "sklearn":
            return functools.partial(_in_numpy, call, wants=wants, subject=self)
        if _home(function) == "torchmetrics":
            return functools.partial(_functional, call, subject=self)
        return call


def build_metric(given: Named, subject: Subject, inferred: Mapping[str, object]) -> Any:
    """The function or object that a setting names, with its arguments.

    Args:
        inferred: Values by parameter name, for classes of the user's own.

    Raises:
        ConfigError: For an unknown or missing argument, or a metric for other targets.
    """
    target, name = given.target, column_of(given)
    if name.startswith("<lambda>") or not re.fullmatch(r"[\w.<>-]+", name):
        raise ConfigError("metrics= has a lambda, which has no name for its column: use def.")
    about_classes = _kind_of(target) or "task" in _parameters(target)
    if subject.kind == "values" and _home(target) == "torchmetrics" and about_classes:
        raise ConfigError(
            f"metrics={name} is for classes, but this run's targets are values. For values there are "
            "mean_absolute_error, r2_score, pearson_corr_coef, explained_variance and others."
        )
    if subject.kind != "values" and _kind_of(target) == "":
        raise ConfigError(
            f"metrics={name} is for values, but this run's targets are classes. For classes there are f1, "
            "precision, recall, auroc, cohen_kappa and others."
        )
    if _kind_of(target) == "binary" and subject.task == "multiclass":
        raise ConfigError(f"metrics={name} is for two classes, and this data has {subject.n}.")
    if inspect.isroutine(target) or _is_partial_function(target):
        return _with_arguments(given, subject)
    if not given.constructs:
        if given.arguments:
            raise ConfigError(
                f"metrics={name} is already constructed, so `{next(iter(given.arguments))}` cannot be set."
            )
        return target
    ours = subject.inferred(target) if _home(target) == "torchmetrics" else {**inferred}
    set_before = target.keywords if isinstance(target, functools.partial) else {}
    return given.build({key: value for key, value in ours.items() if key not in set_before})


def _with_arguments(given: Named, subject: Subject) -> Any:
    """A function with its sub-keys, and what can be inferred, as keyword arguments."""
    target, has = given.target, _parameters(given.target)
    setting = f"metrics.{column_of(given)}"
    if mistakes := unknown_arguments(target, given.arguments, setting=setting, skip=2):
        raise ConfigError("\n".join(mistakes))
    known = subject.inferred(target)
    ours = _home(target) in ("torchmetrics", "sklearn")
    two = list(has)[:2]
    found = {
        key: value
        for key, value in known.items()
        if key in has and key not in two and (ours or has[key].default is inspect.Parameter.empty)
    }
    if not (found := found | given.arguments):
        return target
    return functools.partial(target, **found)


def members(name: str, made: object) -> Iterator[tuple[str, object]]:
    """The metric by its name, or those of a MetricCollection by theirs."""
    if type(made).__name__ == "MetricCollection" and (items := hook(made, "items")) is not None:
        yield from ((snake(str(key)), metric) for key, metric in items())
    else:
        yield name, made


def column_of(given: Named) -> str:
    """The column of a metric: `f1` as it was written, `f1_score` of the class, a function's own name."""
    name = given.short_name.rpartition(" ")[2]
    target = given.target
    plain = inspect.isroutine(target) or _is_partial_function(target)
    return name if plain else snake(name)


# ---------------------------------------------------------------------------- what metrics receive


def _update(metric: Any, output: Tensor, label: Tensor) -> object:
    metric.update(output, label)
    return metric.compute()


def _of_values(metric: Any, output: Tensor, label: Tensor) -> object:
    """A metric of torchmetrics for values, in float64; a single column is `[N]`, as it expects."""
    metric = metric.cpu().set_dtype(torch.float64)
    return _update(metric, *(_column(part).double() for part in (output, label)))


def _of_probabilities(metric: Any, output: Tensor, label: Tensor, *, kind: str) -> object:
    """A metric of torchmetrics for classes, of the outputs' probabilities."""
    metric, label = metric.cpu(), label.long()
    counted = label[label != vars(metric).get("ignore_index")]
    if kind != "multilabel" and _compares_classes(metric) and len(counted.unique()) < 2:
        return math.nan  # torchmetrics returns 0, as for the worst ranking.
    by_class = kind == "multiclass" and _is_ranked(metric)
    if by_class:
        metric.average = "none"
    with warnings.catch_warnings():
        if by_class:  # On classes without rows: they are left out of the mean below.
            for message in ("No (positive|negative) samples", "Average precision score for one"):
                warnings.filterwarnings("ignore", message=message)
        value: Any = _update(metric, probabilities(output, kind), label)
    if by_class:
        present = label.unique()
        value = value[present[present < len(value)]].double().mean()
    return value


def _is_ranked(metric: Any) -> bool:
    """Whether a metric is a mean over classes of a score of rankings, which torchmetrics counts as 0 for a
    class without rows. One task of a sequence has rows of its own classes only."""
    names = {kind.__name__ for kind in type(metric).__mro__}
    return "MulticlassPrecisionRecallCurve" in names and vars(metric).get("average") == "macro"


def _compares_classes(metric: Any) -> bool:
    """Whether a metric is the area under an ROC curve, which rows of one class alone do not have."""
    return any(kind.__name__.endswith("AUROC") for kind in type(metric).__mro__)


def probabilities(output: Tensor, kind: str) -> Tensor:
    """Probabilities of logits `[N, n, ...]`; for two classes those of the second, `[N, ...]`.

    Args:
        kind: "binary", "multiclass" or "multilabel". Chosen classes, int64 `[N]`, stay what they are.
    """
    if output.dim() == 1 and not output.is_floating_point():
        return output
    if kind == "multilabel":
        return output.double().sigmoid()
    by_class = output.double().softmax(1)
    return by_class[:, 1] if kind == "binary" else by_class


def _functional(
    call: Callable[..., object], output: Tensor, label: Tensor, *, subject: Subject
) -> object:
    """A function of torchmetrics: it receives what the class of that name does."""
    if subject.kind == "values":
        return call(*(_column(part).double() for part in (output, label)))
    task = subject.task
    if isinstance(call, functools.partial):
        task = call.keywords.get("task", task)
    return call(probabilities(output, task), label.long())


def _in_numpy(
    call: Callable[..., object], output: Tensor, label: Tensor, *, wants: str, subject: Subject
) -> object:
    """A function of scikit-learn: predicted classes for `y_pred`, probabilities for `y_score`."""
    if subject.kind == "values":
        return call(_column(output).numpy(), _column(label).numpy())
    if wants in _PROBABILITIES:
        found = probabilities(output, subject.task)
    elif subject.kind == "labels":
        found = (output > 0).long()
    else:
        found = output if output.dim() == 1 else output.argmax(1)
    label = label.long()
    if subject.kind == "pixels":  # scikit-learn expects one dimension, and ignores no label.
        counted = label != subject.ignored
        found, label = found[counted], label[counted]
    return call(found.numpy(), label.numpy())


def _column(values: Tensor) -> Tensor:
    """`[N, 1]` as `[N]`; anything else unchanged."""
    return values[:, 0] if values.dim() == 2 and values.shape[1] == 1 else values


# ----------------------------------------------------------------------- which library they are of


def without_arguments(target: object) -> object:
    """The function or class inside a `functools.partial`; anything else unchanged."""
    while isinstance(target, functools.partial):
        target = target.func
    return target


def _home(target: object) -> str:
    """The package that a function, class or object comes from: `torchmetrics`."""
    target = without_arguments(target)
    owner = target if inspect.isclass(target) or inspect.isroutine(target) else type(target)
    return str(owner.__module__).partition(".")[0]


def _kind_of(metric: object) -> str | None:
    """What a metric of torchmetrics expects: "binary", "multiclass", "multilabel" or "" for values.

    None for anything that is not derived from one of its classes.
    """
    # For wrappers, such as ClasswiseWrapper, the metric inside.
    parts = list(metric.modules()) if isinstance(metric, nn.Module) else [metric]
    found = None
    for part in parts:
        for kind in inspect.getmro(part if inspect.isclass(part) else type(part)):
            if not kind.__module__.startswith("torchmetrics."):
                continue
            if task := re.match(r"Binary|Multiclass|Multilabel", kind.__name__):
                return task[0].lower()
            if kind.__module__.startswith("torchmetrics.regression"):
                found = ""
    return found


def _is_partial_function(target: object) -> bool:
    return isinstance(target, functools.partial) and inspect.isroutine(target.func)


def _parameters(target: object) -> dict[str, inspect.Parameter]:
    if not callable(target):
        return {}
    try:
        return dict(inspect.signature(target).parameters)
    except (TypeError, ValueError):
        return {}


def _swapped(function: Callable[..., object]) -> Callable[[object, object], object]:
    return lambda output, label: function(label, output)
