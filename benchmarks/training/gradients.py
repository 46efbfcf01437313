"""How far the generator's gradients of both forms are from the dense form's in float64."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from benchmarks.training.setting import Setting, alone, batches
from trainer.data.dataset import Batch
from trainer.networks import Networks, build, synthesize


@dataclass(frozen=True)
class Gradients:
    """Errors of one form's gradients: |difference| / |gradient|, norms over parameters.

    Attributes:
        all: over all parameters together.
        worst: of the worst parameter whose gradient is at least a millionth of the whole.
        worst_name: the name of this parameter.
    """

    form: str
    precision: str
    all: float
    worst: float
    worst_name: str


def gradients(setting: Setting) -> list[Gradients]:
    """Both forms in float32 and the setting's precision, against the dense form in float64.

    Weights, map and power iteration are the same. The loss is the mean square of the image, which reads every pixel.
    """
    torch.set_num_threads(setting.threads)
    config, processes = setting.config("codebook", "fp32"), alone()
    networks = build(config, processes)
    batch = batches(config, setting.labels, 1)[0][0].to(processes.device)
    buffers = {name: buffer.clone() for name, buffer in networks.generator.named_buffers()}

    def found(form: str, precision: str) -> dict[str, Tensor]:
        with torch.no_grad():
            for name, buffer in networks.generator.named_buffers():
                buffer.copy_(buffers[name])
        return _of(networks, batch, form, precision)

    reference = found("dense", "fp64")
    precisions = dict.fromkeys(("fp32", setting.precision))
    return [
        compare(form, precision, found(form, precision), reference)
        for precision in precisions
        for form in ("dense", "codebook")
    ]


def _of(networks: Networks, batch: Batch, form: str, precision: str) -> dict[str, Tensor]:
    """The generator's gradients by name, in float64."""
    generator = networks.generator
    generator.zero_grad(set_to_none=True)
    generator.to(torch.float64 if precision == "fp64" else torch.float32)
    with torch.autocast(batch.images.device.type, torch.bfloat16, enabled=precision == "bf16"):
        image = synthesize(generator, batch, None if networks.encoder is None else batch.noise, form)
    image.to(torch.promote_types(image.dtype, torch.float32)).square().mean().backward()  # type: ignore[no-untyped-call]
    return {name: p.grad.double() for name, p in generator.named_parameters() if p.grad is not None}


def compare(form: str, precision: str, now: dict[str, Tensor], reference: dict[str, Tensor]) -> Gradients:
    """Norms of the differences. Raises RuntimeError where a parameter has a gradient in one form only."""
    if now.keys() != reference.keys():
        raise RuntimeError(
            f"[benchmark] expected gradients of the same parameters but got {now.keys() ^ reference.keys()}"
        )
    size = {name: float(g.norm()) for name, g in reference.items()}
    error = {name: float((now[name] - g).norm()) for name, g in reference.items()}
    total = sum(s**2 for s in size.values()) ** 0.5
    shares = {name: error[name] / size[name] for name in size if size[name] > 1e-6 * total}
    worst = max(shares, key=lambda name: shares[name])
    return Gradients(form, precision, sum(e**2 for e in error.values()) ** 0.5 / total, shares[worst], worst)
