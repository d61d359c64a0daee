"""`dbconfig completion`: a script for the shell, with commands, options and the names of the profiles."""

from __future__ import annotations

import sys

from dbconfig.cli.command_table import COMMANDS, HELP, common
from dbconfig.cli.exit_codes import OK

TYPE_CHECKING = False  # not from typing, which takes longer to import than Python to start
if TYPE_CHECKING:
    from dbconfig.cli.parser import Arguments

_COMMON = tuple(option.names[-1] for option in (*common(None), HELP))


def run(arguments: Arguments) -> int:
    if arguments.shell == "profiles":
        lines = _profiles(arguments.config)
    else:
        lines = [{"bash": _bash, "zsh": _zsh, "fish": _fish}[arguments.shell]()]
    sys.stdout.writelines(f"{line}\n" for line in lines)
    sys.stdout.flush()
    return OK


def _profiles(config: str | None) -> list[str]:
    from dbconfig.config import profile_files

    try:
        folder = profile_files.find()[0] if config is None else config
        return [] if folder is None else profile_files.names(folder)
    except OSError:
        return []  # completion offers what it finds, and never fails


def _options(command: str) -> list[str]:
    own = [name for option in COMMANDS[command].options for name in option.names]
    return [*own, *_COMMON]


def _takes_profile(command: str) -> bool:
    return any(argument.names == ("profile_argument",) for argument in COMMANDS[command].arguments)


def _quoted(text: str) -> str:
    """Quote a text for a shell; shlex would do the same, after it has imported regular expressions."""
    return "'" + text.replace("'", "'\"'\"'") + "'"


def _slugs() -> str:
    from dbconfig.errors.catalogue import CATALOGUE

    return " ".join(CATALOGUE)


def _bash() -> str:
    cases = "\n".join(f'    {name}) words="{" ".join(_options(name))}" ;;' for name in COMMANDS)
    takers = "|".join(name for name in COMMANDS if _takes_profile(name))
    return f"""# eval "$(dbconfig completion bash)"
_dbconfig() {{
  local word="${{COMP_WORDS[COMP_CWORD]}}" before="${{COMP_WORDS[COMP_CWORD-1]}}" command="" each words=""
  for each in "${{COMP_WORDS[@]:1:COMP_CWORD-1}}"; do
    case "$each" in {"|".join(COMMANDS)}) command="$each"; break ;; esac
  done
  case "$before" in
    --profile|--diff) COMPREPLY=($(compgen -W "$(dbconfig completion profiles 2>/dev/null)" -- "$word")); return ;;
    --format) COMPREPLY=($(compgen -W "text json github" -- "$word")); return ;;
    --color) COMPREPLY=($(compgen -W "auto always never" -- "$word")); return ;;
    --config) COMPREPLY=($(compgen -d -- "$word")); return ;;
    explain) COMPREPLY=($(compgen -W "{_slugs()}" -- "$word")); return ;;
    completion) COMPREPLY=($(compgen -W "bash zsh fish" -- "$word")); return ;;
  esac
  case "$command" in
    "") words="{" ".join(COMMANDS)} {" ".join(_COMMON)} --version" ;;
{cases}
  esac
  case "$command" in
    {takers}) [[ "$word" == -* ]] || words="$words $(dbconfig completion profiles 2>/dev/null)" ;;
  esac
  COMPREPLY=($(compgen -W "$words" -- "$word"))
}}
complete -F _dbconfig dbconfig"""


def _zsh() -> str:
    described = "\n".join(f"    {_quoted(f'{name}:{command.summary}')}" for name, command in COMMANDS.items())
    cases = "\n".join(f"    {name}) choices=({' '.join(_options(name))}) ;;" for name in COMMANDS)
    takers = "|".join(name for name in COMMANDS if _takes_profile(name))
    return f"""#compdef dbconfig
# eval "$(dbconfig completion zsh)"
_dbconfig() {{
  local -a commands choices profiles
  local command="" each
  commands=(
{described}
  )
  for each in "${{(@)words[2,CURRENT-1]}}"; do
    case $each in {"|".join(COMMANDS)}) command=$each; break ;; esac
  done
  local before=${{words[CURRENT-1]}}
  profiles=(${{(f)"$(dbconfig completion profiles 2>/dev/null)"}})
  case $before in
    --profile|--diff) compadd -a profiles; return ;;
    --format) compadd text json github; return ;;
    --color) compadd auto always never; return ;;
    --config) _files -/; return ;;
    explain) compadd {_slugs()}; return ;;
    completion) compadd bash zsh fish; return ;;
  esac
  case $command in
    "") _describe command commands; compadd {" ".join(_COMMON)} --version; return ;;
{cases}
  esac
  compadd -a choices
  case $command in
    {takers}) compadd -a profiles ;;
  esac
}}
compdef _dbconfig dbconfig"""


def _fish() -> str:
    lines = ["# dbconfig completion fish | source", "complete -c dbconfig -f"]
    none = "not __fish_seen_subcommand_from " + " ".join(COMMANDS)
    for name, command in COMMANDS.items():
        lines.append(f"complete -c dbconfig -n '{none}' -a {name} -d {_quoted(command.summary)}")
        for option in _options(name):
            lines.append(f"complete -c dbconfig -n '__fish_seen_subcommand_from {name}' -l {option[2:]}")
        if _takes_profile(name):
            names = "(dbconfig completion profiles 2>/dev/null)"
            lines.append(f"complete -c dbconfig -n '__fish_seen_subcommand_from {name}' -a '{names}'")
    for option in ("profile", "diff"):
        lines.append(f"complete -c dbconfig -l {option} -x -a '(dbconfig completion profiles 2>/dev/null)'")
    lines.append("complete -c dbconfig -l format -x -a 'text json github'")
    lines.append("complete -c dbconfig -l color -x -a 'auto always never'")
    lines.append(f"complete -c dbconfig -n '__fish_seen_subcommand_from explain' -a '{_slugs()}'")
    lines.append("complete -c dbconfig -n '__fish_seen_subcommand_from completion' -a 'bash zsh fish'")
    return "\n".join(lines)
