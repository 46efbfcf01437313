"""The configurations of both models, read back with the protobuf that Triton uses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from serving.triton.model_config import ModelOptions, write_repository
from serving.triton.protocol import PACKAGE, check_package, read_parameters
from spade_core.config import PRESETS, GeneratorConfig


def written(root: Path, options: ModelOptions) -> dict[str, Any]:
    write_repository(root, options, PRESETS["demo"])
    return {
        folder.name: text_format.Parse((folder / "config.pbtxt").read_text(), model_config_pb2.ModelConfig())
        for folder in root.iterdir()
    }


def test_options_reach_the_configuration(tmp_path: Path) -> None:
    models = written(
        tmp_path, ModelOptions(max_batch=5, queue_delay_us=77, queue_size=9, queue_timeout_s=1.5, decoders=3)
    )
    assert sorted(models) == ["spade", "spade_image"]
    for model in models.values():
        assert model.max_batch_size == 5
        assert not model.HasField("dynamic_batching")
        assert not model.HasField("response_cache")
        assert model.parameters["queue_size"].string_value == "9"
    assert models["spade"].parameters["queue_delay_us"].string_value == "77"
    assert models["spade"].parameters["queue_timeout_s"].string_value == "1.5"
    assert models["spade"].instance_group[0].count == 1
    assert models["spade_image"].instance_group[0].count == 3


def test_parameters_come_back_as_they_were(tmp_path: Path) -> None:
    weights = tmp_path / 'odd "name" {}\n.safetensors'
    models = written(tmp_path / "models", ModelOptions(weights, precision="bf16"))

    def parameters(name: str) -> dict[str, Any]:
        strings = {key: {"string_value": value.string_value} for key, value in models[name].parameters.items()}
        return read_parameters(json.dumps({"parameters": strings}))

    values = parameters("spade")
    assert (values["weights"], values["precision"], values["threads"]) == (str(weights), "bf16", None)
    assert GeneratorConfig.from_dict(parameters("spade_image")["config"]) == PRESETS["demo"]


def test_a_model_that_imports_another_package_says_so() -> None:
    check_package({"package": PACKAGE})
    with pytest.raises(RuntimeError, match=r"to import /elsewhere/serving, .* pip install"):
        check_package({"package": "/elsewhere/serving"})


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        ({"max_batch": 0}, "max_batch of 1 or more but got 0"),
        ({"queue_size": 0}, "queue_size of 1 or more but got 0"),
        ({"threads": 0}, "threads of 1 or more but got 0"),
        ({"queue_timeout_s": 0.0}, "queue_timeout_s above 0 but got 0.0"),
    ],
)
def test_options_out_of_range_are_named(wrong: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        ModelOptions(**wrong)
