"""Fail where a Python file has more than 300 lines, a function more than 60, or two tests have one file name."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FILE_LINES = 300
FUNCTION_LINES = 60
LONG_FILES = {"tests"}  # a test file is a list of examples, which may be long


def main() -> None:
    listed = subprocess.run(["git", "ls-files", "*.py"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    faults = [fault for name in listed.splitlines() for fault in _faults(name, (ROOT / name).read_text())]
    faults += _twice([name for name in listed.splitlines() if name.startswith("tests/")])
    if faults:
        sys.exit("".join(f"error: {fault}\n" for fault in faults))


def _twice(tests: list[str]) -> list[str]:
    """pytest takes the name of a file of tests for its module, so no other file may have the name."""
    paths: dict[str, list[str]] = {}
    for path in tests:
        paths.setdefault(Path(path).name, []).append(path)
    return [
        f"{' and '.join(found)}: expected another name for each file of tests but got {name!r}; rename one"
        for name, found in paths.items()
        if len(found) > 1 and name != "conftest.py"
    ]


def _faults(name: str, text: str) -> list[str]:
    lines = text.count("\n")
    found = []
    if lines > FILE_LINES and name.split("/")[0] not in LONG_FILES:
        found.append(f"{name}: expected at most {FILE_LINES} lines but got {lines}; a file is one idea")
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or 0) - node.lineno + 1
            if length > FUNCTION_LINES:
                found.append(f"{name}: expected at most {FUNCTION_LINES} lines in {node.name} but got {length}")
    return found


if __name__ == "__main__":
    main()
