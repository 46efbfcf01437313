"""What a training run is: a plain dataclass per table of its TOML file, every field with its help."""

# ruff: noqa: RUF009 - `_say` is dataclasses.field with a help text
from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from spade_core.config import ConfigError, GeneratorConfig
from spade_core.losses import PAPER_WEIGHTS, GanMode, LossWeights

Layout = Literal["scenes", "folder", "coco", "ade20k", "cityscapes"]
Look = Literal["flat", "lit"]
Preprocess = Literal[
    "resize_and_crop", "crop", "scale_width", "scale_width_and_crop", "scale_shortside", "scale_shortside_and_crop",
    "fixed", "none",
]  # fmt: skip
Form = Literal["codebook", "dense"]
Updates = Literal["shared", "alternating"]
Decay = Literal["step", "epoch"]
Augment = Literal["none", "color", "cutout", "color+cutout"]
Best = Literal["miou", "fid"]
Normalisation = Literal["imagenet", "unit"]
Precision = Literal["auto", "fp32", "bf16"]
WeightsDtype = Literal["float32", "bfloat16"]


def _say(default: Any, text: str) -> Any:
    return field(default=default, metadata={"help": text})


@dataclass(frozen=True)
class NetworkConfig:
    """The networks that train beside the generator; the generator itself is the table `model`."""

    form: Form = _say("codebook", "How SPADE's gamma and beta are computed; both forms give the same gradients.")
    spectral_norm: bool = _say(True, "Spectral norm on the convs of generator, encoder and discriminator.")
    encoder_nf: int = _say(
        64, "Width of the style encoder's first conv, where model.style is true; 0: none, styles are noise."
    )
    discriminator_nf: int = _say(64, "Width of the discriminator's first conv.")
    discriminator_scales: int = _say(2, "PatchGANs, each on the image halved once more.")
    discriminator_layers: int = _say(4, "Convs of each PatchGAN before the last.")


@dataclass(frozen=True)
class DataConfig:
    """Where label maps and photos come from, and how they are brought to the model's size."""

    layout: Layout = _say("scenes", "Folder layout of the data set; `scenes` draws its images and needs no files.")
    root: str = _say("", "Folder of the data set; empty for `scenes`.")
    colours: str = _say("", "Colour table (.csv or .json) of label maps in RGB; empty: label maps hold ids.")
    preprocess: Preprocess = _say("resize_and_crop", "How images are brought to the model's size.")
    load_size: int = _say(286, "Size before the crop, pixels: width, or the short side in the scale_shortside modes.")
    flip: bool = _say(True, "Mirror each image with probability one half.")
    look: Look = _say("flat", "How `scenes` are drawn: flat colours, or lit surfaces, which take longer.")
    scenes: int = _say(10_000, "Images that count as an epoch of `scenes`; no scene comes twice.")
    workers: int = _say(4, "Loader processes of each training process; 0 loads in the training process.")


@dataclass(frozen=True)
class OptimConfig:
    """Adam and its schedule. Counts are in images, so they hold for any number of processes."""

    batch: int = _say(4, "Images of one process in one pass; a step is batch x accumulate x processes.")
    accumulate: int = _say(1, "Passes whose gradients are added up before a step.")
    epochs: int = _say(100, "Epochs at the constant learning rate.")
    decay_epochs: int = _say(0, "Epochs after `epochs`, in which the learning rate falls linearly to 0.")
    lr: float = _say(2e-4, "Base learning rate.")
    decay_each: Decay = _say("step", "The learning rate falls with each step, or once an epoch, as in the paper.")
    updates: Updates = _say(
        "shared",
        "shared: one fake image trains both sides, fast. alternating: as the paper, a step of the generator, then a "
        "second fake image for the discriminator.",
    )
    ttur: bool = _say(True, "Two time scales: lr / 2 for generator and encoder, 2 lr for the discriminator.")
    beta1: float = _say(-1.0, "Adam's first decay; -1: 0 with ttur, 0.5 without.")
    beta2: float = _say(-1.0, "Adam's second decay; -1: 0.9 with ttur, 0.999 without.")
    ema: float = _say(0.999, "Decay per step of the averaged generator, which is exported; 0 exports the last weights.")

    @property
    def betas(self) -> tuple[float, float]:
        """Adam's decays: (0, 0.9) with two time scales, (0.5, 0.999) without, unless given."""
        first, second = (0.0, 0.9) if self.ttur else (0.5, 0.999)
        return (first if self.beta1 == -1 else self.beta1), (second if self.beta2 == -1 else self.beta2)


