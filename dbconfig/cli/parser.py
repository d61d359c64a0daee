"""The command line's arguments, read by the table of the commands.

argparse, with its imports, would take as long as the start of Python, at each press of TAB.
"""

from __future__ import annotations

import sys

from dbconfig.cli.command_table import COMMANDS, HELP, Argument, Command, common, own
from dbconfig.cli.help_text import help_text, usage

TYPE_CHECKING = False  # not from typing, which takes longer to import than Python to start
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Any, NoReturn


class UsageError(Exception):
    """A command line that cannot be parsed; the text suggests what was probably meant."""


class Arguments:
    """The parsed arguments: an attribute for each argument of the command, and for the common options."""

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any: ...

        def __setattr__(self, name: str, value: Any) -> None: ...


class _Reader:
    """Parses one word after the other."""

    def __init__(self, words: Iterable[str]) -> None:
        self.found = Arguments()
        self.name: str | None = None  # of the command
        self._rest = list(words)
        self._words: list[str] = []
        self._known = _by_name([*own(None), *common(None)])
        for each in common(None):
            setattr(self.found, each.kept_as, None)
        self.found.version = False

    def read(self) -> None:
        while self._rest:
            word = self._rest.pop(0)
            if word == "--":
                for each in self._rest:
                    self._take_word(each)
                break
            if _is_option(word):
                self._take_option(word)
            else:
                self._take_word(word)
        if self.name is not None:
            self._share_out(COMMANDS[self.name])

    def _take_word(self, word: str) -> None:
        if self.name is not None:
            self._words.append(word)
            return
        if word not in COMMANDS:
            listed = "\n".join(f"  {name:<14} {command.summary}" for name, command in COMMANDS.items())
            raise UsageError(f"error: unknown command {word!r}{_meant(word, COMMANDS)}\n{listed}")
        self.name = word
        command = COMMANDS[word]
        self._known = _by_name([*own(command), *common(command)])
        for each in command.arguments:
            setattr(self.found, each.kept_as, [] if each.nargs == "*" else each.default)

    def _take_option(self, word: str) -> None:
        name, given, value = word.partition("=")
        option = self._known.get(name)
        if option is None:
            _unknown(word, self.name, self._known)
        if option.flag:
            if given:
                self._refuse(option, f"does not accept a value: {value!r}")
            if option is HELP:
                sys.stdout.write(help_text(self.name))
                raise SystemExit(0)
            setattr(self.found, option.kept_as, True)
            return
        if not given:
            missing = not self._rest or _is_option(self._rest[0])
            if missing and option.nargs == "?":
                setattr(self.found, option.kept_as, option.const)
                return
            if missing:
                self._refuse(option, "expected one argument")
            value = self._rest.pop(0)
        setattr(self.found, option.kept_as, self._checked(option, value))

    def _share_out(self, command: Command) -> None:
        words = self._words
        for each in command.words:
            if each.nargs == "*":
                setattr(self.found, each.kept_as, [self._checked(each, word) for word in words])
                words = []
            elif words:
                setattr(self.found, each.kept_as, self._checked(each, words.pop(0)))
            elif not each.nargs:
                self._error(f"the following arguments are required: {each.metavar}")
        if words:
            _unknown(words[0], self.name, self._known)

    def _checked(self, argument: Argument, value: str) -> object:
        if argument.choices and value not in argument.choices:
            self._refuse(argument, f"invalid choice: {value!r} (choose from {', '.join(argument.choices)})")
        if argument.convert is None:
            return value
        try:
            return argument.convert(value)
        except ValueError as error:
            self._refuse(argument, str(error))

    def _refuse(self, argument: Argument, why: str) -> NoReturn:
        self._error(f"argument {'/'.join(argument.names) if argument.is_option else argument.metavar}: {why}")

    def _error(self, message: str) -> NoReturn:
        prog = "dbconfig" if self.name is None else f"dbconfig {self.name}"
        raise UsageError(f"error: {message}\n{usage(self.name)}\nhelp: {prog} --help")


def parse(arguments: Sequence[str]) -> Arguments:
    """Return the arguments.

    Raises:
        SystemExit: help or the version was requested, and has been printed.
        UsageError: they are invalid.
    """
    reader = _Reader(_without_help(arguments))
    reader.read()
    found = reader.found
    if found.version:
        from dbconfig import __version__

        sys.stdout.write(f"dbconfig {__version__}\n")
        raise SystemExit(0)
    if reader.name is None:
        raise UsageError(f"{help_text(None).rstrip()}\n\nerror: no command")
    if getattr(found, "engine", False) and found.diff is not None:
        raise UsageError("error: `--engine` and `--diff` are two views of a profile: use one of them")
    if getattr(found, "fastapi", False) and found.flask:
        raise UsageError("error: `--fastapi` and `--flask` write the same files: use one of them")
    if getattr(found, "header", None) is not None and found.url is None:
        raise UsageError("error: `--header` is sent to the address of `--url`: pass both")
    positional = getattr(found, "profile_argument", None)
    if positional is not None and found.profile is not None and positional != found.profile:
        raise UsageError(f"error: two profiles: {positional!r} and --profile {found.profile!r}")
    found.profile = found.profile if positional is None else positional
    formats = COMMANDS[reader.name].formats
    found.format = found.format or formats[0]
    if found.format not in formats:
        raise UsageError(f"error: `{reader.name}` writes {' or '.join(formats)}, not {found.format}")
    found.color = found.color or "auto"
    found.command = reader.name
    found.module = reader.name.replace("-", "_")
    return found


def _is_option(word: str) -> bool:
    """Return whether a word is an option: `-` and `-5` are values."""
    return word.startswith("-") and word != "-" and not word[1].isdigit()


def _by_name(options: Iterable[Argument]) -> dict[str, Argument]:
    return {name: option for option in options for name in option.names}


def _without_help(arguments: Sequence[str]) -> Sequence[str]:
    """Return the arguments; `help` and `help COMMAND`, common in other tools, become `--help`."""
    if not arguments or arguments[0] != "help":
        return arguments
    return [*arguments[1:], "--help"]


def _unknown(word: str, command: str | None, known: Iterable[str]) -> NoReturn:
    word = word.partition("=")[0]
    of = f"`dbconfig {command}`" if command else "dbconfig"
    kind = "option" if _is_option(word) else "argument"
    options = known if kind == "option" else ()
    if command is None and (owner := next((name for name, each in COMMANDS.items() if _has(each, word)), "")):
        raise UsageError(f"error: {word!r} is an option of a command, such as `dbconfig {owner}`: write it after that")
    raise UsageError(f"error: {of} has no {kind} {word!r}{_meant(word, options)}\nhelp: see {of.strip('`')} --help")


def _has(command: Command, option: str) -> bool:
    return any(option in argument.names for argument in command.arguments)


def _meant(word: str, known: Iterable[str]) -> str:
    from dbconfig.errors.printable import did_you_mean, suggest

    near = suggest(word.lower(), known)
    return f"; {did_you_mean(near)}" if near else ""
