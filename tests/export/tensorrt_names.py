"""Looks up in TensorRT's bindings every name that source files use of them."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any


def chain(node: ast.AST, modules: dict[str, Any]) -> list[str] | None:
    """`trt.A.B` as ["trt", "A", "B"]; None for anything else."""
    if isinstance(node, ast.Name):
        return [node.id] if node.id in modules else None
    if isinstance(node, ast.Attribute) and (inner := chain(node.value, modules)):
        return [*inner, node.attr]
    return None


def names(paths: list[Path], **modules: Any) -> dict[str, bool]:
    """Every chain of names in the files that starts with a module's, and whether the module has it.

    Quoted annotations count too.
    """
    found: dict[str, bool] = {}
    for path in paths:
        tree = ast.parse(path.read_text())
        quoted = [n.value for n in ast.walk(tree) if isinstance(n, ast.Constant) and isinstance(n.value, str)]
        prefixes = tuple(f"{name}." for name in modules)
        trees = [
            tree,
            *(ast.parse(text, mode="eval") for text in quoted if text.startswith(prefixes) and " " not in text),
        ]
        for part in (node for each in trees for node in ast.walk(each)):
            if (parts := chain(part, modules)) and len(parts) > 1:
                there: Any = modules[parts[0]]
                for name in parts[1:]:
                    there = getattr(there, name, None)
                found[".".join(parts)] = there is not None
    return found
