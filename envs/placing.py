"""Decides where a data set's rows are kept: in host memory, or on the training device."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ..replay import ConfigError, Spec, Table
from ..replay.devices import has_float64
from ..replay.spec import is_ragged

# Share of a device's free memory that a data set may take: the model needs room for its activations.
_SHARE = 0.5


def place_tables(
    tables: Sequence[Table], spec: Spec, device: torch.device, wanted: str, *, name: str
) -> str | None:
    """Move a data set's rows to the device, if they are wanted there and fit.

    Args:
        wanted: "device", "ram", or "auto": on the device if their bytes are less than half of those free,
            and they are not sequences of different lengths.
        name: What errors call the data set.

    Returns:
        A remark on where they are and why; None on the CPU.

    Raises:
        ConfigError: If they are wanted on the device and do not fit, or it cannot hold the targets.
    """
    if device.type == "cpu":
        return None
    if spec.action.dtype == torch.float64 and not has_float64(device.type):
        raise ConfigError(
            f"The targets of {name} are so far from zero that float32 cannot tell them "
            f"apart, and {device} has no float64. Subtract their mean in your data, or set "
            "device=cpu."
        )
    if wanted == "ram":
        return "in RAM"
    if wanted == "auto" and is_ragged(spec.obs):
        # On a device the host would wait for the longest of each batch.
        return "in RAM, where batches are padded"
    if not all(table.in_memory for table in tables):
        if wanted == "device":
            raise ConfigError(
                f"data=device: the rows of {name} are decoded as they are read, and cannot be kept on "
                f"{device}. Leave data= out."
            )
        return "decoded as they are read"
    size, free = sum(table.nbytes for table in tables), free_bytes(device)
    if wanted == "auto" and free is not None and size > _SHARE * free:
        return f"{_in_words(size)} in RAM, since {device} has {_in_words(free)} free"
    try:
        for table in tables:
            table.to(device)
    except RuntimeError as error:
        # By its text, since not all devices raise torch.OutOfMemoryError.
        if "out of memory" not in str(error).lower():
            raise
        if wanted == "device":
            raise ConfigError(
                f"data=device: {_in_words(size)} of {name} do not fit on {device}. Leave data= out: "
                "what does not fit stays in RAM."
            ) from error
        # Back as a whole: batches are gathered on one device.
        for table in tables:
            table.to(torch.device("cpu"))
        return f"{_in_words(size)} in RAM, since {device} ran out of memory"
    return f"{_in_words(size)} on {device}"


def free_bytes(device: torch.device) -> int | None:
    """Free memory of a device, in bytes; None if it cannot tell."""
    module = torch.get_device_module(device)
    if device.type == "mps":
        return int(module.recommended_max_memory() - module.driver_allocated_memory())
    if not hasattr(module, "mem_get_info"):
        return None
    free, _ = module.mem_get_info(device)
    return int(free)


def _in_words(nbytes: float) -> str:
    for unit in ("bytes", "kB", "MB"):
        if nbytes < 1000:
            return f"{nbytes:.3g} {unit}"
        nbytes /= 1000
    return f"{nbytes:.3g} GB"
