"""`POST /v1/synthesize` and its like, against the images of the tensor protocol."""

from __future__ import annotations

import base64
import io
import time
import zipfile
from collections.abc import Iterator

import httpx
import numpy as np
import numpy.typing as npt
import openai
import pytest
from PIL import Image
from served import blocks, png

from serving.client.client import Client
from serving.gateway.pair import Pair
from spade_core.config import PRESETS
from spade_core.files.checkpoints import arrays_of
from spade_core.maps.colours import class_palette, draw
from spade_core.models.photo_style import style_from_image
from spade_core.models.seeded import seeded_encoder
from spade_core.photos import read_photo

LABELS = blocks(1)[0]
FILES = {"label_map": png(LABELS)}


@pytest.fixture(scope="module")
def http(gateway: Pair) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=gateway.http_url, timeout=60) as client:
        yield client


@pytest.fixture(scope="module")
def image_of_seed(gateway: Pair) -> Iterator[dict[int, npt.NDArray[np.uint8]]]:
    with Client(gateway.grpc_url) as client:
        yield {seed: client.synthesize(LABELS[None], seed=seed).images[0] for seed in (0, 7, 8, 9)}


Images = dict[int, npt.NDArray[np.uint8]]


def pixels(file: bytes) -> npt.NDArray[np.uint8]:
    return np.asarray(Image.open(io.BytesIO(file)))


def problem(answer: httpx.Response, status: int, kind: str) -> str:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    body = answer.json()
    assert body["type"] == f"urn:spade:problem:{kind}"
    assert body["status"] == status
    return str(body["detail"])


def test_a_form_and_a_body_give_the_same_image(http: httpx.Client, image_of_seed: Images) -> None:
    form = http.post("/v1/synthesize", files=FILES, data={"seed": "7"})
    body = http.post("/v1/synthesize?seed=7", content=FILES["label_map"], headers={"Content-Type": "image/png"})
    assert form.content == body.content
    np.testing.assert_array_equal(pixels(form.content), image_of_seed[7])
    assert form.headers["content-type"] == "image/png"
    assert form.headers["x-spade-seed"] == "7"
    assert form.headers["x-spade-engine"].startswith(("cpu fp32", "torch fp32"))
    assert form.headers["x-spade-weights"] == "seeded"
    assert form.headers["x-spade-batch-size"] == "1"
    timings = [part.split(";dur=") for part in form.headers["x-spade-timings"].split(", ")]
    assert [name for name, _ in timings] == ["queue", "plan", "codebook", "convs", "total"]
    assert all(float(value) >= 0 for _, value in timings)


def test_several_styles_come_as_a_zip_or_as_json(http: httpx.Client, image_of_seed: Images) -> None:
    asked = {"seed": "7", "count": "3"}
    zipped = http.post("/v1/synthesize", files=FILES, data=asked)
    assert zipped.headers["content-type"] == "application/zip"
    with zipfile.ZipFile(io.BytesIO(zipped.content)) as archive:
        assert archive.namelist() == ["0.png", "1.png", "2.png"]
        files = [archive.read(name) for name in archive.namelist()]
    listed = http.post("/v1/synthesize", files=FILES, data=asked, headers={"Accept": "application/json"}).json()
    assert [image["seed"] for image in listed["images"]] == [7, 8, 9]
    assert [base64.b64decode(image["b64_json"]) for image in listed["images"]] == files
    for seed, file in zip((7, 8, 9), files, strict=True):
        np.testing.assert_allclose(pixels(file).astype(int), image_of_seed[seed].astype(int), atol=1)


def test_more_images_than_a_batch_are_drawn_in_parts(http: httpx.Client) -> None:
    answer = http.post("/v1/synthesize", files=FILES, data={"count": "10", "format": "webp"})
    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        assert archive.namelist() == [f"{i}.webp" for i in range(10)]
    assert int(answer.headers["x-spade-batch-size"]) <= 8


def test_a_style_vector_goes_before_a_seed(http: httpx.Client, gateway: Pair) -> None:
    style = np.linspace(-1, 1, 256, dtype=np.float32)
    answer = http.post("/v1/synthesize", files=FILES, data={"style": str(style.tolist())})
    assert "x-spade-seed" not in answer.headers
    with Client(gateway.grpc_url) as client:
        np.testing.assert_array_equal(
            pixels(answer.content), client.synthesize(LABELS[None], style=style[None]).images[0]
        )


