"""Data that arrives after a run has finished, read the same way as the run's own data."""

from __future__ import annotations

from ...envs.arrays import Arrays
from ...envs.table_columns import Columns
from ...replay import ConfigError
from ..settings.plan import Plan
from .data import read_data


def read_later(plan: Plan, columns: Columns | None = None) -> tuple[Arrays, Arrays | None]:
    """The training rows, and the held-out rows if any, read like the run's own data; labels stay unchanged.

    Args:
        plan: Names the data set, with the run's own folder, image size and channels.
        columns: How the columns of the run's tables become inputs; None: it learns from no table.

    Raises:
        ConfigError: If the plan does not name exactly one data set, or it cannot be identified.
        DataError: If it cannot be read.
    """
    if (count := len(plan.dataset or ())) != 1:
        raise ConfigError(
            f"learn_task accepts one data set at a time, and received {count}. Call it once for each."
        )
    # The run's world knows which outputs belong to these labels; here they would be numbered from 0.
    train, test, *_ = read_data(plan, numbered=False, columns=columns)
    return train[0], test[0]