@dataclass(frozen=True)
class LossConfig:
    """Weights of the losses; a weight of 0 leaves one out."""

    gan: GanMode = _say("hinge", "Kind of the adversarial loss, whose weight is 1.")
    feature_matching: float = _say(
        PAPER_WEIGHTS.feature_matching, "L1 between the discriminator's features of fake and real."
    )
    perceptual: float = _say(
        PAPER_WEIGHTS.perceptual,
        "L1 between a network's features; off, with a warning, without vgg and features.",
    )
    vgg: str = _say("", "File with torchvision's VGG19 weights (.pth or .safetensors).")
    features: str = _say(
        "",
        "In place of VGG19: a TorchScript file that returns maps, or `scenes`, a network that ships, or `lit-scenes`, "
        "for the look lit.",
    )
    kl: float = _say(
        PAPER_WEIGHTS.kl, "KL divergence of the encoder's style from the standard normal; where model.style is true."
    )
    kl_warmup: int = _say(0, "Images over which loss.kl rises from 0; the generator learns to use the style first.")
    pixel: float = _say(0.0, "L1 between fake and real; not in the paper, a help where there is no VGG19.")
    grid: float = _say(
        0.0, "Excess of waves of 2, 4 and 8 pixels on plain surfaces; not in the paper, a help for narrow generators."
    )
    diffaugment: Augment = _say(
        "none",
        "Differentiable augmentation of all images that the discriminator sees, for small data sets; not in the paper.",
    )
    r1: float = _say(0.0, "Weight of the discriminator's R1 gradient penalty; 0: none, as in the paper.")
    r1_every: int = _say(16, "Steps from one R1 penalty to the next, which weighs as many times more.")

    @property
    def weights(self) -> LossWeights:
        """The lambdas of the objective."""
        return LossWeights(self.feature_matching, self.perceptual, self.kl, self.pixel, self.grid)


@dataclass(frozen=True)
class ValidationConfig:
    """Scores of the averaged generator on images that training does not see."""

    steps: int = _say(0, "Steps between validations; 0: none.")
    root: str = _say(
        "",
        "Folder of the held-out data set, in the layout of `data`. Empty for `scenes`, which has scenes set aside.",
    )
    images: int = _say(100, "Images drawn in a validation, at most; the first of the data set.")
    segmentation: str = _say(
        "", "Judge of mIoU (.onnx or TorchScript). Empty: the scenes' own judge for `scenes`, else no mIoU."
    )
    segmentation_classes: str = _say("", "JSON list of the label id of each of the judge's classes; empty: ids as is.")
    segmentation_size: int = _say(0, "Height and width that the judge reads, pixels; 0: the model's.")
    segmentation_input: Normalisation = _say(
        "imagenet", "Values that the judge reads: minus ImageNet's mean, over its deviation; or unit: -1..1."
    )
    inception: str = _say("", "Network of features for FID (TorchScript); empty: no FID.")
    best: Best = _say("miou", "Score that decides which weights are kept as best.safetensors.")


@dataclass(frozen=True)
class RunConfig:
    """Where and how a run computes, and the files it writes."""

    out: str = _say("out/train", "Folder of checkpoints, samples, statistics and report; a run found there resumes.")
    seed: int = _say(0, "Seed of weights, order, crops, flips and styles.")
    device: str = _say("auto", "auto (a GPU if there is one), cpu or cuda.")
    threads: int = _say(0, "Threads of each training process on the CPU; 0 leaves PyTorch's choice.")
    precision: Precision = _say(
        "auto",
        "bf16 runs convs and products in bfloat16; weights and Adam stay float32. auto: bf16 where the machine "
        "multiplies in bf16, else fp32.",
    )
    channels_last: bool = _say(True, "Keep activations channels last.")
    checkpoint_steps: int = _say(1000, "Steps between checkpoints.")
    checkpoint_part_mb: int = _say(
        0,
        "Largest file of a checkpoint, MB, beside single larger tensors; a larger checkpoint is in parts. 0: one file.",
    )
    keep: int = _say(3, "Checkpoints kept.")
    log_steps: int = _say(50, "Steps between rows of statistics; a row holds means over these steps.")
    sample_steps: int = _say(1000, "Steps between sample grids.")
    samples: int = _say(6, "Label maps in a sample grid.")
    calibration: int = _say(
        16, "Batches that measure the batch-norm statistics of the averaged generator before it draws."
    )
    weights_dtype: WeightsDtype = _say("float32", "Type of the exported weights.")
    wandb: str = _say("", "Project of Weights & Biases that gets rows and samples beside TensorBoard; empty: none.")


