"""Probes: a copy of the project in which each statement notes that it was executed.

A trace function asks at each line of each library: measured with coverage, the tests of the pool took three times as
long. Here the copy's modules are compiled with one more statement before each of their own, which writes a byte. Their
source stays what it is, for whoever reads it, and so do their line numbers.
"""

import ast
import builtins
import importlib.util
import marshal
import math
import mmap
import os
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

Place = tuple[str, int]  # a file and the line on which a statement begins

HITS = "__mutants_hits__"  # a name of builtins: a byte for each statement, shared with the processes that a test forks
FOLDER = "MUTANTS_HITS"  # the variable that names where each worker notes what its tests have executed
# What each module begins with. The bytes are a file, which is another one in each worker of a run and in the programs
# that its tests start.
_PROLOGUE = f"""
import builtins, mmap, os
path = os.path.join({{folder!r}}, os.environ.get("PYTEST_XDIST_WORKER", "main"))
file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
os.ftruncate(file, {{size}})
builtins.{HITS} = mmap.mmap(file, {{size}})
os.close(file)
"""


def plant(root: Path, package: str, folder: Path) -> list[Place]:
    """Compile a package with probes; return the place of each, in the order of their bytes.

    Args:
        root: of the copy, to which the names of the files are relative.
        folder: for the bytes.
    """
    folder.mkdir(parents=True, exist_ok=True)
    places: list[Place] = []
    trees: dict[Path, ast.Module] = {}
    for path in sorted((root / package).rglob("*.py")):
        trees[path] = ast.parse(path.read_bytes())
        name = str(path.relative_to(root))
        for body in _bodies(trees[path]):
            for position in reversed(range(_first(body), len(body))):
                body.insert(position, _probe(len(places), body[position]))
                places.append((name, body[position + 1].lineno))
    prologue = _PROLOGUE.format(folder=str(folder), size=max(1, len(places)))
    for path, tree in trees.items():
        begin = f"{HITS!r} in vars(__import__('builtins')) or exec({prologue!r}, {{}})"
        tree.body[_first(tree.body) : _first(tree.body)] = ast.parse(begin).body
        _write(path, compile(tree, str(path), "exec", dont_inherit=True))
    return places


def _bodies(tree: ast.AST) -> Iterator[list[ast.stmt]]:
    for node in list(ast.walk(tree)):
        for name in ("body", "orelse", "finalbody"):
            body = getattr(node, name, None)
            if isinstance(body, list) and body:
                yield body


def _first(body: list[ast.stmt]) -> int:
    """Return where a probe may stand: after the docstring, and what has to be at the beginning of a file."""
    first = 0
    for first, statement in enumerate(body):
        text = isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)
        if not text and not (isinstance(statement, ast.ImportFrom) and statement.module == "__future__"):
            return first
    return first + 1


def _probe(number: int, statement: ast.stmt) -> ast.stmt:
    (found,) = ast.parse(f"{HITS}[{number}] = 1").body
    for node in ast.walk(found):
        ast.copy_location(node, statement)
    return found


def _write(path: Path, code: object) -> None:
    """Put code where Python looks for what it has compiled; by its hash, which is not compared."""
    compiled = Path(importlib.util.cache_from_source(str(path)))
    compiled.parent.mkdir(exist_ok=True)
    digest = importlib.util.source_hash(path.read_bytes())
    compiled.write_bytes(importlib.util.MAGIC_NUMBER + (1).to_bytes(4, "little") + digest + marshal.dumps(code))


def begin() -> None:
    """Note what this process executes in a file of its own: the modules may have been imported before it was forked."""
    if found := _shared():
        with (Path(os.environ[FOLDER]) / os.environ.get("PYTEST_XDIST_WORKER", "main")).open("a+b") as file:
            file.truncate(len(found))
            setattr(builtins, HITS, mmap.mmap(file.fileno(), len(found)))


def forget() -> None:
    """Begin anew: nothing was executed."""
    if found := _shared():
        found[:] = bytes(len(found))


def note(test: str, seconds: float) -> None:
    """Append what was executed since, under the name of a test, and how long it took; nan if it did not pass."""
    if found := _shared():
        numbers = [match.start() for match in re.finditer(b"\x01", found[:])]
        worker = os.environ.get("PYTEST_XDIST_WORKER", "main")
        with (Path(os.environ[FOLDER]) / f"{worker}.tests").open("a") as file:
            print(test, seconds, *numbers, sep="\t", file=file)


def _shared() -> mmap.mmap | None:
    found: mmap.mmap | None = getattr(builtins, HITS, None)
    return found


def noted(folder: Path) -> Iterator[tuple[str, float, list[int]]]:
    """Yield each test that has passed, its seconds, and the numbers of what it executed."""
    for path in sorted(folder.glob("*.tests")):
        for line in path.read_text().splitlines():
            test, *values = line.split("\t")
            with suppress(ValueError):  # a line that was cut when its worker ended
                seconds, *numbers = float(values[0]) if values else math.nan, *map(int, values[1:])
                if not math.isnan(seconds):
                    yield test, seconds, numbers
