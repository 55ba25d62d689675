"""Which single changes a module can have, as a pure function of its source, and the source with one of them.

A change replaces one node of the syntax tree. Texts for people are left as they are; so is what only a type checker
reads. The numbering depends on the source alone, so a seed picks the same changes again.
"""

import ast
import copy
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

Functions = tuple[ast.FunctionDef, ast.Lambda]


@dataclass(frozen=True)
class Mutant:
    """One change of one module.

    `number` counts the changes of the module. `lines` are those of which one has run when the change can matter.
    `outer` is the function that is compiled anew, by its name and first line; None: the change counts at import, for
    whoever uses one of `names`. `place` counts the same changes of the same `function`, from 1.
    """

    module: str
    number: int
    line: int
    lines: tuple[int, ...]
    function: str
    outer: tuple[str, int] | None
    names: tuple[str, ...]
    was: str
    becomes: str
    place: int = 1

    @property
    def name(self) -> str:
        return f"{self.module}:{self.line}:{self.number}"


@dataclass(frozen=True)
class _Slot:
    """Where a node hangs: a field of its parent, or an element of one."""

    parent: ast.AST
    field: str
    index: int | None

    def put(self, node: ast.AST) -> None:
        if self.index is None:
            setattr(self.parent, self.field, node)
        else:
            getattr(self.parent, self.field)[self.index] = node


@dataclass(frozen=True)
class _Around:
    """What a node lies in: names for people, the outermost function, the lines of its statement, names at import."""

    names: tuple[str, ...] = ()
    outer: ast.FunctionDef | ast.Lambda | None = None
    outer_name: str = ""
    lines: tuple[int, ...] = ()
    used_as: tuple[str, ...] = ()
    ends: frozenset[int] = frozenset()

    def inside(self, node: ast.ClassDef | ast.FunctionDef) -> "_Around":
        names = (*self.names, node.name)
        if self.outer is not None or isinstance(node, ast.ClassDef):
            return _Around(names, self.outer, self.outer_name, self.lines, (*self.used_as, node.name))
        return _Around(names, node, ".".join(names), self.lines, (node.name,))


def mutants_of(root: Path, module: str) -> list[Mutant]:
    """Every change of the module, in the order of its lines. `module` is its path below `root`."""
    tree = ast.parse((root / module).read_bytes())
    found = []
    places = Counter[tuple[str, str, str]]()
    for number, (slot, old, new, around) in enumerate(_changes(tree)):
        was = _text(old)
        slot.put(new)
        becomes = _text(new)
        slot.put(old)
        mutant = _mutant(module, number, old, around, was, becomes)
        places[mutant.function, was, becomes] += 1
        found.append(replace(mutant, place=places[mutant.function, was, becomes]))
    return found


def changed_tree(source: bytes, number: int) -> ast.Module:
    """The module with the change of that number."""
    tree = ast.parse(source)
    slot, old, new, _around = next(change for at, change in enumerate(_changes(tree)) if at == number)
    slot.put(ast.copy_location(new, old))
    return ast.fix_missing_locations(tree)


def _mutant(module: str, number: int, old: ast.AST, around: _Around, was: str, becomes: str) -> Mutant:
    line = getattr(old, "lineno", around.lines[0] if around.lines else 1)
    own = range(line, getattr(old, "end_lineno", line) + 1)
    outer = None if around.outer is None else (around.outer_name, _first_line(around.outer))
    return Mutant(
        module=module,
        number=number,
        line=line,
        lines=tuple(sorted({*own, *around.lines})),
        function=".".join(around.names) or "module",
        outer=outer,
        names=around.used_as,
        was=was,
        becomes=becomes,
    )


def _first_line(function: ast.FunctionDef | ast.Lambda) -> int:
    decorators = function.decorator_list if isinstance(function, ast.FunctionDef) else []
    return min([function.lineno, *(each.lineno for each in decorators)])


_LONGEST: Final = 160