@dataclass(frozen=True)
class TrainConfig:
    """A whole run: the tables of its TOML file."""

    model: GeneratorConfig
    networks: NetworkConfig
    data: DataConfig
    optim: OptimConfig
    loss: LossConfig
    validation: ValidationConfig
    run: RunConfig

    def __post_init__(self) -> None:
        _check(self)


_AT_LEAST: dict[str, float] = {
    "networks.encoder_nf": 0,
    "networks.discriminator_nf": 1,
    "networks.discriminator_scales": 1,
    "networks.discriminator_layers": 1,
    "data.load_size": 1,
    "data.scenes": 1,
    "data.workers": 0,
    "optim.batch": 1,
    "optim.accumulate": 1,
    "optim.epochs": 0,
    "optim.decay_epochs": 0,
    "optim.lr": 0,
    "loss.feature_matching": 0,
    "loss.perceptual": 0,
    "loss.kl": 0,
    "loss.kl_warmup": 0,
    "loss.pixel": 0,
    "loss.grid": 0,
    "loss.r1": 0,
    "loss.r1_every": 1,
    "validation.steps": 0,
    "validation.images": 2,
    "validation.segmentation_size": 0,
    "run.seed": 0,
    "run.threads": 0,
    "run.checkpoint_steps": 1,
    "run.checkpoint_part_mb": 0,
    "run.keep": 1,
    "run.log_steps": 1,
    "run.sample_steps": 1,
    "run.samples": 1,
    "run.calibration": 1,
}


def _check(config: TrainConfig) -> None:
    for name, least in _AT_LEAST.items():
        section, key = name.split(".")
        value = getattr(getattr(config, section), key)
        if not value >= least:
            raise ConfigError(f"[config] expected {name} to be {least:g} or more but got {value!r}")
    for name in ("beta1", "beta2", "ema"):
        value = getattr(config.optim, name)
        if not (0 <= value < 1 or (value == -1 and name != "ema")):
            auto = "" if name == "ema" else ", or -1"
            raise ConfigError(f"[config] expected optim.{name} in 0..1, 1 excluded{auto}, but got {value!r}")
    if config.optim.epochs + config.optim.decay_epochs < 1:
        raise ConfigError("[config] expected optim.epochs + optim.decay_epochs to be 1 or more but got 0")
    if config.data.layout == "scenes" and config.model.preset != "demo":
        raise ConfigError(
            f"[config] expected model.preset 'demo' for the layout 'scenes', whose ids it has, "
            f"but got {config.model.preset!r}"
        )
    if config.data.layout == "scenes" and config.data.colours:
        raise ConfigError(
            f"[config] expected no data.colours for the layout 'scenes', which holds ids, but got "
            f"{config.data.colours!r}; leave it out"
        )
    if config.data.layout != "scenes" and not config.data.root:
        raise ConfigError(
            f"[config] expected data.root to be the folder of the data set '{config.data.layout}' but got none; "
            "give it: --set data.root=DIR"
        )
    _check_validation(config)
    if config.run.device not in ("auto", "cpu", "cuda"):
        raise ConfigError(f"[config] expected run.device auto, cpu or cuda but got {config.run.device!r}")


def _check_validation(config: TrainConfig) -> None:
    validation, scenes = config.validation, config.data.layout == "scenes"
    if not validation.steps:
        return
    if scenes == bool(validation.root):
        expected = "no validation.root, since `scenes` are drawn," if scenes else "validation.root to be a folder"
        raise ConfigError(f"[config] expected {expected} but got {validation.root!r}")
    judges = {"miou": scenes or validation.segmentation, "fid": validation.inception}
    if not judges[validation.best]:
        missing = "validation.segmentation" if validation.best == "miou" else "validation.inception"
        raise ConfigError(
            f"[config] expected {missing}, a network that gives the score of validation.best "
            f"{validation.best!r}, but got none; give the file, or another score"
        )
