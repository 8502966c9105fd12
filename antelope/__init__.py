"""Antelope: write one `nn.Module` with one method, `learn(replay, log)`; `ml(...)` does the rest.

The code lives in the folders beside this one (`launcher/`, `replay/`, `envs/`, `agents/`); an
installed copy holds them inside the package. See README.md.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if not (Path(__file__).parent / "launcher").is_dir():
    # A bare checkout: `python run.py` and `pytest` work without installing.
    __path__.append(str(Path(__file__).parent.parent))

from .agents.continual import NAMES as _STRATEGIES
from .launcher.ml import ml
from .replay.errors import CheckpointError, ConfigError, DataError, Diverged, NotSaved, SweepFailed
from .replay.lazy import lazily

if TYPE_CHECKING:
    from .agents.continual import (
        AGEM,
        CWR,
        DER,
        DERPP,
        ER,
        ERACE,
        EWC,
        GEM,
        MAS,
        PNN,
        SI,
        Cumulative,
        EWCOnline,
        GDumb,
        ICaRL,
        Joint,
        LwF,
        Naive,
        PackNet,
        Strategy,
    )
    from .launcher.by_hand.strategies import Strategies
    from .launcher.by_hand.tasks import tasks
    from .launcher.estimators import AntelopeClassifier, AntelopeRegressor
    from .launcher.inference.loading import load
    from .launcher.pictures.table import table
    from .launcher.record.log import Log
    from .launcher.run import Run
    from .launcher.settings.names import register
    from .launcher.sweep.calls import sweep
    from .replay import Batch, Memory, Replay, Space, Spec

__version__ = "0.4.0"

__all__ = [
    "AGEM",
    "CWR",
    "DER",
    "DERPP",
    "ER",
    "ERACE",
    "EWC",
    "GEM",
    "MAS",
    "PNN",
    "SI",
    "AntelopeClassifier",
    "AntelopeRegressor",
    "Batch",
    "CheckpointError",
    "ConfigError",
    "Cumulative",
    "DataError",
    "Diverged",
    "EWCOnline",
    "GDumb",
    "ICaRL",
    "Joint",
    "Log",
    "LwF",
    "Memory",
    "Naive",
    "NotSaved",
    "PackNet",
    "Replay",
    "Run",
    "Space",
    "Spec",
    "Strategies",
    "Strategy",
    "SweepFailed",
    "load",
    "ml",
    "register",
    "sweep",
    "table",
    "tasks",
]

# Imported when first used: `ml --help` and a typo must not pay for torch.
_HOME = {
    "AntelopeClassifier": "launcher.estimators",
    "AntelopeRegressor": "launcher.estimators",
    "Batch": "replay",
    "Log": "launcher.record.log",
    "Memory": "replay",
    "Replay": "replay",
    "Run": "launcher.run",
    "Space": "replay",
    "Spec": "replay",
    "Strategies": "launcher.by_hand.strategies",
    "load": "launcher.inference.loading",
    "register": "launcher.settings.names",
    "sweep": "launcher.sweep.calls",
    "table": "launcher.pictures.table",
    "tasks": "launcher.by_hand.tasks",
}
# A new strategy is offered here too.
_HOME |= dict.fromkeys([*_STRATEGIES["strategy"].values(), "Strategy"], "agents.continual")


__getattr__ = lazily(__name__, _HOME)


def __dir__() -> list[str]:
    """What is offered for completion, before it is imported too."""
    return sorted({*__all__, *_HOME, "__version__"})
