"""`spade convert`: published weights to a checkpoint."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from serving.cli.console import Command, say
from serving.cli.options import FILE, OUT_FILE, option, options
from spade_core.config import PRESETS, ConfigError


@dataclass(frozen=True)
class Facts:
    """What the user knows about the weights."""

    preset: str | None = option(
        "--preset", type=click.Choice(list(PRESETS)),
        help="Preset that gives what no shape tells.  [default: found from the number of input channels]",
    )  # fmt: skip
    config: Path | None = option(
        "--config", type=FILE,
        help="TOML file with fields of the model: its table [model], as `spade train` reads, or no table.",
    )  # fmt: skip
    settings: tuple[str, ...] = option(
        "--set", multiple=True, metavar="FIELD=VALUE",
        help="A field of the model, such as label_nc=20 or upsampling=more; may be repeated.",
    )  # fmt: skip

    def fields(self) -> dict[str, Any]:
        """The fields of --config, changed by --set. Raises ConfigError."""
        from spade_core.files.toml import read_toml, toml_value

        values: dict[str, Any] = {}
        if self.config is not None:
            tables = read_toml(self.config)
            values = tables.get("model", tables)
            if not isinstance(values, dict):
                raise ConfigError(f"[config] expected a table [model] in '{self.config}' but got {values!r}")
        for setting in self.settings:
            name, separator, value = setting.partition("=")
            if not separator or not name.strip():
                raise ConfigError(f"[config] expected --set FIELD=VALUE but got {setting!r}; say label_nc=20")
            values[name.strip()] = toml_value(value.strip())
        if isinstance(values.get("classes"), list):  # class names, as `spade train` reads
            names = values.pop("classes")
            values |= {"class_names": names, "label_nc": len(names)}
        return values


_RANGE = (0.0, 1.0)


@dataclass(frozen=True)
class Origin:
    """The library that trained the weights."""

    library: str = option(
        "--from", type=click.Choice(["spade", "monai"]), default="spade", show_default=True,
        help="`spade` as published, or the SPADENet of MONAI (2D, is_vae=False).",
    )  # fmt: skip
    image_range: tuple[float, float] = option(
        "--image-range", nargs=2, type=float, metavar="BLACK WHITE", default=_RANGE, show_default=True,
        help="With --from monai: the values of the image that become black and white.",
    )  # fmt: skip


@click.command(cls=Command, short_help="Turn published weights into a checkpoint.")
@click.argument("generator", type=FILE, metavar="NET_G.pth")
@click.option("--encoder", type=FILE, help="The style encoder's file, latest_net_E.pth.")
@options(Origin, "origin")
@options(Facts, "facts")
@click.option("--out", type=OUT_FILE, required=True, help="Checkpoint to write (.safetensors).")
def convert(generator: Path, encoder: Path | None, origin: Origin, facts: Facts, out: Path) -> None:
    """Turn published SPADE weights (latest_net_G.pth), or weights of MONAI's SPADENet, into a checkpoint.

    Nothing in the file is executed; spectral norm is folded into the weights. The command prints each field of the
    configuration and whether the field was read off the file, given, or guessed.

    \b
    spade convert latest_net_G.pth --out coco.safetensors
    spade convert own_net_G.pth --set label_nc=20 --set height=512 --set width=512 --out own.safetensors
    spade convert spadenet.pth --from monai --set height=128 --set width=128 --out mri.safetensors
    """
    from spade_core.files.found_config import Known

    known = Known(facts.preset, facts.fields())
    if origin.library == "monai":
        if encoder is not None or facts.preset is not None:
            raise click.UsageError("--encoder, --preset: a SPADENet of MONAI has neither; leave them out")
        from spade_core.files.from_monai import convert_monai

        say(str(convert_monai(generator, out, known, origin.image_range)))
        return
    if origin.image_range != _RANGE:
        raise click.UsageError("--image-range: the published networks end in tanh; give it with --from monai")
    from spade_core.files.convert import convert as run

    say(str(run(generator, encoder, out, known=known)))
