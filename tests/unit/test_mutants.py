"""The tool behind `make mutants`: which changes it makes, what it says of those that nobody notices, and its list."""

import ast
import gc
import textwrap
import time
import warnings
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from regwrap.storage import layout
from tests.mutants.changes import Mutant, changed_tree, mutants_of
from tests.mutants.choice import all_mutants, drawn, trial_of
from tests.mutants.equivalent import Equivalent, complaints, key_of, read_equivalents
from tests.mutants.suite import BrokenSuiteError, Ground, suite_of
from tests.mutants.table import Results
from tests.mutants.trial import Outcome, Trial, _functions, try_all

HERE = Path(__file__).parents[2]


def changes_of(tmp_path: Path, source: str) -> set[str]:
    """Each change of the module as `was => becomes`."""
    (tmp_path / "module.py").write_text(textwrap.dedent(source), encoding="utf-8")
    return {f"{m.was} => {m.becomes}" for m in mutants_of(tmp_path, "module.py")}


@pytest.mark.parametrize(
    ("source", "changes"),
    [
        ("a < b", {"a < b => a <= b", "a < b => pass"}),
        ("x = a in b", {"a in b => a not in b"}),
        ("x = a and b", {"a and b => a or b"}),
        ("x = a + b", {"a + b => a - b"}),
        ("x = root / name", {"root / name => root"}),
        ("x = not a", {"not a => a"}),
        ("x = 5, True, None, 'text'", {"5 => 6", "True => False"}),
        ("x = sorted(a)", {"sorted(a) => list(a)"}),
        ("x = [b for b in a if b]", {"for b in a if b => for b in a"}),
        ("a.b = c", {"a.b = c => pass"}),
        ("a = b", set()),
        ("if a:\n    b = c", {"if a: … => if not a: …"}),
        ("with a:\n    b = c", {"with a: … => if True: …"}),
        ("with a as d:\n    b = c", set()),
        ("raise a", {"raise a => pass"}),
        ("for a in b:\n    continue", {"continue => break"}),
        ("def f():\n    return a", {"return a => return None"}),
        (
            "try:\n    a = b\nexcept (C, D):\n    a = c",
            {"except (C, D): => except (D,):", "except (C, D): => except (C,):"},
        ),
        ("try:\n    a = b\nfinally:\n    a.c = b", {"try … finally => if True: …", "a.c = b => pass"}),
        ("'''For readers.'''", set()),
        ("if TYPE_CHECKING:\n    x = 1", set()),
        ("x: int = 1", {"1 => 2"}),
        ("Kind = A | B", set()),
        ("del a", set()),
        ("x = zip(a, b, strict=True)", set()),
        ("del a[b]", {"del a[b] => pass"}),
        ("FLAGS = A | B", {"A | B => A & B"}),
        (
            "def f():\n    if a:\n        return None\n    return b",
            {"if a: … => if not a: …", "return None => pass", "return b => return None"},
        ),
        (
            "def f():\n    try:\n        return b\n    except E:\n        return None",
            {"return b => return None", "except E: => except ():"},
        ),
        ("raise E(f'{a + 1}')", {"raise E(f'{a + 1}') => pass"}),
    ],
)
def test_each_place_has_its_changes(tmp_path: Path, source: str, changes: set[str]) -> None:
    assert changes_of(tmp_path, source) == changes


def test_a_changed_module_differs_in_one_place_and_keeps_its_lines(tmp_path: Path) -> None:
    source = b"def f(a):\n    if a < 1:\n        return 2\n    return a\n"
    (tmp_path / "module.py").write_bytes(source)
    for mutant in mutants_of(tmp_path, "module.py"):
        tree = changed_tree(source, mutant.number)
        assert ast.unparse(tree) != ast.unparse(ast.parse(source))
        assert ast.unparse(tree).count("\n") == source.decode().count("\n") - 1
        assert mutant.outer == ("f", 1)


