"""The model while it does not learn: as a finished run leaves it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor, nn

from ...agents.policy.raw_observations import takes_normalised, takes_raw
from ...replay import Normalizer
from .learner import Learner


class Rest:
    """Puts a model into eval mode with its averaged weights, and back into its state for learning.

    At rest the model's `act` receives observations in the environment's own units; while it learns,
    normalised ones, as in batches.

    Args:
        own: The user's module, which may be a part of the module that learns.
        normalizer: Running statistics of observations, or None.
    """

    def __init__(self, learner: Learner, own: nn.Module, normalizer: Normalizer | None):
        self._learner, self._own, self._normalizer = learner, own, normalizer
        self._modes: dict[nn.Module, bool] | None = None  # `training` of its modules in learning.
        self._averaged = False  # Whether the module holds the averaged weights.

    def __bool__(self) -> bool:
        return self._modes is not None

    def begin(self) -> None:
        """Put the model to rest."""
        learner = self._learner
        self._modes = {module: module.training for module in learner.agent.modules()}
        # If the model updates itself, the average was never updated.
        if learner.average is not None and learner.optimised:
            learner.parameters.look()
            learner.average.swap()
            self._averaged = True
        learner.agent.eval()
        takes_raw(self._own, self._normalizer)

    def end(self) -> None:
        """Put the model back into the state of its last learning step, unless it is in it."""
        if self._modes is None:
            return
        takes_normalised(self._own)
        if self._averaged:
            assert self._learner.average is not None
            self._learner.average.swap()
        # Module by module: a part that the user keeps in eval mode stays in it.
        for module, training in self._modes.items():
            module.training = training
        self._modes, self._averaged = None, False

    def weights(self) -> dict[str, Tensor]:
        """The tensors of the user's module at rest, by its own names, while it learns; not copies.

        What `state_dict` holds besides tensors (`get_extra_state`) is left out.
        """
        state = {
            name: value
            for name, value in self._own.state_dict().items()
            if isinstance(value, Tensor)
        }
        learner = self._learner
        if learner.average is None or not learner.optimised:
            return state
        averages = learner.average.by_parameter()
        for name, parameter in self._own.named_parameters(remove_duplicate=False):
            if name in state and (average := averages.get(parameter)) is not None:
                state[name] = average
        return state

    @contextmanager
    def interrupted(self) -> Iterator[None]:
        """Run the block with the model in its state for learning; then let it rest again if it did."""
        rested = bool(self)
        self.end()
        try:
            yield
        finally:
            if rested:
                self.begin()
