"""Every error text of the program, found in its source: what happened, and what to do.

A message is what an error is made with, or what is appended to a list of problems. Parts that are filled in while
running stand in braces, as short as they can be said.
"""

import ast
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

import regwrap
from regwrap.core.answers import TOLD

_ROOT: Final = Path(regwrap.__file__).parent
_PROBLEMS: Final = "problem"
_PARTS: Final = {"short", "message", "strerror", "text"}
_TYPE_ERRORS: Final = {"TypeError", "ValueError", "KeyError", "FileNotFoundError", "FileExistsError", "AssertionError"}


@dataclass(frozen=True, slots=True, order=True)
class Message:
    """`module` is a dotted name, `text` and `hint` have `{…}` where something is filled in."""

    module: str
    line: int
    text: str
    hint: str


@cache
def all_messages() -> list[Message]:
    """In the order of the source."""
    found = {message for path in sorted(_ROOT.rglob("*.py")) for message in _messages_in(path)}
    return sorted(found)


def _messages_in(path: Path) -> Iterator[Message]:
    module = ".".join(path.relative_to(_ROOT.parent).with_suffix("").parts).removesuffix(".__init__")
    tree = ast.parse(path.read_text(encoding="utf-8"))
    constants = {
        target.id: value
        for node in tree.body
        if isinstance(node, ast.Assign | ast.AnnAssign) and (value := node.value) is not None
        for target in (node.targets if isinstance(node, ast.Assign) else [node.target])
        if isinstance(target, ast.Name)
    }
    for node in ast.walk(tree):
        for said, hint in _said(node):
            text = _template(said, constants)
            if any(character.isalpha() for character in re.sub(r"{[^}]*}", "", text)):
                yield Message(module, said.lineno, text, _template(hint, constants) if hint else "")


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


def of_modules(found: list[Message], modules: list[str]) -> list[Message]:
    """Those of modules, or of packages, by their dotted names."""
    return [m for m in found if any(m.module == name or m.module.startswith(f"{name}.") for name in modules)]


def answers_table() -> str:
    """What registries and networks are told to have done, as it stands on the page of troubleshooting."""
    rows = (f"| {happened} | {todo} |" for happened, todo in TOLD.values())
    return "\n".join(("| what happened | what to do |", "|---|---|", *rows)) + "\n"
