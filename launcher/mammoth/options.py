"""Options that a model declares with `get_parser`, given as settings: `model.buffer_size=500`."""

from __future__ import annotations

import inspect
from argparse import SUPPRESS, Action, ArgumentParser, ArgumentTypeError
from collections.abc import Iterable, Mapping
from contextvars import ContextVar
from types import MappingProxyType
from typing import Any

from ...replay.suggestions import did_you_mean
from .methods import class_name

# Mammoth's names of settings of the run, and ours.
OF_THE_RUN = {
    "lr": "lr",
    "batch_size": "batch_size",
    "n_epochs": "epochs",
    "optimizer": "optim",
    "optim_wd": "weight_decay",
    "optim_mom": "optim.momentum",
    "optim_nesterov": "optim.nesterov",
    "seed": "seed",
    "device": "device",
    "base_path": "data_dir",
    "dataset": "dataset",
    "model": "model",
}
# Further values of `args` while `load_runner` constructs a model. A context variable, since they pass through
# the launcher, whose functions have no argument for them.
MORE: ContextVar[Mapping[str, Any]] = ContextVar("more arguments", default=MappingProxyType({}))
# Arguments of the run that a model may override; all others are decided before it is constructed.
_OVER_THE_RUN = ("lr", "optimizer", "optim_wd", "optim_mom", "optim_nesterov")
# Arguments of a constructor that the run passes, so that they are not options.
_GIVEN = ("loss", "args", "transform", *OF_THE_RUN)


