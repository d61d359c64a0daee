"""The command line: `main`."""

from __future__ import annotations

import os
import sys

from dbconfig.cli.exit_codes import FAILED, INTERRUPTED

TYPE_CHECKING = False  # not from typing, which takes longer to import than Python to start
if TYPE_CHECKING:
    from collections.abc import Sequence

    from dbconfig.cli.parser import Arguments


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code."""
    # Few imports above, so that `--help` and shell completion start as fast as Python.
    from dbconfig.cli.parser import UsageError, parse

    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    try:
        return _run(parse(sys.argv[1:] if arguments is None else arguments))
    except UsageError as error:
        from dbconfig.errors.printable import harmless  # the arguments may come from a script's variables

        sys.stderr.writelines(f"{harmless(line)}\n" for line in str(error).split("\n"))
        return FAILED
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        return INTERRUPTED
    except BrokenPipeError:
        # The reader (`head`) has exited; without this, the interpreter reports it again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED


def _run(arguments: Arguments) -> int:
    if arguments.command == "completion":  # runs at each press of TAB, and does not need what the other commands share
        from dbconfig.cli.commands import completion

        return completion.run(arguments)

    from importlib import import_module

    from dbconfig.cli.context import Context
    from dbconfig.errors import ConfigError
    from dbconfig.settings.environment_variables import process

    context = Context(arguments, process())
    try:
        command = import_module(f"dbconfig.cli.commands.{arguments.module}")
        with context.out.logged():
            code: int = command.run(context)
        sys.stdout.flush()
    except ConfigError as error:
        context.out.problems(error.problems)
        return FAILED
    return code
