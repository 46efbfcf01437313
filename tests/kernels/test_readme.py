"""kernels/README.md names files that exist, structs that a header declares, and every operation that there is."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

KERNELS = Path(__file__).resolve().parents[2] / "kernels"
README = (KERNELS / "README.md").read_text()
HEADERS = "".join(path.read_text() for path in (KERNELS / "include").glob("*.h"))


def rows() -> list[list[str]]:
    """The cells of the table of operations, a list for each row."""
    table = README.split("|---|---|---|---|---|---|---|\n")[1].split("\n\n")[0]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]


@pytest.mark.parametrize("path", sorted(set(re.findall(r"\]\(([^)]+)\)", README))))
def test_every_linked_file_exists(path: str) -> None:
    assert (KERNELS / path).is_file()


@pytest.mark.parametrize(
    "name", sorted(set(re.findall(r"`((?:cpu|cuda|ops|include|tests)/[\w./]+|\w+\.(?:py|cpp))`", README)))
)
def test_every_named_file_exists(name: str) -> None:
    assert (KERNELS / name).exists() or (KERNELS.parent / name).exists()


@pytest.mark.parametrize("row", rows(), ids=lambda row: row[0])
def test_a_row_names_a_specification_a_struct_a_kernel_and_a_test(row: list[str]) -> None:
    _, formula, specification, structs, cpu, cuda, tests = row
    assert formula
    for name, path in re.findall(r"\[(`[^\]]+`)\]\(([^)]+)\)", specification):
        for function in re.findall(r"\w+", name):
            assert re.search(rf"^def {function}\(", (KERNELS / path).read_text(), re.MULTILINE), function
    declared = re.findall(r"\w+", structs)
    assert declared
    assert all(f"typedef struct {struct} {{" in HEADERS for struct in declared)
    assert cpu or cuda
    assert tests


def test_every_operation_has_a_row() -> None:
    operations = {row[0] for row in rows()}
    assert {path.stem for path in (KERNELS / "ops").glob("*.py")} - {"__init__"} <= operations


def test_every_struct_of_a_kernel_is_in_the_table() -> None:
    named = {struct for row in rows() for struct in re.findall(r"\w+", row[3])}
    taken = set(re.findall(r"const (spade_\w+)\* (?:args|plan)", HEADERS))
    assert taken - {"spade_step"} <= named
