"""Names of schemas that a program passes, such as a tenant's: checked before they are quoted into SQL."""

from __future__ import annotations

from typing import Final

from sqlalchemy.sql import quoted_name

from dbconfig.errors.printable import quoted

_LONGEST: Final = 63  # bytes: PostgreSQL's NAMEDATALEN - 1, which truncates a longer name; MySQL has 64 characters


def checked(name: str) -> str:
    """Return a schema's name, which SQLAlchemy quotes from now on whatever it contains.

    Raises:
        TypeError: it is not text.
        ValueError: it is empty, too long, or has a character that no schema's name can have.
    """
    if not isinstance(name, str):
        raise TypeError(f"a schema's name is text, not {type(name).__name__}")
    if not name or name != name.strip():
        raise ValueError(f"{quoted(name)} cannot be the name of a schema: it is empty, or begins or ends with a space")
    if not name.isprintable() or len(name.encode("utf-8", "surrogatepass")) > _LONGEST:
        raise ValueError(
            f"{quoted(name)} cannot be the name of a schema: it is longer than {_LONGEST} bytes, "
            "or contains an unprintable character"
        )
    return quoted_name(name, quote=True)
