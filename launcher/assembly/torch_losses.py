"""Which of torch's losses fits which targets."""

from __future__ import annotations

import functools
import inspect
from typing import Any

from torch import nn

from ...replay import Space
from ...replay.spec import TargetKind
from ..settings.named import Named

# By the kind of targets; each as a module and as a function, the usual one first.
_FITS: dict[TargetKind, tuple[str, ...]] = {
    "classes": (
        *("CrossEntropyLoss", "cross_entropy", "NLLLoss", "nll_loss"),
        *("MultiMarginLoss", "multi_margin_loss"),
    ),
    "pixels": ("CrossEntropyLoss", "cross_entropy", "NLLLoss", "nll_loss"),
    "labels": (
        *("BCEWithLogitsLoss", "binary_cross_entropy_with_logits"),
        *("MultiLabelSoftMarginLoss", "multilabel_soft_margin_loss"),
    ),
    "values": (
        *("MSELoss", "mse_loss", "L1Loss", "l1_loss", "SmoothL1Loss", "smooth_l1_loss"),
        *("HuberLoss", "huber_loss", "PoissonNLLLoss", "poisson_nll_loss"),
    ),
}
_TARGETS: dict[TargetKind, str] = {
    "classes": "one class per row (integers or strings)",
    "pixels": "a class for each pixel (integers of an image's shape)",
    "labels": "several labels per row (0 or 1 in K columns)",
    "values": "values (floats)",
}
_BINARY = ("BCELoss", "binary_cross_entropy")
_POISSON = ("PoissonNLLLoss", "poisson_nll_loss")


def unfit(named: Named, space: Space, data: str) -> str | None:
    """Why a loss of torch's does not fit the targets; None: it does, or it is not one of torch's.

    Args:
        space: The targets' space.
        data: What errors call the data set.
    """
    name = _torch_name(named.target)
    if name is None:
        return None
    kind = space.kind
    usual = _FITS[kind][0]
    if name in _BINARY:
        instead = "BCEWithLogitsLoss" if kind == "labels" else usual
        return (
            f"loss={name} needs probabilities, and a model's outputs are logits here: metrics and "
            f"predictions read them as such. Set loss={instead}, and leave the sigmoid out of forward."
        )
    if name in _FITS[kind]:
        if name in _POISSON and _argument(named, "log_input", default=True):
            return (
                f"loss={name} takes outputs as logarithms by default, and metrics compare them with the "
                "targets as they are. Set loss.log_input=false, for outputs in the targets' units."
            )
        return None
    fits = next((other for other, names in _FITS.items() if name in names), None)
    if fits is None:
        return (
            f"loss={name} does not compare one output with one target as loss= does. Write learn(self, "
            f"replay), which returns it; or set loss={usual}, the usual loss for these targets."
        )
    return (
        f"loss={name} is for {_TARGETS[fits]}, and the targets of {data} are {_TARGETS[kind]}. "
        f"{_instead(fits, kind, usual)}"
    )


def _instead(fits: TargetKind, kind: TargetKind, usual: str) -> str:
    if fits == "values":
        return f"Set loss={usual}, or give the targets as floats (regression)."
    if kind == "values":
        return f"Set loss={usual}, or give the targets as integers."
    if fits == "labels" and kind == "classes":
        return (
            f"Set loss={usual}, with an output for each class (two for yes and no), or give targets of "
            "shape [N, K]."
        )
    return f"Set loss={usual}."


def targets_of(named: Named | None) -> TargetKind | None:
    """What a loss of torch's compares, if it is only one kind of targets; else None."""
    if named is None:
        return None
    name = _torch_name(named.target)
    # Of a loaded run: not looked up.
    if named.target is None and named.name.startswith("torch.nn."):
        name = named.short_name
    kinds = [kind for kind, names in _FITS.items() if name in names]
    return kinds[0] if len(kinds) == 1 else None


def is_torch(target: object) -> bool:
    """Whether a loss is one of torch's own, as a class, an instance or a function."""
    return _torch_name(target) is not None


def _torch_name(target: Any) -> str | None:
    """`CrossEntropyLoss` of torch's class and its instances, `cross_entropy` of the function; else None."""
    if isinstance(target, functools.partial):
        target = target.func
    if isinstance(target, nn.Module):
        target = type(target)
    if not (inspect.isclass(target) or inspect.isroutine(target)):
        return None
    home = target.__module__ or ""
    return target.__name__ if home.startswith(("torch.nn.", "torch._C")) else None


def _argument(named: Named, name: str, *, default: bool) -> Any:
    """An argument of a loss: a sub-key, or an attribute of an instance."""
    given = getattr(named.target, name, default) if isinstance(named.target, nn.Module) else default
    return named.arguments.get(name, given)
