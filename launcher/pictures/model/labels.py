"""Short labels for a module and its hyperparameters."""

from __future__ import annotations

import re

from torch import nn

_LONGEST = 50  # Characters of hyperparameters.
# Defaults that every reader expects, and that would only take up room.
_DEFAULTS = {
    *("bias=True", "stride=1", "padding=0", "dilation=1", "groups=1", "eps=1e-05", "momentum=0.1"),
    *("affine=True", "track_running_stats=True", "elementwise_affine=True", "inplace=False"),
    *("inplace=True", "ceil_mode=False", "output_padding=0", "padding_mode=zeros", "start_dim=1"),
    *("end_dim=-1", "dtype=None", "device=None"),
}

# Of modules with parts of their own, what says more than how they were built.
_TELLING = ("embed_dim", "d_model", "hidden_dim", "num_heads", "num_layers", "stride")
# Whatever has one of these goes from its first number to its second.
_MAPPING = ("in_features", "in_channels", "input_size", "num_embeddings")


def hyperparameters(module: nn.Module) -> str:
    """The settings of a module that are not the default, shortened: `3 → 64, kernel 7x7, stride 2`.

    From its `extra_repr`; of a module without one, its first numbers and words.
    """
    try:
        text = module.extra_repr()
    except Exception:  # A user's `extra_repr` may raise anything, and must not cost the picture.
        text = ""
    parts = [_short(part) for part in _split(text.replace("\n", " "))]
    if not parts:
        said = [
            f"{name}={value:g}" if isinstance(value, float) else f"{name}={value}"
            for name, value in vars(module).items()
            if type(value) in (int, float, str)
            and not name.startswith("_")
            and (name in _TELLING or not any(True for _ in module.children()))
        ]
        parts = [_short(part) for part in said[:3]]
    parts = [part for part in parts if part not in _DEFAULTS]
    named = {part.split("=")[0]: part.split("=")[-1] for part in parts if "=" in part}
    for first, second in (("in_features", "out_features"), ("in_channels", "out_channels")):
        if first in named and second in named:
            parts = [part for part in parts if part.split("=")[0] not in (first, second)]
            parts.insert(0, f"{named[first]} → {named[second]}")
    maps = any(hasattr(module, name) for name in _MAPPING)
    if maps and len(parts) > 1 and parts[0].isdigit() and parts[1].isdigit():
        parts[:2] = [f"{parts[0]} → {parts[1]}"]
    words = [part.replace("kernel_size=", "kernel ").replace("=", " ") for part in parts]
    return cut(", ".join(words).replace("_", " "), _LONGEST)


def cut(text: str, longest: int) -> str:
    """Without the end that has no room."""
    return text if len(text) <= longest else f"{text[: longest - 1].rstrip(' ,')}…"


def cut_path(path: str, longest: int) -> str:
    """Without the middle that has no room: both ends of a dotted path tell it from others."""
    if len(path) <= longest:
        return path
    return f"{path[: longest // 3]}…{path[-(longest - longest // 3 - 1) :]}"


def percent(share: float) -> str:
    """One decimal: `12.5%`."""
    return "<0.1%" if 0 < share < 0.0005 else f"{share:.1%}"


def _split(text: str) -> list[str]:
    """At the commas that are in no brackets."""
    return [part.strip() for part in re.split(r",(?![^(\[]*[)\]])", text) if part.strip()]


def _short(part: str) -> str:
    """`kernel_size=(3, 3)` as `kernel_size=3x3`, `stride=(2, 2)` as `stride=2`."""
    name, _, value = part.rpartition("=")
    value = value.strip("'\"")
    numbers = re.findall(r"[^\s,()\[\]]+", value) if value[:1] in "([" else []
    if numbers:
        same = len(set(numbers)) == 1 and name != "kernel_size"
        value = numbers[0] if same else "x".join(numbers)
    if value == "True" and f"{name}=True" not in _DEFAULTS:
        return name
    if value == "False" and f"{name}=False" not in _DEFAULTS:
        return f"no {name}"
    return f"{name}={value}" if name else value
