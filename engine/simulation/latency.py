"""How long things take: distributions, written as in ``exponential:0.01``."""

from __future__ import annotations

import math
from dataclasses import dataclass

from engine.values.errors import ConfigError

_SHAPES = {
    "fixed": ("seconds",),
    "uniform": ("least", "most"),
    "exponential": ("mean",),
    "pareto": ("shape", "least"),
}


@dataclass(frozen=True, slots=True)
class Latency:
    """A distribution of seconds.

    ``fixed:SECONDS``, ``uniform:LEAST:MOST``, ``exponential:MEAN``, or ``pareto:SHAPE:LEAST``.
    """

    name: str
    numbers: tuple[float, ...]

    @classmethod
    def parse(cls, text: str) -> Latency:
        """Read one. Raises `ConfigError`."""
        name, *rest = text.split(":")
        try:
            numbers = tuple(map(float, rest))
        except ValueError:
            raise ConfigError(f"latency {text!r}: {':'.join(rest)} is not made of numbers") from None
        if name not in _SHAPES or len(numbers) != len(_SHAPES[name]):
            known = ", ".join(":".join((each, *map(str.upper, names))) for each, names in _SHAPES.items())
            raise ConfigError(f"latency {text!r}: write it as one of {known}")
        if not all(0 <= each < math.inf for each in numbers) or (name == "uniform" and numbers[0] > numbers[1]):
            raise ConfigError(f"latency {text!r}: no such seconds")
        if name == "pareto" and not numbers[0]:
            raise ConfigError(f"latency {text!r}: the shape must be above 0")
        return cls(name, numbers)

    def at(self, chance: float) -> float:
        """Seconds that a share `chance` of all takes at most; `chance` is from [0, 1)."""
        numbers = self.numbers
        if self.name == "fixed":
            return numbers[0]
        if self.name == "uniform":
            return numbers[0] + (numbers[1] - numbers[0]) * chance
        if self.name == "exponential":
            return -numbers[0] * math.log(1 - chance)
        return float(numbers[1] / (1 - chance) ** (1 / numbers[0]))
