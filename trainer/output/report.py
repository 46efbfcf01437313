"""The report of a run: one HTML file with its curves, its pictures and its configuration."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from spade_core.files.whole_file import write_whole
from trainer.config import TrainConfig
from trainer.config_file import to_toml
from trainer.output.logs import read_statistics

_CURVES = (
    ("Losses of the generator", ("gan", "feature_matching", "perceptual", "pixel", "kl")),
    ("Loss of the discriminator", ("discriminator",)),
    ("Mean scores", ("score_real", "score_fake")),
    ("Images a second", ("images_per_second",)),
)
_COLOURS = ("#1f6fb4", "#d8651c", "#2d8a3e", "#a0368f", "#7a6a10")
_MOST_GRIDS = 6
_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 1000px; margin: 2rem auto; padding: 0 1rem; color: #222 }
img { max-width: 100%; display: block } svg { background: #fafafa; border: 1px solid #ddd; width: 100% }
pre { background: #f4f4f4; padding: 1rem; overflow-x: auto; font-size: 13px } figure { margin: 1rem 0 2rem }
table { border-collapse: collapse } td { padding: .1rem 1rem .1rem 0 } figcaption { color: #555 }
"""


def write_report(folder: Path, config: TrainConfig) -> Path:
    """Write `report.html` in the run's folder, from its statistics and sample grids, and return the path.

    The page holds its pictures and needs no other file.
    """
    rows = read_statistics(folder / "statistics.jsonl")
    parts = [f"<!doctype html><meta charset=utf-8><title>{html.escape(folder.name)}</title><style>{_STYLE}</style>"]
    parts.append(f"<h1>Training of {html.escape(config.model.preset)}</h1>{_facts(rows)}")
    for title, names in _CURVES:
        there = [n for n in names if any(n in row for row in rows)]
        if there:
            parts.append(f"<h2>{title}</h2>{_curves(rows, there)}")
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


def _curves(rows: Sequence[dict[str, float]], names: Sequence[str]) -> str:
    width, height, left, below = 960, 260, 60, 24
    steps = [row["step"] for row in rows]
    values = [row[n] for n in names for row in rows if n in row]
    low, high = min(0.0, *values), max(values)
    span_x, span_y = max(steps[-1] - steps[0], 1), (high - low) or 1.0

    def point(step: float, value: float) -> str:
        x = left + (width - left - 10) * (step - steps[0]) / span_x
        y = 10 + (height - below - 10) * (high - value) / span_y
        return f"{x:.1f},{y:.1f}"

    lines = []
    for i, name in enumerate(names):
        points = " ".join(point(row["step"], row[name]) for row in rows if name in row)
        lines.append(f'<polyline fill="none" stroke="{_COLOURS[i]}" stroke-width="1.5" points="{points}"/>')
    for value in (low, (low + high) / 2, high):
        y = point(steps[0], value).split(",")[1]
        lines.append(f'<text x="{left - 6}" y="{y}" text-anchor="end" font-size="12" fill="#555">{value:.3g}</text>')
    lines.append(
        f'<text x="{width - 10}" y="{height - 6}" text-anchor="end" font-size="12">step {steps[-1]:.0f}</text>'
    )
    legend = " ".join(f'<b style="color:{_COLOURS[i]}">{name}</b>' for i, name in enumerate(names))
    return f'<p>{legend}</p><svg viewBox="0 0 {width} {height}">{"".join(lines)}</svg>'


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
