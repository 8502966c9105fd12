"""`ml eval RUN`: the metrics of a run on its held-out rows, or on other data."""

from __future__ import annotations

from typing import Any

from ..settings.compose import compose
from ..settings.import_path import import_nothing_from
from .verb_words import read_words

USAGE = "ml eval RUN [dataset=...] [metrics=[f1,...]] [task=0] [model=...] [trust=true]"
_ASKED = ("dataset", "metrics")  # Settings that say what to measure, not how to load the run.


def eval_command(words: list[str]) -> int:
    """Evaluate a run and print its metrics, a line each; the exit code.

    Raises:
        ConfigError, DataError: For an invalid word, a folder that is not a run, a model that must be named,
            or data that cannot be evaluated.
    """
    said = read_words(words, "ml eval", USAGE, own=("task",))
    task = said.task()
    asked = [word for word in said.settings if word.partition("=")[0].split(".")[0] in _ASKED]
    values = compose(asked, {}).values
    given: dict[str, Any] = {key: values[key] for key in _ASKED}
    if not said.trust:
        import_nothing_from(said.run)
    from .loading import load  # It imports torch, which typos must not wait for.

    others = [word for word in said.settings if word not in asked]
    run = load(said.run, *others, trust=said.trust)
    metrics = run.evaluate(**given, task=task)
    width = max(map(len, metrics), default=0)
    for name, value in metrics.items():
        print(f"{name:<{width}}  {value:.6g}")
    return 0
