"""Constructors get their arguments by name; unknown and missing ones are one error."""

from __future__ import annotations

import difflib
import inspect
import re
import traceback
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any

from ...replay.errors import ConfigError
from ...replay.suggestions import did_you_mean
from . import environment_names
from .foreign import answer
from .frames import user_frame
from .object_names import name_of, short_name
from .passed_on import parameters_behind
from .secrets import may_be_secret


def construct(
    target: Callable[..., Any],
    given: Mapping[str, Any],
    inferred: Mapping[str, Any],
    *,
    setting: str,
    positional: tuple[Any, ...] = (),
    instead: Mapping[str, str] = MappingProxyType({}),
) -> Any:
    """Call `target` with the given arguments, and the inferred ones that it has parameters for.

    Args:
        target: A class or function.
        given: Sub-keys of the setting. A dict with a class as `_target_` is constructed first.
        inferred: Values by parameter name, known from the data; explicit values always win.
        setting: The setting's name, for errors: `model`.
        positional: Arguments that come first, such as an optimiser's parameters.
        instead: Why a parameter cannot be inferred here, and what can.

    Raises:
        ConfigError: For an unknown sub-key, a missing argument, or a constructor that raises.
    """
    name = short_name(target)
    named, _ = _parameters(target, skip=len(positional))
    mistakes = unknown_arguments(target, given, setting=setting, skip=len(positional))
    arguments = {key: value for key, value in inferred.items() if key in named}
    arguments |= {key: _nested(value, setting) for key, value in given.items()}
    missing = [
        key
        for key, parameter in named.items()
        if parameter.default is parameter.empty and key not in arguments
    ]
    if missing:
        # Users cannot add parameters to a constructor of torch's, so none are offered.
        offered = {} if name_of(target).startswith("torch") else inferred
        mistakes.append(f"{name} needs {_needed(missing, offered, setting)}")
        reasons = dict.fromkeys(instead[key] for key in missing if key in instead)
        mistakes += [f"{name}: {reason}." for reason in reasons]
    if mistakes:
        raise ConfigError("\n".join(mistakes))
    try:
        return target(*positional, **arguments)
    except ConfigError:  # It already says which argument is wrong.
        raise
    except Exception as error:
        shown = ", ".join(f"{key}={_short(value, key)}" for key, value in arguments.items())
        where = user_frame(error)
        raise ConfigError(
            f"{name}({shown}) raised {type(error).__name__}: {error}{where}"
            f"{_meant(error, arguments, setting, named)}"
        ) from error


def _needed(missing: list[str], inferred: Mapping[str, Any], setting: str) -> str:
    """What is missing, the nearest parameters that can be inferred, and all of those with their values."""
    quoted = " and ".join(f"`{key}`" for key in missing)
    were = "was" if len(missing) == 1 else "were"
    near = "".join(did_you_mean(key, inferred) for key in missing)
    values = " ".join(f"{setting}.{key}=..." for key in missing)
    plain = (bool, int, float, str, tuple)
    can = ", ".join(
        f"{key}={value!r}" if isinstance(value, plain) else key for key, value in inferred.items()
    )
    return (
        f"{quoted}, which {were} not given and cannot be inferred.{near} Pass {values}"
        f"{f', or ask for any of: {can}' if can else ''}."
    )


def _nested(value: object, setting: str) -> Any:
    """A sub-key's value, with `{_target_: Class, ...}` inside it constructed."""
    if isinstance(value, Mapping) and "_target_" in value:
        rest = {key: item for key, item in value.items() if key != "_target_"}
        return construct(value["_target_"], rest, {}, setting=setting)
    if isinstance(value, list):
        return [_nested(item, setting) for item in value]
    return value


def _meant(error: BaseException, arguments: Iterable[str], setting: str, own: Iterable[str]) -> str:
    """The nearest parameter, if an argument was passed on to a call that does not accept it.

    Args:
        own: Parameters of the constructor that passed it on.
    """
    found = re.search(
        r"(\S+?)(?:\.__init__)?\(\) got an unexpected keyword argument '(\w+)'", str(error)
    )
    if found is None or found[2] not in arguments:
        return ""
    # The message holds only a qualified name; the class itself is in a frame of the traceback.
    chain: BaseException | None = error
    while chain is not None:
        for frame, _ in traceback.walk_tb(chain.__traceback__):
            for item in (*frame.f_locals.values(), *frame.f_globals.values()):
                if getattr(item, "__qualname__", None) == found[1] and callable(item):
                    named, _ = _passed_on(item, _parameters(item, skip=0)[0])
                    near = _near(f"{setting}.{found[2]}", [*own, *named])
                    return f".{near} {found[1]} has: {', '.join(named) or 'none'}."
        chain = chain.__cause__ or chain.__context__
    return ""


def _short(value: object, name: str) -> str:
    if may_be_secret(name) and isinstance(value, str):
        return "***"
    text = repr(value)
    return text if len(text) < 60 else f"<{type(value).__name__}>"


def unknown_arguments(
    target: Callable[..., Any], given: Iterable[str], *, setting: str, skip: int = 0
) -> list[str]:
    """A message for every sub-key that `target` has no parameter for."""
    named, takes_any = _parameters(target, skip=skip)
    if takes_any and any(key not in named for key in given):
        named, takes_any = _passed_on(target, named)
    name = getattr(target, "__name__", None) or name_of(target)
    return [
        f"{name} has no parameter `{key}` (`{setting}.{key}`).{_near(f'{setting}.{key}', named)} "
        f"It has: {', '.join(named) or 'none'}."
        for key in given
        if key not in named and not takes_any
    ]


def near_among_any(target: Callable[..., Any], key: str) -> str | None:
    """A parameter named almost like `key`, if `target` has **kwargs and does not read `key` itself."""
    target = environment_names.creator(target) or target
    named, takes_any = _parameters(target, skip=0)
    if key in named or not takes_any or not _passed_on(target, named)[1]:
        return None
    code = getattr(getattr(target, "__init__", target), "__code__", None)
    if code is not None and key in code.co_consts:
        return None
    return next(iter(difflib.get_close_matches(key, named, n=1, cutoff=0.8)), None)


def _passed_on(
    target: Callable[..., Any], named: dict[str, inspect.Parameter]
) -> tuple[dict[str, inspect.Parameter], bool]:
    """Like `_parameters`, plus what **kwargs are passed on to, as far as the source shows it."""
    creator = environment_names.creator(target)
    if creator is not None:
        its, takes_any = _parameters(creator, skip=0)
        its, takes_any = _passed_on(creator, its) if takes_any else (its, False)
        return its | environment_names.taken_by_make(), takes_any
    behind = parameters_behind(target)
    return (named, True) if behind is None else (named | behind, False)


def _near(path: str, named: Iterable[str]) -> str:
    """` Did you mean `momentum`?`, or our word for another tool's setting."""
    foreign = answer(path)
    return f" {foreign}" if foreign else did_you_mean(path.rpartition(".")[2], named)


def _parameters(
    target: Callable[..., Any], *, skip: int
) -> tuple[dict[str, inspect.Parameter], bool]:
    """Parameters that can be passed by name, after the first `skip`, and whether any others can."""
    try:
        parameters = dict(inspect.signature(target).parameters)
    except (TypeError, ValueError):  # A builtin without a signature: it checks its arguments.
        return {}, True
    named = {
        key: parameter
        for key, parameter in list(parameters.items())[skip:]
        if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
    }
    return named, any(p.kind is p.VAR_KEYWORD for p in parameters.values())
