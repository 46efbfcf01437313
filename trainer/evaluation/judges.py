"""Networks that judge images: segmentation (ONNX, TorchScript or the scenes' own), Inception and other features."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trainer.evaluation import segmentation

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
INCEPTION_SIZE = 299

Segment = Callable[[Tensor], Tensor]
"""Images uint8 [N, 3, H, W] -> label ids int64 [N, H, W]; -1 where the class found has no label id."""

CPU = torch.device("cpu")


class JudgeError(ValueError):
    """A network that cannot judge; the message holds the file, its output and the output expected."""


def scenes_segmentation(device: torch.device = CPU, look: str = "flat") -> Segment:
    """The judge of scenes of a look. Images are resized to its 128x128, and its logits back to the image's size."""
    network = _scenes_network(look).to(device)

    def segment(images: Tensor) -> Tensor:
        small = _resized(images.to(device).float() / 127.5 - 1, (segmentation.SIZE, segmentation.SIZE))
        with torch.inference_mode():
            return _labels_of(network(small), images.shape[2:]).cpu()

    return segment


def _scenes_network(look: str) -> segmentation.SegmentationNetwork:
    return segmentation.load_segmentation(segmentation.network_file(look, teacher=False))


def scenes_features(device: torch.device = CPU, look: str = "flat") -> Callable[[Tensor], npt.NDArray[np.float64]]:
    """Mean and deviation of each feature map on the judge's way down: images uint8 [N, 3, H, W] -> [N, 352]."""
    network = _scenes_network(look).to(device)

    def features(images: Tensor) -> npt.NDArray[np.float64]:
        small = _resized(images.to(device).float() / 127.5 - 1, (segmentation.SIZE, segmentation.SIZE))
        with torch.inference_mode():
            levels = network.features(small)[:-1]
        pooled = [part for level in levels for part in (level.mean((2, 3)), level.std((2, 3)))]
        return torch.cat(pooled, dim=1).double().cpu().numpy()

    return features


def segmentation_file(
    path: Path,
    *,
    size: tuple[int, int] | None = None,
    mean: Sequence[float] = IMAGENET_MEAN,
    std: Sequence[float] = IMAGENET_STD,
    classes: Sequence[int] | None = None,
    device: torch.device = CPU,
) -> Segment:
    """A segmentation network from a file, `.onnx` or TorchScript.

    The network gets float32 images [N, 3, h, w], (rgb / 255 - mean) / std, and returns logits [N, K, h', w'] or class
    ids [N, h', w'], alone or first in a tuple or dictionary.

    Args:
        size: (h, w) of the network's input; None: the image's size.
        classes: label id of each of the network's K classes, in order; None: classes are label ids.
        device: where TorchScript runs; ONNX runs on the CPU.

    Raises JudgeError.
    """
    run = _onnx(path) if path.suffix == ".onnx" else load_torchscript(path, device)
    shift, scale = (torch.tensor(values).view(1, 3, 1, 1) for values in (mean, std))

    def segment(images: Tensor) -> Tensor:
        inputs = _resized(images.float() / 255, size or images.shape[2:])
        with torch.inference_mode():
            out = _first(run(((inputs - shift) / scale).to(CPU if path.suffix == ".onnx" else device)))
        if not isinstance(out, Tensor) or out.ndim not in (3, 4) or out.shape[0] != len(images):
            raise JudgeError(
                f"[evaluate] expected logits [{len(images)}, K, h, w] or class ids [{len(images)}, h, w] of '{path}' "
                f"but got {list(out.shape) if isinstance(out, Tensor) else type(out).__name__}"
            )
        if out.ndim == 4 and classes is not None and out.shape[1] != len(classes):
            raise JudgeError(
                f"[evaluate] expected {out.shape[1]} label ids, one for each class of '{path}', "
                f"but got {len(classes)}; list them in the network's order"
            )
        found = _labels_of(out, images.shape[2:]).cpu()
        if classes is None:
            return found
        ids = torch.tensor([*classes, -1])
        return ids[torch.where((found < 0) | (found >= len(classes)), len(classes), found)]

    return segment


def read_class_ids(path: Path) -> list[int]:
    """The label id of each class of a segmentation network, from a JSON list. Raises JudgeError."""
    try:
        ids = json.loads(path.read_text())
    except (OSError, json.JSONDecodeError, UnicodeDecodeError) as error:
        raise JudgeError(f"[evaluate] expected a JSON list of label ids in '{path}' but got {error}") from None
    if not isinstance(ids, list) or not all(type(i) is int and 0 <= i < 256 for i in ids) or not ids:
        raise JudgeError(f"[evaluate] expected a JSON list of label ids 0..255 in '{path}' but got {str(ids)[:80]}")
    return ids


