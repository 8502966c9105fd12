"""What a continual-learning strategy is."""

from __future__ import annotations

from torch import nn

from .context import Context


class Strategy:
    """The base of our strategies. Any class with some of these methods is one:

    | hook | when |
    |---|---|
    | `begin_task(agent, replay)`, `end_task(agent, replay)` | around a task |
    | `begin_epoch(agent, replay)`, `end_epoch(agent, replay)` | around a pass over its data |
    | `before_batch(agent, batch) -> Batch` | on every batch, before `next(replay)` returns it |
    | `after_loss(agent, batch, loss) -> loss` | penalties, distillation |
    | `after_backward(agent)` | gradients are computed, before each update: projection, masks |
    | `after_step(agent, batch)` | after a learning step, including its update if it made one |
    | `parameters_changed(agent)` | the model's parameters were added, replaced, removed or unfrozen |
    | `predict(agent, obs, task) -> logits` | instead of the agent, for rows of a task |
    | `after_evaluation(agent, metrics)` | after an evaluation, with metrics by their names in eval.csv |
    | `state_dict()`, `load_state_dict(state)` | only if saving its attributes is not enough |

    A hook that a class does not define costs nothing. Attributes are saved and resumed: numbers, tensors,
    containers of them, generators, a `Memory`. Networks of earlier tasks are kept as
    `context.snapshot()`.

    Attributes:
        owns: Parts of learning that it controls alone; two strategies with a part in common are refused.
        needs_borders: Whether it must know where a task ends: refused with `online=true`.
        needs_classes: Whether it only works with classes: refused for regression.
        needs_forward: Whether it calls the model, which then needs a `forward`.
        needs_all_tasks: Whether it must know all tasks at the start: refused with `run.learn_task`.
        needs_new_classes: Whether tasks must have disjoint classes, except in scenario=domain.
        needs_optimizer: Whether it works on the optimiser, which a hand-written loop must then pass.
        scenarios: The scenarios that it supports.
        recalls: Whether it asks for outputs of the model after an earlier task (`context.recall`).
        no_environments: Why it cannot work in environments, which have no labels; None if it can.
        task_aware: Whether `predict` depends on the task; in class-IL it then receives `task=None`.
        context: What it may ask of the run; set before `setup`, never saved.
    """

    owns: frozenset[str] = frozenset()
    needs_borders = False
    needs_classes = False
    needs_forward = False
    needs_all_tasks = False
    needs_new_classes = False
    needs_optimizer = False
    scenarios: tuple[str, ...] = ("class", "task", "domain")
    recalls = False
    task_aware = False
    no_environments: str | None = None
    context: Context

    def setup(self, agent: nn.Module) -> None:
        """Called once, before the optimiser is constructed: look up layers, add parameters."""

    def misfit(self, context: Context) -> str | None:
        """Why its arguments do not fit a run in environments, as a clause for an error; None if they do."""
        return None

    def parameters_used(self, agent: nn.Module) -> dict[str, int | list[int]] | None:
        """Number of parameters that each task so far uses, and the total; None if tasks share them all."""
        return None
