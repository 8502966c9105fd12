"""`callbacks=`: the user's objects, called with the live run while it learns."""

from __future__ import annotations

import contextlib
import inspect
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from typing import Any

from ...agents.traits import hook
from ...replay import CheckpointError, ConfigError, Spec
from ...replay.ranks import ranks
from ..assembly.infer import inferred
from ..record.packing import copied
from ..settings.named import Named
from ..settings.object_names import class_name
from .hooks import distance, mistaken_methods

HOOKS = ("on_begin", "on_step", "on_evaluation", "on_task", "on_end")
STOP = "stop"

# Callbacks of Keras, Lightning, Transformers and others, and the nearest place here.
_ELSEWHERE = [
    (r"on_.*(val|validation|test|eval|evaluate|predict|sanity_check)(_.*)?", "on_evaluation"),
    (r"on_.*(batch|step|iteration|substep|backward|zero_grad|rollout)(_.*)?", "on_step"),
    (r"on_.*epoch(_.*)?", "on_evaluation"),
    (r"on_.*(experience|exp|task)(_.*)?", "on_task"),
    (r"on_(train|training|fit|init|setup|run)?_?(begin|start|init|setup)(_.*)?", "on_begin"),
    (r"on_(train|training|fit|run|exception)?_?(end|stop|finish|teardown)?(_.*)?", "on_end"),
]
_AVALANCHE = [
    (r"(before|after)_(training|train)", "on_begin"),
    (r"(before|after)_.*(exp|experience|task)", "on_task"),
    (r"(before|after)_.*eval.*", "on_evaluation"),
    (r"(before|after)_.*(iteration|forward|backward|update|epoch|batch)", "on_step"),
]

_also: ContextVar[Mapping[str, object] | None] = ContextVar("_also", default=None)


class Stop(str):
    """The answer "stop" of our own objects, with a reason in place of the name of a method."""

    reason: str

    def __new__(cls, reason: str) -> Stop:
        """The answer with its reason, which completes `Stopped by ...`."""
        made = super().__new__(cls, STOP)
        made.reason = reason
        return made


@contextlib.contextmanager
def also_called(owners: Mapping[str, object]) -> Iterator[None]:
    """Runs that are built inside the block also call these objects, which no setting names.

    They leave no trace in `config.yaml` or in a checkpoint, so that such a run can be continued without them.

    Args:
        owners: Objects with any of the hooks, and without a state, by name.
    """
    before = _also.set(owners)
    try:
        yield
    finally:
        _also.reset(before)


class Callbacks:
    """Calls the hooks of the user's objects, in the order in which they were given.

    Args:
        named: The objects by name.

    Attributes:
        on_step: Calls every `on_step`; None if there is none, so that other runs do not pay for it.
        stopping: Which hook returned `"stop"`, as `Mine.on_step`, or another reason; None: none has.
    """

    def __init__(self, named: Mapping[str, object]):
        self.named = dict(named)
        self._hooks = {
            name: [(f"{who}.{name}", method) for who, owner in self.named.items()
                   if (method := hook(owner, name)) is not None]
            for name in HOOKS
        }  # fmt: skip
        self.on_step: Callable[[], None] | None = self._step if self._hooks["on_step"] else None
        self.stopping: str | None = None
        self._run: Any = None

    @property
    def begins(self) -> bool:
        """Whether there is an `on_begin`, which may write into the run directory."""
        return bool(self._hooks["on_begin"])

    def begin(self, run: object) -> None:
        """Call every `on_begin`, unless the run has begun and not ended yet.

        Args:
            run: The live run, which all hooks receive.
        """
        if self._run is None:
            self._run, self.stopping = run, None
            self._call("on_begin")

    def evaluated(self, row: Mapping[str, object]) -> None:
        """Call every `on_evaluation`, unless the row of eval.csv is empty: nothing was evaluated."""
        if row:
            self._call("on_evaluation")

    def task_ended(self) -> None:
        """Call every `on_task`: a task is learnt and scored."""
        self._call("on_task")

    def ended(self) -> None:
        """Call every `on_end`, unless the run has not begun. It may begin again, with a later task."""
        if self._run is not None:
            self._call("on_end")
            self._run = None

    def _step(self) -> None:
        self._call("on_step")

    def _call(self, name: str) -> None:
        self._call_here(name)
        place = ranks()
        # One that stops a run on any rank stops it on all of them.
        if place.several and self._hooks[name] and place.any(name, self.stopping is not None):
            self.stopping = next(who for who in place.objects(self.stopping) if who is not None)

    def _call_here(self, name: str) -> None:
        for who, method in self._hooks[name]:
            try:
                returned = method(self._run)
            except Exception as error:
                error.add_note(f"In {who} at step {self._run.step}.")
                raise
            if returned is None:
                continue
            if not isinstance(returned, str) or returned != STOP:
                raise ConfigError(
                    f'{who} returned {returned!r:.40}. Return "{STOP}" to end the run, or nothing.'
                )
            if self.stopping is None:
                self.stopping = returned.reason if isinstance(returned, Stop) else who

    def state_dict(self) -> dict[str, Any]:
        """The state of each callback that has a `state_dict`, by its name.

        Raises:
            CheckpointError: If one holds what a checkpoint cannot.
        """
        states = {}
        for name, owner in self.named.items():
            if (state := hook(owner, "state_dict")) is not None:
                states[name] = _checked(name, state())
        return states

    def load_state_dict(self, states: Mapping[str, Any]) -> None:
        """Restore each callback that has a state in the checkpoint.

        Raises:
            CheckpointError: If a callback refuses its state.
        """
        for name, owner in self.named.items():
            load = hook(owner, "load_state_dict")
            if load is None or name not in states:
                continue
            try:
                load(states[name])
            except Exception as error:
                raise CheckpointError(
                    f"callbacks={name}: load_state_dict raised {type(error).__name__}: {error}"
                ) from error