def constructor_names(target: type, *, passed_on: bool = True) -> list[str]:
    """The arguments that the constructor of a class accepts by name.

    Args:
        passed_on: Include those that `**kwargs` passes on to its bases.
    """
    names: list[str] = []
    for kind in target.__mro__:
        if kind is object or kind.__module__.startswith("torch."):
            break  # What torch's own classes accept is no option of a model.
        if "__init__" not in vars(kind):
            continue
        parameters = list(inspect.signature(vars(kind)["__init__"]).parameters.values())[1:]
        names += [p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
        if not passed_on or not any(p.kind is p.VAR_KEYWORD for p in parameters):
            break
    return list(dict.fromkeys(names))


def declarations(target: object) -> list[Action]:
    """The options that a class declares."""
    parser = _parser(target)
    return [] if parser is None else [a for a in parser._actions if a.dest != "help"]


def declared(target: object) -> list[str]:
    """The options that a class declares, and the arguments of its constructor."""
    actions = [action.dest for action in declarations(target)]
    names = constructor_names(target) if inspect.isclass(target) else []
    return list(dict.fromkeys([*actions, *(key for key in names if key not in _GIVEN)]))


def defaults(target: object) -> dict[str, Any]:
    """The values that a class sets with `parser.set_defaults(...)`, also of arguments of the run."""
    parser = _parser(target)
    return {} if parser is None else dict(parser._defaults)


class Options:
    """The sub-keys of a model that observes, divided into its constructor's arguments and its options.

    Args:
        target: The class.
        given: Its sub-keys, `model.KEY=...`.

    Attributes:
        constructor: Arguments of the constructor, and `backbone`, which every model receives.
        values: Options that were given, converted to the type that they were declared with.
        defaults: Options that were not given.
        mistakes: A message for each sub-key that is unknown, invalid or missing.
    """

    def __init__(self, target: object, given: Mapping[str, object]):
        name = class_name(target)
        accepted = constructor_names(target) if inspect.isclass(target) else []
        own = {*accepted, "backbone"}
        self.constructor = {key: value for key, value in given.items() if key in own}
        rest = {key: value for key, value in given.items() if key not in own}
        self.values: dict[str, Any] = {}
        self.defaults: dict[str, Any] = {}
        self.mistakes: list[str] = []
        parser = _parser(target)
        actions = {a.dest: a for a in parser._actions if a.dest != "help"} if parser else {}
        if parser is not None:
            self.defaults = dict(parser._defaults) | {
                key: _default(action)
                for key, action in actions.items()
                if key not in parser._defaults and action.default is not SUPPRESS
            }
        for key, value in rest.items():
            if key in OF_THE_RUN and not (key in actions and key in _OVER_THE_RUN):
                self.mistakes.append(
                    f"model.{key}={value}: this is a setting of the run. Pass {OF_THE_RUN[key]}=..."
                )
            elif key in actions:
                try:
                    self.values[key] = _converted(actions[key], value)
                except (TypeError, ValueError, ArgumentTypeError):
                    self.mistakes.append(f"model.{key}={value}: expected {_kind(actions[key])}.")
            elif not actions and "args" in accepted:
                # It declares no options and reads `args` itself, so that any name may be meant.
                self.values[key] = value
            else:
                there = [*actions, *(key for key in accepted if key not in _GIVEN), "backbone"]
                self.mistakes.append(
                    f"{name} has no option `{key}` (`model.{key}`).{did_you_mean(key, there)} "
                    f"It has: {', '.join(dict.fromkeys(there))}."
                )
        missing = [
            action
            for key, action in actions.items()
            if action.required and key not in (*given, *OF_THE_RUN) and action.default is None
        ]
        if missing:
            self.mistakes.append(f"{name} needs {_listed(missing)}")


def _parser(target: object) -> ArgumentParser | None:
    """The parser with the options declared by `get_parser(parser)`, or by the older `get_parser()`."""
    if not (hasattr(target, "get_parser") and callable(target.get_parser)):
        return None
    declare = target.get_parser
    empty = ArgumentParser(add_help=False)
    given = (empty,) if inspect.signature(declare).parameters else ()
    parser = declare(*given)
    return parser if isinstance(parser, ArgumentParser) else empty


def _default(action: Action) -> Any:
    # As argparse does: a default that is text is parsed as if it had been typed.
    return _converted(action, action.default) if isinstance(action.default, str) else action.default


def _converted(action: Action, value: object) -> Any:
    """A value of the type that the option was declared with.

    Raises:
        ValueError, TypeError, ArgumentTypeError: If it cannot be converted.
    """
    if value is None:
        return None
    if action.nargs == 0:  # A flag, whose `type` is None: it must not become text.
        if not isinstance(value, bool):
            raise TypeError
        return action.const if value and not isinstance(action.const, bool | None) else value
    if isinstance(value, (list, tuple)):
        if action.nargs in (None, "?"):
            raise TypeError
        return [_single(action, item) for item in value]
    single = _single(action, value)
    return single if action.nargs in (None, "?") else [single]


def _single(action: Action, value: object) -> Any:
    convert: Any = action.type
    if not isinstance(value, (bool, int, float, str)):
        return value  # A Python object, given in code.
    # `type=bool` turns every text but "" into True, "False" as well; here words are refused.
    if convert is bool:
        if value not in (True, False, 0, 1):
            raise ValueError
        value = bool(value)
    # `model.x=true` for an option of type int: Mammoth's flags are 0 and 1.
    elif isinstance(value, bool):
        value = int(value) if convert is None else convert(str(int(value)))
    else:
        value = str(value) if convert is None else convert(str(value))
    if action.choices is not None and value not in action.choices:
        raise ValueError
    return value


def _kind(action: Action) -> str:
    if action.choices is not None:
        return f"one of {', '.join(map(str, action.choices))}"
    if action.nargs == 0 or action.type is bool:
        return "true or false"
    name = "text" if action.type is None else class_name(action.type)
    name = "another value" if "<" in name or "_" in name else name
    return f"a list of {name}" if action.nargs not in (None, "?") else name


def _listed(actions: Iterable[Action]) -> str:
    """`` `alpha` (its help) and `beta`, which were not given. Pass model.alpha=... ``"""
    actions = list(actions)
    each = [f"`{a.dest}`" + (f" ({a.help.rstrip('.')})" if a.help else "") for a in actions]
    were = "was" if len(each) == 1 else "were"
    words = " ".join(f"model.{a.dest}=..." for a in actions)
    return f"{' and '.join(each)}, which {were} not given. Pass {words}."


_TRUE = ("true", "1", "t", "y", "yes")
_FALSE = ("false", "0", "f", "n", "no")


def add_rehearsal_args(parser: ArgumentParser) -> None:
    """Declare `buffer_size` and `minibatch_size`, which defaults to the batch size."""
    parser.add_argument("--buffer_size", type=int, required=True, help="rows of the memory")
    parser.add_argument("--minibatch_size", type=int, help="rows of a batch from the memory")


def binary_to_boolean_type(value: object) -> bool:
    """Convert a word to bool: `1`, `true`, `t`, `yes` and `y` are True, in any case.

    Raises:
        ArgumentTypeError: If it is neither true nor false.
    """
    word = str(value).lower()
    if word not in (*_TRUE, *_FALSE):
        raise ArgumentTypeError(f"{value!r} must be one of {', '.join((*_TRUE, *_FALSE))}")
    return word in _TRUE


def none_or_float(value: str | float | None) -> float | None:
    """A number, or None for the word `None`."""
    return None if value in (None, "None") else float(value)


def custom_str_underscore(value: object) -> str:
    """A name with `-` in place of `_`."""
    return str(value).replace("_", "-").strip()