def _text(node: ast.AST) -> str:
    """A statement with a body is told by its head."""
    match node:
        case ast.ExceptHandler():
            return f"except {_text(node.type) if node.type else ''}:"
        case ast.comprehension():
            return " ".join(["for", _text(node.target), "in", _text(node.iter), *(f"if {_text(c)}" for c in node.ifs)])
        case ast.Try():
            return "try … finally" if node.finalbody else "try"
        case ast.If() | ast.While() | ast.With():
            return f"{ast.unparse(node).splitlines()[0]} …"
        case _:
            pass
    text = " ".join(ast.unparse(node).split())
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"


# what the tree's walk gives: the place, what is there, what is put there, and what it lies in
_Change = tuple[_Slot, ast.AST, ast.AST, _Around]


def _changes(tree: ast.Module) -> Iterator[_Change]:
    yield from _below(tree, _Around())


def _below(node: ast.AST, around: _Around) -> Iterator[_Change]:
    for field, value in ast.iter_fields(node):
        if field in _NOT_RUN.get(type(node), _NOTHING):
            continue
        children = enumerate(value) if isinstance(value, list) else [(None, value)]
        for index, child in children:
            if isinstance(child, ast.AST):
                yield from _at(_Slot(node, field, index), child, around)


_NOTHING: Final[frozenset[str]] = frozenset()
# annotations are text; a decorator's or a class's head is no behaviour of its own
_NOT_RUN: Final[dict[type[ast.AST], frozenset[str]]] = {
    ast.AnnAssign: frozenset({"annotation", "target"}),
    ast.arg: frozenset({"annotation"}),
    ast.FunctionDef: frozenset({"returns", "decorator_list"}),
    ast.ClassDef: frozenset({"bases", "keywords", "decorator_list"}),
    ast.JoinedStr: frozenset({"values"}),
    ast.Subscript: frozenset({"ctx"}),
}


def _at(slot: _Slot, node: ast.AST, around: _Around) -> Iterator[_Change]:
    if _is_for_readers(node) or id(node) in around.ends:
        return
    if isinstance(node, ast.stmt):
        around = _of_statement(node, around)
    for new in _replacements(node):
        yield slot, node, new, around
    if isinstance(node, ast.FunctionDef):
        yield from _of_function(node, around)
    elif isinstance(node, ast.ClassDef):
        yield from _below(node, around.inside(node))
    elif isinstance(node, ast.Lambda) and around.outer is None:
        name = ".".join((*around.names, "<lambda>"))
        yield from _below(node, _Around(around.names, node, name, around.lines, around.used_as))
    else:
        yield from _below(node, around)


def _of_function(node: ast.FunctionDef, around: _Around) -> Iterator[_Change]:
    """Defaults count when the function is made, its body when it is called."""
    yield from _below(
        node.args, _Around((*around.names, node.name), around.outer, around.outer_name, around.lines, (node.name,))
    )
    inside = replace(around.inside(node), ends=around.ends | frozenset(map(id, _ends(node.body))))
    for index, child in enumerate(node.body):
        yield from _at(_Slot(node, "body", index), child, inside)


