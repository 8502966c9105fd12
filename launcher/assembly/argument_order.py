"""Whether a function of outputs and labels names the label first: libraries disagree on the order."""

from __future__ import annotations

import inspect
from typing import Any

_LABELS = {"label", "labels", "target", "targets", "y", "t", "y_true", "true", "truth", "gt"}
_OUTPUTS = {"output", "outputs", "pred", "preds", "prediction", "predictions", "y_pred", "y_hat"}
_OUTPUTS |= {"logits", "score", "scores", "prob", "probs", "y_score", "y_prob", "y_proba"}


def first_two(function: Any) -> tuple[str, str]:
    """The names of the first two parameters of a function; empty where there are none to read."""
    try:
        first, second, *_ = [*inspect.signature(function).parameters, "", ""]
    except (TypeError, ValueError):  # Not callable, or written in C.
        return "", ""
    return first, second


def label_first(first: str, second: str) -> bool:
    """Whether two parameters are the label and then the output, as in scikit-learn and Keras.

    >>> label_first("y_true", "y_pred"), label_first("output", "label"), label_first("x", "y")
    (True, False, False)
    """
    return (first in _LABELS or second in _OUTPUTS) and not (first in _OUTPUTS or second in _LABELS)
