"""The suite's completeness: every case has a test, and every test that does not run against websocketd has a reason."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from tests.parity.differences import DIFFERENCES

CASES = frozenset([*range(1, 66), *range(74, 91)])
"""The numbers of the cases of the bridge; 66 to 73 are the cases of broadcast."""


def marked_tests() -> Iterator[tuple[str, set[int], set[str]]]:
    """Every test of this folder: its name, its cases, its arguments."""
    for path in sorted(Path(__file__).parent.glob("test_*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                yield node.name, set(case_numbers(node)), {argument.arg for argument in node.args.args}


def case_numbers(test: ast.FunctionDef) -> Iterator[int]:
    for decorator in test.decorator_list:
        if isinstance(decorator, ast.Call) and ast.unparse(decorator.func) == "pytest.mark.case":
            yield from (ast.literal_eval(argument) for argument in decorator.args)


def test_every_case_has_a_test() -> None:
    """Every case has at least one test, and every test has the number of an existing case."""
    assert set().union(*(cases for _, cases, _ in marked_tests())) == CASES


def test_every_test_of_a_server_names_its_case() -> None:
    """A test that starts a server has the number of its case."""
    nameless = [name for name, cases, arguments in marked_tests() if arguments & {"bridge", "wsbridge"} and not cases]
    assert nameless == []


def test_names_are_unique() -> None:
    """Test names are unique, because differences.py refers to tests by name."""
    names = [name for name, _, _ in marked_tests()]
    assert len(names) == len(set(names))


def test_every_difference_is_of_a_test() -> None:
    """Each difference names a test of its case."""
    cases = {name: numbers for name, numbers, _ in marked_tests()}
    assert [entry for entry in DIFFERENCES if entry.case not in cases.get(entry.test, set())] == []


def test_every_test_of_wsbridge_alone_has_its_reason() -> None:
    """Each test that does not run against websocketd has one entry in differences.py."""
    named = [entry.test for entry in DIFFERENCES]
    assert len(named) == len(set(named))
    assert {name for name, _, arguments in marked_tests() if "wsbridge" in arguments} <= set(named)
