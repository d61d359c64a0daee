"""What is wrong with a value, told through pydantic to the loader, which knows where the value stands."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from pydantic_core import PydanticCustomError


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing wrong with a value, before it is known where the value stands."""

    slug: str
    message: str
    help: str = ""
    at: tuple[str, ...] = ()
    because: str = ""  # the key that makes this one impossible
    against: str = ""  # the key that says otherwise


def reject(slug: str, message: str, help: str = "", at: tuple[str, ...] = ()) -> PydanticCustomError:
    return reject_all([Finding(slug, message, help, at)])


def reject_all(findings: Iterable[Finding]) -> PydanticCustomError:
    """Return the pydantic error that carries findings; the loader places them in the file."""
    found = tuple(findings)
    text = "; ".join(finding.message for finding in found)
    return PydanticCustomError("finding", "{text}", {"text": text, "findings": found})