class InceptionFile(nn.Module):
    """Features for FID from a TorchScript file.

    A network whose forward takes `return_features` (the file that StyleGAN's authors publish) gets uint8 images of any
    size. Any other network gets float32 images in -1..1 at 299x299. Both return [N, D].

    Attributes:
        num_features: D.
    """

    def __init__(self, path: Path, device: torch.device = CPU) -> None:
        super().__init__()
        self.path, self.device = path, device
        self.network = load_torchscript(path, device)
        names = {argument.name for argument in self.network.forward.schema.arguments}
        self.raw = "return_features" in names
        self.num_features = int(self(torch.zeros((2, 3, 64, 64), dtype=torch.uint8)).shape[1])

    def forward(self, images: Tensor) -> Tensor:
        """Images uint8 [N, 3, H, W] -> features [N, D] on the CPU, in float64: FID is a difference of large numbers."""
        images = images.to(self.device)
        with torch.inference_mode():
            if self.raw:
                out = self.network(images, return_features=True)
            else:
                out = self.network(_resized(images.float() / 127.5 - 1, (INCEPTION_SIZE, INCEPTION_SIZE)))
        out = _first(out)
        if not isinstance(out, Tensor) or out.numel() == 0 or out[0].numel() != out.shape[1]:
            raise JudgeError(
                f"[evaluate] expected features [{len(images)}, D] of '{self.path}' "
                f"but got {list(out.shape) if isinstance(out, Tensor) else type(out).__name__}"
            )
        return out.flatten(1).cpu().double()


def feature_file(path: Path, device: torch.device = CPU) -> Callable[[Tensor], list[Tensor]]:
    """Feature maps by a TorchScript network: images uint8 [N, 3, H, W], which it gets in -1..1, -> maps [N, C, h, w].

    Raises JudgeError.
    """
    network = load_torchscript(path, device)

    def features(images: Tensor) -> list[Tensor]:
        with torch.inference_mode():
            return feature_maps(network(images.to(device).float() / 127.5 - 1), path)

    return features


def feature_maps(out: Any, of: Path | str) -> list[Tensor]:
    """A network's output, one map or several, as a list of maps [N, C, h, w]. JudgeError names the file `of`."""
    layers = list(out) if isinstance(out, list | tuple) else [out]
    if not layers or not all(isinstance(layer, Tensor) and layer.ndim == 4 for layer in layers):
        got = [list(layer.shape) if isinstance(layer, Tensor) else type(layer).__name__ for layer in layers]
        raise JudgeError(f"[evaluate] expected feature maps [N, C, h, w] of '{of}' but got {got}")
    return layers


def _onnx(path: Path) -> Callable[[Tensor], Any]:
    import onnxruntime

    try:
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    except Exception as error:  # noqa: BLE001 - ONNX Runtime's errors have no common base
        raise JudgeError(f"[evaluate] expected a readable ONNX file but got '{path}': {error}") from None
    name = session.get_inputs()[0].name

    def run(images: Tensor) -> Tensor:
        out = session.run(None, {name: np.ascontiguousarray(images.numpy())})[0]
        return torch.from_numpy(np.array(out))

    return run


def load_torchscript(path: Path, device: torch.device = CPU) -> Any:
    """A network from a TorchScript file, in eval mode. Raises JudgeError."""
    try:
        with warnings.catch_warnings():
            # PyTorch advises torch.export for new files; published judges are TorchScript.
            warnings.simplefilter("ignore", DeprecationWarning)
            return torch.jit.load(str(path), map_location=device).eval()  # type: ignore[no-untyped-call]
    except (RuntimeError, ValueError, OSError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise JudgeError(f"[evaluate] expected a readable TorchScript file but got '{path}': {reason}") from None


def _first(out: Any) -> Any:
    while isinstance(out, list | tuple | dict):
        out = next(iter(out.values() if isinstance(out, dict) else out), None)
    return out


def _resized(images: Tensor, size: Sequence[int]) -> Tensor:
    if tuple(images.shape[2:]) == tuple(size):
        return images
    return F.interpolate(images, size=tuple(size), mode="bilinear", align_corners=False, antialias=True)


def _labels_of(out: Tensor, size: Sequence[int]) -> Tensor:
    """Logits [N, K, h, w] or ids [N, h, w] -> ids int64 [N, H, W]."""
    if out.ndim == 4:
        return F.interpolate(out.float(), size=tuple(size), mode="bilinear", align_corners=False).argmax(1)
    return F.interpolate(out[:, None].float(), size=tuple(size), mode="nearest")[:, 0].long()
