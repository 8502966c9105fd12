"""One real forward before the optimiser is made: lazy modules take shape, outputs are checked."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from ..replay import ConfigError, Space
from .learner import Learner, has_forward
from .randomness import forked_randomness


def check_forward(learner: Learner, world: Any, *, transform: Any) -> None:
    """Run two items through the model in eval mode, without gradient or a trace in random streams.

    Raises:
        ConfigError: If the model raises, or its output does not fit the spec; with the name of the
            module, what was expected and what came.
    """
    agent, space = learner.agent, learner.spec.action
    name = type(agent).__name__
    acts = callable(getattr(agent, "act", None))
    if not (has_forward(agent) or acts or callable(getattr(agent, "learn", None))):
        raise ConfigError(
            f"{name} has none of `forward`, `act` and `learn`: there is nothing to run or to train."
        )
    if not world.on_data and not (acts or has_forward(agent)):
        raise ConfigError(f"{name} has neither `act` nor `forward`: it cannot act in {world.name}.")
    if has_forward(agent):
        obs = _two_items(world, transform).to(learner.device)
        visited: list[str] = []
        hooks = [
            module.register_forward_pre_hook(_remember(visited, path or name, module))
            for path, module in agent.named_modules()
        ]
        try:
            with forked_randomness(0), learner.evaluating():
                output = agent(obs)
        except Exception as error:
            where = visited[-1] if visited else name
            raise ConfigError(
                f"{name}.forward raised {type(error).__name__} in {where}, given obs of shape "
                f"{list(obs.shape)}: {error}"
            ) from error
        finally:
            for hook in hooks:
                hook.remove()
        _check_output(output, space, obs=obs, name=name, last=visited[-1] if visited else name)
    lazy = [path for path, p in agent.named_parameters() if is_lazy(p)]
    if lazy:
        raise ConfigError(
            f"`{lazy[0]}` of {name} is still without a shape: `forward` never used it. Give its "
            "sizes, or use it in forward."
        )


def _check_output(output: Any, space: Space, *, obs: Tensor, name: str, last: str) -> None:
    wanted = (len(obs), *space.shape)
    if not isinstance(output, Tensor):
        raise ConfigError(
            f"{name}.forward returned a {type(output).__name__}; expected a tensor of shape "
            f"{list(wanted)} for {space}."
        )
    if tuple(output.shape) != wanted:
        raise ConfigError(
            f"{name}.forward: expected output {list(wanted)} for {space}, got {list(output.shape)} "
            f"from {last}, given obs {list(obs.shape)}. `out_features` in the constructor is given "
            "the right width."
        )


def _two_items(world: Any, transform: Any) -> Tensor:
    if world.on_data:
        rows = world.tasks[0].train
        return transform(world.train.gather(rows[torch.tensor([0, len(rows) - 1])]))["obs"]
    space = world.tasks[0].envs.single_observation_space
    return torch.from_numpy(np.stack([space.sample(), space.sample()])).float()


def _remember(visited: list[str], path: str, module: nn.Module) -> Any:
    def hook(*_: Any) -> None:
        visited.append(f"{path} ({type(module).__name__})")

    return hook
