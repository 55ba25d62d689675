"""Every error text of the program, found in its source: what happened, and what to do.

A message is what an error is made with, or what is appended to a list of problems. Parts that are filled in while
running stand in braces, as short as they can be said. What has no hint of its own ends with the advice of its error.
"""

import ast
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

import regwrap
from regwrap.core import errors
from regwrap.core.answers import CAUSES

_ROOT: Final = Path(regwrap.__file__).parent
_PROBLEMS: Final = "problem"
_PARTS: Final = {"short", "message", "strerror", "text"}
_TYPE_ERRORS: Final = {"TypeError", "ValueError", "KeyError", "FileNotFoundError", "FileExistsError", "AssertionError"}


_CORRECT: Final = "correct it there; all that is wrong is named at once"


@dataclass(frozen=True, slots=True, order=True)
class Message:
    """`module` is a dotted name, `text` and `hint` have `{…}` where something is filled in. `advice` is what is said
    where there is no hint."""

    module: str
    line: int
    text: str
    hint: str
    advice: str

    @property
    def todo(self) -> str:
        return self.hint if re.sub(r"{[^}]*}", "", self.hint).strip() else self.advice


@cache
def all_messages() -> list[Message]:
    """In the order of the source."""
    found = {message for path in sorted(_ROOT.rglob("*.py")) for message in _messages_in(path)}
    return sorted(found)


def _messages_in(path: Path) -> Iterator[Message]:
    module = ".".join(path.relative_to(_ROOT.parent).with_suffix("").parts).removesuffix(".__init__")
    tree = ast.parse(path.read_text(encoding="utf-8"))
    constants = {**_imported(tree.body), **_assigned(tree.body)}
    for node, known in _with_names(tree, constants):
        for said, hint in _said(node):
            text = _template(said, constants)
            if any(character.isalpha() for character in re.sub(r"{[^}]*}", "", text)):
                todo = _template(hint, known) if hint else ""
                yield Message(module, said.lineno, text, todo, _advice(node, module))


def _with_names(node: ast.AST, known: Mapping[str, ast.expr]) -> Iterator[tuple[ast.AST, Mapping[str, ast.expr]]]:
    """Each node, with the texts that have a name there: hints are often made some lines above."""
    if isinstance(node, ast.FunctionDef):
        known = {**known, **_assigned(inner for inner in ast.walk(node) if isinstance(inner, ast.stmt))}
    yield node, known
    for child in ast.iter_child_nodes(node):
        yield from _with_names(child, known)


def _assigned(statements: Iterable[ast.stmt]) -> dict[str, ast.expr]:
    """By its name each text that is assigned; one of several is an alternative."""
    found: dict[str, ast.expr] = {}
    for node in statements:
        if isinstance(node, ast.Assign | ast.AnnAssign) and (value := node.value) is not None:
            for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
                if isinstance(target, ast.Name):
                    before = found.get(target.id)
                    found[target.id] = ast.IfExp(value, before, value) if before else value
    return found


def _imported(statements: Iterable[ast.stmt]) -> dict[str, ast.expr]:
    """The texts that come from other modules of the program."""
    found: dict[str, ast.expr] = {}
    for node in statements:
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith(f"{_ROOT.name}."):
            known = _constants_of(node.module)
            found.update((alias.asname or alias.name, known[alias.name]) for alias in node.names if alias.name in known)
    return found


@cache
def _constants_of(module: str) -> dict[str, ast.expr]:
    path = _ROOT.parent / module.replace(".", "/")
    source = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    return _assigned(ast.parse(source.read_text(encoding="utf-8")).body)


def _advice(node: ast.AST, module: str) -> str:
    """What an error says where it has no hint; problems of a list or a configuration, and those that verify lists, are
    told below the number of them."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
        family = getattr(errors, node.func.id, errors.RegwrapError)
        return f"{family.advice}" if issubclass(family, errors.RegwrapError) else errors.RegwrapError.advice
    return _CORRECT if module.startswith(("regwrap.lists.", "regwrap.config.")) else errors.IntegrityError.advice


def _said(node: ast.AST) -> Iterator[tuple[ast.expr, ast.expr | None]]:
    """What stands for a message, and for its hint."""
    if isinstance(node, ast.Call) and _is_error(node.func):
        texts = [argument for argument in node.args if isinstance(argument, ast.Constant | ast.JoinedStr | ast.IfExp)]
        hints = [keyword.value for keyword in node.keywords if keyword.arg == "hint"]
        yield from ((text, hints[0] if hints else None) for text in texts[:1])
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "append":
        if _PROBLEMS in ast.unparse(node.func.value):
            yield node.args[0], None
    elif isinstance(node, ast.FunctionDef) and _PROBLEMS in node.name:
        told = (_told(inner) for inner in ast.walk(node))
        yield from ((value, None) for value in told if isinstance(value, ast.JoinedStr | ast.Constant))


def _told(node: ast.AST) -> ast.expr | None:
    """What a generator gives: one, or one after the other."""
    match node:
        case ast.Yield(value=value):
            return value
        case ast.YieldFrom(value=ast.GeneratorExp(elt=value)):
            return value
        case _:
            return None


def _is_error(func: ast.expr) -> bool:
    if isinstance(func, ast.Attribute):
        return func.attr == "error"
    return isinstance(func, ast.Name) and func.id.endswith("Error") and func.id not in _TYPE_ERRORS


def _template(node: ast.expr, constants: Mapping[str, ast.expr]) -> str:
    """A text as it will read, with what is not known before in braces."""
    match node:
        case ast.Constant(value=str(text)):
            found = text
        case ast.JoinedStr(values=parts):
            found = "".join(_template(part, constants) for part in parts)
        case ast.IfExp(body=first, orelse=second):
            found = " / ".join(text for text in (_template(first, constants), _template(second, constants)) if text)
        case ast.Call(func=ast.Name(id="counted"), args=[_, one, *many]):
            found = f"{{…}} {_template(many[0], {})}" if many else f"{{…}} {_template(one, {})}s"
        case ast.Name(id=name) if name in constants:
            found = _template(constants[name], {})
        case ast.FormattedValue(value=value) | ast.Call(func=ast.Name(), args=[value]):
            found = _template(value, constants)
        case ast.Attribute(value=value, attr=name) if name in _PARTS:
            found = _template(value, constants)
        case ast.Name(id=name) | ast.Attribute(attr=name):
            found = f"{{{name.strip('_').lower()}}}"
        case _:
            found = "{…}"
    return found


@cache
def all_texts() -> tuple[str, ...]:
    """Every text of the source that has words: messages, and what is said beside them."""
    nodes = (node for path in _ROOT.rglob("*.py") for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
    texts = {_template(node, {}) for node in nodes if isinstance(node, ast.JoinedStr | ast.Constant)}
    return tuple(text for text in texts if " " in text.strip() and "\n" not in text)


def of_modules(found: list[Message], modules: list[str]) -> list[Message]:
    """Those of modules, or of packages, by their dotted names."""
    return [m for m in found if any(m.module == name or m.module.startswith(f"{name}.") for name in modules)]


def answers_table() -> str:
    """What registries and networks are told to have done, as it stands on the page of troubleshooting."""
    rows = (f"| {happened} | {todo} |" for happened, todo in CAUSES.values())
    return "\n".join(("| what happened | what to do |", "|---|---|", *rows)) + "\n"
