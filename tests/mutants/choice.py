"""Which mutants are tried, and with which tests."""

import ast
import random
from collections.abc import Iterable, Sequence
from functools import cache
from itertools import accumulate
from pathlib import Path

from tests.mutants.changes import Mutant, mutants_of, names_given
from tests.mutants.suite import Ground, Suite
from tests.mutants.trial import Trial


def chosen_modules(ground: Ground, wanted: Iterable[str]) -> list[str]:
    """`storage` is a room, `storage/gc` a module of it."""
    prefixes = [f"{ground.package}/{name.removesuffix('.py')}" for name in wanted]
    found = [m for m in ground.modules() if any(m == f"{p}.py" or m.startswith(f"{p}/") for p in prefixes)]
    if not found:
        raise SystemExit(f"no module below {', '.join(prefixes)}")
    return found


def all_mutants(ground: Ground, modules: Iterable[str]) -> list[Mutant]:
    return [mutant for module in modules for mutant in mutants_of(ground.root, module)]


def drawn(mutants: Sequence[Mutant], *, count: int, seed: int) -> list[Mutant]:
    if count >= len(mutants):
        return list(mutants)
    return random.Random(seed).sample(mutants, count)  # the order is random too: SECONDS may end it at any place


def trial_of(mutant: Mutant, ground: Ground, suite: Suite, *, most: float) -> Trial:
    """The quick tests first, and those of the module's own room a little before others; as many as `most` seconds
    of CPU are enough for."""
    if mutant.outer is not None:
        numbers = suite.running(mutant.module, mutant.lines)
    else:
        places = _uses(ground, tuple(mutant.names))
        numbers = frozenset[int]().union(*(suite.running(module, lines) for module, lines in places.items()))
    room = f"/{mutant.module.split('/')[1]}/"
    order = sorted(numbers, key=lambda n: (suite.seconds[n] + (0 if room in suite.tests[n] else 0.05), n))
    sums = accumulate(suite.seconds[n] for n in order)
    return Trial(
        mutant, tuple((suite.tests[n], suite.seconds[n]) for n, sum_ in zip(order, sums, strict=True) if sum_ <= most)
    )


def _uses(ground: Ground, names: tuple[str, ...]) -> dict[str, set[int]]:
    """The lines, by module, that use one of `names`, or what is made of them at import."""
    found: dict[str, set[int]] = {}
    known, new = set[str](), set(names)
    while new:
        known |= new
        more = set[str]()
        for module in ground.modules():
            for lines, used, made in _statements(ground.root / module):
                if used & new:
                    found.setdefault(module, set()).update(lines)
                    more |= made
        new = more - known
    return found


@cache
def _statements(path: Path) -> list[tuple[range, frozenset[str], frozenset[str]]]:
    """Each statement's lines, the names that it uses, and those that it gives at import."""
    tree = ast.parse(path.read_bytes())
    return [each for node in tree.body for each in _of_top(node)]


def _of_top(node: ast.stmt) -> list[tuple[range, frozenset[str], frozenset[str]]]:
    if isinstance(node, ast.ClassDef):
        return [each for child in node.body for each in _of_top(child)] + [_lines_of_uses(node, [node.name])]
    if isinstance(node, ast.FunctionDef):
        return [_lines_of_uses(node.args, []), *(_lines_of_uses(child, []) for child in node.body), _called(node)]
    return [_lines_of_uses(node, names_given(node))]


def _called(node: ast.FunctionDef) -> tuple[range, frozenset[str], frozenset[str]]:
    """A function whose defaults are meant is named: its own lines use it."""
    return range(node.body[0].lineno, (node.end_lineno or node.lineno) + 1), frozenset({node.name}), frozenset()


def _lines_of_uses(node: ast.AST, made: list[str]) -> tuple[range, frozenset[str], frozenset[str]]:
    used = {n.id for n in ast.walk(node) if isinstance(n, ast.Name)}
    used |= {n.attr for n in ast.walk(node) if isinstance(n, ast.Attribute)}
    used |= {k.arg for k in ast.walk(node) if isinstance(k, ast.keyword) and k.arg}
    line = getattr(node, "lineno", 0)
    return range(line, (getattr(node, "end_lineno", line) or line) + 1), frozenset(used), frozenset(made)
