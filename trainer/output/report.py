"""The report of a run: one HTML file with its curves, its pictures and its configuration."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

from PIL import Image

from spade_core.files.whole_file import write_whole
from trainer.config import TrainConfig
from trainer.config_file import to_toml
from trainer.output.logs import read_rows

_CURVES = {
    "gan": "Generator: adversarial loss",
    "feature_matching": "Generator: feature matching",
    "perceptual": "Generator: perceptual loss",
    "pixel": "Generator: pixel loss",
    "kl": "Encoder: KL divergence",
    "discriminator": "Discriminator: loss",
    "r1": "Discriminator: R1 penalty",
    "score_real": "Discriminator: mean score of real images",
    "score_fake": "Discriminator: mean score of fake images",
    "learning_rate": "Learning rate",
    "images_per_second": "Images a second",
}
_SCORES = {"miou": "mIoU", "pixel_accuracy": "Pixel accuracy", "fid": "FID"}
_MOST_GRIDS = 6
_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 1000px; margin: 2rem auto; padding: 0 1rem; color: #222 }
svg text { font-size: 11px; text-anchor: end; fill: #555 }
img { max-width: 100%; display: block } svg { background: #fafafa; border: 1px solid #ddd; width: 100% }
pre { background: #f4f4f4; padding: 1rem; overflow-x: auto; font-size: 13px } figure { margin: 1rem 0 2rem }
.panels { display: grid; grid-template-columns: repeat(auto-fill, minmax(320px, 1fr)); gap: 0 1rem }
.panels figure { margin: .5rem 0 } table { border-collapse: collapse }
td { padding: .1rem 1rem .1rem 0 } figcaption { color: #555 }
"""


def write_report(folder: Path, config: TrainConfig) -> Path:
    """Write `report.html` in the run's folder, from its statistics and sample grids, and return the path.

    The page holds its pictures and needs no other file.
    """
    rows, scores = read_rows(folder / "statistics.jsonl"), read_rows(folder / "validation.jsonl")
    parts = [f"<!doctype html><meta charset=utf-8><title>{html.escape(folder.name)}</title><style>{_STYLE}</style>"]
    parts.append(f"<h1>Training of {html.escape(config.model.preset)}</h1>{_facts(rows)}")
    if scores:
        parts.append(f"<h2>Validation</h2>{_best(scores, config)}{_panels(scores, _SCORES)}")
    parts.append(f"<h2>Curves</h2>{_panels(rows, _CURVES)}")
    parts.append("<h2>Samples</h2><p>Rows: label map, real image, its style, then styles of three seeds.</p>")
    grids = sorted((folder / "samples").glob("step-*.png"))
    parts += [_figure(path) for path in _spread(grids, _MOST_GRIDS)]
    parts.append(f"<h2>Configuration</h2><pre>{html.escape(to_toml(config))}</pre>")
    path = folder / "report.html"
    write_whole(path, lambda draft: draft.write_text("\n".join(parts), encoding="utf-8"))
    return path


def _facts(rows: Sequence[dict[str, float]]) -> str:
    if not rows:
        return "<p>No statistics yet.</p>"
    last = rows[-1]
    facts = {
        "steps": f"{last['step']:.0f}",
        "images seen": f"{last['images']:.0f}",
        "time in steps": f"{sum(row['seconds'] for row in rows) / 3600:.2f} h",
    }
    return "<table>" + "".join(f"<tr><td>{k}</td><td>{v}</td></tr>" for k, v in facts.items()) + "</table>"


def _best(scores: Sequence[dict[str, float]], config: TrainConfig) -> str:
    name = config.validation.best
    found = [row for row in scores if row.get(name) is not None]
    if not found:
        return ""
    best = (max if name == "miou" else min)(found, key=lambda row: row[name])
    real = f", where real images have {best['miou_real']:.3f}" if name == "miou" and "miou_real" in best else ""
    return (
        f"<p>best.safetensors: {_SCORES[name]} {best[name]:.3f} at step {best['step']:.0f}{real}. "
        f"{config.validation.images} held-out images at most.</p>"
    )


def _panels(rows: Sequence[dict[str, float]], titles: Mapping[str, str]) -> str:
    """A panel for each curve, each with a scale of its own."""
    found = {name: [(row["step"], row[name]) for row in rows if row.get(name) is not None] for name in titles}
    panels = [f"<figure><figcaption>{titles[n]}</figcaption>{_curve(p)}</figure>" for n, p in found.items() if p]
    return f"<div class=panels>{''.join(panels)}</div>"


def _curve(points: Sequence[tuple[float, float]]) -> str:
    """One curve as SVG: (step, value) from left to right."""
    width, height, left, below = 480, 200, 56, 22
    first, last = points[0][0], points[-1][0]
    low, high = min(0.0, *(v for _, v in points)), max(v for _, v in points)
    span_x, span_y = max(last - first, 1), (high - low) or 1.0

    def at(step: float, value: float) -> tuple[float, float]:
        x = left + (width - left - 10) * (step - first) / span_x
        return x, 10 + (height - below - 10) * (high - value) / span_y

    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in (at(*point) for point in points))
    parts = [f'<polyline fill="none" stroke="#1f6fb4" stroke-width="1.5" points="{line}"/>']
    for value in (low, (low + high) / 2, high):
        y = at(first, value)[1] + 4
        parts.append(f'<text x="{left - 6}" y="{y:.1f}">{value:.3g}</text>')
    parts.append(f'<text x="{width - 10}" y="{height - 5}">step {last:.0f}</text>')
    return f'<svg viewBox="0 0 {width} {height}">{"".join(parts)}</svg>'


def _figure(path: Path) -> str:
    with Image.open(path) as image:
        buffer = io.BytesIO()
        image.convert("RGB").save(buffer, "JPEG", quality=88)
    data = base64.b64encode(buffer.getvalue()).decode()
    step = int(path.stem.removeprefix("step-"))
    return f'<figure><img src="data:image/jpeg;base64,{data}"><figcaption>step {step}</figcaption></figure>'


def _spread(paths: Sequence[Path], count: int) -> list[Path]:
    if len(paths) <= count:
        return list(paths)
    return [paths[round(i * (len(paths) - 1) / (count - 1))] for i in range(count)]