@pytest.mark.parametrize(
    ("accept", "media_type"),
    [("", "image/png"), ("image/*", "image/png"), ("image/webp,image/png;q=0.5", "image/webp"),
     ("image/jpeg", "image/jpeg"), ("application/json", "application/json"), ("application/zip", "application/zip"),
     ("image/avif, */*;q=0.1", "image/png")],
)  # fmt: skip
def test_accept_decides_the_type(http: httpx.Client, accept: str, media_type: str) -> None:
    answer = http.post("/v1/synthesize", files=FILES, headers={"Accept": accept})
    assert answer.headers["content-type"] == media_type
    if media_type.startswith("image/"):
        assert Image.open(io.BytesIO(answer.content)).format == media_type.removeprefix("image/").upper()


def test_an_accept_without_an_offered_type_is_refused(http: httpx.Client) -> None:
    answer = http.post("/v1/synthesize", files=FILES, headers={"Accept": "text/html"})
    assert "image/png or application/json or application/zip" in problem(answer, 406, "not-acceptable")
    answer = http.post("/v1/synthesize", files=FILES, data={"count": "2"}, headers={"Accept": "image/png"})
    assert "application/zip or application/json" in problem(answer, 406, "not-acceptable")


@pytest.mark.parametrize("mode", ["palette", "rgb", "16 bit", "ids"])
def test_every_kind_of_label_map_gives_the_same_image(http: httpx.Client, image_of_seed: Images, mode: str) -> None:
    colours = class_palette(PRESETS["demo"])
    if mode == "palette":
        image = Image.frombytes("P", LABELS.shape[::-1], LABELS.tobytes())
        image.putpalette(colours.tobytes())
    else:
        image = Image.fromarray({"rgb": draw(LABELS, colours), "16 bit": LABELS.astype(np.uint16), "ids": LABELS}[mode])
    file = io.BytesIO()
    image.save(file, "PNG")
    answer = http.post("/v1/synthesize", files={"label_map": file.getvalue()})
    assert answer.status_code == 200, answer.text
    np.testing.assert_array_equal(pixels(answer.content), image_of_seed[0])


def test_an_own_colour_table_goes_before_the_models(http: httpx.Client, image_of_seed: Images) -> None:
    table = "id,r,g,b,name\n" + "\n".join(f"{i},{i},0,{i},c{i}" for i in range(16))
    drawn = np.stack([LABELS, LABELS * 0, LABELS], -1)
    answer = http.post("/v1/synthesize", files={"label_map": png(drawn)}, data={"colours": table})
    np.testing.assert_array_equal(pixels(answer.content), image_of_seed[0])


def test_instances_reach_the_model(tiny_gateway: Pair) -> None:
    labels = blocks(1, size=64, classes=8)[0]
    files = {"label_map": png(labels), "instance_map": png(labels)}
    with httpx.Client(base_url=f"{tiny_gateway.http_url}/v1", timeout=60) as http:
        answer = http.post("/synthesize", files=files)
        missing = http.post("/synthesize", files={"label_map": png(labels)})
        styled = http.post("/synthesize", files=files, data={"seed": "1"})
        twice = http.post("/synthesize", files=files, data={"size": "128x64"})
        odd = http.post("/synthesize", files=files, data={"size": "65x64"})
    with Client(tiny_gateway.grpc_url) as client:
        image = client.synthesize(labels[None], labels[None].astype(np.int32)).images[0]
    np.testing.assert_array_equal(pixels(answer.content), image)
    assert "expected an instance map" in problem(missing, 400, "invalid-request")
    assert "no style input" in problem(styled, 400, "invalid-request")
    assert pixels(twice.content).shape == (64, 128, 3)
    assert "multiples of 32" in problem(odd, 400, "invalid-request")


