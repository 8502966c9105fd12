"""`ml compat FILE`: names that a Mammoth model file uses and that are not available, without running it."""

from .command import Finding, check, compat

__all__ = ["Finding", "check", "compat"]
