"""Parameters that a constructor's **kwargs are passed on to, so that a typo is not lost among them."""

from __future__ import annotations

import ast
import functools
import inspect
import itertools
import textwrap
from collections.abc import Callable
from typing import Any

Parameters = dict[str, inspect.Parameter]


def parameters_behind(target: Callable[..., Any]) -> Parameters | None:
    """Parameters that **kwargs of `target` may hold, as far as the source shows; None: any.

    If a class only passes them on to `super().__init__` or a base's `__init__`, they are the parameters
    of that; if it does not use them at all, there are none.

    >>> class Base:
    ...     def __init__(self, size=8): ...
    >>> parameters_behind(Base) is None  # It takes no others.
    True
    """
    if isinstance(target, functools.partial):
        return None
    if not inspect.isclass(target):
        return _of_function(target, None)
    for owner in target.__mro__:
        if (init := vars(owner).get("__init__")) is not None:
            return _of_function(init, (target, owner))
    return None


def _of_function(
    function: Callable[..., Any], within: tuple[type, type] | None
) -> Parameters | None:
    """Like `parameters_behind`, for one function.

    Args:
        within: For a method, the class that is constructed and the one that defines it.
    """
    try:
        signature = inspect.signature(function).parameters.values()
        tree = ast.parse(textwrap.dedent(inspect.getsource(function))).body[0]
    except (TypeError, ValueError, OSError, SyntaxError):
        return None  # In C, or typed into a console.
    name = next((p.name for p in signature if p.kind is p.VAR_KEYWORD), None)
    if name is None or not isinstance(tree, ast.FunctionDef):
        return None
    uses = [n for n in ast.walk(tree) if isinstance(n, ast.Name) and n.id == name]
    calls = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        for keyword in node.keywords
        if keyword.arg is None and isinstance(keyword.value, ast.Name) and keyword.value.id == name
    ]
    if len(calls) < len(uses) or any(
        isinstance(n, ast.Call) and isinstance(n.func, ast.Name) and n.func.id in ("locals", "vars")
        for n in ast.walk(tree)
    ):
        return None
    found: Parameters = {}
    closed = not calls
    for call in calls:
        init = None if within is None else _called_init(call, *within)
        if init is None:
            return None
        if (taken := _taken_by(call, *init, made=within[0])) is not None:  # type: ignore[index]
            closed = True
            found |= taken
    return found if closed else None


def _called_init(call: ast.Call, made: type, owner: type) -> tuple[Any, type] | None:
    """The `__init__` that a call in the one of `owner` reaches, and the class that defines it."""
    function = call.func
    if not isinstance(function, ast.Attribute) or function.attr != "__init__":
        return None
    place, above = function.value, made.__mro__[made.__mro__.index(owner) + 1 :]
    if isinstance(place, ast.Call) and isinstance(place.func, ast.Name):
        candidates = above if place.func.id == "super" else ()
    else:
        name = place.attr if isinstance(place, ast.Attribute) else None
        name = place.id if isinstance(place, ast.Name) else name
        named = next((base for base in above if base.__name__ == name), None)
        candidates = () if named is None else named.__mro__
    for base in candidates:
        if (init := vars(base).get("__init__")) is not None:
            return init, base
    return None


def _taken_by(
    call: ast.Call, init: Callable[..., Any], owner: type, *, made: type
) -> Parameters | None:
    """Parameters that a call's **kwargs may hold; None: any."""
    if owner is object:
        return {}
    try:
        parameters = dict(inspect.signature(init).parameters)
    except (TypeError, ValueError):
        return None
    given = {keyword.arg for keyword in call.keywords}
    named = [p for p in parameters.values() if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    bound = not (isinstance(call.func, ast.Attribute) and isinstance(call.func.value, ast.Call))
    # `*args` may be empty, so it fills no parameter for certain.
    places = list(itertools.takewhile(lambda arg: not isinstance(arg, ast.Starred), call.args))
    skip = len(places) + (0 if bound else 1)  # `self`, given by `super()`.
    taken = {p.name: p for p in named[skip:] if p.name not in given}
    if any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        behind = _of_function(init, (made, owner))
        return None if behind is None else taken | behind
    return taken
