"""One real forward before the optimiser is made: lazy modules take shape, outputs are checked."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution
from torch.nn.parameter import is_lazy

from ...agents.blocks.ids import about_integers, embeddings_checked
from ...agents.policy.outputs import Sources, check_outputs, watched
from ...agents.policy.parts import ACTION
from ...agents.policy.states import Recurrence, as_steps
from ...envs.world import Transform, WorldSpec
from ...replay import Batch, ConfigError
from ...replay.batch import describe
from ...replay.devices import about_devices
from ...replay.randomness import forked_randomness
from ..learn.learner import Learner


def check_forward(learner: Learner, world: WorldSpec, *, transform: Transform) -> None:
    """Run two items through the model in eval mode, without gradient or a trace in random streams.

    Raises:
        ConfigError: If the model raises, or its output does not fit the spec; with the name of the
            module, what was expected and what came.
    """
    agent, space = learner.agent, learner.spec.action
    name, can = type(agent).__name__, learner.traits
    acts = can.act is not None
    if not (can.forward or acts or can.learn is not None):
        raise ConfigError(
            f"{name} has none of `forward`, `act` and `learn`: there is nothing to run or to train."
        )
    if world.acts and not (acts or can.forward):
        raise ConfigError(f"{name} has neither `act` nor `forward`: it cannot act in {world.name}.")
    if can.forward:
        obs = _items(2, world, transform, learner.device)
        seen = learner.spec.obs
        one_hot = not isinstance(seen, dict) and seen.discrete and not seen.binary
        with (
            watched(agent, name) as sources,
            embeddings_checked(agent, obs if world.labelled or one_hot else None, one_hot=one_hot),
        ):
            try:
                with forked_randomness(0), learner.evaluating():
                    if world.acts and can.recurrent:
                        learner.recurrence = Recurrence(
                            agent, lambda n: _items(n, world, transform, learner.device)
                        )
                        output = learner.recurrence.step(obs, learner.recurrence.zeros(2))[0]
                    else:
                        output = agent(obs)
            except ConfigError:
                raise
            except Exception as error:
                raise ConfigError(
                    f"{name}.forward raised {type(error).__name__} in {sources.last}, given "
                    f"{describe(Batch(obs=obs))}: {error}{about_devices(error)}"
                    f"{about_integers(error, learner.spec.obs, after=str(error))}"
                ) from error
            _check_output(
                output, space, obs=obs, name=name, sources=sources, labelled=world.labelled
            )
    if learner.recurrence is not None and acts and not can.act_takes_state:
        raise ConfigError(
            f"{name}.forward carries a state, and {name}.act has no parameter `state`. Write act(self, obs, "
            "state), which returns (action, state) or (action, extras, state), or leave act out."
        )
    lazy = [path for path, p in agent.named_parameters() if is_lazy(p)]
    if lazy:
        raise ConfigError(
            f"`{lazy[0]}` of {name} is still without a shape: `forward` never used it. Give its "
            "sizes, or use it in forward."
        )


def check_channels_last(
    learner: Learner, world: WorldSpec, *, transforms: Iterable[Transform], needed: bool
) -> bool:
    """Lay out images and filters channels last, if the model's forward then passes its check.

    A model that takes it that channels come first in memory, as `x.view(len(x), -1)` does, keeps the
    usual layout.

    Args:
        transforms: All that make observations for the model; the first one is used for the check.
        needed: Whether the layout was asked for: then a model that cannot take it is an error.

    Returns:
        Whether they are channels last.
    """
    transforms = list(transforms)
    for transform in transforms:
        transform.layout = torch.channels_last
    try:
        check_forward(learner, world, transform=transforms[0])
    except ConfigError:
        if needed:
            raise
        for transform in transforms:
            transform.layout = None
        return False
    learner.agent.to(memory_format=torch.channels_last)  # Lazy layers have their shape by now.
    return True


def _check_output(
    output: Any, space: Any, *, obs: Any, name: str, sources: Sources, labelled: bool
) -> None:
    """Whether a forward's output are values or logits of the space, or distributions over it."""
    if isinstance(space, dict) or isinstance(output, dict):
        # Other keys are the model's own business; the action of a space without names is `action`.
        named = space if isinstance(space, dict) else {ACTION: space}
        check_outputs(output, named, 2, name, sources, values=True)
        return
    if isinstance(output, Distribution):
        check_outputs(output, space, 2, name, sources, values=True)
        return
    wanted = (2, *space.shape)
    if not isinstance(output, Tensor):
        raise ConfigError(
            f"{name}.forward returned a {type(output).__name__}; expected a tensor of shape "
            f"{list(wanted)} for {space}."
        )
    if tuple(output.shape) != wanted:
        raise ConfigError(
            f"{name}.forward: expected output {list(wanted)} for {space}, got {list(output.shape)}"
            f"{sources.of(output)}, given {describe(Batch(obs=obs))}. `out_features` in the constructor is "
            "given the right width."
        )
    if space.dtype == torch.float64 and output.dtype != torch.float64:
        mean, stddev = (float(x.flatten()[0]) for x in (space.mean, space.stddev))
        raise ConfigError(
            f"{name}.forward returned {str(output.dtype).removeprefix('torch.')}. The targets are "
            f"around {mean:.6g} and vary by {stddev:.3g}: float32 cannot tell them apart. "
            "Subtract their mean in your data, or end forward with `output * spec.action.stddev "
            "+ spec.action.mean`, which are float64 here; the default agent does so."
        )
    if not bool(torch.isfinite(output).all()):
        raise ConfigError(
            f"{name}.forward: its output is not finite{sources.of(output)}, given "
            f"{describe(Batch(obs=obs))}: it holds NaN or infinity before any training."
        )
    if labelled and space.discrete and space.n > 1 and _are_probabilities(output):
        warnings.warn(
            f"{name}.forward returns probabilities (its rows sum to 1), and is taken to return logits: "
            "cross-entropy makes probabilities of them itself. Leave the softmax out.",
            stacklevel=2,
        )


def _are_probabilities(rows: Tensor) -> bool:
    sums = rows.sum(-1)
    return bool((rows >= 0).all()) and torch.allclose(sums, torch.ones_like(sums), atol=1e-3)


def example(world: WorldSpec, transform: Transform, learner: Learner) -> Any:
    """Two observations as `forward` meets them: sequences of one, where it is given sequences."""
    with forked_randomness(0):
        obs = _items(2, world, transform, learner.device)
    by_sequence = learner.recurrence is not None and learner.recurrence.by_sequence
    return as_steps(obs) if by_sequence else obs


def _items(n: int, world: WorldSpec, transform: Transform, device: torch.device) -> Any:
    """Observations as the model receives them: from the data, or at random from the space."""
    return transform.observe(world.example(n, device), device)
