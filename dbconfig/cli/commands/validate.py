"""`dbconfig validate`: check the files without network, secrets, drivers, or SQLAlchemy."""

from __future__ import annotations

from dbconfig.cli.context import Context
from dbconfig.cli.exit_codes import FOUND, OK
from dbconfig.cli.offline import Survey, described_needs, survey
from dbconfig.cli.output import counted, described
from dbconfig.errors import ConfigError
from dbconfig.errors.problem import Problem


def run(context: Context) -> int:
    surveys = _surveys(context)
    problems = _together(problem for one in surveys for problem in one.problems)
    warnings = _together(warning for one in surveys for warning in one.warnings)
    failed = bool(problems or (context.arguments.strict and warnings))
    if context.is_json:
        document = {
            "reason": None if context.arguments.all else context.reason,
            "strict": context.arguments.strict,
            "profiles": [
                {
                    "name": one.name,
                    "valid": not one.problems,
                    "problems": [described(problem) for problem in one.problems],
                    "warnings": [described(warning) for warning in one.warnings],
                    "variables": described_needs(one),
                }
                for one in surveys
            ],
        }
        context.out.json("validate", document)
        return FOUND if failed else OK
    context.out.problems([*problems, *warnings])
    if context.out.format == "text":
        _report(context, surveys)
    return FOUND if failed else OK


def _surveys(context: Context) -> list[Survey]:
    if not context.arguments.all:
        return [survey(context.folder, context.environment, context.selection.name, own=True)]
    try:
        selected = context.selection.name
    except ConfigError:
        if context.arguments.profile is not None:
            raise
        selected = ""  # the value of ENVIRONMENT does not matter
    names = context.folder.profiles()
    if not names:
        message = f"no profiles in {context.folder.shown()}"
        raise ConfigError([Problem("no-config", message, help="run `dbconfig init` to create four")])
    return [survey(context.folder, context.environment, name, own=name == selected) for name in names]


def _together(problems: object) -> list[Problem]:
    """Return each problem once: those of default.yaml occur in every profile."""
    return list(dict.fromkeys(problems))  # type: ignore[call-overload]


def _report(context: Context, surveys: list[Survey]) -> None:
    for one in surveys:
        state = ("error", "invalid") if one.problems else ("good", "valid")
        count = f", {counted(len(one.problems), 'problem')}" if one.problems else ""
        advice = f", {counted(len(one.warnings), 'warning')}" if one.warnings else ""
        names = list(dict.fromkeys(need.name for need in one.needs if need.required))
        wanted = (
            f"; needs {', '.join(f'{name} (unset)' if name in one.unset else name for name in names)}" if names else ""
        )
        context.out.line(f"{one.name}: ", state, f"{count}{advice}{wanted}")
    if not context.arguments.all:
        context.out.line(f"profile taken by {context.reason}; --all validates every profile")
