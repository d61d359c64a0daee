"""The status page: the pools of this process as HTML and SVG without JavaScript, and as JSON."""

from __future__ import annotations

import os
import time
import weakref
from collections import deque
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any, Final

from dbconfig.engine.pool import Histogram, PoolStats, caretaker
from dbconfig.engine.pool.advice import advice
from dbconfig.errors import ConfigError
from dbconfig.errors.problem import Problem
from dbconfig.integrations.figures import Reader
from dbconfig.registry.registry import Registry, default

PERIOD: Final = 2.0  # seconds between two samples
SAMPLES: Final = 300  # ten minutes
REFRESH: Final = 5  # seconds, by the browser
_WIDTH, _HEIGHT, _MARGIN = 640, 120, 36
# Distinguishable without color, too: by the dashes.
_LINES: Final = {"used": ("#0b62a4", ""), "idle": ("#7a92a3", "4 3"), "waiting": ("#c2410c", "1 2")}
_QUANTILES: Final = (0.5, 0.95, 0.99)
_STYLE: Final = (
    "body{font:15px/1.4 system-ui,sans-serif;margin:2rem auto;max-width:46rem;padding:0 1rem;color:#1b2730}"
    "h1{font-size:1.5rem;margin:0}h2{margin:1.5rem 0 .3rem;font-size:1.1rem}p{margin:.2rem 0;color:#4a5a66}"
    "ul{margin:0;padding-left:1.2rem}table{border-collapse:collapse;margin-top:.4rem}"
    "td,th{text-align:left;padding:.1rem 1.6rem .1rem 0;font-weight:400;font-variant-numeric:tabular-nums}"
    "th{color:#4a5a66}.out{color:#c2410c}svg{max-width:100%;height:auto}"
)


# Where frameworks mount it, and what they answer with.
PATH: Final = "/status/db"
DETAILS: Final = "/health/db/details"
HEADERS: Final = {"Cache-Control": "no-store"}


def opened(guard: object, registry: Registry | None) -> Page:
    """Return the page of a registry, and start sampling.

    Raises:
        ConfigError: `guard` is missing, and the profile is not that of a developer's machine.
    """
    chosen = default if registry is None else registry
    if guard is None and chosen.profile.name != "development":
        message = f"the status page needs a guard in the profile {chosen.profile.name!r}"
        help = "pass guard=…, a function that rejects unauthorized requests"
        raise ConfigError([Problem("not-applicable", message, help=help)])
    page = Page(chosen)
    page.watch()
    return page


class Page:
    """The page of one registry, with the recent history of its pools."""

    def __init__(self, registry: Registry) -> None:
        self._reader = Reader(registry)
        self._samples: deque[tuple[float, dict[str, PoolStats]]] = deque(maxlen=SAMPLES)
        self._process = 0

    def watch(self) -> None:
        """Take samples periodically in this process; a forked child starts without samples."""
        if self._process == os.getpid():
            return
        self._process = os.getpid()
        self._samples.clear()
        page = weakref.ref(self)

        def sample() -> float | None:
            found = page()
            if found is None:
                return None
            found.sample()
            return PERIOD

        caretaker.add(("dbconfig.status", id(self)), sample, PERIOD)

    def sample(self) -> dict[str, PoolStats]:
        """Read the pools, and store a sample."""
        now = self._reader.read()
        self._samples.append((time.time(), now))
        return now

    def details(self) -> dict[str, Any]:
        """Return the details that readiness omits: pools and replicas, without hosts, users, or statements."""
        self.watch()
        pools = self._reader.read()
        return {"pools": {name: _facts(pool) for name, pool in pools.items()}, "advice": advice(pools.values())}

    def html(self) -> str:
        """Return the page."""
        self.watch()
        pools = self.sample()
        parts = [self._section(pool) for pool in pools.values()]
        said = advice(pools.values())
        lines = "".join(f"<li>{escape(line)}</li>" for line in said)
        return (
            '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Database pools</title>'
            f'<meta name="viewport" content="width=device-width"><meta http-equiv="refresh" content="{REFRESH}">'
            f"<style>{_STYLE}</style></head><body><h1>Database pools</h1><p>Process {os.getpid()}</p>"
            + (f"<h2>Advice</h2><ul>{lines}</ul>" if said else "")
            + "".join(parts)
            + "</body></html>"
        )

    def _section(self, pool: PoolStats) -> str:
        past = [(at, pools[pool.name]) for at, pools in self._samples if pool.name in pools]
        state = '<p class="out">out of rotation</p>' if pool.out else ""
        lag = "" if pool.lag is None else f"<p>lags by {pool.lag:.1f} s</p>"
        rows = [
            ("used, idle, waiting", f"{pool.used}, {pool.idle}, {pool.waiting}"),
            ("limit", "none" if pool.max is None else str(pool.max)),
            ("wait " + _percents(), _shown_quantiles(pool.wait)),
            ("held " + _percents(), _shown_quantiles(pool.use)),
            ("checkouts", str(pool.wait.count)),
            ("timed out, turned away", f"{pool.timeouts}, {pool.refused}"),
            ("leaks, failovers", f"{pool.leaks}, {pool.failovers}"),
            ("retries, uncertain commits", f"{sum(pool.retries.values())}, {pool.uncertain_commits}"),
        ]
        table = "".join(f"<tr><th>{escape(name)}</th><td>{escape(value)}</td></tr>" for name, value in rows)
        return f"<section><h2>{escape(pool.name)}</h2>{state}{lag}{timeline(past)}<table>{table}</table></section>"


