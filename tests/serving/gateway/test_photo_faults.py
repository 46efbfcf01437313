"""The style of a photo while the process that makes it dies."""

from __future__ import annotations

import io
import os
import signal
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import httpx
import numpy as np
from PIL import Image
from served import FREE_PORTS, TINY
from test_faults import model_process

from serving.gateway.pair import serve_pair
from serving.supervisor.limits import Limits
from serving.triton.model_config import ModelOptions
from serving.triton.server import ServeOptions
from spade_core.files.checkpoints import arrays_of, save
from spade_core.models.photo_style import style_from_image
from spade_core.models.seeded import seeded_encoder, seeded_generator
from spade_core.photos import read_photo

STYLED = replace(TINY, instance_edges=False, style=True)
PHOTOS = 12


def photo(number: int) -> bytes:
    file = io.BytesIO()
    colour = (number * 20, 128, 255 - number * 20)
    Image.blend(Image.effect_noise((64, 64), 90).convert("RGB"), Image.new("RGB", (64, 64), colour), 0.5).save(
        file, "PNG"
    )
    return file.getvalue()


def test_styles_of_photos_wait_for_the_next_process(tmp_path: Path) -> None:
    """Each photo is another one, so that none is answered from the gateway's memory."""
    encoder = seeded_encoder(STYLED.nf)
    save(tmp_path / "styled.safetensors", seeded_generator(STYLED), encoder)
    model = ModelOptions(tmp_path / "styled.safetensors", precision="fp32", threads=1, decoders=1)
    photos = [photo(number) for number in range(PHOTOS)]
    with serve_pair(ServeOptions(model, **FREE_PORTS), limits=Limits(settled_s=0.0)) as pair:

        def style(file: bytes) -> list[float]:
            answer = httpx.post(f"{pair.http_url}/v1/styles", files={"style_image": file}, timeout=120)
            assert answer.status_code == 200, answer.text
            found: list[float] = answer.json()["style"]
            return found

        with ThreadPoolExecutor(4) as clients:
            asked = [clients.submit(style, file) for file in photos]
            asked[0].result()
            os.kill(model_process(pair, "spade"), signal.SIGKILL)
            styles = [one.result() for one in asked]
        assert pair.status.status.restarts == {("triton", "dead"): 1}
    for file, found in zip(photos, styles, strict=True):
        expected = style_from_image(arrays_of(encoder), read_photo(file), STYLED)
        np.testing.assert_allclose(found, expected[0] if expected.ndim == 2 else expected, rtol=1e-4, atol=1e-5)
