"""`dbconfig schema`: the JSON schema of the YAML files."""

from __future__ import annotations

import json

from dbconfig.cli.context import Context
from dbconfig.cli.exit_codes import OK


def run(context: Context) -> int:
    context.out.block(text().rstrip("\n"))
    return OK


def text() -> str:
    """Return the content of config/schema.json."""
    from dbconfig.config.json_schema import schema

    return json.dumps(schema(), indent=2, ensure_ascii=False) + "\n"
