"""The model between spells of learning: as a finished run leaves it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

from ...agents.policy.raw_observations import takes_normalised, takes_raw
from ...replay import Normalizer
from .learner import Learner


class Rest:
    """Puts a model into eval mode with its averaged weights, and back into its last learning step.

    At rest the model's `act` receives observations in the environment's own units; awake, what batches hold.

    Args:
        own: The user's module, which may be a part of what learns.
        normalizer: Running statistics of observations, or None.
    """

    def __init__(self, learner: Learner, own: nn.Module, normalizer: Normalizer | None):
        self._learner, self._own, self._normalizer = learner, own, normalizer
        self._modes: dict[nn.Module, bool] | None = None  # Of its modules, when it last learnt.
        self._averaged = False  # Whether averaged weights have taken the place of its own.

    def __bool__(self) -> bool:
        return self._modes is not None

    def begin(self) -> None:
        """Put the model to rest."""
        learner = self._learner
        self._modes = {module: module.training for module in learner.agent.modules()}
        # A model that updates itself has no other weights: their average never moved.
        if learner.average is not None and learner.optimised:
            learner.parameters.look()
            learner.average.swap()
            self._averaged = True
        learner.agent.eval()
        takes_raw(self._own, self._normalizer)

    def end(self) -> None:
        """Put the model back into the state of its last learning step; nothing if it is in it."""
        if self._modes is None:
            return
        takes_normalised(self._own)
        if self._averaged:
            assert self._learner.average is not None
            self._learner.average.swap()
        # Module by module: a part that the user froze in eval mode stays so.
        for module, training in self._modes.items():
            module.training = training
        self._modes, self._averaged = None, False

    @contextmanager
    def interrupted(self) -> Iterator[None]:
        """Inside, the model is as it last learnt; afterwards it rests again if it did before."""
        rested = bool(self)
        self.end()
        try:
            yield
        finally:
            if rested:
                self.begin()