MODULE = """
LIMIT = 3

def is_many(count: int) -> bool:
    return count > LIMIT

def last(items: list[int]) -> int:
    while len(items) > 1:
        items = items[1:]
    return items[0]

def nobody() -> int:
    return 1
"""
TESTS = """
from tiny.module import is_many, last

def test_many() -> None:
    assert is_many(4)
    assert not is_many(2)

def test_last() -> None:
    assert last([1, 2, 3]) == 3
"""


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Ground:
    """A package with tests that notice some of its changes."""
    (tmp_path / "tiny").mkdir()
    (tmp_path / "tests").mkdir()
    (tmp_path / "tiny/module.py").write_text(MODULE, encoding="utf-8")
    (tmp_path / "tests/test_tiny.py").write_text(TESTS, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    return Ground(tmp_path, "tiny", "tests", examples=False)


@pytest.mark.exhaustive
def test_mutants_are_killed_or_survive_as_the_tests_are(tiny: Ground) -> None:
    ended: dict[str, Outcome] = {}

    def told(trial: Trial, outcome: Outcome, _seconds: float) -> None:
        ended[f"{trial.mutant.line}: {trial.mutant.was} => {trial.mutant.becomes}"] = outcome

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        suite = suite_of(tiny, workers=1, say=lambda _text: None)
        trials = [trial_of(mutant, tiny, suite, most=10) for mutant in all_mutants(tiny, ["tiny/module.py"])]
        tried = [trial for trial in trials if trial.tests]
        try_all(tiny, tried, workers=2, deadline=time.monotonic() + 60, told=told)
    lived = {change for change, outcome in ended.items() if outcome is Outcome.SURVIVED}
    assert lived == {"5: count > LIMIT => count >= LIMIT", "9: 1 => 2"}
    assert set(ended) - lived == {
        "2: 3 => 4",
        "5: return count > LIMIT => return None",
        "8: while len(items) > 1: … => while not len(items) > 1: …",
        "8: len(items) > 1 => len(items) >= 1",
        "8: 1 => 2",
        "10: return items[0] => return None",
        "10: 0 => 1",
    }
    assert [trial.mutant.function for trial in trials if not trial.tests] == ["nobody", "nobody"]
    assert (tiny.root / "tiny/module.py").read_text(encoding="utf-8") == MODULE


@pytest.mark.exhaustive
def test_tests_that_cannot_be_collected_together_kill_no_mutant(tiny: Ground) -> None:
    for name in ("one", "two"):
        (tiny.root / "tests" / name).mkdir()
        (tiny.root / "tests" / name / "test_same.py").write_text("def test_it() -> None: pass\n", encoding="utf-8")
    trials = [Trial(mutant, ()) for mutant in all_mutants(tiny, ["tiny/module.py"])]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(BrokenSuiteError):
            try_all(tiny, trials, workers=1, deadline=time.monotonic() + 60, told=lambda *_told: None)


@pytest.mark.exhaustive
def test_functions_are_found_though_the_collection_has_frozen_them() -> None:
    """Otherwise each mutant starts Python and imports all anew, which takes ten times as long."""
    gc.freeze()
    found = _functions(Ground(HERE, "regwrap", "tests/unit"))
    assert any(name == layout.blob_path.__name__ for _module, name, _line in found)


def test_a_seed_draws_the_same_mutants_again() -> None:
    mutants = mutants_of(HERE, "regwrap/storage/layout.py") + mutants_of(HERE, "regwrap/storage/stage.py")
    assert drawn(mutants, count=5, seed=3) == drawn(mutants, count=5, seed=3)
    assert drawn(mutants, count=10**6, seed=3) == mutants


def test_the_table_counts_what_changes_anything() -> None:
    results = Results("make mutants SEED=1")
    mutant = Mutant("regwrap/storage/gc.py", 0, 1, (1,), "f", None, (), "a < b", "a <= b")
    for outcome in (Outcome.KILLED, Outcome.KILLED, Outcome.TIMEOUT, Outcome.SURVIVED):
        results.add(Trial(mutant, ()), outcome, 1.0)
    results.add_equivalent(mutant)
    assert "| storage | 5 | 1 | 2 | 1 | 1 | 75.0 % |\n" in results.markdown()


@pytest.mark.exhaustive
def test_every_change_that_is_said_to_change_nothing_is_one_of_the_code() -> None:
    entries = read_equivalents()
    mutants = [m for module in {entry.module for entry in entries} for m in mutants_of(HERE, module)]
    assert list(complaints(entries, mutants)) == []
    assert [entry for entry in entries if not entry.why] == []
    assert Counter(key for entry in entries for key in entry.keys).most_common(1)[0][1] == 1


def test_of_the_same_twice_in_one_function_an_entry_says_which_it_means(tmp_path: Path) -> None:
    (tmp_path / "m.py").write_text("def f(a):\n    return a + 1, a + 1\n")
    mutants = mutants_of(tmp_path, "m.py")
    entry = Equivalent("m.py", "f", "1", "2", "why")
    assert list(complaints([entry], mutants)) == ["m.py f: 1 is there several times: say places"]
    second = replace(entry, places=(2,))
    assert list(complaints([second, replace(entry, places=(1, 2))], mutants)) == []
    assert [key_of(m) in second.keys for m in mutants if m.was == "1"] == [False, True]
    assert list(complaints([replace(entry, places=(3,))], mutants)) == ["m.py f: 1 is no longer there"]


def test_constants_that_are_given_together_have_their_users(tmp_path: Path) -> None:
    (tmp_path / "m.py").write_text("A, B = 1, 2\n")
    assert {mutant.names for mutant in mutants_of(tmp_path, "m.py")} == {("A", "B")}
