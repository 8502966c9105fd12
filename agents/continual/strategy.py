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
    | `before_batch(agent, batch) -> Batch` | on every batch that `next(replay)` is about to give |
    | `after_loss(agent, batch, loss) -> loss` | penalties, distillation |
    | `after_backward(agent)` | the gradients are there, before each update: projection, masks |
    | `after_step(agent, batch)` | the learning step is over, and the update if one was due |
    | `parameters_changed(agent)` | the model's parameters were added, replaced, dropped or unfrozen |
    | `predict(agent, obs, task) -> logits` | instead of the agent, of rows of a task |
    | `after_evaluation(agent, metrics)` | held-out metrics are there, by their names in eval.csv |
    | `state_dict()`, `load_state_dict(state)` | only where its attributes do not say it all |

    A hook that a class has not got costs nothing. What it holds in attributes is saved and resumed:
    numbers, tensors, containers of them, generators, a `Memory`. Networks of earlier tasks are kept
    as `context.snapshot()`.

    Attributes:
        owns: What of learning it takes for itself; of two that own the same, one is refused.
        needs_borders: Whether it must be told where a task ends: refused with `online=true`.
        needs_classes: Whether it is of classes alone: refused for regression.
        needs_forward: Whether it calls the model, which then needs a `forward`.
        needs_all_tasks: Whether it must know all tasks at the start: refused with `run.learn_task`.
        needs_new_classes: Whether tasks must have no classes in common, but for scenario=domain.
        needs_optimizer: Whether it works on the optimiser, which a loop of one's own must then name.
        scenarios: Those it is made for.
        recalls: Whether it asks for outputs of the model as an earlier task left it.
        no_environments: Why it cannot work in environments, which have no labels; None: it can.
        task_aware: Whether `predict` depends on the task: for class-IL `task` is then None.
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
        """Once, before the optimiser is made: look layers up, add parameters."""

    def misfit(self, context: Context) -> str | None:
        """Why its arguments do not fit an environment's run, as the end of a sentence; None: they do."""
        return None

    def parameters_used(self, agent: nn.Module) -> dict[str, int | list[int]] | None:
        """How many parameters each task so far has for itself, `used`, of the `total`; None: all share."""
        return None
