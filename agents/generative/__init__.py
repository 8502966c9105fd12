"""Models that learn to generate a data set's inputs, one per file: `learn(replay)`, `sample(n, label)`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...replay.lazy import lazily

if TYPE_CHECKING:
    from .dcgan import DCGAN
    from .flow_matching import FlowMatching
    from .vae import VAE

_HOME = {"DCGAN": "dcgan", "FlowMatching": "flow_matching", "VAE": "vae"}

__all__ = ["DCGAN", "VAE", "FlowMatching"]


__getattr__ = lazily(__name__, _HOME)