def _ends(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """Each `return None` behind which nothing follows: without it the function ends just so."""
    match body[-1:]:
        case [ast.Return(value=None | ast.Constant(value=None)) as end]:
            yield end
        case [ast.If() as last]:
            yield from (*_ends(last.body), *_ends(last.orelse))
        case [ast.Try(finalbody=[]) as last]:
            yield from _ends(last.orelse or last.body)
            for handler in last.handlers:
                yield from _ends(handler.body)
        case _:
            pass


def _of_statement(node: ast.stmt, around: _Around) -> _Around:
    """Its lines: all of a simple statement, the head of one with a body."""
    body = getattr(node, "body", None)
    last = body[0].lineno - 1 if isinstance(body, list) and body else node.end_lineno or node.lineno
    lines = tuple(range(node.lineno, max(last, node.lineno) + 1))
    used_as = around.used_as
    if around.outer is None and isinstance(node, ast.Assign | ast.AnnAssign):
        used_as = (*around.names[-1:], *names_given(node))
    return replace(around, lines=lines, used_as=used_as)


def names_given(node: ast.stmt) -> list[str]:
    """The names that an assignment gives: `A = 1`, `A: Final = 1`, `A, B = 1, 2`."""
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    each = [e for target in targets for e in (target.elts if isinstance(target, ast.Tuple) else [target])]
    return [target.id for target in each if isinstance(target, ast.Name)]


def _is_for_readers(node: ast.AST) -> bool:
    """A docstring, a `TYPE_CHECKING` block, a type, an argument of no use, a `strict=` that
    only makes sure, what a type checker proves to be out of
    reach."""
    match node:
        case ast.Expr(value=ast.Constant()) | ast.keyword(arg="strict"):
            return True
        case ast.If(test=ast.Name(id="TYPE_CHECKING")):
            return True
        case ast.Expr(value=ast.Call(func=ast.Name(id="assert_never"))) | ast.Delete(targets=[ast.Name()]):
            return True
        case ast.Assign(targets=[ast.Name(id=name)], value=ast.BinOp(op=ast.BitOr())):
            return not name.isupper()  # a name for several types
        case _:
            return False


def _replacements(node: ast.AST) -> Iterator[ast.AST]:
    for kind, change in _OPERATORS.items():
        if isinstance(node, kind):
            yield from change(node)


_COMPARISONS: Final[dict[type[ast.cmpop], type[ast.cmpop]]] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In,
}  # fmt: skip
_ARITHMETIC: Final[dict[type[ast.operator], type[ast.operator]]] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.FloorDiv, ast.FloorDiv: ast.Mult, ast.Mod: ast.Mult,
    ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd, ast.LShift: ast.RShift, ast.RShift: ast.LShift, ast.BitXor: ast.BitOr,
    ast.Pow: ast.Mult,
}  # fmt: skip
_CALLS: Final = {
    "any": "all", "all": "any", "min": "max", "max": "min", "sorted": "list",
    "startswith": "endswith", "endswith": "startswith",
}  # fmt: skip


def _copied(node: ast.AST, **fields: object) -> ast.AST:
    new = copy.copy(node)
    for name, value in fields.items():
        setattr(new, name, value)
    return new


def _comparison(node: ast.Compare) -> Iterator[ast.AST]:
    for at, operator in enumerate(node.ops):
        new = _COMPARISONS[type(operator)]()
        yield _copied(node, ops=[*node.ops[:at], new, *node.ops[at + 1 :]])


def _boolean(node: ast.BoolOp) -> Iterator[ast.AST]:
    yield _copied(node, op=ast.Or() if isinstance(node.op, ast.And) else ast.And())


def _binary(node: ast.BinOp) -> Iterator[ast.AST]:
    """`a / b` is a path nearly always, and `"a" + b` a text: there the right side goes."""
    operands = (node.left, node.right)
    if isinstance(node.op, ast.Div) or any(isinstance(each, _TEXTS) for each in operands):
        yield node.left
    else:
        yield _copied(node, op=_ARITHMETIC[type(node.op)]())


_TEXTS: Final = (ast.JoinedStr, ast.Tuple, ast.List)


def _unary(node: ast.UnaryOp) -> Iterator[ast.AST]:
    if isinstance(node.op, ast.Not):
        yield node.operand


def _constant(node: ast.Constant) -> Iterator[ast.AST]:
    """Numbers and truths. Texts are names that the tests use themselves, or messages."""
    if isinstance(node.value, bool):
        yield ast.Constant(not node.value)
    elif isinstance(node.value, int | float):
        yield ast.Constant(node.value + 1)


def _negated(node: ast.expr) -> ast.expr:
    return ast.UnaryOp(ast.Not(), node)


