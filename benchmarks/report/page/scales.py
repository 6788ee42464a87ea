"""From numbers to places in a drawing."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

MOST_TICKS = 7


@dataclass(frozen=True, slots=True)
class Scale:
    """Maps `low` to the place `start` and `high` to `end`, by their logarithms where `log`."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        """Return the place of a value; what is off scale stands at the edge."""
        at = min(max(value, self.low), self.high)
        if self.log:
            share = math.log(at / self.low) / math.log(self.high / self.low)
        else:
            share = (at - self.low) / (self.high - self.low)
        return round(self.start + share * (self.end - self.start), 1)

    def ticks(self) -> list[float]:
        """Return round numbers within the scale, at most MOST_TICKS."""
        return _powers(self.low, self.high) if self.log else _steps(self.low, self.high)

    def written(self, value: float) -> str:
        """Return a tick of a linear scale with as many decimals as its neighbours need."""
        decimals = max(0, -math.floor(math.log10(_step(self.low, self.high)) + 1e-9))
        return f"{value:.{decimals}f}"


def linear(values: Iterable[float], start: float, end: float, *, pad: float = 0.05) -> Scale:
    """Return a scale of all values, with a share `pad` of their range on both sides."""
    low, high = _range(values)
    margin = (high - low) * pad or abs(high) * pad or 1.0
    return Scale(low - margin, high + margin, start, end)


def logarithmic(values: Iterable[float], start: float, end: float, *, pad: float = 0.1) -> Scale:
    """Return a logarithmic scale of all positive values."""
    low, high = _range(value for value in values if value > 0)
    factor = max((high / low) ** pad, 1.1)
    return Scale(low / factor, high * factor, start, end, log=True)


def _range(values: Iterable[float]) -> tuple[float, float]:
    found = list(values)
    return (min(found), max(found)) if found else (1.0, 1.0)


def _steps(low: float, high: float) -> list[float]:
    step = _step(low, high)
    first, last = math.ceil(low / step), math.floor(high / step)
    return [round(k * step, 9) for k in range(first, last + 1)]


def _step(low: float, high: float) -> float:
    power = 10.0 ** math.floor(math.log10((high - low) / MOST_TICKS))
    return next(power * k for k in (1, 2, 5, 10) if (high - low) / (power * k) < MOST_TICKS)


def _powers(low: float, high: float) -> list[float]:
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for kinds in (range(1, 10), (1, 2, 5), (1, 3), (1,)):
        found = [k * 10.0**d for d in decades for k in kinds if low <= k * 10.0**d <= high]
        if len(found) <= MOST_TICKS:
            return found if len(found) > 1 else _steps(low, high)
    return found[:: -(-len(found) // MOST_TICKS)]
