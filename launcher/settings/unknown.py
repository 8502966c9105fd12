"""What to say about a setting that does not exist."""

from __future__ import annotations

from ...agents.continual import NAMES as STRATEGIES
from ...replay.suggestions import did_you_mean, nearest
from .foreign import answer
from .schema import ALIASES, schema

OF_SWEEPS = (
    *("engine", "jobs", "search", "trials", "prune", "maximize", "minimize", "search_tasks"),
    "slurm",
)
"""Words of `ml -m`, which are not settings of a run."""


def unknown_setting(key: str) -> str:
    known = schema()
    root, _, rest = key.partition(".")
    if root in OF_SWEEPS:
        return f"`{key}` is a word of sweeps: add -m, as in `ml -m seed=0,1 {key}=...`."
    if not rest and (foreign := answer(key)):
        return foreign
    if root in known or not rest:
        names = [*known, *ALIASES, "task"]
        if root in known and rest:
            return f"`{root}` has no sub-keys: got `{key}`."
        by_last = {name.split(".")[-1]: name for name in names}
        below = [name for name in known if name.startswith(f"{key}.")]
        if below:
            return f"Unknown setting `{key}`. Did you mean {' or '.join(f'`{n}`' for n in below)}?"
        if (whole := by_last.get(key)) is not None:
            return f"Unknown setting `{key}`. Did you mean `{whole}`? `ml --help` lists them all."
        if not (near := did_you_mean(key, names)) and (close := nearest(key, by_last, count=1)):
            near = f" Did you mean `{by_last[close[0]]}`?"
        return f"Unknown setting `{key}`.{near} `ml --help` lists them all."
    below = [name for name in known if name.startswith(f"{root}.")]
    if below:
        return f"Unknown setting `{key}`. There are: {', '.join(below)}."
    if root in STRATEGIES["strategy"]:
        return f"Unknown setting `{key}`. Did you mean `strategy.{key}`?"
    near, foreign = did_you_mean(root, known), answer(root)
    if foreign:
        # The nearest name may look alike and be something else: `class_order` for `class_weight`.
        alike = any(f" {name}=" in foreign for name in nearest(root, known, count=1))
        near = f"{near} {foreign}" if alike else f" {foreign}"
    return f"Unknown setting `{root}` in `{key}`.{near} `ml --help` lists them all."
