"""One run, from composed settings to the `Run` that `ml` gives back."""

from __future__ import annotations

from .open_run import OpenRun
from .run import Run
from .settings.settings import Settings


def train(settings: Settings) -> Run:
    """Build everything, learn every task, and keep the results.

    Raises:
        ConfigError: Before any training, for anything that cannot work.
        Diverged: If the loss becomes NaN or infinite.
        Interrupted: After SIGINT or SIGTERM, once the run is saved.
    """
    with OpenRun(settings) as run:
        run.learn()
        return run.finish()
