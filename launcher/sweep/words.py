"""The words of `ml -m ...`: which are for the sweep itself, and which runs the others ask for.

Values are expanded by Hydra's grammar: `lr=1e-3,1e-2`, `seed=range(5)`, `optim=choice(SGD,Adam)`,
`task=glob(classify/*)`.
"""

from __future__ import annotations

import itertools
import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from ...replay.errors import ConfigError
from ...replay.suggestions import did_you_mean
from ..settings.plain_words import plain_word
from ..settings.presets import of_the_user, presets
from ..settings.unknown import OF_SWEEPS
from ..settings.words import swept_values

FLAGS = ("-m", "--multirun")
ENGINES = ("here", "local", "ray", "slurm")
MOST_RUNS = 100_000
"""More are refused: all runs of a grid are checked before the first one starts."""
_OTHERS = {
    **dict.fromkeys(("n_jobs", "num_jobs", "parallel", "processes", "num_workers", "j"), "jobs=4"),
    **dict.fromkeys(("n_trials", "num_trials", "num_samples", "max_trials"), "trials=50"),
    **dict.fromkeys(("sampler", "sweeper", "algorithm"), "search=tpe"),
    **dict.fromkeys(("launcher", "backend", "executor", "scheduler_engine"), "engine=local"),
    **dict.fromkeys(("pruner", "pruning"), "prune=true"),
    **dict.fromkeys(("direction", "objective", "goal", "maximise"), "maximize=accuracy"),
    "minimise": "minimize=loss",
    **{f"slurm_{word}": f"slurm.{word}=..." for word in ("partition", "time", "account", "qos")},
}
_OF_HYDRA = {
    "launcher": "jobs=4 or engine=ray",
    "sweeper": "search=tpe",
    "sweep": "experiment=NAME",
}


@dataclass
class Words:
    """The words of a sweep.

    Attributes:
        options: What concerns the sweep itself: `{"jobs": "4", "slurm.partition": "gpu"}`.
        words: All others, as typed.
    """

    options: dict[str, str] = field(default_factory=dict)
    words: list[str] = field(default_factory=list)

    @property
    def jobs(self) -> int | None:
        """How many runs may go on at once; None: the engine decides."""
        return int(self.options["jobs"]) if "jobs" in self.options else None

    @property
    def engine(self) -> str:
        """Where the runs are to be."""
        return self.options.get("engine") or ("local" if (self.jobs or 1) > 1 else "here")

    def chosen(self, prefix: str) -> dict[str, str]:
        """The options of one engine: `{"partition": "gpu"}` for `slurm.`."""
        return {k.removeprefix(prefix): v for k, v in self.options.items() if k.startswith(prefix)}


@dataclass(frozen=True)
class Combination:
    """The words of one run, and those of them that differ between the runs: `{"lr": "0.001"}`."""

    words: tuple[str, ...]
    swept: dict[str, str]


def asks_for_sweep(words: Iterable[str]) -> bool:
    """Whether the console words hold `-m`, wherever it stands."""
    return any(word in FLAGS for word in words)


def read_words(words: Sequence[str]) -> Words:
    """Tell the words of the sweep itself from those of its runs.

    Raises:
        ConfigError: With every mistake in the former.
    """
    read, mistakes = Words(), list[str]()
    for word in words:
        if word in FLAGS:
            continue
        name, equals, value = word.lstrip("+").partition("=")
        if name.partition(".")[0] in OF_SWEEPS and equals:
            value = value[1:-1] if re.fullmatch(r"'.*'|\".*\"", value) else value
            if read.options.get(name, value) != value:
                mistakes.append(f"`{name}` is given twice: {read.options[name]} and {value}.")
            if not value:
                mistakes.append(f"`{word}` has no value.")
            read.options[name] = value
        elif (mistake := _mistaken(word, name)) is not None:
            mistakes.append(mistake)
        else:
            read.words.append(word)
    mistakes += _wrong(read.options)
    if mistakes:
        raise ConfigError("\n".join(mistakes))
    return read


