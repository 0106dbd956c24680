"""What the world of a simulation is like: how long work takes, and what goes wrong. Scripts change it on the way."""

from __future__ import annotations

from dataclasses import dataclass, field

from engine.simulation.latency import Latency
from engine.values.errors import ConfigError

_QUICK = Latency("exponential", (0.001,))


@dataclass(slots=True)
class Performer:
    """Workers or the disk: how long a piece of work takes, and how much of it goes wrong."""

    latency: Latency = _QUICK
    slow: float = 1.0
    """How many times longer everything takes."""
    failing: float = 0.0
    """Share of the work that fails: a worker dies of it, or the disk has an error."""

    def seconds(self, chance: float) -> float:
        """How long work takes of which a share `chance` is quicker."""
        return self.latency.at(chance) * self.slow

    def change(self, latency: str | None, slow: float | None, failing: float | None) -> None:
        """Set what is given. Raises `ConfigError`."""
        if slow is not None and not 0 <= slow < float("inf"):
            raise ConfigError(f"slow must be a number from 0, not {slow!r}")
        if failing is not None and not 0 <= failing <= 1:
            raise ConfigError(f"a share must be from 0 to 1, not {failing!r}")
        if latency is not None:
            self.latency = Latency.parse(latency)
        self.slow = self.slow if slow is None else slow
        self.failing = self.failing if failing is None else failing


@dataclass(slots=True)
class Conditions:
    """All of it. Loop thread only."""

    workers: Performer = field(default_factory=Performer)
    disk: Performer = field(default_factory=Performer)
    dropping: float = 0.0
    """Share of emitted events that get lost on the way."""
