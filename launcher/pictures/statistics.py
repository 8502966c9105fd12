"""Statistics over seeds: mean, standard deviation, and the interquartile mean with its interval."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

_RESAMPLES = 2000
_LEVEL = 0.95


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

    The interval holds the middle 95 % of the interquartile means of resampled runs (percentile bootstrap),
    drawn with a fixed seed. Source: Agarwal et al. (2021, arXiv 2108.13264), section 4.

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
    drawn = np.random.default_rng(0).integers(n, size=(_RESAMPLES, n))
    tail = (1 - _LEVEL) / 2
    low, high = np.quantile(interquartile_mean(runs[drawn]), [tail, 1 - tail])
    return Summary(n, mean, float(runs.std(ddof=1)), iqm, float(low), float(high))


def interquartile_mean(values: np.ndarray) -> np.ndarray:
    """The mean of the last dimension without its lowest and its highest quarter, rounded down.

    >>> float(interquartile_mean(np.array([9.0, 1.0, 2.0, 4.0])))
    3.0
    """
    n = values.shape[-1]
    cut = n // 4
    trimmed: np.ndarray = np.sort(values, axis=-1)[..., cut : n - cut].mean(axis=-1)
    return trimmed
