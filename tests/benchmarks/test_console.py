"""Tables of benchmarks in a pipe or a file: no column is cut."""

from __future__ import annotations

import pytest
from rich.table import Table

from benchmarks.common.console import console


def test_a_wide_table_is_whole_in_a_pipe(capsys: pytest.CaptureFixture[str]) -> None:
    names = [f"column {number} of the table" for number in range(6)]  # wider than 80 columns
    console().print(Table(*names, box=None))
    assert capsys.readouterr().out.split() == " ".join(names).split()
