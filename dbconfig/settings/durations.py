"""Durations such as `30m`: read, written, and their pattern."""

from __future__ import annotations

import math
import re
from typing import Annotated, Any, Final

from pydantic import BeforeValidator
from pydantic_core import PydanticCustomError

from dbconfig.settings.findings import reject
from dbconfig.settings.value_types import _FLAGS, _ambiguity, _kind, flag, plain

LONGEST_CONNECT: Final = 3600  # seconds, of connect_timeout and of the drivers' own arguments
_DURATION = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,6})?) ?(ms|s|m|h|d)?", re.ASCII)


_UNIT_SECONDS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, None: 1.0}


def seconds(value: Any) -> float:
    raw = plain(value)
    if isinstance(raw, (int, float)) and not isinstance(raw, bool):
        if not math.isfinite(raw):
            raise reject("wrong-type", "must be a finite number of seconds")
        return float(raw)
    match = _DURATION.fullmatch(raw) if isinstance(raw, str) and not _ambiguity(value) else None
    if match is not None:
        return float(match[1]) * _UNIT_SECONDS[match[2]]
    if raw == "-1":
        return -1.0
    found = f"; YAML 1.1 reads this as {_ambiguity(value)}" if _ambiguity(value) else f", not {_kind(raw)}"
    raise reject(
        "ambiguous-value" if _ambiguity(value) else "wrong-type",
        f"must be a number of seconds or a duration{found}",
        "500ms, 5s, 30m, 1h",
    )


def seconds_or_off(value: Any) -> float | None:
    """Take a duration, or `false` for never."""
    raw = plain(value)
    if raw is False or (isinstance(raw, str) and _FLAGS.get(raw.lower()) is False):
        return None
    return seconds(value)


def check(value: Any) -> bool | float:
    """Take a boolean, or the seconds of rest after which a connection is asked whether it lives."""
    raw = plain(value)
    if isinstance(raw, bool) or (isinstance(raw, str) and raw.lower() in _FLAGS):
        return flag(value)
    try:
        found = seconds(value)
    except PydanticCustomError:
        raise reject(
            "wrong-type", f"must be true or false, or a duration, not {_kind(raw)}", "1s, true or false"
        ) from None
    if found < 0:
        raise reject("out-of-range", "must be true or false, or a duration of at least 0")
    return found


Seconds = Annotated[float, BeforeValidator(seconds)]


SecondsOrOff = Annotated[float | None, BeforeValidator(seconds_or_off)]


Check = Annotated[bool | float, BeforeValidator(check)]


def duration(seconds: float) -> str:
    """Return seconds as the YAML has them: 500ms, 5s, 30m, 1h.

    >>> duration(0.5), duration(90.0), duration(1800.0), duration(-1.0)
    ('500ms', '90s', '30m', '-1')
    """
    if seconds < 0 or seconds == 0:
        return f"{seconds:g}"
    for unit, size in (("h", 3600), ("m", 60)):
        if seconds % size == 0:
            return f"{seconds / size:g}{unit}"
    return f"{seconds:g}s" if seconds >= 1 else f"{seconds * 1000:g}ms"
