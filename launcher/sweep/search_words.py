"""The words of `-m` that ask for a search: `search=tpe trials=50 maximize=accuracy prune=true`."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from ...replay.suggestions import did_you_mean
from ..metrics import METRICS, better
from ..settings.values import is_true
from .study import VALIDATION

WORDS = ("search", "trials", "prune", "maximize", "minimize", "search_tasks")
SAMPLERS = ("tpe", "random", "asha")
_TRIALS = 20
_ELSEWHERE = {
    **dict.fromkeys(("optuna", "bayes", "bayesian", "bayesopt", "gp", "hyperopt", "skopt"), "tpe"),
    **dict.fromkeys(("hyperband", "bohb", "halving", "successivehalving"), "asha"),
    **dict.fromkeys(("randomsearch", "uniform", "sobol"), "random"),
}
_SHORT = {"acc": "accuracy", "error": "loss", "reward": "return", "score": "accuracy"}


@dataclass(frozen=True)
class Wanted:
    """A search as the user asks for it.

    Attributes:
        sampler: How values are chosen: "tpe" or "random"; "asha": at random, and most trials end early.
        trials: How many.
        metric: Which metric is optimised, as `run.metrics` names it, or with `validation_` in front.
        more: Whether more of it is better.
        prune: Whether a trial ends early if others are better.
        tasks: Tasks of a sequence after which a trial has seen enough; None: all.
    """

    sampler: str
    trials: int
    metric: str
    more: bool
    prune: bool = False
    tasks: int | None = None

    @property
    def pruner(self) -> str:
        """Which of Optuna's pruners is used, as `open_study` names it."""
        return "halving" if self.sampler == "asha" else "median" if self.prune else ""


def read_wanted(
    words: Mapping[str, str], values: Mapping[str, Any], mistakes: list[str]
) -> Wanted | None:
    """What these words of `-m` ask for; None if they hold a mistake.

    Args:
        words: Those of `WORDS` that were given, by key, `search` among them, as `read_words` accepts them.
        values: The settings of any one run, which say what it can be judged by.
        mistakes: What is wrong is added here.
    """
    before = len(mistakes)
    sampler = words["search"]
    if sampler not in SAMPLERS:
        mistakes.append(_unknown_sampler(sampler))
    tasks = int(words["search_tasks"]) if "search_tasks" in words else None
    prune = words.get("prune", "false")
    if sampler == "asha" and "prune" in words and not is_true(prune):
        mistakes.append(
            "search=asha ends trials early, which is what it is. Leave out prune=false."
        )
    metric, more = _metric(words, values, mistakes)
    _check_tasks(tasks, values, mistakes)
    if len(mistakes) > before:
        return None
    trials = int(words.get("trials", _TRIALS))
    return Wanted(sampler, trials, metric, more, is_true(prune), tasks)


def _unknown_sampler(name: str) -> str:
    known = ", ".join(SAMPLERS)
    plain = name.replace("_", "").replace("-", "").lower()
    if plain in ("grid", "gridsearch", "all", "none", "false"):
        return f"search={name}: without search=, every combination is run. Leave it out, and trials= too."
    near = (
        f" Did you mean {_ELSEWHERE[plain]}?"
        if plain in _ELSEWHERE
        else did_you_mean(name, SAMPLERS)
    )
    return f"search={name}: expected one of {known}.{near}"


def _metric(
    words: Mapping[str, str], values: Mapping[str, Any], mistakes: list[str]
) -> tuple[str, bool]:
    """The metric that is optimised, and whether more of it is better."""
    given = {key: words[key] for key in ("maximize", "minimize") if key in words}
    if len(given) == 2:
        mistakes.append(
            "maximize= and minimize= are both given. A search has one aim: leave one out."
        )
    if not given:
        return _usual(values), True
    ((key, name), *_) = given.items()
    more, plain = key == "maximize", name.removeprefix(VALIDATION)
    said = f"{key}={name}"
    names = dict.fromkeys(metric.name for metric in METRICS)
    if values["metrics"] is None and plain not in names:
        short = re.sub(r"^(val|valid|test|eval)[_/]", "", plain)
        near = (
            f" Did you mean `{_SHORT[short]}`?" if short in _SHORT else did_you_mean(short, names)
        )
        mistakes.append(f"{said}: no run has such a metric.{near} Others: {', '.join(names)}.")
    known = better(plain)
    if known is not None and more != (known == "more"):
        other = "minimize" if more else "maximize"
        mistakes.append(f"{said}: {known} of it is better. Write {other}={name}.")
    if name.startswith(VALIDATION) and values["validation"] is None:
        mistakes.append(f"{said} needs rows held out of the training data: validation=0.1, say.")
    subjects = {metric.of for metric in METRICS if metric.name == plain}
    if subjects and (where := _elsewhere(subjects, values)):
        mistakes.append(f"{said}: {plain} is only measured {where}.")
    elif subjects == {"tasks"} and name.startswith(VALIDATION):
        mistakes.append(f"{said}: {plain} is only measured on test rows.")
    return name, more


def _elsewhere(subjects: Collection[str], values: Mapping[str, Any]) -> str:
    """Where a metric of these subjects is measured, if these settings' run is nothing like it; else empty."""
    if subjects == {"tasks"}:
        return "" if _lengths(values) != [] else "in a sequence of tasks: tasks=5, say"
    if subjects == {"episodes"}:
        return "in environments" if values["env"] is None else ""
    return "on data" if values["env"] is not None else ""


def _usual(values: Mapping[str, Any]) -> str:
    """The score of a run, on rows held out of the training data if there are any."""
    if values["env"] is not None:
        return "return"
    name = "task_il_accuracy" if values["scenario"] == "task" else "accuracy"
    return name if values["validation"] is None else f"{VALIDATION}{name}"


def _check_tasks(wanted: int | None, values: Mapping[str, Any], mistakes: list[str]) -> None:
    """Refuse `search_tasks` where there is no sequence, or a shorter one."""
    lengths = _lengths(values)
    if wanted is None or lengths is None:
        return
    if not lengths:
        mistakes.append(f"search_tasks={wanted} needs a sequence of tasks: tasks=5, say.")
    elif wanted > max(lengths):
        mistakes.append(f"search_tasks={wanted}: there are only {max(lengths)} tasks.")


def _lengths(values: Mapping[str, Any]) -> list[int] | None:
    """The numbers of tasks that settings name; empty if there is no sequence, None if they do not tell."""
    if values["classes_per_task"] is not None:
        return None
    several = [values[key] for key in ("dataset", "env") if isinstance(values[key], list)]
    tasks = [] if values["tasks"] is None else [values["tasks"]]
    return [*(len(names) for names in several), *tasks]
