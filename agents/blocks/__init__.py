"""Networks and layers that agents are built from. `NAMES` lists those that `model=` can name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...replay.lazy import lazily

if TYPE_CHECKING:
    from .cnn import CNN
    from .ensemble import Ensemble
    from .mlp import MLP
    from .recurrent import Recurrent
    from .residual import ResidualCNN
    from .set_attention import SetAttention
    from .vit import ViT

NAMES = {
    "model": ("MLP", "CNN", "ResidualCNN", "ViT", "Recurrent", "SetAttention", "Ensemble"),
}

_HOME = {
    "MLP": "mlp",
    "CNN": "cnn",
    "ResidualCNN": "residual",
    "ViT": "vit",
    "Recurrent": "recurrent",
    "SetAttention": "set_attention",
    "Ensemble": "ensemble",
}

__all__ = ["CNN", "MLP", "Ensemble", "Recurrent", "ResidualCNN", "SetAttention", "ViT"]


__getattr__ = lazily(__name__, _HOME)