def test_a_tag_saves_the_drawing(http: httpx.Client, gateway: Pair) -> None:
    def drawn() -> float:
        text = httpx.get(gateway.metrics_url).text
        return sum(float(line.split()[-1]) for line in text.splitlines() if line.startswith("spade_images_total{"))

    first = http.post("/v1/synthesize", files=FILES, data={"seed": "41"})
    tag = first.headers["etag"]
    time.sleep(0.7)  # metrics are written twice a second
    before = drawn()
    again = http.post("/v1/synthesize", files=FILES, data={"seed": "41"}, headers={"If-None-Match": f'"other", {tag}'})
    assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", tag)
    time.sleep(0.7)
    assert drawn() == before
    other = http.post("/v1/synthesize", files=FILES, data={"seed": "42"}, headers={"If-None-Match": tag})
    assert other.status_code == 200
    assert other.headers["etag"] != tag
    assert http.post("/v1/synthesize", files=FILES, data={"seed": "41", "format": "webp"}).headers["etag"] != tag
    assert first.content == http.post("/v1/synthesize", files=FILES, data={"seed": "41"}).content


def test_a_wrong_id_names_the_id_its_place_and_the_classes(http: httpx.Client) -> None:
    wrong = LABELS.copy()
    wrong[3, 5] = 77
    detail = problem(http.post("/v1/synthesize", files={"label_map": png(wrong)}), 400, "invalid-request")
    assert "expected ids 0..15 but got 77" in detail
    assert "row 3, column 5" in detail
    assert "16 classes of 'demo'" in detail


@pytest.mark.parametrize(
    ("data", "text"),
    [
        ({"seed": "-1"}, "expected seed as a whole number 0.."),
        ({"count": "65"}, "expected count as a whole number 1..64 but got '65'"),
        ({"style": "[1,2]"}, "256 numbers"),
        ({"style": "[" * 100_000}, "256 numbers"),
        ({"style": str([[0.0] * 256] * 2), "count": "3"}, "as many styles as count, 3, but got 2"),
        ({"style": str([0.0] * 256), "seed": "1"}, "one of style, style_name and seed"),
        ({"format": "gif"}, "expected format png, jpeg, webp but got 'gif'"),
        ({"quality": "80"}, "expected no quality with format png"),
        ({"size": "32"}, "expected size as WIDTHxHEIGHT"),
        ({"size": "128x128"}, "fixed for a generator with a style vector"),
        ({"timeout": "nan"}, "expected timeout as seconds"),
        ({"strength": "1"}, "expected fields out of label_map, "),
        ({"colours": "id,r,g\n"}, "expected the CSV header id,r,g,b,name"),
    ],
)
def test_wrong_fields_are_told(http: httpx.Client, data: dict[str, str], text: str) -> None:
    assert text in problem(http.post("/v1/synthesize", files=FILES, data=data), 400, "invalid-request")


def test_wrong_bodies_are_told(http: httpx.Client) -> None:
    post = http.post
    assert "empty file" in problem(post("/v1/synthesize", content=b""), 400, "invalid-request")
    assert "expected a PNG" in problem(post("/v1/synthesize", content=b"nonsense"), 400, "invalid-request")
    assert "one file 'label_map' but got 0" in problem(
        post("/v1/synthesize", files={"instance_map": b"1"}), 400, "invalid-request"
    )
    both = post("/v1/synthesize", files=[("label_map", b"1"), ("label_map", b"2")])
    assert "one file 'label_map' but got 2" in problem(both, 400, "invalid-request")
    text = post("/v1/synthesize", content=b"{}", headers={"Content-Type": "text/plain"})
    assert "multipart/form-data, or image/png" in problem(text, 415, "unsupported-media-type")
    form = {"Content-Type": "multipart/form-data; boundary=x"}
    for body in (b"", b"--x\r\n", b"nonsense", b"--x\r\nContent-Disposition: form-data\r\n\r\n1\r\n--x--\r\n"):
        problem(post("/v1/synthesize", content=body, headers=form), 400, "invalid-request")
    problem(
        post("/v1/synthesize", content=b"1", headers={"Content-Type": "multipart/form-data"}), 400, "invalid-request"
    )
    assert "out of seed, count" in problem(post("/v1/synthesize?colours=1", content=b"1"), 400, "invalid-request")
    problem(http.get("/v1/synthesize"), 405, "method-not-allowed")
    problem(http.get("/v1/nothing"), 404, "not-found")


