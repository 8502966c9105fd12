"""What can be wrong with the model, the tasks and the optimiser of a custom loop."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn
from torch.optim import Optimizer

from ...agents.traits import has_forward
from ...replay import ConfigError
from ..assembly.optimisation import may_get_parameters
from ..learn.strategies import Strategies as Hooks
from .tasks import Task, Tasks, TasksSpec


def check_arguments(model: object, spec: object, loss: object) -> None:
    """Check what `Strategies` is constructed with.

    Raises:
        ConfigError: If the model, the spec or the loss is invalid, or there is nothing to train.
    """
    if not isinstance(model, nn.Module):
        raise ConfigError(f"Strategies needs a torch.nn.Module, not {model!r:.60}.")
    if not isinstance(spec, (TasksSpec, Tasks)):
        raise ConfigError(
            "Strategies needs `tasks.spec` from antelope.tasks(...), which holds the tasks' classes, not "
            f"a {type(spec).__name__}."
        )
    if loss is not None and not callable(loss):
        raise ConfigError(
            f"loss is a {type(loss).__name__}; it must be callable as loss(output, label)."
        )
    if loss is None and not has_forward(model) and not hasattr(model, "learn"):
        raise ConfigError(f"{type(model).__name__} has no forward and no learn.")
    if not any(True for _ in model.parameters()) and not may_get_parameters(model):
        raise ConfigError(f"{type(model).__name__} has no parameters to train.")


def check_turn(task: object, *, running: Task | None, following: int, spec: TasksSpec) -> None:
    """Check that a task is the next to begin.

    Args:
        running: The task that has begun and not ended.
        following: The number of the task that comes next; negative: none does.
        spec: What the strategies were constructed for.

    Raises:
        ConfigError: If it is not a task, or not its turn.
    """
    if not isinstance(task, Task):
        raise ConfigError(
            "begin_task needs a task from antelope.tasks(...), as in `for task in tasks: "
            f"strategies.begin_task(task)`, not {_short(task)}. For your own data, use "
            "antelope.tasks([(x, y), (x, y)])."
        )
    if running is not None:
        raise ConfigError(
            f"Task {running.number} has not ended. Call end_task(task) before the next one."
        )
    if _tasks_of(task.sequence.spec) != _tasks_of(spec):
        raise ConfigError(
            "begin_task: the task and the spec that Strategies was constructed with come from "
            "different tasks."
        )
    if following < 0:
        raise ConfigError(
            "These strategies were left in the middle of a task, and others have the model now. "
            "Construct Strategies again."
        )
    if task.number != following:
        raise ConfigError(
            f"Tasks must be learnt in order: task {following} comes next, not task {task.number}. To "
            "start over, construct Strategies again."
        )


def check_optimizer(
    optimizer: Optimizer | None, model: nn.Module, hooks: Hooks, added: Iterable[str]
) -> None:
    """Check that an optimiser fits a model and its strategies.

    Args:
        added: Names of the parameters that strategies have added to the model.

    Raises:
        ConfigError: If a strategy needs one and there is none, or it lacks parameters that it must hold.
    """
    # `is True`: a class of the user's own may use the name for something else.
    needing = [n for n, s in hooks.named.items() if getattr(s, "needs_optimizer", False) is True]
    if optimizer is None:
        for name in needing:
            raise ConfigError(
                f"strategy={name} needs the optimiser. Pass it: begin_task(task, optimizer)."
            )
        return
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    named = dict(model.named_parameters())
    if isinstance(optimizer, torch.optim.LBFGS):
        for name in (*hooks.having("after_loss"), *hooks.having("after_backward")):
            raise ConfigError(
                f"LBFGS computes the loss several times in a step, and strategy={name} works on it once. "
                "Choose another optimiser."
            )
    if left := [n for n in added if n in named and id(named[n]) not in held]:
        raise ConfigError(
            f"The optimiser does not hold `{sorted(left)[0]}`, which a strategy has added to the model. "
            "Construct the optimiser after Strategies(...)."
        )
    other = [n for n, p in named.items() if p.requires_grad and id(p) not in held]
    for name in needing:
        if other and len(other) < len(named):
            raise ConfigError(
                f"strategy={name} works on the optimiser, and this one does not hold `{other[0]}`. One "
                "optimiser must hold every trained parameter; freeze the others: requires_grad_(False)."
            )
    if named and not held & {id(parameter) for parameter in named.values()}:
        raise ConfigError("The optimiser holds none of the model's parameters.")


def _short(value: object) -> str:
    return repr(value) if isinstance(value, (int, str)) else f"a {type(value).__name__}"


def _tasks_of(spec: TasksSpec) -> tuple[object, ...]:
    """What must be equal between the tasks that strategies were constructed for and those they receive."""
    return spec.scenario, spec.classes, str(spec)
