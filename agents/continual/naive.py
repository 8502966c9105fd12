"""Fine-tuning: the lower bound."""

from __future__ import annotations

from .strategy import Strategy


class Naive(Strategy):
    """Learn each task in turn, with nothing to prevent forgetting."""
