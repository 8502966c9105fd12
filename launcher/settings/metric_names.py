"""Names of metrics: Antelope's own, and those of torchmetrics, however they are spelled."""

from __future__ import annotations

import functools
import importlib.util
import inspect
import re
from typing import Any

from ...replay.errors import ConfigError
from ..metrics import METRICS, Metric
from .object_names import name_of

# Common names, without `_` and `-`, for what torchmetrics calls differently.
_ALIASES = {
    "ap": "AveragePrecision",
    "auc": "AUROC",
    "ece": "CalibrationError",
    "fbeta": "FBetaScore",
    "iou": "JaccardIndex",
    "kappa": "CohenKappa",
    "mape": "MeanAbsolutePercentageError",
    "mcc": "MatthewsCorrCoef",
    "pearson": "PearsonCorrCoef",
    "pearsonr": "PearsonCorrCoef",
    "rocauc": "AUROC",
    "sensitivity": "Recall",
    "smape": "SymmetricMeanAbsolutePercentageError",
    "spearman": "SpearmanCorrCoef",
    "spearmanr": "SpearmanCorrCoef",
}
# Names for a class with arguments.
_WITH_ARGUMENTS: dict[str, tuple[str, dict[str, Any]]] = {
    "balancedaccuracy": ("Recall", {"task": "multiclass", "average": "macro"}),
    "miou": ("JaccardIndex", {"task": "multiclass", "average": "macro"}),
    "meaniou": ("JaccardIndex", {"task": "multiclass", "average": "macro"}),
    "rmse": ("MeanSquaredError", {"squared": False}),
    "rootmeansquarederror": ("MeanSquaredError", {"squared": False}),
}
# Not measures of outputs and labels.
_OTHERS = ("Metric", "MetricCollection", "MetricTracker", "functional")
_EVERYWHERE = ("classes", "logits", "told", "values")
_OURS = {metric.name: metric for metric in METRICS if metric.of in _EVERYWHERE}
# Of several labels or pixels; some of these names mean torchmetrics' class elsewhere.
_OTHERS_OF_OURS = {
    metric.name: metric
    for metric in METRICS
    if metric.of not in (*_EVERYWHERE, "episodes", "tasks")
}


def metric(name: str) -> Any:
    """What a metric's name means: an entry of `METRICS`, a class of torchmetrics, or None.

    Raises:
        ConfigError: If it can only be one of torchmetrics, which is not installed.
    """
    plain = _plain(name)
    if (
        ours := next((found for own, found in _OURS.items() if _plain(own) == plain), None)
    ) is not None:
        return ours
    if not re.fullmatch(r"[\w-]+", name):
        return None
    if importlib.util.find_spec("torchmetrics") is None:
        raise ConfigError(
            f"metrics={name}: Antelope itself measures {', '.join(_OURS)}. Other names are those of "
            "torchmetrics, which is not installed: pip install 'antelope-ml[metrics]'. Or pass a function "
            "(output, label) -> number."
        )
    known = {_plain(each): each for each in torchmetrics_names()}
    if plain in _WITH_ARGUMENTS:
        of, arguments = _WITH_ARGUMENTS[plain]
        return functools.partial(_torchmetrics(of), **arguments)
    for spelling in (plain, f"{plain}score", f"{plain}coef", _plain(_ALIASES.get(plain, ""))):
        if spelling in known:
            return _torchmetrics(known[spelling])
    return next((own for key, own in _OTHERS_OF_OURS.items() if _plain(key) == plain), None)


def torchmetrics_names() -> list[str]:
    """The classes of torchmetrics; none if it is not installed."""
    if importlib.util.find_spec("torchmetrics") is None:
        return []
    import torchmetrics

    modules = (torchmetrics, torchmetrics.classification, torchmetrics.regression)
    names = dict.fromkeys(name for module in modules for name in module.__all__)
    return [name for name in names if name not in _OTHERS]


def metric_names() -> list[str]:
    """What can be written, for suggestions: short names in lower case, and the classes' own."""
    short = [snake(name).removesuffix("_score") for name in torchmetrics_names()]
    return [*dict.fromkeys([*_OURS, *short, *_ALIASES, *_WITH_ARGUMENTS, *torchmetrics_names()])]


def recorded_name(name: str, item: object) -> str:
    """The name in `config.yaml`, which is also the metric's column: `f1` of `F1`."""
    if isinstance(item, Metric) or name_of(item).startswith(
        ("torchmetrics.", "partial of torchmetrics")
    ):
        return snake(name.rpartition(".")[2])
    return name_of(item) if inspect.isclass(item) or inspect.isroutine(item) else name


def snake(name: str) -> str:
    """`mean_absolute_error` of `MeanAbsoluteError`, `f1_score` of `F1Score`, `auroc` of `AUROC`."""
    name = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name)
    return name.replace("-", "_").lower()


def _plain(name: str) -> str:
    """`f1score` of `F1Score`, `f1_score` and `f1-score`."""
    return re.sub(r"[_-]", "", name).lower()


def _torchmetrics(name: str) -> Any:
    import torchmetrics

    modules = (torchmetrics, torchmetrics.classification, torchmetrics.regression)
    return next(vars(module)[name] for module in modules if name in vars(module))
