"""The `spade` command without a server: output, messages, exit statuses."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import click
import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from serving.cli.jobs import Failure
from serving.cli.main import COMMANDS, main
from serving.cli.synthesize import failure_lines
from serving.engines.choose import choose
from spade_core.config import DEMO_WEIGHTS, preset
from spade_core.files.checkpoints import save
from spade_core.maps.drawn import demo_map
from spade_core.models.seeded import seeded_encoder, seeded_generator

REPOSITORY = Path(__file__).resolve().parents[2]


def commands() -> dict[str, click.Command]:
    found = {name: main.get_command(click.Context(main), name) for name in COMMANDS}
    return {name: command for name, command in found.items() if command is not None}


def spade(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, [str(a) for a in arguments], catch_exceptions=False)


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    config = replace(preset("demo"), nf=4)
    save(tmp_path / "w.safetensors", seeded_generator(config), seeded_encoder(4), {"source": "a test"})
    return tmp_path / "w.safetensors"


@pytest.fixture
def label_map(tmp_path: Path) -> Path:
    Image.fromarray(demo_map(0, preset("demo"))[0]).save(tmp_path / "map.png")
    return tmp_path / "map.png"


def test_synthesize_writes_images(tmp_path: Path, weights: Path, label_map: Path) -> None:
    result = spade("synthesize", "--labels", label_map, "--weights", weights, "--out", tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert f"1 of 1 images written to {tmp_path / 'out'}" in result.output
    with Image.open(tmp_path / "out/map.png") as image:
        assert image.size == (256, 256)


def test_seeds_and_style_images_give_other_images(tmp_path: Path, weights: Path, label_map: Path) -> None:
    Image.effect_noise((64, 64), 90).convert("RGB").save(tmp_path / "style.png")
    common = ("synthesize", label_map, "--weights", weights)
    for name, options in {"0": ("--seed", "0"), "1": ("--seed", "1"), "s": ("--style", tmp_path / "style.png")}.items():
        assert spade(*common, *options, "--out", tmp_path / name).exit_code == 0
    images = [np.asarray(Image.open(tmp_path / n / "map.png")).astype(int) for n in ("0", "1", "s")]
    assert min(np.abs(images[a] - images[b]).mean() for a, b in ((0, 1), (0, 2), (1, 2))) > 2


def test_a_bad_file_is_listed_at_the_end_with_exit_status_1(tmp_path: Path, weights: Path, label_map: Path) -> None:
    (tmp_path / "bad.png").write_bytes(b"nonsense")
    result = spade(
        "synthesize", "--labels", tmp_path / "bad.png", label_map, "--weights", weights, "--out", tmp_path / "out"
    )
    assert result.exit_code == 1
    assert "1 of 2 images written" in result.output
    assert f"failed: {tmp_path / 'bad.png'}: [" in result.output


def test_a_server_that_is_not_there_is_said_once(tmp_path: Path, label_map: Path) -> None:
    (tmp_path / "second.png").write_bytes(label_map.read_bytes())
    result = spade(
        "synthesize", label_map, tmp_path / "second.png", "--server", "http://127.0.0.1:1", "--out", tmp_path / "out"
    )
    assert result.exit_code == 1
    assert result.output.count("spade serve") == 1


def test_files_that_fail_for_one_reason_share_a_line() -> None:
    failures = [Failure(Path(name), "no") for name in "abcde"] + [Failure(Path("f"), "never")]
    assert failure_lines(failures) == ["failed: a, b, c and 2 others: no", "failed: f: never"]


@pytest.mark.parametrize("option", ["--preset=demo", "--engine=cpu", "--precision=fp32", "--threads=1"])
def test_what_a_server_decides_is_wrong_usage(tmp_path: Path, label_map: Path, option: str) -> None:
    result = spade("synthesize", label_map, option, "--server", "http://127.0.0.1:1", "--out", tmp_path / "out")
    assert result.exit_code == 2
    assert f"{option.split('=')[0]}: the server decides that" in result.output


def test_the_chosen_precision_is_one_line(tmp_path: Path, weights: Path, label_map: Path) -> None:
    result = spade("synthesize", label_map, "--weights", weights, "--out", tmp_path / "out")
    assert [line for line in result.stderr.splitlines() if line.startswith("engine ")] == [str(choose())]
    assert "instances" not in result.output


def test_a_precision_that_cannot_run_is_refused_before_the_weights_are_read(
    tmp_path: Path, label_map: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    (tmp_path / "w.safetensors").write_bytes(b"junk")
    for command in ("synthesize", "serve", "demo"):
        labels = [label_map] if command == "synthesize" else []
        out = [] if command == "serve" else ["--out", tmp_path / "out"]
        result = spade(command, *labels, "--weights", tmp_path / "w.safetensors", "--precision", "fp16", *out)
        assert result.exit_code == 1
        assert "error: [engine] expected a CUDA device for precision fp16 but found none" in result.output


def test_instance_maps_are_asked_for_by_their_option(tmp_path: Path, label_map: Path) -> None:
    save(tmp_path / "edges.safetensors", seeded_generator(replace(preset("demo"), nf=4, instance_edges=True)))
    result = spade("synthesize", label_map, "--weights", tmp_path / "edges.safetensors", "--out", tmp_path / "out")
    assert result.exit_code == 2
    assert "--instances: model 'demo' reads instance maps" in result.output


def test_a_seed_for_a_model_without_style_is_wrong_usage(tmp_path: Path, label_map: Path) -> None:
    config = replace(preset("demo"), nf=4, style=False)
    save(tmp_path / "plain.safetensors", seeded_generator(config))
    result = spade(
        "synthesize", label_map, "--weights", tmp_path / "plain.safetensors", "--seed", "1", "--out", tmp_path / "out"
    )
    assert result.exit_code == 2
    assert "has no style input" in result.output


def test_corrupt_weights_end_with_a_message(tmp_path: Path, label_map: Path) -> None:
    (tmp_path / "w.safetensors").write_bytes(b"junk")
    result = spade("synthesize", label_map, "--weights", tmp_path / "w.safetensors", "--out", tmp_path / "out")
    assert result.exit_code == 1
    assert "expected a whole safetensors file" in result.output
    assert not (tmp_path / "out").exists()


def test_info_tells_architecture_cost_and_origin(weights: Path) -> None:
    result = spade("info", weights)
    assert result.exit_code == 0
    for text in ("demo", "sha256", "a test", "GMAC", "style encoder"):
        assert text in result.output


@pytest.mark.parametrize(
    ("name", "parameters", "macs"), [("coco", 97.48, 191.1), ("ade20k", 96.49, 181.2), ("cityscapes", 93.05, 281.3)]
)
def test_info_of_the_presets_shows_the_published_counts(name: str, parameters: float, macs: float) -> None:
    output = spade("info", "--preset", name).output
    assert f"{parameters} M" in output
    assert f"{macs} GMAC" in output


def test_info_shows_every_baseline_with_its_costs() -> None:
    output = spade("info", "--preset", "coco", "--baselines").output
    for text in ("pix2pixhd++ with spade", "238.01", "177.2", "spade_kernel 5", "455.9"):
        assert text in output


def test_info_without_a_subject_is_the_demo_model() -> None:
    assert str(DEMO_WEIGHTS) in spade("info").output
    assert spade("info", DEMO_WEIGHTS, "--preset", "demo").exit_code == 2


def test_nothing_is_cut_when_piped() -> None:
    output = spade("info").output
    assert "…" not in output
    assert hashlib.sha256(DEMO_WEIGHTS.read_bytes()).hexdigest() in output


def test_ctrl_c_ends_with_status_130_and_a_message(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def interrupted(*_arguments: object, **_options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("trainer.scenes.files.write_scenes", interrupted)
    monkeypatch.setattr("os._exit", sys.exit)  # a thread of another test may still run in this process
    result = spade("scenes", "--out", tmp_path)
    assert result.exit_code == 130
    assert "interrupted: the scenes written so far are whole" in result.output


def test_the_command_is_imported_quickly() -> None:
    """Seconds of the processor, which other work on the machine does not change much; the best of three counts."""
    code = "import time; t = time.process_time(); import serving.cli.main; print(time.process_time() - t)"
    runs = [subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True) for _ in range(3)]
    assert min(float(run.stdout) for run in runs) < 0.3


def test_help_imports_no_command_and_no_torch() -> None:
    code = (
        "import sys\nfrom serving.cli.main import main\nmain(['--help'], standalone_mode=False)\n"
        "print(sorted({'torch', 'numpy', 'tritonclient'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_convert_names_a_file_that_is_no_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "latest_net_G.pth").write_text("<html>not found</html>")
    result = spade("convert", tmp_path / "latest_net_G.pth", "--out", tmp_path / "w.safetensors")
    assert result.exit_code == 1
    assert "latest_net_G.pth" in result.output
    assert not (tmp_path / "w.safetensors").exists()


def test_options_are_environment_variables_too(weights: Path, label_map: Path, tmp_path: Path) -> None:
    environment = {**os.environ, "SPADE_SYNTHESIZE_WEIGHTS": str(weights), "SPADE_SYNTHESIZE_OUT": str(tmp_path / "o")}
    result = CliRunner().invoke(main, ["synthesize", str(label_map)], env=environment)
    assert result.exit_code == 0, result.output
    assert (tmp_path / "o/map.png").exists()


def test_the_documentation_holds_the_help_of_every_command() -> None:
    script = REPOSITORY / "scripts/commands_doc.py"
    done = subprocess.run([sys.executable, script, "--check"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_every_option_is_explained() -> None:
    options = [p for command in commands().values() for p in command.params if isinstance(p, click.Option)]
    assert len(options) > 80
    assert [option.name for option in options if not option.help] == []


def test_the_environment_variable_of_an_option_has_its_name() -> None:
    """Click makes SPADE_COMMAND_NAME of the parameter's name, so that name must be the option's."""
    for command in commands().values():
        for option in command.params:
            if isinstance(option, click.Option):
                assert f"--{option.name}".replace("_", "-") in option.opts
