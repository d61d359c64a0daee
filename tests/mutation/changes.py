"""What a mutation run changes: comparisons, conditions, numbers, returns, calls. Strings and annotations stay."""

import ast
import copy
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

_SWAPS: dict[type[ast.AST], type[Any]] = {
    **{ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq},
    **{ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In, ast.And: ast.Or, ast.Or: ast.And},
    **{ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.BitOr: ast.BitAnd},
    **{ast.Break: ast.Continue, ast.Continue: ast.Break},
}
_LONGEST = 70  # characters of the code that is shown


@dataclass(frozen=True)
class Change:
    """What stands between two places of a file, (line, column in bytes), becomes something else."""

    path: str
    start: tuple[int, int]
    end: tuple[int, int]
    old: str
    new: str
    lines: tuple[int, ...] = field(compare=False)  # whose tests may notice
    scope: str = field(compare=False)  # the function or class that it stands in, with those around it; "" at the top
    count: int = field(compare=False)  # 1 for the first change of its name
    constant: tuple[str, ...] = field(default=(), compare=False)  # the names of what is given another value

    def __str__(self) -> str:
        return f"{self.path}:{self.start[0]} {self._shown()} in {self.scope or 'the module'}"

    @property
    def name(self) -> str:
        """What it is called wherever the line may be: `function: old → new`, and which of several."""
        return f"{self.scope}: {self._shown()}" + (f" #{self.count}" if self.count > 1 else "")

    def _shown(self) -> str:
        return shown(self.old, self.new)

    def apply(self, source: bytes) -> bytes:
        return self._replaced(source, self.new)

    def apply_beside(self, source: bytes) -> bytes:
        """Make the change, and keep what it replaces where it is never executed: functions keep their closures."""
        if self.new in ("break", "continue"):
            return self.apply(source)
        if self.new == "pass":
            return self._replaced(source, f"if 0: {self.old}")
        if self.new == "return None":
            return self._replaced(source, f"return None if 1 else ({self.old.removeprefix('return')})")
        return self._replaced(source, f"({self.new} if 1 else ({self.old}))")

    def _replaced(self, source: bytes, text: str) -> bytes:
        lines = source.splitlines(keepends=True)
        (first, begin), (last, stop) = self.start, self.end
        changed = lines[first - 1][:begin] + text.encode() + lines[last - 1][stop:]
        return b"".join([*lines[: first - 1], changed, *lines[last:]])


def changes(path: str, source: str) -> Iterator[Change]:
    """Yield every change of a file that is worth a try."""
    counts = Counter[tuple[str, str]]()
    tree = ast.parse(source)
    lines_of, readers = uses(tree), _constants_that_read(tree)
    for node, statement, scope in _nodes(tree, None, ""):
        last, stop = node.end_lineno or node.lineno, node.end_col_offset or 0
        constant = list(_names_of(statement, scope))
        for name in constant:
            constant += sorted(readers[name].difference(constant))
        used = {line for name in constant for line in lines_of[name]}
        lines = tuple({*_lines_of(statement), *range(node.lineno, last + 1), *used})
        for new in _replacements(node):
            old = ast.get_source_segment(source, node) or ""
            counts[name := (scope, shown(old, new))] += 1
            place = (node.lineno, node.col_offset), (last, stop)
            yield Change(path, *place, old, new, lines, scope, counts[name], tuple(constant))


def uses(tree: ast.Module) -> dict[str, set[int]]:
    """Return the lines of the statements that read a name, of whatever object."""
    found = defaultdict[str, set[int]](set)
    for node, statement, _ in _nodes(tree, None, ""):
        if isinstance(node, ast.Name | ast.Attribute) and isinstance(node.ctx, ast.Load):
            found[node.id if isinstance(node, ast.Name) else node.attr].update(_lines_of(statement))
    return found


def _constants_that_read(tree: ast.Module) -> dict[str, set[str]]:
    """Return, for each name, the constants whose value is made of it."""
    found = defaultdict[str, set[str]](set)
    for node, statement, scope in _nodes(tree, None, ""):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
            found[node.id].update(_names_of(statement, scope))
    return found


def _lines_of(statement: ast.stmt) -> Iterator[int]:
    """Yield the line on which a statement begins; of a function, for its defaults, also those of its body."""
    yield statement.lineno
    if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef):
        yield from (each.lineno for each in statement.body)


def _names_of(statement: ast.stmt, scope: str) -> Iterator[str]:
    """Yield the names of a constant: no test executes its line, but those of the statements that read it."""
    if scope.rpartition(".")[2].lstrip("_")[:1].islower():
        return  # in a function
    match statement:
        case ast.Assign(targets=[*targets]):
            yield from (node.id for target in targets for node in ast.walk(target) if isinstance(node, ast.Name))
        case ast.AnnAssign(target=ast.Name(id=name)):
            yield name


def shown(*texts: str) -> str:
    """Return a change as it is printed, on one line."""
    short = (" ".join(text.split()) for text in texts)
    return " → ".join(text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…" for text in short)


_Node = tuple[ast.expr | ast.stmt, ast.stmt, str]


def _nodes(node: ast.AST, statement: ast.stmt | None, scope: str) -> Iterator[_Node]:
    if isinstance(node, ast.JoinedStr):
        return  # the positions inside an f-string are not those in the file before Python 3.12
    if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
        return
    if isinstance(node, ast.stmt):
        statement = node
    if isinstance(node, (ast.expr, ast.stmt)) and statement is not None:
        yield node, statement, scope
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        scope = f"{scope}.{node.name}".lstrip(".")
    for name, value in ast.iter_fields(node):
        if name not in ("annotation", "returns", "decorator_list", "bases"):
            for child in value if isinstance(value, list) else [value]:
                if isinstance(child, ast.AST):
                    yield from _nodes(child, statement, scope)


def _replacements(node: ast.expr | ast.stmt) -> Iterator[str]:
    changed = copy.deepcopy(node)
    match changed:
        case ast.Compare(ops=[operator, *_]) if type(operator) in _SWAPS:
            changed.ops[0] = _SWAPS[type(operator)]()
            yield f"({ast.unparse(changed)})"
        case ast.BoolOp(op=operator) | ast.BinOp(op=operator) if type(operator) in _SWAPS:
            changed.op = _SWAPS[type(operator)]()
            yield f"({ast.unparse(changed)})"
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            yield f"({ast.unparse(operand)})"
        case ast.Constant(value=bool() as value):
            yield repr(not value)
        case ast.Constant(value=int() | float() as value):
            yield repr(value + 1)
        case ast.IfExp(test=test, body=body, orelse=orelse):
            yield f"({ast.unparse(ast.IfExp(test, orelse, body))})"
        case ast.Break() | ast.Continue():
            yield ast.unparse(_SWAPS[type(changed)]())
        case ast.Return(value=ast.Constant(value=None | bool())) | ast.Return(value=None):
            return
        case ast.Return():
            yield "return None"
        case ast.AugAssign() | ast.Raise() | ast.Delete() | ast.Expr(value=ast.Call() | ast.Await()):
            yield "pass"
