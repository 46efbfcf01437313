"""The precision of a training: the fastest of this machine unless named, said in one line; a slow one is a warning."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from small_run import small

import trainer.precision
from kernels.isa import supported_isas
from serving.cli.main import main
from trainer.config import RunConfig
from trainer.config_file import load_config, to_toml
from trainer.precision import choose_precision
from trainer.processes import Processes
from trainer.run import start

CONFIGS = sorted((Path(__file__).resolve().parents[2] / "configs").glob("*.toml"))


@pytest.fixture(params=[True, False], ids=["with bf16", "without bf16"])
def fast(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether the processor of a test multiplies in bf16."""
    monkeypatch.setattr(trainer.precision, "_multiplies_bf16", lambda _device: request.param)
    return bool(request.param)


def test_auto_is_the_default_and_takes_bf16_where_the_processor_has_it(fast: bool) -> None:
    assert RunConfig().precision == "auto"
    choice = choose_precision("auto", "cpu")
    assert choice.precision == ("bf16" if fast else "fp32")
    assert not choice.warning
    assert str(choice).startswith(f"training in {choice.precision}: this processor ")


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.stem)
def test_every_configuration_leaves_the_precision_to_the_machine(path: Path) -> None:
    assert load_config(path).run.precision == "auto"


def test_an_explicit_precision_is_kept_and_a_slow_one_names_the_better_one(fast: bool) -> None:
    assert choose_precision("fp32", "cpu").precision == "fp32"
    assert not choose_precision("fp32", "cpu").warning
    choice = choose_precision("bf16", "cpu")
    assert choice.precision == "bf16"
    assert ("take run.precision fp32 or auto" in choice.warning) == (not fast)


def test_this_processor_is_asked_not_guessed() -> None:
    has = bool({"avx512bf16", "amx"} & set(supported_isas())) and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    assert choose_precision("auto", "cpu").precision == ("bf16" if has else "fp32")


@pytest.mark.usefixtures("fast")
def test_the_choice_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "c.toml"
    path.write_text(to_toml(small(tmp_path / "run", run={"precision": "auto"}, data={"scenes": 4})))
    result = CliRunner().invoke(main, ["train", str(path)], catch_exceptions=False)
    assert result.output.count(str(choose_precision("auto", "cpu"))) == 1


def test_the_first_process_alone_warns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(trainer.precision, "_multiplies_bf16", lambda _device: False)
    for rank in (0, 1):
        start(small(tmp_path / "run", run={"precision": "bf16"}), Processes(rank, 1, torch.device("cpu")))
    assert [r.message for r in caplog.records if "many times slower" in r.message] == [
        choose_precision("bf16", "cpu").warning
    ]
