"""What `record/checkpoint.py` was called in 0.4.0: scripts that look into checkpoints import this."""

from .record.checkpoint import _FILES, FORMAT, Checkpoints, find, read

__all__ = ["FORMAT", "_FILES", "Checkpoints", "find", "read"]