def _checked(name: str, state: object) -> object:
    try:
        return copied({"state": state})["state"]
    except CheckpointError as error:
        raise CheckpointError(
            f"callbacks={name}: state_dict() returned what a checkpoint cannot hold: {error}"
        ) from error


def build_callbacks(given: Sequence[Named], spec: Spec, device: Any) -> Callbacks:
    """Construct what a plan names.

    Args:
        device: The run's device, for constructors that ask for it.

    Raises:
        ConfigError: With everything that is not a callback, or has a method that only looks like a hook.
    """
    named: dict[str, object] = {}
    mistakes: list[str] = []
    table = inferred(spec, device=device)
    for item in given:
        try:
            name, made = _built(item, table)
        except ConfigError as error:
            mistakes.append(str(error))
            continue
        count = sum(known.partition("#")[0] == name for known in named)
        named[f"{name}#{count + 1}" if count else name] = made  # Checkpoints hold states by name.
        mistakes += _mistaken(name, made)
    if mistakes:
        raise ConfigError("\n".join(dict.fromkeys(mistakes)))
    return Callbacks({**named, **(_also.get() or {})})


def _built(given: Named, table: Mapping[str, Any]) -> tuple[str, object]:
    target = given.target
    if inspect.isroutine(target):
        name = class_name(target)
        raise ConfigError(
            f"callbacks={name} is a function. When should it be called? Write a class with, for example, "
            f"on_step(self, run), which calls {name}."
        )
    if given.constructs:
        made = given.build(table)
    elif given.arguments:
        raise ConfigError(
            f"callbacks={type(target).__name__} is already constructed, so "
            f"`{next(iter(given.arguments))}` cannot be set."
        )
    else:
        made = target
    return type(made).__name__, made


def _mistaken(name: str, made: object) -> Iterable[str]:
    """Messages on methods that look like hooks and are none, and on hooks that cannot be called."""
    of_library = _library_of(made)
    if of_library is not None:
        yield (
            f"callbacks={name} is a callback of {of_library}, whose methods receive other arguments. Write a "
            f"class with any of {', '.join(HOOKS)}, each called with the run."
        )
        return
    has = [method for method in HOOKS if hook(made, method) is not None]
    mistaken = dict(mistaken_methods(made, HOOKS, _meant))
    for method, meant in mistaken.items():
        yield f"callbacks={name} has a method `{method}`, which is never called. {meant}"
    if not has and not mistaken:
        yield f"callbacks={name} has none of the methods {', '.join(HOOKS)}."
    for method in has:
        yield from _not_callable(name, method, hook(made, method))
    loads, saves = (hook(made, part) is not None for part in ("load_state_dict", "state_dict"))
    if saves != loads:
        missing, other = (
            ("load_state_dict", "state_dict") if saves else ("state_dict", "load_state_dict")
        )
        yield f"callbacks={name} has `{other}` and no `{missing}`. Write both, or neither."


def _meant(method: str) -> str | None:
    """What to write instead of a method that looks like a hook; None if it does not look like one."""
    if not method.startswith(("on_", "before_", "after_")):
        return None
    others = _ELSEWHERE if method.startswith("on_") else _AVALANCHE
    ours = next((ours for pattern, ours in others if re.fullmatch(pattern, method)), None)
    near = [known for known in HOOKS if distance(method, known) <= (3 if len(known) > 8 else 1)]
    # `on_stop` is one letter from `on_step`, and means the end.
    if near and ours in (None, near[0]):
        return f"Did you mean `{near[0]}(self, run)`?"
    if ours is not None:
        more = ", by default once an epoch; run.epoch counts them" if "epoch" in method else ""
        return f"The nearest here is `{ours}(self, run)`{more}."
    return f"Hooks are {', '.join(HOOKS)}." if method.startswith("on_") else None


def _not_callable(name: str, method: str, found: Any) -> Iterable[str]:
    if inspect.iscoroutinefunction(found) or inspect.isgeneratorfunction(found):
        yield f"callbacks={name}: {method} is not a plain method: calling it would run nothing."
        return
    try:
        signature = inspect.signature(found)
        signature.bind(None)
    except ValueError:  # Written in C.
        return
    except TypeError as error:
        yield (
            f"callbacks={name}: {method}{signature} cannot be called ({error}). Write {method}(self, run)."
        )


def _library_of(made: object) -> str | None:
    """The library whose callback an object is, if it derives from one."""
    libraries = {
        "keras": "Keras",
        "tensorflow": "Keras",
        "lightning": "Lightning",
        "pytorch_lightning": "Lightning",
        "transformers": "Transformers",
        "skorch": "skorch",
        "stable_baselines3": "Stable-Baselines3",
        "avalanche": "Avalanche",
    }
    homes = (kind.__module__.partition(".")[0] for kind in type(made).__mro__)
    return next((libraries[home] for home in homes if home in libraries), None)
