"""Names in `override=[...]`: what a resumed run may learn from although its checkpoint did not."""

from __future__ import annotations

from collections.abc import Sequence

from ...replay.suggestions import did_you_mean, nearest
from .schema import ALIASES, schema

BESIDE = ("data", "csv")
"""Names that are no settings, or mean more than the setting: the data itself, and rows of the CSV files."""


def check_override(names: Sequence[str] | None, mistakes: list[str]) -> list[str] | None:
    """The names, with aliases replaced.

    Args:
        mistakes: Receives a message for each name that is unknown, or that nothing can override.
    """
    if names is None:
        return None
    known = schema()
    found = []
    for name in names:
        root, _, rest = name.partition(".")
        root = ALIASES.get(root, root)
        key = f"{root}.{rest}" if rest else root
        found.append(key)
        if key in BESIDE:
            continue
        setting = known.get(key) or known.get(root)
        group = [other for other in known if other.startswith(f"{key}.")]
        if (setting is None and not group) or (rest and key not in known and not _takes(root)):
            near = did_you_mean(name, [*known, *ALIASES, *BESIDE])
            if rest and not near and (roots := nearest(root, known, count=1)):
                near = f" Did you mean `{roots[0]}.{rest}`?"
            mistakes.append(f"override={name}: there is no such setting.{near}")
        elif setting is not None and setting.counts & {"sequence", "kept"}:
            mistakes.append(
                f"override={name}: `{setting.key}` cannot change when a run is resumed. Set another path "
                "or experiment for a new run."
            )
    return found


def _takes(root: str) -> bool:
    """Whether a setting has arguments, which cannot be known here."""
    setting = schema().get(root)
    return setting is not None and setting.names_object
