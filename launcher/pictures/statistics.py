"""Statistics over seeds: mean, standard deviation, and the interquartile mean with its interval."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

_RESAMPLES = 50_000
_LEVEL = 0.95
_AT_ONCE = 1_000_000  # Numbers that are resampled at a time.


@dataclass(frozen=True)
class Summary:
    """Summary statistics of the runs in one row.

    Attributes:
        n: How many there are.
        mean: Their mean.
        stddev: The sample standard deviation; NaN for one run.
        iqm: The interquartile mean: that of the middle half.
        low, high: Its bootstrap interval, 95 %; NaN for one run.
    """

    n: int
    mean: float
    stddev: float
    iqm: float
    low: float
    high: float


def summarize(values: list[float]) -> Summary:
    """The statistics of runs that differ in their seed.

    The interval holds the middle 95 % of the interquartile means of resampled runs (percentile bootstrap).
    Source: Agarwal et al. (2021, arXiv 2108.13264), section 4. It equals that of their library, rliable
    1.2.0, after `numpy.random.seed(0)`: `get_interval_estimates` with `aggregate_iqm` and its defaults, on
    a matrix `[n, 1]`.

    Args:
        values: One or more numbers. If one is NaN, so is everything.

    >>> found = summarize([0.0, 1.0, 2.0, 3.0, 100.0])
    >>> found.n, found.mean, round(found.stddev, 2), found.iqm
    (5, 21.2, 44.07, 2.0)
    """
    runs = np.array(values, dtype=np.float64)
    n, nan = len(runs), float("nan")
    mean, iqm = float(runs.mean()), float(interquartile_mean(runs))
    if n == 1:
        return Summary(n, mean, nan, iqm, nan, nan)
    tail = 100 * (1 - _LEVEL) / 2
    low, high = np.percentile(_resampled(runs), [tail, 100 - tail])
    return Summary(n, mean, float(runs.std(ddof=1)), iqm, float(low), float(high))


def _resampled(runs: np.ndarray) -> np.ndarray:
    """The interquartile means of resampled runs, float64 `[_RESAMPLES]`."""
    n = len(runs)
    draw, count = np.random.RandomState(0), max(1, _AT_ONCE // n)
    parts = [min(count, _RESAMPLES - done) for done in range(0, _RESAMPLES, count)]
    return np.concatenate(
        [interquartile_mean(runs[draw.randint(0, n, size=(part, n))]) for part in parts]
    )


def interquartile_mean(values: np.ndarray) -> np.ndarray:
    """The mean of the last dimension without its lowest and its highest quarter, rounded down.

    >>> float(interquartile_mean(np.array([9.0, 1.0, 2.0, 4.0])))
    3.0
    """
    n = values.shape[-1]
    cut = n // 4
    trimmed: np.ndarray = np.sort(values, axis=-1)[..., cut : n - cut].mean(axis=-1)
    return trimmed
