"""The hooks of a strategy: their names, their arguments, and what other libraries call them."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Any

from ...agents.continual.strategy import Strategy
from ...agents.traits import hook
from ...replay.suggestions import nearest

# Arguments by hook, in order.
HOOKS = {
    "begin_task": ("agent", "replay"),
    "end_task": ("agent", "replay"),
    "begin_epoch": ("agent", "replay"),
    "end_epoch": ("agent", "replay"),
    "before_batch": ("agent", "batch"),
    "after_loss": ("agent", "batch", "loss"),
    "after_backward": ("agent",),
    "after_step": ("agent", "batch"),
    "parameters_changed": ("agent",),
    "predict": ("agent", "obs", "task"),
    "after_evaluation": ("agent", "metrics"),
}
_STATE = {"state_dict": (), "load_state_dict": ("state",)}
_KNOWN = {*HOOKS, *_STATE, "setup", "parameters_used"}

# The callbacks of Avalanche's plugins, as in the table of docs/continual.md.
AVALANCHE = {
    "before_training": "begin_task",
    "before_training_exp": "begin_task",
    "before_train_dataset_adaptation": "begin_task",
    "after_train_dataset_adaptation": "begin_task",
    "before_training_epoch": "begin_epoch",
    "before_training_iteration": "before_batch",
    "before_forward": "before_batch",
    "after_forward": "after_loss",
    "before_backward": "after_loss",
    "before_update": "after_backward",
    "after_update": "after_step",
    "after_training_iteration": "after_step",
    "after_training_epoch": "end_epoch",
    "after_training_exp": "end_task",
    "after_training": "end_task",
    "before_eval": "end_task",
    "before_eval_exp": "end_task",
    "before_eval_dataset_adaptation": "end_task",
    "after_eval_dataset_adaptation": "end_task",
    "before_eval_iteration": "predict",
    "before_eval_forward": "predict",
    "after_eval_forward": "predict",
    "after_eval_iteration": "predict",
    "after_eval_exp": "after_evaluation",
    "after_eval": "after_evaluation",
}

# Callbacks of Lightning and Keras, and other common names for a place in training.
_ELSEWHERE = [
    (r"on_.*(optimizer_step|after_backward)|on_grad.*", "after_backward"),
    (r"(on_|pre_|post_)(before_)?(backward|forward|loss)(_.*)?", "after_loss"),
    (r"on_before_(backward|zero_grad)", "after_loss"),
    (r"on_.*(validation|val|test|eval|evaluate|evaluation|predict)(_.*)?", "after_evaluation"),
    (r"on_.*(batch|iteration|step)_(begin|start)", "before_batch"),
    (r"on_.*(batch|iteration|step)(_end)?", "after_step"),
    (r"on_.*epoch_(begin|start)", "begin_epoch"),
    (r"on_.*epoch(_end)?", "end_epoch"),
    (r"on_(train|training|fit|task|experience|exp)?_?(begin|start)", "begin_task"),
    (r"on_(train|training|fit|task|experience|exp)?_?(end)?", "end_task"),
    (r"(before|begin)_(task|experience|exp|training|train|fit)s?", "begin_task"),
    (r"(after|end)_(of_)?(task|experience|exp|training|train|fit)s?", "end_task"),
    (r"before_epochs?|begin_of_epoch", "begin_epoch"),
    (r"(after_|end_of_)epochs?", "end_epoch"),
    (r"begin_(batch|step|iteration)|before_(step|iteration|minibatch)", "before_batch"),
    (r"(end|after)_(batch|iteration|minibatch)|end_step", "after_step"),
    (r"(pre|start|setup)_(task|experience|exp)|task_(begin|start)|experience_start", "begin_task"),
    (r"(post|finish|stop)_(task|experience|exp)|(task|experience)_end", "end_task"),
    (r"(start)_epoch|epoch_(begin|start)", "begin_epoch"),
    (r"(finish|stop|post)_epoch|epoch_end", "end_epoch"),
    (r"(pre|start)_(batch|step)|batch_(begin|start)", "before_batch"),
    (r"(post|finish)_(batch|step)|batch_end", "after_step"),
]
_PREFIXES = ("before_", "after_", "begin_", "end_")
# Callback names without a counterpart here.
_OTHERS = r"on_.*_(begin|start|end)|on_(save|load|log|init|exception|checkpoint)(_.*)?"


def mistaken(name: str, strategy: object) -> Iterable[str]:
    """Messages on a strategy's methods that look like hooks, and on hooks that cannot be called.

    All other public methods, and all that begin with an underscore, are the strategy's own business.

    Args:
        name: The strategy's name in errors.
    """
    for method, meant in mistaken_methods(strategy, _KNOWN, _meant):
        yield f"strategy={name} has a method `{method}`, {meant}"
    for method, arguments in (HOOKS | _STATE).items():
        if (found := hook(strategy, method)) is not None:
            yield from _not_callable(name, method, found, arguments)


def mistaken_methods(
    owner: object, known: Collection[str], meant: Callable[[str], str | None]
) -> Iterator[tuple[str, str]]:
    """The public methods of an object that look like hooks and are none, each with what to say about it.

    Args:
        known: The methods that are called.
        meant: What to say about a name; None: it does not look like a hook.
    """
    for method in dir(owner):
        if method in known or method.startswith("_"):
            continue
        if isinstance(inspect.getattr_static(owner, method, None), property):
            continue  # Reading a property may have side effects.
        if (message := meant(method)) is not None and hook(owner, method) is not None:
            yield method, message


def signature_of(name: str) -> str:
    """`after_loss(agent, batch, loss)` of `after_loss`."""
    return f"{name}({', '.join(HOOKS[name])})"


def _meant(method: str) -> str | None:
    """The message about a method that looks like a hook but is none; None if it does not look like one."""
    if method in AVALANCHE:
        return f"an Avalanche callback. The hook here is `{signature_of(AVALANCHE[method])}`."
    for pattern, ours in _ELSEWHERE:
        if re.fullmatch(pattern, method):
            return (
                f"which is not a hook and is never called. The hook here is `{signature_of(ours)}`."
            )
    looks = method.startswith(_PREFIXES)
    if close := nearest(method, HOOKS, count=1) if looks else _misspelt(method):
        return f"which is not a hook and is never called. Did you mean `{signature_of(close[0])}`?"
    if not looks and not re.fullmatch(_OTHERS, method):
        return None
    return (
        f"which looks like a hook but is never called. The hooks are {', '.join(HOOKS)}; rename your own "
        f"method, for example to `_{method}`."
    )


def _misspelt(method: str) -> list[str]:
    """The hook, if any, that a name without one of the prefixes misspells."""
    if any(method.startswith(known) for known in _KNOWN):
        return []  # `predict_rows`, `predictor`: the user's own names.
    plain = {known.replace("_", ""): known for known in HOOKS}
    word = method.replace("_", "").lower()
    if word in plain:
        return [plain[word]]
    close = nearest(word, plain, count=1)
    # A smaller distance than usual: the user's own names come from the same vocabulary, such as `product`.
    if not close or distance(word, close[0]) > (2 if len(close[0]) > 8 else 1):
        return []
    return [plain[close[0]]]


def distance(a: str, b: str) -> int:
    """The number of letters to insert, delete or replace (Levenshtein, 1966)."""
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        before, row[0] = row[0], i
        for j, y in enumerate(b, 1):
            before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (x != y))
    return row[-1]


def _not_callable(name: str, method: str, found: Any, arguments: tuple[str, ...]) -> Iterable[str]:
    """Why a hook cannot be called with its arguments, if it cannot."""
    if inspect.iscoroutinefunction(found) or inspect.isgeneratorfunction(found):
        kind = "`async`" if inspect.iscoroutinefunction(found) else "a generator (it has a `yield`)"
        yield f"strategy={name}: {method} is {kind}, so calling it runs nothing. Write a plain method."
        return
    try:
        signature = inspect.signature(found)
    except (TypeError, ValueError):  # Written in C: no signature.
        return
    right = f"{method}({', '.join(('self', *arguments))})"
    try:
        signature.bind(*arguments)
    except TypeError as error:
        yield (
            f"strategy={name}: {method}{signature} cannot be called as a hook ({error}). Write {right}."
        )
        return
    named = [parameter.name for parameter in signature.parameters.values()]
    places = [(named.index(word), i) for i, word in enumerate(arguments) if word in named]
    if any(place != i for place, i in places):
        yield (
            f"strategy={name}: {method}{signature} has its arguments in the wrong order. Write "
            f"{right}."
        )


def says_what_it_owns(strategy: object) -> bool:
    """Whether a class declares what it owns."""
    kinds = [kind for kind in type(strategy).__mro__ if kind is not Strategy]
    return any("owns" in vars(kind) for kind in kinds) or "owns" in own_attributes(strategy)


def own_attributes(strategy: object) -> dict[str, Any]:
    """The attributes of the object itself, without those of its class; none for one with slots."""
    return vars(strategy) if hasattr(strategy, "__dict__") else {}
