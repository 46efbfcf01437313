"""`spade train` and `spade scenes`: output, messages, exit statuses."""

from __future__ import annotations

from pathlib import Path

from click.testing import CliRunner, Result
from small_run import small

from serving.cli.main import main
from trainer.config_file import field_table, to_toml


def spade(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, [str(a) for a in arguments], catch_exceptions=False)


def configuration(folder: Path) -> Path:
    path = folder / "c.toml"
    path.write_text(to_toml(small(folder / "run")))
    return path


def test_train_says_what_it_wrote(tmp_path: Path) -> None:
    result = spade("train", configuration(tmp_path), "--set", "data.scenes=4")
    assert result.exit_code == 0, result.output
    assert "step 2 of 2: gan " in result.output
    assert "images/s" in result.output
    assert f"{tmp_path / 'run/weights.safetensors'} written" in result.output
    again = spade("train", configuration(tmp_path), "--set", "data.scenes=4", "--export-only")
    assert f"{tmp_path / 'run/weights.safetensors'} written" in again.output


def test_a_dry_run_shows_what_would_be_trained(tmp_path: Path) -> None:
    result = spade("train", configuration(tmp_path), "--dry-run", "--out", tmp_path / "other")
    assert result.exit_code == 0, result.output
    assert "M parameters" in result.output
    assert not (tmp_path / "other").exists()


def test_mistakes_end_with_a_message_and_status_1(tmp_path: Path) -> None:
    path = configuration(tmp_path)
    for arguments, message in (
        (("train", path, "--set", "optim.lrr=1"), "in [optim] of"),
        (("train", tmp_path / "none.toml"), "expected a readable TOML file"),
        (
            ("train", path, "--set", "data.layout=folder", "--set", "data.root=nowhere"),
            "expected the folder 'nowhere/labels'",
        ),
        (("scenes", "--out", tmp_path, "--style", "noo"), "expected a style out of noon"),
        (("scenes", "--out", tmp_path, "--size", "wide"), "expected a size like 256"),
    ):
        result = spade(*arguments)
        assert result.exit_code == 1
        assert message in result.output
    assert spade("train").exit_code == 2


def test_fields_are_listed() -> None:
    output = spade("train", "--fields").output
    assert all(name in output for name, _, _ in field_table())


def test_scenes_are_written(tmp_path: Path) -> None:
    result = spade("scenes", "--count", "2", "--out", tmp_path / "s", "--size", "32x64", "--seed", "3")
    assert result.exit_code == 0, result.output
    assert "2 scenes and" in result.output
    assert sorted(p.name for p in (tmp_path / "s").iterdir()) == ["contact_sheet.png", "images", "instances", "labels"]
