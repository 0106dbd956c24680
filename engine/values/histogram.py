"""How long things took, as counts in buckets that double: cheap to record, exact to sum, good to a factor of two."""

from __future__ import annotations

from dataclasses import dataclass

BUCKETS = 28
"""Bucket 0 holds what took less than 1 µs, bucket n what took from 2^(n-1) to 2^n µs, the last all that took longer."""


@dataclass(frozen=True, slots=True)
class Histogram:
    """Durations, as a snapshot. Histograms add up."""

    counts: tuple[int, ...] = (0,) * BUCKETS
    """How many fell into each bucket."""
    seconds: float = 0.0
    """The sum of all durations."""

    @property
    def count(self) -> int:
        """How many durations there were."""
        return sum(self.counts)

    @property
    def mean(self) -> float:
        """Seconds on average, 0 when there was none."""
        return self.seconds / self.count if self.count else 0.0

    def percentile(self, percent: float) -> float:
        """Seconds that so many of 100 durations stayed within: the upper bound of the bucket, 0 when there was none.

        The last bucket has no bound: it gives infinity.
        """
        wanted = self.count * percent / 100
        seen = 0
        for bucket, count in enumerate(self.counts):
            seen += count
            if count and seen >= wanted:
                return upper_bound(bucket)
        return 0.0

    def __add__(self, other: Histogram) -> Histogram:
        counts = tuple(map(int.__add__, self.counts, other.counts))
        return Histogram(counts, self.seconds + other.seconds)


class Recorder:
    """Counts durations. Not locked: one thread at a time."""

    __slots__ = ("_counts", "_seconds")

    def __init__(self) -> None:
        self._counts = [0] * BUCKETS
        self._seconds = 0.0

    def add(self, seconds: float, count: int = 1) -> None:
        """Count so many durations of so many seconds each."""
        self._counts[min(int(seconds * 1e6).bit_length(), BUCKETS - 1)] += count
        self._seconds += seconds * count

    def snapshot(self) -> Histogram:
        """What was counted so far."""
        return Histogram(tuple(self._counts), self._seconds)


def upper_bound(bucket: int) -> float:
    """Seconds that nothing in a bucket took longer than."""
    return float("inf") if bucket == BUCKETS - 1 else (1 << bucket) * 1e-6
