"""Every option of every command with wrong values: a message, and no traceback.

The options come from click's own list, so that a new option is swept too.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from served import blocks, png

from serving.cli.main import COMMANDS, main
from spade_core.config import DEMO_WEIGHTS

# What a command needs beside the option that is wrong.
REQUIRED = {
    "synthesize": ["map.png", "--out=out"],
    "export": ["--out=out"],
    "convert": [str(DEMO_WEIGHTS), "--out=out.safetensors"],
    "repository": ["."],
    "train": [str(Path(__file__).parents[2] / "configs/demo.toml")],
    "scenes": ["--out=out"],
    "check": ["."],
}


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder of its own for each test, with one label map."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "map.png").write_bytes(png(blocks(1)[0]))


@dataclass(frozen=True)
class Case:
    """An option of a command with a wrong value."""

    command: str
    option: str
    value: str

    def __str__(self) -> str:
        return f"{self.command} {self.option} {self.value[:20]!r}"


def wrong_values(option: click.Option) -> list[str]:
    """Values that the type of an option forbids."""
    kind = option.type
    if isinstance(kind, click.IntRange):
        return ["x", "", "1.5", "nan", str(2**64), str((kind.min or 0) - 1), *([str(kind.max + 1)] if kind.max else [])]
    if isinstance(kind, click.FloatRange):
        return ["x", "", "nan", "inf", "-1", "1e400"]
    if isinstance(kind, click.Choice):
        return ["x", "", "FP32 "]
    if isinstance(kind, click.Path):
        if kind.exists:
            return ["no/such/path", "/", "a\nb"] if not kind.dir_okay else ["no/such/path", "/etc/passwd"]
        return [] if kind.dir_okay and kind.file_okay else ["/etc/passwd" if kind.dir_okay else "/"]
    return []


def swept() -> list[Case]:
    cases = []
    for name in COMMANDS:
        command = main.get_command(click.Context(main), name)
        assert command is not None
        for option in command.params:
            if isinstance(option, click.Option) and not option.is_flag:
                cases += [Case(name, option.opts[0], value) for value in wrong_values(option)]
    return cases


def run(command: str, *arguments: str) -> tuple[int, str]:
    """Exit status and output."""
    result = CliRunner().invoke(main, [command, *REQUIRED.get(command, []), *arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    assert "Traceback" not in result.output
    return result.exit_code, result.output


def test_the_sweep_reaches_every_command() -> None:
    assert {case.command for case in swept()} >= set(COMMANDS) - {"train"}
    assert len(swept()) > 200


def test_a_value_that_the_type_forbids_is_wrong_usage() -> None:
    failed = []
    for case in swept():
        status, output = run(case.command, f"{case.option}={case.value}")
        if status != 2 or f"Error: Invalid value for '{case.option}'" not in output:
            failed.append(f"{case}: status {status}, {output}")
    assert failed == []


# (command, option): the options of free text, which the commands check by themselves
FREE_TEXT = [
    ("synthesize", "--server"), ("convert", "--set"), ("serve", "--host"), ("export", "--to"), ("export", "--batch"),
    ("export", "--size"), ("export", "--target"),
    ("train", "--set"), ("scenes", "--size"), ("scenes", "--style"), ("evaluate", "--segmentation-mean"),
    ("evaluate", "--segmentation-std"), ("serve", "--cors"), ("serve", "--trusted-proxy"), ("serve", "--sha256"),
    ("serve", "--model"), ("synthesize", "--styles"), ("synthesize", "--seeds"), ("synthesize", "--style-name"),
]  # fmt: skip


def test_every_option_of_free_text_is_swept() -> None:
    """An option that takes any text needs a line in FREE_TEXT, or a reason in the list here."""
    free = set()
    for name in COMMANDS:
        command = main.get_command(click.Context(main), name)
        assert command is not None
        for option in command.params:
            if isinstance(option, click.Option) and option.type is click.STRING:
                free.add((name, option.opts[0]))
    # Any text is the name of a folder, and Ray itself reads its address.
    assert free - set(FREE_TEXT) == {("train", "--out"), ("synthesize", "--ray")}


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(st.sampled_from(FREE_TEXT), st.text(max_size=12).filter(lambda text: "\0" not in text and not text.isalnum()))
def test_random_text_ends_with_a_message(monkeypatch: pytest.MonkeyPatch, which: tuple[str, str], text: str) -> None:
    command, option = which
    monkeypatch.setattr("serving.triton.server.find_tritonserver", no_server)
    status, output = run(command, f"{option}={text}")
    assert status in (1, 2), output
    assert "rror: " in output


def no_server() -> None:
    raise RuntimeError("no server in this test")


@pytest.mark.parametrize(
    ("command", "arguments", "text"),
    [
        ("synthesize", ["--seed", str(2**63)], "--seed"),
        (
            "serve",
            ["--host", "192.0.2.1", "--http-port=0", "--without-keys"],
            "expected an address of this machine but got 192.0.2.1",
        ),
        ("serve", ["--log-file", "missing/triton.log"], "expected log_file in a folder that exists"),
        ("info", ["/"], "is a directory"),
        ("evaluate", [str(DEMO_WEIGHTS), "--preset", "demo"], "give the checkpoint or --preset"),
    ],
)
def test_mistakes_that_users_made(command: str, arguments: list[str], text: str) -> None:
    status, output = run(command, *arguments)
    assert status in (1, 2)
    assert text in output


def test_a_missing_folder_for_a_checkpoint_is_a_message(tmp_path: Path) -> None:
    (tmp_path / "w.safetensors").write_bytes(b"")
    assert run("info", str(tmp_path / "w.safetensors"))[0] == 1
