"""Judges from files: the input they get, and the outputs that are refused."""

from __future__ import annotations

import warnings
from pathlib import Path

import onnx
import pytest
import torch
from onnx import TensorProto, helper
from torch import Tensor, nn

from trainer.evaluation.judges import InceptionFile, JudgeError, feature_file, segmentation_file


class ByBrightness(nn.Module):
    """Two classes: dark and bright, at half the size."""

    def forward(self, image: Tensor) -> Tensor:
        grey = image.mean(1, keepdim=True)[:, :, ::2, ::2]
        return torch.cat([-grey, grey], dim=1)


class Raw(nn.Module):
    def forward(self, images: Tensor, return_features: bool = False) -> Tensor:
        assert return_features
        assert images.dtype == torch.uint8
        return images.float().mean((2, 3))


class Means(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        assert images.shape[2:] == torch.Size([299, 299])
        return images.mean((2, 3), keepdim=True)


def scripted(module: nn.Module, path: Path) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.save(torch.jit.script(module), path)
    return path


def dark_and_bright() -> Tensor:
    images = torch.zeros(1, 3, 8, 8, dtype=torch.uint8)
    images[..., 4:] = 255
    return images


def test_a_torchscript_network_segments_and_its_classes_become_label_ids(tmp_path: Path) -> None:
    path = scripted(ByBrightness(), tmp_path / "net.pt")
    plain = segmentation_file(path, mean=(0.5,) * 3, std=(0.5,) * 3)(dark_and_bright())
    assert plain.shape == (1, 8, 8)
    assert plain[0, 0].tolist() == [0] * 4 + [1] * 4
    mapped = segmentation_file(path, size=(16, 16), mean=(0.5,) * 3, std=(0.5,) * 3, classes=[7, 3])(dark_and_bright())
    assert mapped[0, 0].tolist() == [7] * 4 + [3] * 4


def test_an_onnx_network_may_return_ids(tmp_path: Path) -> None:
    """The network reads red > 0 as id 1: normalisation puts grey 127.5 at 0."""
    nodes = [
        helper.make_node("Slice", ["image", "zero", "one", "axis"], ["red"]),
        helper.make_node("Squeeze", ["red", "axis"], ["flat"]),
        helper.make_node("Greater", ["flat", "threshold"], ["bright"]),
        helper.make_node("Cast", ["bright"], ["ids"], to=TensorProto.INT64),
    ]
    constants = [
        helper.make_tensor(name, TensorProto.INT64, [1], [value])
        for name, value in (("zero", 0), ("one", 1), ("axis", 1))
    ]
    constants.append(helper.make_tensor("threshold", TensorProto.FLOAT, [], [0.0]))
    graph = helper.make_graph(
        nodes, "ids",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 3, "h", "w"])],
        [helper.make_tensor_value_info("ids", TensorProto.INT64, ["n", "h", "w"])],
        constants,
    )  # fmt: skip
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), tmp_path / "n.onnx")
    found = segmentation_file(tmp_path / "n.onnx", mean=(0.5,) * 3, std=(0.5,) * 3)(dark_and_bright())
    assert found[0, 0].tolist() == [0] * 4 + [1] * 4


def test_a_wrong_number_of_label_ids_is_named(tmp_path: Path) -> None:
    path = scripted(ByBrightness(), tmp_path / "net.pt")
    with pytest.raises(JudgeError, match=r"expected 2 label ids, one for each class .* but got 3"):
        segmentation_file(path, classes=[1, 2, 3])(dark_and_bright())


def test_a_network_that_does_not_segment_is_named_with_what_it_gave(tmp_path: Path) -> None:
    path = scripted(nn.Flatten(), tmp_path / "net.pt")
    with pytest.raises(JudgeError, match=r"logits \[1, K, h, w\] or class ids .* but got \[1, 192\]"):
        segmentation_file(path)(dark_and_bright())


@pytest.mark.parametrize("name", ["net.pt", "net.onnx"])
def test_a_file_that_is_no_network_is_refused(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text("<html>not found</html>")
    with pytest.raises(JudgeError, match=f"expected a readable .* file but got '.*{name}'"):
        segmentation_file(tmp_path / name)


def test_inception_files_of_both_kinds(tmp_path: Path) -> None:
    images = dark_and_bright()
    raw = InceptionFile(scripted(Raw(), tmp_path / "raw.pt"))
    assert raw.num_features == 3
    assert raw(images).tolist() == [[127.5] * 3]
    scaled = InceptionFile(scripted(Means(), tmp_path / "means.pt"))
    assert scaled(images).shape == (1, 3)
    assert scaled(images).abs().max() < 0.01, "half of it -1, half of it 1"


def test_features_that_are_no_maps_are_refused(tmp_path: Path) -> None:
    features = feature_file(scripted(nn.Flatten(), tmp_path / "f.pt"))
    with pytest.raises(JudgeError, match=r"expected feature maps .* but got \[\[1, 192\]\]"):
        features(dark_and_bright())
