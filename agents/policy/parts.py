"""The user's modules in place of an agent's own networks.

Legend: B the batch, T time steps. Agents with a recurrent part pass `[B, T, ...]` to all parts.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from ...replay import ConfigError, Space
from ...replay.batch import Tensors
from ...replay.tree import leaves, map_tree
from ..blocks.encoder import Trunk, encoder
from ..blocks.ids import about_integers
from ..traits import takes_state
from .outputs import Sources, check_outputs, watched
from .states import Layout, State, as_steps, find_layout, map_leaves, select

# Names of a single observation and action, for modules that work with dicts.
OBS, ACTION = "obs", "action"


class Part(nn.Module):
    """A module called with the kind of input that its signatures ask for.

    If its constructor has a parameter `obs_shapes`, it receives dicts; a single observation is then named
    `obs`. If its forward has a parameter `state`, it is recurrent and receives sequences `[B, T, ...]` with
    its state; any other module receives their steps flattened, `[B * T, ...]`.

    Args:
        module: The user's module: `forward` receives observations `[B, *shape]`.
        sequences: Whether the agent is recurrent, through this part or another.
    """

    def __init__(self, module: nn.Module, *, sequences: bool = False):
        super().__init__()
        self.module, self.sequences = module, sequences
        self.recurrent = takes_state(module)
        self.named = asks_for(module, "obs_shapes")
        self.layout: Layout = None  # The state's layout, once `probe` has found it.

    def forward(self, obs: Tensors, state: State = None) -> tuple[Any, State]:
        """The module's output, and its next state."""
        if self.named and not isinstance(obs, dict):
            obs = {OBS: obs}
        if self.recurrent:
            result = self.module(obs, state)
            if not (isinstance(result, tuple) and len(result) == 2):
                raise ConfigError(
                    f"{type(self.module).__name__}.forward(obs, state) returned a "
                    f"{type(result).__name__}; a recurrent module returns (out, state)."
                )
            return result
        if not self.sequences:
            return self.module(obs), None
        steps = _length(obs)
        output = self.module(map_leaves(lambda x: x.flatten(0, 1), obs))
        return map_leaves(lambda x: _unflattened(x, steps, self.module), output), None

    def probe(self, space: Space | dict[str, Space], extras: dict[str, Tensor]) -> Any:
        """Its output for two observations of the space; also finds the layout of its state.

        Lazy layers are initialised here. Buffers, modes and random streams do not change.

        Args:
            space: Space of the observations, `[B, *shape]`, or a dict of spaces.
            extras: Further inputs that the policy passes on, float32 `[2, ...]` (`[2, 1, ...]` in a
                recurrent agent).

        Returns:
            The output, `[2, ...]` (`[2, 1, ...]` in a recurrent agent), and its `Sources`.

        Raises:
            ConfigError: If the module raises, with its name and the shapes of its input.
        """
        name = type(self.module).__name__
        modes = {module: module.training for module in self.modules()}
        device = next((p.device for p in self.parameters()), torch.device("cpu"))
        self.eval()
        try:
            with (
                torch.random.fork_rng(devices=[]),
                torch.no_grad(),
                watched(self.module, name) as at,
            ):
                outputs = []
                for n in (2, 3) if self.recurrent else (2,):
                    obs = draw(space, n, device)
                    if self.sequences:
                        obs = as_steps(obs)
                    if extras:
                        more = {k: x[:1].expand(n, *x.shape[1:]) for k, x in extras.items()}
                        obs = {**(obs if isinstance(obs, dict) else {OBS: obs}), **more}
                    try:
                        outputs.append(self(obs))
                    except ConfigError:
                        raise
                    except Exception as error:
                        shapes = map_leaves(lambda x: tuple(x.shape), obs)
                        raise ConfigError(
                            f"{name}.forward raised {type(error).__name__} in {at.last}, given {shapes}: "
                            f"{error}{about_integers(error, space, after=str(error))}"
                        ) from error
        finally:
            for module, training in modes.items():
                module.training = training
        if self.recurrent:
            self.layout = find_layout(outputs[0][1], outputs[1][1], name)
        return outputs[0][0], at

    def select(self, state: State, index: Tensor) -> State:
        """Rows of a state by index, int64 `[S]`; -1 selects zeros, the start of an episode."""
        return select(state, self.layout, index)


class Features(nn.Module):
    """The user's encoder as the first layer of a network: features `[B, out_features]`.

    Args:
        module: The encoder; its output, `[B, ...]`, is flattened.
        obs_spec: Space of its input, `[B, *obs_spec.shape]`, or a dict of spaces.
        detach: Stop gradients, where another network trains the encoder.

    Raises:
        ConfigError: If it raises, or is recurrent.
    """

    def __init__(
        self, module: nn.Module, obs_spec: Space | dict[str, Space], *, detach: bool = False
    ):
        super().__init__()
        self.part, self.detach = Part(module), detach
        name = type(module).__name__
        if self.part.recurrent:
            raise ConfigError(
                f"encoder={name} carries a state. Use PPO or A2C, which support that."
            )
        output, sources = self.part.probe(obs_spec, {})
        if not isinstance(output, Tensor) or len(output) != 2 or output.dim() < 2:
            given = list(output.shape) if isinstance(output, Tensor) else type(output).__name__
            raise ConfigError(
                f"encoder={name}: expected features (B, ...), got {given}{sources.of(output)}."
            )
        self.out_features = output[0].numel()

    def forward(self, obs: Tensors) -> Tensor:
        features = self.part(obs)[0].flatten(1)
        return features.detach() if self.detach else features