def timeline(past: Sequence[tuple[float, PoolStats]]) -> str:
    """Return connections in use, idle connections, and waiters over time as SVG; the limit is a line."""
    if not past:
        return ""
    begin, end = past[0][0], past[-1][0]
    limits = [pool.max for _, pool in past if pool.max is not None]
    top = max([1, *limits[-1:], *(max(pool.used, pool.idle, pool.waiting) for _, pool in past)])

    def point(at: float, value: float) -> str:
        x = _MARGIN + (_WIDTH - 2 * _MARGIN) * ((at - begin) / (end - begin) if end > begin else 1.0)
        return f"{x:.1f},{_y(value, top):.1f}"

    lines = "".join(
        f'<polyline fill="none" stroke="{color}" stroke-width="2" stroke-dasharray="{dashes}" points="'
        + " ".join(point(at, getattr(pool, name)) for at, pool in past)
        + '"/>'
        for name, (color, dashes) in _LINES.items()
    )
    limit = ""
    if limits:
        y = _y(limits[-1], top)
        limit = (
            f'<line x1="{_MARGIN}" x2="{_WIDTH - _MARGIN}" y1="{y:.1f}" y2="{y:.1f}" stroke="#1b2730"/>'
            f'<text x="{_MARGIN - 4}" y="{y + 4:.1f}" text-anchor="end">{limits[-1]}</text>'
        )
    legend = "".join(
        f'<text x="{_MARGIN + 90 * number}" y="{_HEIGHT - 4}" fill="{color}">{name}</text>'
        for number, (name, (color, _)) in enumerate(_LINES.items())
    )
    span = (
        f'<text x="{_WIDTH - _MARGIN}" y="{_HEIGHT - 4}" text-anchor="end">last {max(0, round(end - begin))} s</text>'
        f'<text x="{_MARGIN - 4}" y="{_y(0, top) + 4:.1f}" text-anchor="end">0</text>'
    )
    return (
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" width="{_WIDTH}" height="{_HEIGHT}" role="img" font-size="12" '
        f'font-family="sans-serif"><title>Connections in the last {max(0, round(end - begin))} s</title>'
        f"{limit}{lines}{legend}{span}</svg>"
    )


def _y(value: float, top: float) -> float:
    return 10 + (_HEIGHT - 34) * (1 - value / top)


def quantile(histogram: Histogram, share: float) -> float | None:
    """Return the bound below which a share of the durations lies; None above the last bound, or without durations."""
    wanted, so_far = share * histogram.count, 0
    for bound, count in zip(histogram.bounds, histogram.counts, strict=False):
        so_far += count
        if so_far and so_far >= wanted:
            return bound
    return None


def _percents() -> str:
    return ", ".join(f"p{share * 100:g}" for share in _QUANTILES)


def _shown_quantiles(histogram: Histogram) -> str:
    if not histogram.count:
        return "–"
    found = [quantile(histogram, share) for share in _QUANTILES]
    return ", ".join(
        "> 10 s" if each is None else f"≤ {each:g} s" if each >= 1 else f"≤ {each * 1000:g} ms" for each in found
    )


def _facts(pool: PoolStats) -> Mapping[str, Any]:
    whole = ("role", "size", "max", "idle", "used", "connecting", "waiting", "timeouts", "refused", "leaks", "lag")
    return {**{name: getattr(pool, name) for name in whole}, "in_rotation": not pool.out}
