"""How to start a client: its arguments and its environment."""

from __future__ import annotations

from typing import Any

from dbconfig.settings.secret_sources import Secret

# A name from a profile is never a separate argument: one that begins with `-` would be an option, and the options of
# these programs run commands.
Start = tuple[list[str], dict[str, str]]


class CannotPass(Exception):
    """A value that the client would misinterpret."""


def written(value: Any) -> str:
    """Return a parameter's value as one text; it may have several, and they may be secrets."""
    values = value if isinstance(value, (tuple, list)) else (value,)
    return ",".join(one.read() if isinstance(one, Secret) else str(one) for one in values)
