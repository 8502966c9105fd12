"""What to say when a learning step needs more memory than there is."""

from __future__ import annotations

import torch

# What torch says of the host's memory; it has no exception of its own for that.
_SAID = ("can't allocate memory", "not enough memory", "out of memory", "cannot allocate memory")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that the memory of a device, or of the host, is exhausted."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error).lower() for words in _SAID)


def about_memory(error: BaseException, *, batch_size: int, accumulate: int) -> str:
    """What to change, if the memory is exhausted; else nothing.

    Args:
        batch_size: Rows per batch.
        accumulate: Learning steps per update.
    """
    if not is_out_of_memory(error):
        return ""
    begin = f" This step needs more memory than there is, with batch_size={batch_size}."
    if batch_size == 1:
        return f"{begin} It cannot be smaller: use a smaller model, or precision=bf16."
    half = batch_size // 2
    return (
        f"{begin} Try batch_size={half} accumulate={2 * accumulate}, which updates by as many rows, or "
        "batch_size=auto, which finds out what fits."
    )
