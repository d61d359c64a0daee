"""Weighted round robin: each server gets its share of the read-only sessions."""

from __future__ import annotations

from collections.abc import Sequence
from math import gcd
from typing import Protocol, TypeVar


class Weighed(Protocol):
    """A server with a weight."""

    weight: int
    out: str  # why it gets none now, or ""


W = TypeVar("W", bound=Weighed)


def schedule(replicas: Sequence[W]) -> tuple[W, ...]:
    """Return the turns of the replicas by weight, evenly spread; for weights 3 and 1: A A B A."""
    found = [route for route in replicas if route.weight and not route.out]
    divisor = gcd(*(route.weight for route in found)) if found else 1
    total = sum(route.weight for route in found) // divisor
    credits = dict.fromkeys(range(len(found)), 0)
    turns = []
    for _ in range(total):
        for number, route in enumerate(found):
            credits[number] += route.weight // divisor
        best = max(credits, key=lambda number: credits[number])
        credits[best] -= total
        turns.append(found[best])
    return tuple(turns)
