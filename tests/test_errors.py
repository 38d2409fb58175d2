"""The exceptions of wsbridge: one tree, as drawn in its docstring."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from wsbridge import errors

PACKAGE = Path(errors.__file__).parent


def test_the_drawing_is_the_tree() -> None:
    """The drawing has each exception below its base class."""
    drawn: dict[str, str] = {}
    above = ["WsbridgeError"]
    for line in (errors.__doc__ or "").splitlines():
        if found := re.match(r"    ([│ ]*)[├└]── (\w+)", line):
            depth = len(found[1]) // 4 + 1
            del above[depth:]
            drawn[found[2]] = above[-1]
            above.append(found[2])
    there = {
        name: value.__base__.__name__
        for name, value in vars(errors).items()
        if isinstance(value, type) and issubclass(value, errors.WsbridgeError) and value is not errors.WsbridgeError and value.__base__
    }
    assert drawn == there


def test_no_exception_is_defined_elsewhere() -> None:
    """No other module of the package defines an exception."""
    elsewhere = [
        f"{path.relative_to(PACKAGE)}: {node.name}"
        for path in PACKAGE.rglob("*.py")
        if path.name != "errors.py" or path.parent != PACKAGE
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ClassDef)
        and any(isinstance(base, ast.Name) and base.id.endswith(("Error", "Exception")) for base in node.bases)
    ]
    assert elsewhere == []