def _mistaken(word: str, name: str) -> str | None:
    """What a word of another tool, or one that is spelt as an option, is here; else None."""
    dashed = re.match(r"-+([\w-]+)", word)
    name = dashed[1].replace("-", "_") if dashed else name
    if name in OF_SWEEPS:
        return f"`{word}`: write {name}=VALUE."
    if name.startswith(("hydra.", "hydra/")):
        here = next((h for part, h in _OF_HYDRA.items() if name[6:].startswith(part)), None)
        instead = f" Write {here} instead." if here else ""
        return f"`{word}`: sweeps do not use Hydra's launchers and sweepers.{instead}"
    if (here := _OTHERS.get(name)) is not None:
        return f"`{word}`: in a sweep, write {here}."
    return None


def _wrong(options: dict[str, str]) -> Iterator[str]:
    for name in ("jobs", "trials", "search_tasks"):
        if name in options and not re.fullmatch(r"[1-9]\d*", options[name]):
            yield f"`{name}={options[name]}`: expected a number of at least 1."
    engine = options.get("engine")
    if engine is not None and engine not in ENGINES:
        yield f"engine={engine}: there are {', '.join(ENGINES)}.{did_you_mean(engine, ENGINES)}"
    if engine == "here" and options.get("jobs", "1") != "1":
        yield (
            f"engine=here runs one after another, so jobs={options['jobs']} contradicts it. Write "
            "engine=local."
        )
    if options.get("prune", "true").lower() not in ("true", "false"):
        yield f"`prune={options['prune']}`: expected true or false."
    for word in ("trials", "prune", "maximize", "minimize", "search_tasks"):
        if word in options and "search" not in options:
            yield f"`{word}={options[word]}` belongs to a search: add search=tpe, random or asha."
    of_slurm = [name for name in options if name.startswith("slurm.")]
    if of_slurm and options.get("engine") != "slurm":
        yield f"`{of_slurm[0]}={options[of_slurm[0]]}` belongs to Slurm: add engine=slurm."
    for name in options:
        root = name.partition(".")[0]
        if (root == "slurm") != (name != root):
            yield (
                f"`{name}={options[name]}`: options of Slurm are slurm.partition=..., all others have no "
                "sub-keys."
            )


def combinations(words: Sequence[str]) -> list[Combination]:
    """Every combination of the values that words list, in the order in which they are typed.

    Raises:
        ConfigError: With every mistake in the lists. What the runs then make of their words is not checked.
    """
    mistakes: list[str] = []
    lists = [listed(word, mistakes) for word in words]
    if mistakes:
        raise ConfigError("\n".join(mistakes))
    check_count(math.prod(len(values or [""]) for values in lists))
    keys = [word.partition("=")[0] for word in words]
    found = []
    choices: list[list[str | None]] = [[*values] if values else [None] for values in lists]
    for choice in itertools.product(*choices):
        chosen = list(zip(words, keys, choice, strict=True))
        found.append(
            Combination(
                tuple(word if v is None else f"{key}={v}" for word, key, v in chosen),
                {key.lstrip("+"): v for _, key, v in chosen if v is not None},
            )
        )
    return found


def check_count(count: int) -> None:
    """Refuse more runs than anybody means.

    Raises:
        ConfigError: With their number.
    """
    if count > MOST_RUNS:
        raise ConfigError(
            f"That is {count:,} runs, more than the {MOST_RUNS:,} that a sweep may have."
        )


def listed(word: str, mistakes: list[str]) -> list[str] | None:
    """The values that a word lists, as text; None: it has one, or none, as for a run on its own."""
    key = word.partition("=")[0]
    try:
        values = swept_values(word, _names_for(key), most=MOST_RUNS)
    except ConfigError as error:
        mistakes.append(str(error))
        return None
    if values and (twice := [v for v, n in Counter(map(_number, values)).items() if n > 1]):
        mistakes.append(f"`{word}` lists {twice[0]} twice.")
    elif values == []:
        mistakes.append(f"`{word}` lists no values.")
    return values


def _number(value: str) -> str | float:
    """A number, which `16.0` and `16` both are; any other value as it is."""
    _, read = plain_word(f"x={value}") or ("", value)
    return value if isinstance(read, (bool, str)) or read is None else read


def _names_for(key: str) -> list[str]:
    """What `glob(...)` chooses from: only presets are known by name alone."""
    return [*presets(), *of_the_user()] if key.lstrip("+") == "task" else []
