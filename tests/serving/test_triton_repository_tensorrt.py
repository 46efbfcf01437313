"""The repository of a GPU machine in the real server. PyTorch stands in for the TensorRT engine of `spade`."""

from __future__ import annotations

import io
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from google.protobuf import text_format
from PIL import Image
from served import FREE_PORTS, TINY, blocks, png
from tritonclient.grpc import model_config_pb2 as pb

from serving.client.client import Client, ServerError
from serving.engines.choose import load_checkpoint
from serving.engines.reference import TorchEngine
from serving.triton.model_config import ModelOptions, tensorrt_config
from serving.triton.repository import PublishError, publish_engine, versions
from serving.triton.server import ServeOptions, serve
from spade_core.config import GeneratorConfig
from spade_core.files.checkpoints import save
from spade_core.models.seeded import seeded_generator
from spade_core.models.style import style_from_seed

FACTS = {"form": "dense", "runtime": "tensorrt", "options": {"strip_weights": False}}
STYLED = replace(TINY, style=True, instance_edges=False, dont_care=False)


def test_the_configuration_is_for_tritons_tensorrt_backend() -> None:
    model = tensorrt_config(ModelOptions(max_batch=4, queue_size=9, queue_timeout_s=1.5), TINY)
    assert (model.backend, model.default_model_filename, model.max_batch_size) == ("tensorrt", "model.plan", 4)
    assert [(i.name, pb.DataType.Name(i.data_type), list(i.dims)) for i in model.input] == [
        ("labels", "TYPE_UINT8", [64, 64]),
        ("instances", "TYPE_INT32", [64, 64]),
    ]
    assert [(o.name, list(o.dims)) for o in model.output] == [("image", [64, 64, 3])]
    assert model.dynamic_batching.default_queue_policy.max_queue_size == 9
    assert [warmup.batch_size for warmup in model.model_warmup] == [1, 4]
    assert model.instance_group[0].rate_limiter.resources[0].count == 1
    assert not model.HasField("response_cache")  # the key of Triton's cache ignores shapes


def stand_in(root: Path) -> None:
    """Replace the TensorRT backend and its own settings; the rest of the configuration stays."""
    folder = root / "spade" / "1"
    shutil.copyfile(Path(__file__).with_name("dense_stand_in.py"), folder / "model.py")
    path = root / "spade" / "config.pbtxt"
    model = text_format.Parse(path.read_text(), pb.ModelConfig())
    model.backend, model.default_model_filename = "python", "model.py"
    model.instance_group[0].kind = pb.ModelInstanceGroup.KIND_CPU
    path.write_text(text_format.MessageToString(model))
    shutil.copyfile(path, folder / "spade.pbtxt")


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    save(tmp_path / "w.safetensors", seeded_generator(STYLED))
    (tmp_path / "spade.plan").write_text(str(tmp_path / "w.safetensors"))
    root = tmp_path / "repository"
    publish_engine(root, tmp_path / "spade.plan", ModelOptions(decoders=1), STYLED, FACTS)
    assert sorted(file.name for file in (root / "spade" / "1").iterdir()) == [
        "manifest.json", "model.plan", "spade.pbtxt", "spade_image.pbtxt",
    ]  # fmt: skip
    stand_in(root)
    return root


def test_files_go_through_an_engine_that_checks_nothing(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The manifest finds the stand-in, which is not among the published files.
    assert "model.py is not in the manifest" in str(versions(repository)[0].fault)
    monkeypatch.setattr("serving.triton.server.check_live", lambda _root: None)
    engine = TorchEngine(load_checkpoint(tmp_path / "w.safetensors", "demo").generator, form="dense", threads=1)
    labels = blocks(3, size=64, classes=8)
    expected = engine.synthesize(labels, None, style_from_seed(5)[None])
    with serve(ServeOptions(repository=repository, **FREE_PORTS)) as server, Client(server.grpc_url) as client:
        result = client.synthesize_image([png(labels[0])], seed=5)
        image = np.asarray(Image.open(io.BytesIO(result.images[0])))
        assert np.abs(image.astype(int) - expected[0]).max() <= 1
        assert result.timings.convs_s == -1
        with pytest.raises(ServerError, match=r"expected ids 0\.\.7 .*but got 9") as refused:
            client.synthesize_image([png(np.full((64, 64), 9, np.uint8))], seed=5)
        assert refused.value.status == "invalid_argument"
        log = server.log.read_text()
    assert "stand-in: warm-up" in log


def test_a_codebook_engine_is_served_by_our_backend(tmp_path: Path) -> None:
    config: GeneratorConfig = TINY
    (tmp_path / "spade.plan").write_bytes(b"engine")
    root = tmp_path / "repository"
    facts = {"form": "codebook", "runtime": "tensorrt", "precision": "fp16", "options": {"strip_weights": True}}
    (tmp_path / "spade.onnx").write_bytes(b"weights")
    publish_engine(root, tmp_path / "spade.plan", ModelOptions(), config, facts)
    model = text_format.Parse((root / "spade" / "config.pbtxt").read_text(), pb.ModelConfig())
    assert model.backend == "python"
    assert model.parameters["engine"].string_value == '"tensorrt"'
    assert model.parameters["weights"].string_value == '"spade.plan"'
    assert (root / "spade" / "1" / "spade.plan").read_bytes() == b"engine"
    assert (
        root / "spade" / "1" / "spade.onnx"
    ).read_bytes() == b"weights"  # an engine without weights reads the weights from the ONNX file
    with pytest.raises(PublishError, match="Triton's own backend cannot put them back"):
        publish_engine(root, tmp_path / "spade.plan", ModelOptions(), config, facts | {"form": "dense"})