def test_openais_client_draws_by_edits(gateway: Pair, image_of_seed: Images) -> None:
    with openai.OpenAI(base_url=f"{gateway.http_url}/v1", api_key="any", max_retries=0) as client:
        answer = client.images.edit(
            image=("map.png", FILES["label_map"], "image/png"), prompt="a landscape", model="spade", n=2,
            size="auto", output_format="png", extra_body={"seed": 7},
        )  # fmt: skip
        assert answer.data is not None
        files = [base64.b64decode(image.b64_json or "") for image in answer.data]
        for seed, file in zip((7, 8), files, strict=True):
            np.testing.assert_allclose(pixels(file).astype(int), image_of_seed[seed].astype(int), atol=1)
        jpeg = client.images.edit(
            image=FILES["label_map"], prompt="", output_format="jpeg", output_compression=50, quality="high"
        )
        assert jpeg.data is not None
        assert Image.open(io.BytesIO(base64.b64decode(jpeg.data[0].b64_json or ""))).format == "JPEG"
        with pytest.raises(openai.BadRequestError, match="expected ids") as caught:
            client.images.edit(image=png(LABELS + 100), prompt="")
        assert caught.value.code == "invalid-request"
        with pytest.raises(openai.BadRequestError, match="expected style_name out of none but got 'spring'"):
            client.images.edit(image=FILES["label_map"], prompt="", extra_body={"style_name": "spring"})


def test_classes_have_ids_names_and_colours(http: httpx.Client, tiny_gateway: Pair) -> None:
    classes = http.get("/v1/classes").json()
    assert [one["id"] for one in classes] == list(range(16))
    assert classes[5]["name"] == "water"
    assert classes[5]["colour"] == "#{:02x}{:02x}{:02x}".format(*class_palette(PRESETS["demo"])[5])
    assert httpx.get(f"{tiny_gateway.http_url}/v1/classes").json()[-1]["id"] == 255


def test_the_model_is_described(http: httpx.Client) -> None:
    model = http.get("/v1/model").json()
    assert (model["preset"], model["height"], model["width"], model["style"]) == ("demo", 256, 256, True)
    assert (model["precision"], model["weights"]) == ("fp32", "seeded")
    assert model["limits"]["max_batch"] == 8


def photo(kind: str) -> bytes:
    file = io.BytesIO()
    Image.effect_noise((90, 64), 90).convert("RGB").save(file, kind)
    return file.getvalue()


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_images_take_the_style_of_a_photo(http: httpx.Client, kind: str) -> None:
    """The same as its style, which the library makes of the photo with the seeded encoder."""
    file = photo(kind)
    style = http.post("/v1/styles", files={"style_image": file}).json()["style"]
    encoder = arrays_of(seeded_encoder(PRESETS["demo"].nf))
    expected = style_from_image(encoder, read_photo(file), PRESETS["demo"])
    np.testing.assert_allclose(style, expected, rtol=1e-4, atol=1e-5)
    by_photo = http.post("/v1/synthesize", files={**FILES, "style_image": file})
    by_style = http.post("/v1/synthesize", files=FILES, data={"style": str(style)})
    assert by_photo.status_code == 200, by_photo.text
    assert by_photo.content == by_style.content
    assert by_photo.headers["etag"] == by_style.headers["etag"]


def test_wrong_photos_are_told(http: httpx.Client, tiny_gateway: Pair) -> None:
    files = {**FILES, "style_image": b"nonsense"}
    assert "expected a readable image file" in problem(http.post("/v1/synthesize", files=files), 400, "invalid-request")
    files = {**FILES, "style_image": photo("PNG")}
    both = http.post("/v1/synthesize", files=files, data={"seed": "1"})
    assert "one of style_image, style and seed" in problem(both, 400, "invalid-request")
    assert "one file 'style_image'" in problem(http.post("/v1/styles", files=FILES), 400, "invalid-request")
    plain = httpx.post(f"{tiny_gateway.http_url}/v1/styles", files={"style_image": photo("PNG")})
    assert "model 'tiny' has no style input" in problem(plain, 400, "invalid-request")
