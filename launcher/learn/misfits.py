"""Strategies that do not fit the run or one another, found before it begins."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ...agents.continual.context import Context
from ...agents.continual.strategy import Strategy
from ...agents.traits import has_forward, hook, stated_traits
from ...envs.labels import IN_WORDS
from ...replay import Memory
from ...replay.suggestions import did_you_mean
from ..assembly.environment_strategies import works_on_the_loss
from .hooks import HOOKS, mistaken, own_attributes, says_what_it_owns

_WHY = {
    "batch": "both add rows from their own memory to the batch",
    "loss": "both replace the model's loss",
    "gradient": "both change the gradient, and the second would undo the first",
    "output": "both decide how the outputs are read",
    "weights": "both assign weights to tasks",
    "data": "both choose the data that is learnt",
}
_UNLESS = "({0} has a before_batch and a Memory. If it adds no rows, declare owns = ().)"


def unfit(named: dict[str, Any], context: Context, *, borders: bool) -> Iterable[str]:
    """Messages on what each strategy needs and does not get in this run.

    Args:
        named: The strategies by name.
        borders: Whether the learner knows where tasks end.
    """
    name_of_agent = type(context.agent).__name__
    for name, strategy in named.items():
        # In a user's class, `scenarios` and `needs_borders` may mean anything.
        needs = strategy if isinstance(strategy, Strategy) else Strategy
        if not any(hook(strategy, method) for method in HOOKS) and name != "naive":
            yield f"strategy={name} has none of a strategy's hooks: {', '.join(HOOKS)}."
        yield from mistaken(name, strategy)
        for what in owned(strategy):
            close = "" if what in _WHY else did_you_mean(str(what), _WHY)
            if not isinstance(what, str) or close:
                yield (
                    f"strategy={name}: `owns` holds {what!r:.40}; it may hold {', '.join(_WHY)}.{close}"
                )
        if needs.needs_borders and not borders:
            yield (
                f"strategy={name} must know where a task ends, which online=true does not reveal. "
                "Strategies such as er, er_ace, der, derpp and agem work without task boundaries."
            )
        if works_on_the_loss(strategy) and stated_traits(context.agent).observes:
            yield (
                f"strategy={name} works on the loss, which {name_of_agent}.observe does not return. "
                "Return it from a `learn` instead."
            )
        if context.scenario not in needs.scenarios:
            yield (
                f"strategy={name} is for scenario={' or '.join(needs.scenarios)}, but this run has "
                f"scenario={context.scenario}."
            )
        if context.in_environment:  # `unfit_in_environment` has stricter checks.
            continue
        if needs.needs_classes and not context.spec.has_classes:
            kind = IN_WORDS[context.spec.action.kind]
            yield f"strategy={name} is for classes, but this run's targets are {kind}."
        if needs.needs_forward and not has_forward(context.agent):
            yield f"strategy={name} calls the model, but {name_of_agent} has no `forward`."


def conflicts(named: dict[str, Any]) -> Iterable[str]:
    """Messages on pairs of strategies that own the same thing, with the reason they conflict."""
    items = list(named.items())
    for i, (name, strategy) in enumerate(items):
        for other, second in items[i + 1 :]:
            if shared := owned(strategy) & owned(second):
                known = [why for key, why in _WHY.items() if key in shared]
                why = known[0] if known else f"both own {', '.join(sorted(map(str, shared)))}"
                silent = [n for n in (name, other) if "batch" in shared and _adds_unsaid(named[n])]
                unless = f" {_UNLESS.format(type(named[silent[0]]).__name__)}" if silent else ""
                yield (
                    f"strategy={name} and strategy={other} conflict: {why}. Choose one of them.{unless}"
                )


def owned(strategy: object) -> set[str]:
    """What a strategy owns: what it declares, and what its hooks and memories imply."""
    owns: Any = getattr(strategy, "owns", ())
    reads_outputs = set() if hook(strategy, "predict") is None else {"output"}
    listed = isinstance(owns, (set, frozenset, list, tuple))
    adds_rows = {"batch"} if _adds_unsaid(strategy) else set()
    return (set(owns) if listed else {owns}) | reads_outputs | adds_rows


def _adds_unsaid(strategy: object) -> bool:
    """Whether a class without `owns` appears to rehearse: it has `before_batch` and a `Memory`."""
    held = own_attributes(strategy).values()
    return (
        hook(strategy, "before_batch") is not None
        and any(isinstance(value, Memory) for value in held)
        and not says_what_it_owns(strategy)
    )
