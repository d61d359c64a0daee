"""Problems with a value, passed through pydantic to the loader, which knows the location of the value."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import ValidationError
from pydantic_core import PydanticCustomError

from dbconfig.errors.light_dataclass import dataclass


@dataclass(frozen=True, slots=True)
class Finding:
    """A problem with a value whose location is not known yet."""

    slug: str
    message: str
    help: str = ""
    at: tuple[str, ...] = ()
    because: str = ""  # the key that conflicts with this one
    against: str = ""  # the key that contradicts it


def reject(slug: str, message: str, help: str = "", at: tuple[str, ...] = ()) -> PydanticCustomError:
    return reject_all([Finding(slug, message, help, at)])


def reject_all(findings: Iterable[Finding]) -> PydanticCustomError:
    """Return a pydantic error that contains findings; the loader locates them in the file."""
    found = tuple(findings)
    text = "; ".join(finding.message for finding in found)
    return PydanticCustomError("finding", "{text}", {"text": text, "findings": found})


def found_in(error: ValidationError) -> list[tuple[tuple[str, ...], tuple[Finding, ...]]]:
    """Return pydantic's findings with their paths, without the input, which may be secret."""
    found = []
    for details in error.errors(include_url=False, include_input=False):
        kind, ctx = details["type"], details.get("ctx", {})
        findings = ctx["findings"] if kind == "finding" else (_translated(kind, details["msg"], ctx),)
        found.append((tuple(str(part) for part in details["loc"]), findings))
    return found


def _translated(kind: str, message: str, ctx: Mapping[str, Any]) -> Finding:
    if kind == "extra_forbidden":
        return Finding("unknown-key", "")
    limits = {
        "greater_than_equal": "at least {ge}",
        "greater_than": "greater than {gt}",
        "less_than_equal": "at most {le}",
        "less_than": "less than {lt}",
    }
    if kind in limits:
        return Finding("out-of-range", f"must be {limits[kind].format(**ctx)}")
    return Finding("missing-value" if kind == "missing" else "wrong-type", message)