def trunk(
    module: nn.Module | None,
    obs_spec: Space | dict[str, Space],
    hidden: Sequence[int],
    *,
    detach: bool = False,
) -> Trunk:
    """Our own encoder, or the user's, followed by layers of the widths in `hidden`."""
    if module is None:
        return encoder(obs_spec, hidden)
    features = Features(module, obs_spec, detach=detach)
    layers: list[nn.Module] = [features]
    width = features.out_features
    for size in hidden:
        layers += [nn.Linear(width, size), nn.ReLU()]
        width = size
    return Trunk(layers, width)


class PolicyPart(Part):
    """A module that returns logits of actions or distributions over them, and any other keys.

    Args:
        action_spec: Space of the actions, or a dict of spaces; see `logits_shape` in `heads`.
    """

    def __init__(
        self,
        module: nn.Module,
        action_spec: Space | dict[str, Space],
        *,
        sequences: bool = False,
    ):
        super().__init__(module, sequences=sequences)
        self.action_spec = action_spec

    def check(self, output: object, sources: Sources) -> None:
        """Check that the output of `probe` fits the actions.

        Raises:
            ConfigError: With the head's name, what was expected, what it returned and from where.
        """
        if self.sequences:
            output = map_leaves(lambda x: _first_step(x), output)
        name, space = type(self.module).__name__, self.action_spec
        if isinstance(output, dict) and not isinstance(space, dict):
            space = {ACTION: space}
        check_outputs(output, space, 2, name, sources)

    def split(self, output: object) -> tuple[Any, dict[str, Any]]:
        """Splits the output into action heads and everything else."""
        if not isinstance(output, dict):
            return output, {}
        if isinstance(self.action_spec, dict):
            actions = {name: output[name] for name in self.action_spec if name in output}
            return actions, {k: v for k, v in output.items() if k not in actions}
        return output.get(ACTION), {k: v for k, v in output.items() if k != ACTION}


class CriticPart(Part):
    """A module that returns the value of observations: a tensor, or a dict with `value`."""

    def value(self, obs: Tensors, state: State = None) -> tuple[Tensor, State]:
        """Values `[B]` (`[B, T]` in a recurrent agent), and the next state."""
        output, state = self(obs, state)
        return value_of(output, type(self.module).__name__, sequences=self.sequences), state

    def check(self, output: object, sources: Sources) -> None:
        """Check that the output of `probe` holds values.

        Raises:
            ConfigError: With what was expected and what it returned.
        """
        name = type(self.module).__name__
        given = value_of(output, name, sequences=self.sequences)
        wanted = (2, 1) if self.sequences else (2,)
        if given.shape != wanted:
            shown = "(B,) or (B, 1)"
            raise ConfigError(
                f"{name}: 'value': expected {shown}, got {tuple(given.shape)}{sources.of(output)}."
            )
        if not bool(torch.isfinite(given).all()):
            raise ConfigError(f"{name}: 'value' is not finite{sources.of(output)}.")

    def takes_extras(self, obs_spec: Space | dict[str, Space]) -> bool:
        """Whether it receives dicts, to which more keys can be added."""
        return self.named or isinstance(obs_spec, dict)


def value_of(output: object, name: str, *, sequences: bool) -> Tensor:
    """Values, float32 `[B]` (`[B, T]`), from a critic's output, which may have a last dimension of 1.

    Raises:
        ConfigError: If the output holds no values.
    """
    if isinstance(output, dict):
        if "value" not in output:
            given = ", ".join(map(str, output)) or "nothing"
            raise ConfigError(f"{name}.forward returned no 'value', only {given}.")
        output = output["value"]
    if not isinstance(output, Tensor):
        raise ConfigError(
            f"{name}.forward returned a {type(output).__name__}; expected values [B], or a dict with "
            "'value'."
        )
    # Compare dimensions, not sizes: in sequences of one step, [B, 1] already is the right shape.
    return (output.squeeze(-1) if output.dim() == 2 + sequences else output).float()


def asks_for(module: nn.Module, parameter: str) -> bool:
    """Whether a module's constructor has a parameter of that name."""
    return parameter in inspect.signature(type(module).__init__).parameters


def draw(space: Space | dict[str, Space], n: int, device: torch.device) -> Any:
    """n random observations within the space's bounds, as models receive them: float32, or int64 ids.

    Random, since a module that divides by the standard deviation would return NaN for zeros.
    """
    return map_tree(lambda part: _drawn(part, n, device), space)


def _drawn(space: Space, n: int, device: torch.device) -> Tensor:
    if space.ids is not None:
        smallest = min(int(space.low), space.ids - 1)  # type: ignore[arg-type]
        return torch.randint(smallest, space.ids, (n, *space.shape), device=device)
    unit = torch.rand(n, *space.shape)
    if space.discrete or space.dtype != torch.float32:  # One-hot choices, bytes as [0, 1].
        return unit.to(device)
    low, high = (
        torch.as_tensor(torch.inf if b is None else b).cpu() for b in (space.low, space.high)
    )
    bounded = torch.isfinite(high - low)
    return torch.where(bounded, low + unit * (high - low), unit).float().to(device)


def _length(obs: Tensors) -> int:
    return int(leaves(obs)[0].shape[1])


def _unflattened(leaf: object, steps: int, module: nn.Module) -> Any:
    if isinstance(leaf, Distribution):
        raise ConfigError(
            f"{type(module).__name__}.forward returned a {type(leaf).__name__}, but another part of the "
            "agent is recurrent. Return its logits."
        )
    return leaf.unflatten(0, (-1, steps)) if isinstance(leaf, Tensor) and leaf.dim() else leaf


def _first_step(leaf: object) -> Any:
    return leaf[:, 0] if isinstance(leaf, Tensor) and leaf.dim() > 1 else leaf
