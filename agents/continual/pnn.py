"""Progressive neural networks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...replay import ConfigError, Replay
from ..calling import steps_asked
from .context import evaluating
from .layers import Layer, called_layers, put_together
from .strategy import Strategy
from .substitution import call_with, tensors_of

LATERALS = "laterals"


class PNN(Strategy):
    """A network of its own for each task, which also receives the features of earlier tasks' networks.

    Source: Rusu et al., 2016 (arXiv 1606.04671), eq. 1: layer i of column k, after the first one, is

        h_i^k = f( W_i^k h_{i-1}^k  +  sum over j < k of U_i^{k:j} h_{i-1}^j )

    and columns j < k never change again. This works for any model of `nn.Linear` and `nn.Conv2d` layers:
    h_{i-1}^j is the input of layer i in column j, so U is a layer like W, without bias. Where a forward
    calls a layer several times, each call is connected to the same call in the earlier columns. There are
    no adapters (eq. 2). The model itself is the newest column. Each column starts from the model's initial
    weights, and its U from 0, as if it were alone. Running statistics and the parameters of other layers
    belong to the column and have no lateral connections.

    The layers get their U, for as many columns as there will be, as `laterals`, together with hooks. Both
    stay after the run, since the model remains the last column. A run that ends before it has learnt
    anything removes them.
    """

    owns = frozenset({"weights", "output"})
    no_environments = "it gives each task outputs of its own, and `act` does not know the task"
    needs_all_tasks = True
    needs_borders = needs_classes = needs_forward = needs_optimizer = True
    task_aware = True

    def __init__(self) -> None:
        self.columns = Columns()
        self.initial: dict[str, Tensor] = {}  # Parameters and buffers.

    def setup(self, agent: nn.Module) -> None:
        called = called_layers(agent, self.context)
        self.columns = Columns()
        disconnect = self.columns.connect(agent, called, self.context.num_tasks - 1)
        versions = [(p, p._version) for p in agent.parameters()]

        def undo() -> None:
            if all(p._version == version for p, version in versions):
                disconnect()

        self.context.undo.append(undo)
        self.initial = self.context.snapshot()

    def begin_task(self, agent: nn.Module, replay: Replay) -> None:
        if self.context.task == 0:
            return
        self.columns.freeze(self.context.snapshot())
        with torch.no_grad():
            for name, tensor in tensors_of(agent).items():
                tensor.copy_(self.initial[name])
        for parameter in agent.parameters():
            if self.context.optimizer is not None:
                # Its momentum belongs to the previous column's weights.
                self.context.optimizer.state.pop(parameter, None)

    def parameters_changed(self, agent: nn.Module) -> None:
        tensors = tensors_of(agent)
        now, then = ({n: t.shape for n, t in named.items()} for named in (tensors, self.initial))
        if changed := sorted(n for n in now | then if now.get(n) != then.get(n)):
            raise ConfigError(
                "strategy=pnn adds a column to the model for each task, so its layers must not "
                f"change: `{changed[0]}` was added, removed or reshaped. Leave growth to the "
                "strategy."
            )

    def predict(self, agent: nn.Module, obs: Tensor, task: int | None) -> Tensor:
        """Outputs `[B, n]` of the column of `task`; None: each class from its own task's column."""
        if task is not None:
            return self.columns.outputs(agent, obs, min(task, self.context.task) + 1)[-1]
        outputs = self.columns.outputs(agent, obs, self.context.task + 1)
        return put_together(outputs, self.context.classes)

    def parameters_used(self, agent: nn.Module) -> dict[str, int | list[int]]:
        """How many parameters each column so far uses, and their total."""
        named = dict(agent.named_parameters())
        used = [
            sum(named[name].numel() for name in named if not is_later(name, column))
            for column in range(self.context.task + 1)
        ]
        return {"used": used, "total": sum(used)}


