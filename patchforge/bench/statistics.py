"""Times: their medians, how sure these are, and when one is an alarm.

Times of runs have long tails and drift with the machine's temperature, so two sides are run in turns (A B B A) and
compared pair by pair. What is told is a median with its bootstrap interval. An alarm is only what is both significant
(1 lies outside of the interval at :data:`CONFIDENCE`) and large (more than :data:`LARGE`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

CONFIDENCE = 0.99  #: of intervals
LARGE = 0.03  #: of a ratio, less 1
LEAST = 12  #: pairs; of fewer no alarm is told
STEADY = 0.05  #: how far apart the last two runs of a warm-up may be
WARM_UP = 6  #: runs at most
_RESAMPLES = 2000
_SEED = 20_261_129  # the same figures give the same interval


@dataclass(frozen=True, slots=True)
class Interval:
    """A median, and between what it lies at :data:`CONFIDENCE`; of one value it is that value."""

    median: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class TimeRatio:
    """A time by another: below 1 is faster. ``pairs`` is 0 where the runs were not made in turns."""

    ratio: Interval
    pairs: int
    runs: int  #: of the side that has fewer

    @property
    def significant(self) -> bool:
        """Whether the interval leaves out that nothing changed; never of too few runs."""
        return self.runs >= LEAST and not self.ratio.low <= 1 <= self.ratio.high

    @property
    def large(self) -> bool:
        return abs(self.ratio.median - 1) > LARGE

    @property
    def slower(self) -> bool:
        """An alarm."""
        return self.significant and self.large and self.ratio.median > 1

    @property
    def faster(self) -> bool:
        return self.significant and self.large and self.ratio.median < 1

    @property
    def uncertain(self) -> bool:
        """Whether the interval holds, beside no change, one that would be an alarm."""
        beyond = self.ratio.low < 1 - LARGE or self.ratio.high > 1 + LARGE
        return beyond and not self.slower and not self.faster


def interval(values: Sequence[float]) -> Interval:
    """The median of at least one value, with its interval."""
    import numpy as np  # noqa: PLC0415 - the extra ``benchmark``; not every command needs it
    from scipy import stats  # noqa: PLC0415

    median = float(np.median(values))
    if len(set(values)) < 2:
        return Interval(median, median, median)
    bounds = stats.bootstrap(
        (np.asarray(values, dtype=float),),
        np.median,
        confidence_level=CONFIDENCE,
        n_resamples=_RESAMPLES,
        method="percentile",
        rng=np.random.default_rng(_SEED),
    ).confidence_interval
    return Interval(median, float(bounds.low), float(bounds.high))


def paired(before: Sequence[float], after: Sequence[float]) -> TimeRatio:
    """``after`` by ``before``, run by run; both were made in turns. ValueError where there are not as many of each."""
    ratios = [math.log(late / early) for early, late in zip(before, after, strict=True)]
    logarithms = interval(ratios)
    return TimeRatio(_exponential(logarithms), len(ratios), len(ratios))


def unpaired(before: Sequence[float], after: Sequence[float]) -> TimeRatio:
    """The same of two runs of ``bench``, each with its own noise: the medians' ratio, with an interval of its own."""
    import numpy as np  # noqa: PLC0415

    random = np.random.default_rng(_SEED)

    def medians(values: Sequence[float]) -> Any:
        return np.median(random.choice(np.log(values), (_RESAMPLES, len(values))), axis=1)

    low, high = np.quantile(medians(after) - medians(before), [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    median = float(np.median(np.log(after)) - np.median(np.log(before)))
    return TimeRatio(_exponential(Interval(median, float(low), float(high))), 0, min(len(before), len(after)))


def _exponential(logarithms: Interval) -> Interval:
    return Interval(math.exp(logarithms.median), math.exp(logarithms.low), math.exp(logarithms.high))


def steady(seconds: Sequence[float]) -> bool:
    """Whether a warm-up may end: its last two runs took about as long."""
    return len(seconds) > 1 and abs(seconds[-1] - seconds[-2]) <= STEADY * seconds[-2]
