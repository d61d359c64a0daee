"""How the project speaks: words that read as if translated, and the plain ones that take their place."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

from dbconfig.cli.command_table import COMMANDS
from dbconfig.cli.help_text import help_text
from dbconfig.errors.catalogue import CATALOGUE
from dbconfig.settings.keys import Keys
from tests.support.documents import ROOT

# By what to write instead.
WORDS = {
    "the error names it, is reported, fails": r"\b(?:is|are|was|were|be|been) told\b",
    "automatically": r"\bby itself\b|\bby themselves\b",
    "has no effect": r"\bcannot act\b",
    "is not a": r"(?<!there )\b(?:is|are) no (?!longer|more|other|effect|one\b)\w",
    "does not accept, does not use": r"\btakes? no\b",
    "anyone who, callers that": r"\bwhoever\b",
    "available": r"\bat hand\b|\bto be had\b",
    "replaces": r"\bstands? in (?:for|the place)|\bin the place of\b",
    "out of rotation": r"\bleft out\b",
    "continues": r"\bgo(?:es)? on\b",
    "retried": r"\bagain as a whole\b",
    "transient": r"\bpass(?:es)? by itself\b",
    "American spelling": r"\b(?:colour|behaviour|initialise|(?:mis)?spelt|licence|normalise|recognis|favour)\w*\b",
    "decision": r"\bjudgements?\b",
    "nothing: delete it": r"\b(?:simply|obviously)\b",
    "idle": r"\bat rest\b|\brested\b|\brests? for\b|\bthat rests?\b",
    "read-only session": r"\breading sessions?\b",
    "again, recreate": r"\banew\b",
    "hand out, check out": r"\blent\b|\blends\b",
    "return": r"\bg(?:ives?|ave|iven|iving) (?:(?:its|their|a|the) connections? )?back\b",
    "no longer": r"\bany more\b|\bno more\b(?! (?:than|connections))",
    "immediately, at the same time": r"\bat once\b",
    "per": r"\bround trips? an? \w",
    "counterpart": r"\btwins?\b",
    "below": r"\bbeneath\b",
    "monitor, manage": r"\blook(?:s|ed|ing)? after\b",
    "is in front of, is in between, hangs": r"\bstands? (?:before|between|beneath|still|behind)\b",
    "about": r"\b(?:tell|speak)s? of\b|\btells no\b",
    "callers that": r"\b(?:for|of|by|to|against) who\b",
    "dbconfig's": r"\bof ours\b",
    "overrides, builds on": r"\blaid over\b",
    "queue": r"\bwaiting line\b|\bline is full\b|\bline of callers\b|\bfair line\b",
    "was not expanded; no part of": r"\bnothing has expanded\b|\bnothing of\b",
    "because": r"\bfor the sake of\b|\bwhich is why\b",
    "does not exist, is unknown": r"\bis no such\b|\bthere is no (?:command|file|folder|profile|table)\b",
    "a caller, no caller": r"\b(?:nobody|somebody)\b",
    "indefinitely": r"\bfor ever\b",
    "effective": r"\bin force\b",
    "record": r"\btakes? note\b",
    "is raised, interrupts": r"\bstrikes?\b",
    "silently, without notifying": r"\bwithout a word\b|\bgood-bye\b|\bin silence\b",
    "callers that, waiters": r"\bthose who\b",
    "checks": r"\blooks? (?:whether|again)\b",
    "is in, appears in": r"\bstands? in\b",
    "the interface of": r"\basks? of\b",
}
PAGES = [
    *(ROOT / name for name in ("README.md", "SECURITY.md", "CONTRIBUTING.md", "CHANGELOG.md")),
    *(each for each in sorted((ROOT / "docs").glob("*.md"))),
]
# Output that tests compare, and code, are no prose.
_CODE = re.compile(r"^( *)```.*?^\1```|`[^`\n]+`|<!--.*?-->", re.DOTALL | re.MULTILINE)


def found(text: str) -> list[str]:
    """Return what of the list stands in a text, and what to write instead."""
    return [
        f"{match[0]!r}: write {instead!r} …{' '.join(text[max(0, match.start() - 40) : match.end() + 30].split())}…"
        for instead, pattern in WORDS.items()
        for match in re.finditer(pattern, text, re.IGNORECASE)
    ]


def modules() -> Iterator[Path]:
    yield from (each for each in sorted((ROOT / "dbconfig").rglob("*.py")) if "_template" not in str(each))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_page_has_none_of_the_words(page: Path) -> None:
    assert found(_CODE.sub("", page.read_text(encoding="utf-8"))) == []


@pytest.mark.parametrize("slug", CATALOGUE)
def test_an_entry_of_the_catalogue_has_none_of_the_words(slug: str) -> None:
    entry = CATALOGUE[slug]
    assert found(" ".join([entry.meaning, entry.advice()])) == []


def test_the_description_of_a_key_has_none_of_the_words() -> None:
    assert found("\n".join(str(field.description) for field in Keys.model_fields.values())) == []


@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_of_a_command_has_none_of_the_words(command: str) -> None:
    assert found(help_text(command)) == []


def test_the_first_line_of_a_module_has_none_of_the_words() -> None:
    lines = {path: (ast.get_docstring(ast.parse(path.read_text())) or "").partition("\n")[0] for path in modules()}
    assert {str(path.relative_to(ROOT)): found(line) for path, line in lines.items() if found(line)} == {}


# What docs/api.md shows, and what people import from the integrations.
PUBLIC = [
    ROOT / "dbconfig" / name
    for name in (
        "__init__.py",
        "config/loader.py",
        "engine/pool/deadline.py",
        "engine/pool/diagnostics/stats.py",
        "errors/__init__.py",
        "errors/problem.py",
        "registry/registry.py",
        "sessions/commit.py",
        "settings/database.py",
        "settings/loaded_profile.py",
        "settings/profile.py",
        *(f"integrations/{name}.py" for name in ("alembic", "celery", "fastapi", "fastapi_status", "flask")),
        *(f"integrations/{name}.py" for name in ("flask_status", "otel", "prometheus", "pytest_plugin")),
    )
]


@pytest.mark.parametrize("path", PUBLIC, ids=lambda path: path.stem)
def test_the_documentation_of_the_public_names_has_none_of_the_words(path: Path) -> None:
    nodes = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.FunctionDef | ast.ClassDef)]
    assert found("\n".join(ast.get_docstring(node) or "" for node in nodes)) == []


def _comments_and_docstrings(source: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield ast.get_docstring(node) or ""
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield token.string


def test_a_comment_or_a_docstring_has_none_of_the_words() -> None:
    hits = {
        str(path.relative_to(ROOT)): found("\n".join(_comments_and_docstrings(path.read_text(encoding="utf-8"))))
        for path in modules()
    }
    assert {name: lines for name, lines in hits.items() if lines} == {}


def test_an_error_or_a_warning_has_none_of_the_words() -> None:
    """Every text that is passed to an exception, a problem, a finding, a log, or a note."""
    wrong: dict[str, list[str]] = {}
    for path in modules():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call):
                texts = [
                    part.value
                    for argument in (*node.args, *(each.value for each in node.keywords))
                    for part in ast.walk(argument)
                    if isinstance(part, ast.Constant) and isinstance(part.value, str) and " " in part.value
                ]
                if hits := found("\n".join(texts)):
                    wrong.setdefault(str(path.relative_to(ROOT)), []).extend(hits)
    assert {name: list(dict.fromkeys(hits)) for name, hits in wrong.items()} == {}
