"""Label maps in RGB to a real server: each request brings its colour table."""

from __future__ import annotations

import numpy as np
import pytest
from served import blocks, png

from serving.client.client import Client, ServerError
from serving.triton.server import Server
from spade_core.maps.colours import draw, palette

LABELS = blocks(1, size=64, classes=8)[0]
PALETTE = palette(8)
NAMED = [f'{i},{r},{g},{b},"class ""{i}"" \N{EM DASH}"' for i, (r, g, b) in enumerate(PALETTE)]
TABLE = "\n".join(["id,r,g,b,name", *NAMED])


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_a_label_map_in_colours_gives_the_image_of_its_ids(tiny_server: Server, protocol: str) -> None:
    url = tiny_server.grpc_url if protocol == "grpc" else tiny_server.http_url
    ids, painted = png(LABELS), png(draw(LABELS, PALETTE))
    with Client(url) as client:
        expected = client.synthesize_image([ids], [ids]).images
        assert client.synthesize_image([painted], [ids], colours=TABLE).images == expected
        with pytest.raises(ServerError, match="or its text as the request parameter colours") as refused:
            client.synthesize_image([painted], [ids])
        assert refused.value.status == "invalid_argument"
        with pytest.raises(ServerError, match=r"but got \(.*\) in .* pixels"):
            client.synthesize_image([painted], [ids], colours="id,r,g,b\n0,1,2,3\n")
    assert np.unique(LABELS).size == 8
