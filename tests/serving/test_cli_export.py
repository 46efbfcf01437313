"""`spade export` and `spade repository`: output, messages, exit statuses."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import onnx
import pytest
from click.testing import CliRunner, Result
from google.protobuf import text_format
from served import FREE_PORTS, TINY, blocks, png
from tritonclient.grpc import model_config_pb2

from serving.cli.main import main
from serving.client.client import Client
from serving.triton.server import ServeOptions, serve
from spade_core.config import DEMO_WEIGHTS
from spade_core.files.checkpoints import save
from spade_core.files.manifest import verify_manifest
from spade_core.models.seeded import seeded_generator

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning"),
    pytest.mark.usefixtures("traced_once"),
]


TRITON_RUNS_IT = ["--to", "tensorrt,triton", "--publish", "r", "--builder", "tensorrt"]


def spade(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, [str(a) for a in arguments], catch_exceptions=False)


def test_export_writes_a_verified_file_with_a_manifest(tiny_weights: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "notes.txt").touch()  # a file of the user, which stays
    (tmp_path / "maps").mkdir()
    (tmp_path / "maps" / "0.png").write_bytes(png(blocks(1, size=64, classes=8)[0]))  # one map, where two are asked for
    result = spade(
        "export", "--weights", tiny_weights, "--out", tmp_path / "out", "--graph", "codebook", "--size", "32x64",
        "--int8", "--maps", tmp_path / "maps", "--verify-maps", "2",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    for text in ("onnxruntime", "openvino", "PSNR dB", "ok", "codebook, fp32, image uint8"):
        assert text in result.output
    assert result.output.count(" int8 ") == 2
    facts = verify_manifest(tmp_path / "out", alone=False)
    assert (tmp_path / "out" / "spade.int8.onnx").stat().st_size < (tmp_path / "out" / "spade.onnx").stat().st_size
    assert (facts["form"], facts["source"]) == ("codebook", "tiny.safetensors")
    assert (json.loads(facts["config"])["height"], json.loads(facts["config"])["width"]) == (32, 64)
    model = onnx.load(str(tmp_path / "out" / "spade.onnx"))
    properties = {p.key: p.value for p in model.metadata_props}
    assert properties["spade.source_sha256"] == facts["source_sha256"]


def test_versions_are_published_listed_and_rolled_back(tiny_weights: Path, tmp_path: Path) -> None:
    root = tmp_path / "repository"
    save(tmp_path / "second.safetensors", seeded_generator(TINY, 2))
    for weights in (tiny_weights, tmp_path / "second.safetensors"):
        result = spade(
            "export", "--weights", weights, "--out", tmp_path / "o", "--to", "triton", "--publish", root, "--keep", "2"
        )
        assert result.exit_code == 0, result.output
    assert "version 2 is live" in result.output
    listed = spade("repository", root)
    assert listed.exit_code == 0
    assert "tiny.safetensors" in listed.output
    assert "version 1 is live" in spade("repository", root, "--roll-back").output
    labels = blocks(1, size=64, classes=8)
    with serve(ServeOptions(repository=root, **FREE_PORTS)) as server, Client(server.grpc_url) as client:
        assert client.synthesize(labels, labels.astype("int32")).images.shape == (1, 64, 64, 3)
        assert "version 2 is live" in spade("repository", root, "--version", "2").output
    (root / "spade" / "2" / "weights.safetensors").write_bytes(b"")
    damaged = spade("repository", root)
    assert damaged.exit_code == 1
    assert "DAMAGED" in damaged.output
    assert "weights.safetensors has sha256" in damaged.output
    assert spade("repository", root, "--version", "9").exit_code == 1
    refused = spade("serve", "--repository", root, "--http-port", "0", "--grpc-port", "0", "--metrics-port", "0")
    assert refused.exit_code == 1
    assert "--roll-back" in refused.output


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        (["--to", "onnx,openvino"], "expected names out of onnx, tensorrt, triton but got 'onnx,openvino'"),
        (["--batch", "4,2,8"], "expected a batch 1 <= MIN <= OPT <= MAX but got (4, 2, 8)"),
        (["--batch", "many"], "expected MIN,OPT,MAX, three whole numbers, but got 'many'"),
        (["--size", "256"], "expected HxW, for instance 256x512, but got '256'"),
        (["--int8", "--precision", "bf16"], "it starts from a float32 graph, not --precision bf16"),
        (["--precision", "int8", "--publish", "r"], "neither a graph nor an engine; give --to triton alone"),
        ([*TRITON_RUNS_IT, "--strip-weights"], "cannot put them back"),
        ([*TRITON_RUNS_IT, "--batch", "2,4,8"], "sends single maps too; start at 1"),
        (
            ["--to", "tensorrt", "--builder", "rtx", "--refit"],
            "--refit: TensorRT for RTX does not take it: its builder",
        ),
        (
            ["--to", "tensorrt", "--builder", "rtx", "--plugin"],
            "--plugin: TensorRT for RTX does not take it: it has no",
        ),
        (["--to", "tensorrt", "--builder", "rtx", "--target", "sm75"], "--target: sm75 (Turing) runs fp16 only"),
        (["--to", "tensorrt", "--builder", "tensorrt", "--target", "sm89"], "--target: TensorRT builds for the GPU of"),
        (
            ["--to", "tensorrt", "--builder", "tensorrt", "--graph", "dense", "--plugin"],
            "--plugin: it modulates by a codebook, and a dense graph has none; take --graph codebook",
        ),
        (["--to", "tensorrt", "--target", "sm90"], "TensorRT for RTX has no Hopper"),
        (["--target", "portable"], "--target: no engine is built; add tensorrt to --to"),
        (["--to", "triton"], "name the model repository with --publish"),
        (["--to", "triton", "--publish", "r", "--int8"], "--int8: no graph is made; add onnx to --to"),
        (["--refit", "--batch", "1,1,1"], "--batch, --refit: no engine is built; add tensorrt to --to"),
        (["--keep", "3"], "--keep: no version is published; add --publish REPOSITORY"),
        (["--to", "tensorrt,triton", "--publish", "r", "--max-batch", "4"], "--max-batch: an engine is published"),
        (["--preset", "coco", "--weights", __file__], "a checkpoint has its own architecture"),
    ],
)
def test_wrong_usage_is_said(wrong: list[str], text: str, tmp_path: Path) -> None:
    result = spade("export", "--out", tmp_path / "out", *wrong)
    assert result.exit_code == 2
    assert text in " ".join(result.output.replace("│", "").split())
    assert not (tmp_path / "out").exists()


def test_without_weights_it_is_the_demo_model(tmp_path: Path) -> None:
    root = tmp_path / "[bold]repository"  # shown as it is, without markup
    options = ["--queue-size", "7", "--threads", "1"]
    result = spade("export", "--out", tmp_path / "o", "--to", "triton", "--publish", root, *options)
    assert result.exit_code == 0, result.output
    assert f"{root}: version 1 is live" in result.output
    facts = verify_manifest(root / "spade" / "1")
    assert facts["source"] == "demo.safetensors"
    assert (root / "spade" / "1" / "weights.safetensors").read_bytes() == DEMO_WEIGHTS.read_bytes()
    config = text_format.Parse((root / "spade" / "config.pbtxt").read_text(), model_config_pb2.ModelConfig())
    assert config.parameters["queue_size"].string_value == "7"
    served = spade("serve", "--repository", root, "--weights", DEMO_WEIGHTS, "--threads", "2")
    assert served.exit_code == 2
    text = " ".join(served.output.replace("│", "").split())
    assert "--weights, --threads: the published version decides that; give it to `spade export --publish`" in text


def test_a_checkpoint_is_published_at_int8(tiny_weights: Path, tmp_path: Path) -> None:
    root = tmp_path / "repository"
    made = spade(
        "export",
        "--weights",
        tiny_weights,
        "--out",
        tmp_path,
        "--to",
        "triton",
        "--precision",
        "int8",
        "--publish",
        root,
    )
    assert made.exit_code == 0, made.output
    assert "int8 is served on processors with AMX only" in " ".join(made.output.split())
    assert verify_manifest(root / "spade" / "1")["precision"] == "int8"
    config = text_format.Parse((root / "spade" / "config.pbtxt").read_text(), model_config_pb2.ModelConfig())
    assert json.loads(config.parameters["precision"].string_value) == "int8"


def test_a_refused_version_is_shown(tiny_weights: Path, tmp_path: Path) -> None:
    root = tmp_path / "repository"
    spade("export", "--weights", tiny_weights, "--out", tmp_path, "--to", "triton", "--publish", root)
    (root / "spade" / "1.refused").write_text("out of [/memory]")
    listed = spade("repository", root)
    assert listed.exit_code == 1
    assert "REFUSED" in listed.output
    assert "a server refused version 1: out of [/memory]; `spade repository" in listed.output


def test_without_tensorrt_nothing_is_begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("tensorrt", "tensorrt_rtx", "tensorrt_rtx_bindings"):
        monkeypatch.setitem(sys.modules, name, None)
    result = spade("export", "--out", tmp_path / "out", "--to", "tensorrt")
    assert result.exit_code == 1
    assert "expected the package tensorrt but it is not installed" in result.output
    assert "pip install -e '.[rtx]'" in result.output
    assert not (tmp_path / "out").exists()


def test_an_engine_for_rtx_is_built_and_published(tiny_weights: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx_bindings", reason="TensorRT for RTX has wheels for x86_64 only")
    root = tmp_path / "repository"
    result = spade(
        "export", "--weights", tiny_weights, "--out", tmp_path / "o", "--to", "tensorrt,triton", "--builder", "rtx",
        "--target", "sm86,sm89", "--precision", "fp16", "--batch", "2,2,4", "--no-verify", "--publish", root,
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert re.search(
        r"spade\.plan: .* MB, TensorRT for RTX [\d.]+, sm86,sm89, 0\.\d\d GB scratch, built, not run", result.output
    )
    facts = verify_manifest(root / "spade" / "1")
    assert (facts["runtime"], facts["targets"], facts["state"]) == ("rtx", ["sm86", "sm89"], "built, not run")
    assert facts["runtime_version"] in result.output
    # Triton's own backend runs engines of TensorRT only: an engine for RTX is our backend's.
    config = text_format.Parse((root / "spade" / "config.pbtxt").read_text(), model_config_pb2.ModelConfig())
    assert (config.backend, config.parameters["engine"].string_value) == ("python", '"tensorrt"')


def test_a_missing_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "export.pipeline", raising=False)
    monkeypatch.delitem(sys.modules, "export.onnx", raising=False)
    monkeypatch.setitem(sys.modules, "onnx", None)
    result = spade("export", "--out", tmp_path / "out")
    assert result.exit_code == 1
    assert "expected the package onnx but it is not installed; run `pip install -e '.[export]'`" in result.output
