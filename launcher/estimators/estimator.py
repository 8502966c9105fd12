"""What the classifier and the regressor share: their parameters, and training by `ml`."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from torch import nn

from ...replay import ConfigError
from ..open_run import OpenRun
from ..plainly import plainly
from ..settings.compose import compose
from .fitted import Fitted
from .sklearn import BaseEstimator, check_is_fitted, check_random_state, validate_data

_NEVER = 10**9  # Steps between evaluations: the one at the end is enough.
# Decided by `fit`, or parameters by themselves, and therefore not in `settings`.
_NOT_SETTINGS = {
    **dict.fromkeys(("dataset", "test_dataset", "env"), "fit(X, y) gives the data"),
    **dict.fromkeys(("resume", "load", "tasks"), "fit always starts over, on all of X"),
    "seed": "use random_state",
    "progress": "use verbose",
    **dict.fromkeys(
        ("model", "agent", "epochs", "batch_size", "lr", "optim", "device", "path"),
        "it is a parameter of its own",
    ),
}


class Estimator(BaseEstimator):
    """Trains a module on all of `X` and `y`.

    Args:
        model: A class of modules, a name, a function, or a module, which is copied; None: the default
            agent. Parameters such as `in_features` and `num_classes` are filled in as by `ml`.
        epochs: Passes over the data.
        batch_size: Rows per update.
        lr: Learning rate; None: the optimiser's own.
        optim: Optimiser, as for `ml`; None: AdamW.
        device: Where to train; None: a GPU that works, else the CPU.
        random_state: int, numpy `RandomState` or None, as in scikit-learn. The same int gives the same model.
        verbose: Whether to show a progress bar.
        path: A run directory to keep; None: a temporary one, removed when `fit` returns.
        settings: Other settings of `ml --help`, by dotted name: `{"model.hidden": 64, "weight_decay": 0.1}`.

    Attributes:
        module_: The trained module, in evaluation mode.
        history_: The rows of train.csv and eval.csv; evaluations are on the training data, unless
            `validation` is set.
        n_features_in_: Number of columns of X.
        feature_names_in_: Their names, if X had any.
    """

    def __init__(
        self,
        model: Any = None,
        *,
        epochs: int = 10,
        batch_size: int = 32,
        lr: float | None = None,
        optim: Any = None,
        device: str | None = None,
        random_state: int | np.random.RandomState | None = None,
        verbose: bool = False,
        path: str | Path | None = None,
        settings: Mapping[str, Any] | None = None,
    ):
        self.model = model
        self.epochs = epochs
        self.batch_size = batch_size
        self.lr = lr
        self.optim = optim
        self.device = device
        self.random_state = random_state
        self.verbose = verbose
        self.path = path
        self.settings = settings

    @property
    def module_(self) -> nn.Module:
        """The trained module."""
        check_is_fitted(self)
        module: nn.Module = self._fitted.module
        return module

    def __sklearn_is_fitted__(self) -> bool:
        return "_fitted" in vars(self)

    def _check(self, X: Any, y: Any = "no_validation", *, reset: bool) -> Any:
        """X, and y where it is given, as arrays that scikit-learn's rules allow.

        Whole numbers and truth values in a table are numbers, so they become float64. They stay as they are
        in images, and if `settings` has `standardize=False`, which makes ids of them.
        """
        ids = dict(self.settings or {}).get("standardize") is False
        kept = np.asarray(X).ndim > 2 or ids
        dtype: Any = "numeric" if kept else [np.float64, np.float32]
        options: dict[str, Any] = {"dtype": dtype, "allow_nd": True, "reset": reset}
        if reset:
            options["ensure_min_samples"] = 2
        return validate_data(self, X, y, **options, **self._of_targets(reset))

    def _of_targets(self, reset: bool) -> dict[str, Any]:
        """Options of `validate_data` about y."""
        return {}

    def _train(
        self, X: np.ndarray, y: np.ndarray, defaults: Mapping[str, Any] = MappingProxyType({})
    ) -> None:
        """Train on checked data.

        Args:
            defaults: Settings that hold where `settings` does not say otherwise.

        Raises:
            ConfigError: For invalid parameters, before any training.
        """
        given = {**defaults, **self._given()}
        with tempfile.TemporaryDirectory(prefix="antelope-") as folder:
            path = Path(folder) / "run" if self.path is None else self.path
            settings = compose(
                (), {**given, "dataset": (X, y), "test_dataset": (X, y), "path": path}
            )

            def work() -> tuple[Fitted, list[dict[str, Any]]]:
                opened = OpenRun.build(settings)
                try:
                    opened.learn()
                    history = list(opened.finish().history)
                    with opened.exporting() as trained:
                        return Fitted.of(trained), history
                finally:
                    opened.close()

            self._fitted, self.history_ = plainly(settings, work)

    def _given(self) -> dict[str, Any]:
        """The settings of the run, but for its data and directory.

        Raises:
            ConfigError: With every name in `settings` that does not belong there.
        """
        others = dict(self.settings or {})
        wrong = [
            f"settings[{key!r}]: {_NOT_SETTINGS[key]}." for key in others if key in _NOT_SETTINGS
        ]
        if wrong:
            raise ConfigError("\n".join(wrong))
        model = copy.deepcopy(self.model) if isinstance(self.model, nn.Module) else self.model
        own = {
            "model": model,
            "epochs": self.epochs,
            "batch_size": self.batch_size,
            "lr": self.lr,
            "optim": self.optim,
            "device": self.device,
        }
        given = {key: value for key, value in own.items() if value is not None}
        given |= {"seed": int(check_random_state(self.random_state).randint(2**31 - 1))}
        given |= {"progress": self.verbose, "plot": False}
        if self.path is None:
            given["loggers"] = []
        if not any(key.startswith(("early_stopping", "eval_every")) for key in others):
            given["eval_every"] = _NEVER
        return {**given, **others}