class Columns:
    """The earlier columns of a network and, while a forward runs, the inputs of their layers.

    Its hooks are bound methods, so that a copy of the network gets a copy of this object.

    Attributes:
        frozen: Parameters and buffers of each earlier column.
    """

    def __init__(self) -> None:
        self.frozen: list[dict[str, Tensor]] = []
        # For each column up to the running one, the inputs of each call of a layer.
        self._inputs: list[dict[nn.Module, list[Tensor]]] = []
        self._earlier = False  # Whether the running column is an earlier one.

    def connect(
        self, agent: nn.Module, called: Sequence[Layer], earlier: int
    ) -> Callable[[], None]:
        """Connect every layer but the first with the earlier columns.

        Args:
            called: The layers in the order of a forward.

        Returns:
            A function that removes the connections.

        Raises:
            ConfigError: If one is connected already.
        """
        names = {module: name for name, module in agent.named_modules()}
        listening = dict.fromkeys(called[1:])  # Each of them once, in this order.
        for layer in listening:
            if hasattr(layer, LATERALS):
                raise ConfigError(
                    f"strategy=pnn: {names[layer]} already has `{LATERALS}`, from an earlier run. "
                    "Construct the model again."
                )
        handles = [
            agent.register_forward_pre_hook(self._before, with_kwargs=True),
            agent.register_forward_hook(self._after, always_call=True),
        ]
        for layer in listening:
            laterals = [nn.Parameter(torch.zeros_like(layer.weight)) for _ in range(earlier)]
            layer.register_module(LATERALS, nn.ParameterList(laterals))
            handles.append(layer.register_forward_hook(self._listen))

        def disconnect() -> None:
            for handle in handles:
                handle.remove()
            for layer in listening:
                delattr(layer, LATERALS)

        return disconnect

    def freeze(self, weights: dict[str, Tensor]) -> None:
        """Turn the newest column into an earlier one, with these weights."""
        column = len(self.frozen)
        self.frozen.append({n: w for n, w in weights.items() if not is_later(n, column)})

    def outputs(self, agent: nn.Module, obs: Tensor, columns: int) -> list[Tensor]:
        """Outputs `[B, n]` of each of the first `columns` columns, in eval mode and without gradient."""
        try:
            return self._run(agent, [*self.frozen, {}][:columns], (obs,), steps_asked(agent, obs))
        finally:
            self._inputs = []

    def _before(self, agent: nn.Module, args: Any, kwargs: Any) -> None:
        """Run all earlier columns before a forward of the newest one, which needs their inputs."""
        if not self._earlier:
            self._run(agent, self.frozen, args, kwargs)
            self._inputs.append({})

    def _run(self, agent: nn.Module, columns: Any, args: Any, kwargs: Any) -> list[Tensor]:
        self._inputs, self._earlier = [], True
        found = []
        try:
            with evaluating(agent), torch.no_grad():
                for weights in columns:
                    self._inputs.append({})
                    found.append(call_with(agent, weights, args, kwargs))
        finally:
            self._earlier = False
        return found

    def _after(self, *_: object) -> None:
        if not self._earlier:
            self._inputs = []

    def _listen(self, layer: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
        """A layer's output plus its lateral connections from earlier columns."""
        if not self._inputs:
            if layer.training:
                raise ConfigError(
                    f"strategy=pnn: {type(layer).__name__}({layer.extra_repr()}) was called outside the "
                    "model's forward, where the earlier columns' features are missing. Let `learn` call "
                    "self(batch.obs)."
                )
            return output
        *earlier, own = self._inputs
        own.setdefault(layer, []).append(args[0])
        call = len(own[layer])
        for inputs, weight in zip(earlier, getattr(layer, LATERALS), strict=False):
            if call <= len(inputs.get(layer, ())):
                output = output + apply(layer, inputs[layer][call - 1], weight)
        return output


def apply(layer: nn.Module, x: Tensor, weight: Tensor) -> Tensor:
    """The output of a layer for `x`, with another weight and without bias."""
    if isinstance(layer, nn.Conv2d):
        return layer._conv_forward(x, weight, None)
    return F.linear(x, weight)


def is_later(name: str, column: int) -> bool:
    """Whether a parameter belongs to a connection with column `column` or a later one."""
    *_, holder, number = ("", *name.split("."))
    return holder == LATERALS and int(number) >= column