def _condition(node: ast.If | ast.While | ast.IfExp | ast.Assert) -> Iterator[ast.AST]:
    """Negated, but where a comparison's own change is the same already."""
    flipped = isinstance(node.test, ast.Compare) and len(node.test.ops) == 1 and _flips(node.test.ops[0])
    if not flipped and not isinstance(node.test, ast.UnaryOp):
        yield _copied(node, test=_negated(node.test))


def _flips(operator: ast.cmpop) -> bool:
    return isinstance(operator, ast.Eq | ast.NotEq | ast.Is | ast.IsNot | ast.In | ast.NotIn)


def _call(node: ast.Call) -> Iterator[ast.AST]:
    match node.func:
        case ast.Name(id=name) if name in _CALLS:
            yield _copied(node, func=ast.Name(_CALLS[name], ast.Load()))
        case ast.Attribute(attr=name) if name in _CALLS:
            yield _copied(node, func=_copied(node.func, attr=_CALLS[name]))


def _removed(_node: ast.stmt) -> Iterator[ast.AST]:
    yield ast.Pass()


def _expression(node: ast.Expr) -> Iterator[ast.AST]:
    if not isinstance(node.value, ast.Yield | ast.YieldFrom):
        yield ast.Pass()


def _assignment(node: ast.Assign) -> Iterator[ast.AST]:
    if all(isinstance(target, ast.Attribute | ast.Subscript) for target in node.targets):
        yield ast.Pass()


def _augmented(node: ast.AugAssign) -> Iterator[ast.AST]:
    yield ast.Pass()
    if type(node.op) in _ARITHMETIC:
        yield _copied(node, op=_ARITHMETIC[type(node.op)]())


def _returned(node: ast.Return) -> Iterator[ast.AST]:
    match node.value:
        case None | ast.Constant(value=None):
            yield ast.Pass()
        case ast.Constant(value=bool()):
            pass  # the constant's own change
        case _:
            yield ast.Return(ast.Constant(None))


def _jump(node: ast.Continue | ast.Break) -> Iterator[ast.AST]:
    yield ast.Break() if isinstance(node, ast.Continue) else ast.Continue()


def _handler(node: ast.ExceptHandler) -> Iterator[ast.AST]:
    """The errors pass it by, each kind in its turn."""
    kinds = node.type.elts if isinstance(node.type, ast.Tuple) else [node.type]
    for kind in kinds:
        rest = [each for each in kinds if each is not kind and each is not None]
        yield _copied(node, type=ast.Tuple(rest, ast.Load()))


def _with(node: ast.With) -> Iterator[ast.AST]:
    """Its body alone, where nothing in there needs what it opens."""
    if all(item.optional_vars is None for item in node.items):
        yield ast.If(ast.Constant(True), node.body, [])


def _comprehension(node: ast.comprehension) -> Iterator[ast.AST]:
    for at in range(len(node.ifs)):
        yield _copied(node, ifs=[*node.ifs[:at], *node.ifs[at + 1 :]])


def _try(node: ast.Try) -> Iterator[ast.AST]:
    if node.finalbody:
        rest = _copied(node, finalbody=[]) if node.handlers else ast.If(ast.Constant(True), node.body, [])
        yield rest


_OPERATORS: Final[dict[type[ast.AST] | tuple[type[ast.AST], ...], Callable[..., Iterator[ast.AST]]]] = {
    ast.Compare: _comparison, ast.BoolOp: _boolean, ast.BinOp: _binary, ast.UnaryOp: _unary, ast.Constant: _constant,
    (ast.If, ast.While, ast.IfExp, ast.Assert): _condition, ast.Call: _call, ast.Expr: _expression,
    (ast.Raise, ast.Delete): _removed, ast.Assign: _assignment, ast.AugAssign: _augmented, ast.Return: _returned,
    (ast.Continue, ast.Break): _jump, ast.ExceptHandler: _handler, ast.With: _with, ast.comprehension: _comprehension,
    ast.Try: _try,
}  # fmt: skip
