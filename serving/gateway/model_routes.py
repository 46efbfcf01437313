"""What the model is: its classes, its sizes, its limits."""

from __future__ import annotations

from dataclasses import asdict

from fastapi import APIRouter, Request
from pydantic import BaseModel, Field

from serving.gateway.drawing import as_problem
from serving.gateway.model_classes import classes as model_classes
from serving.gateway.openapi import PROBLEMS
from serving.gateway.state import Model, state_of
from serving.gateway.upstream import UpstreamError

router = APIRouter(tags=["model"], responses=PROBLEMS)


class Class(BaseModel):
    """One class of label maps."""

    id: int = Field(description="The value of its pixels in a label map", examples=[5])
    name: str = Field(examples=["water"])
    colour: str = Field(description="Its colour in RGB label maps", examples=["#3a6fb0"])


class Limits(BaseModel):
    """What a request may be."""

    max_batch: int = Field(description="Label maps in one request of the tensor protocol", examples=[8])
    max_count: int = Field(description="Images in one request of /v1/synthesize", examples=[64])
    max_pixels: int = Field(description="Pixels of a label map", examples=[1048576])
    max_body_bytes: int = Field(description="Bytes of a request", examples=[67108864])


class Served(BaseModel):
    """The model that answers now."""

    preset: str = Field(examples=["demo"])
    classes: int = Field(description="Ids are 0 .. classes - 1", examples=[16])
    dont_care: bool = Field(description="255 is allowed, and means no class")
    height: int = Field(examples=[256])
    width: int = Field(examples=[256])
    instances: bool = Field(description="Requests need an instance map")
    style: bool = Field(description="Requests may have a style or a seed")
    styles: list[str] = Field(description="Names of styles, for `style_name` of /v1/synthesize", examples=[["noon"]])
    engine: str | None = Field(examples=["cpu"])
    precision: str | None = Field(examples=["bf16"])
    isa: str | None = Field(examples=["avx512bf16"])
    weights: str | None = Field(description="sha256 of the weights' file, or `seeded`", examples=["seeded"])
    limits: Limits


@router.get("/v1/classes", summary="The classes of label maps")
async def classes(request: Request) -> list[Class]:
    info = (await _model(request)).info
    return [Class(**one | {"colour": "#{:02x}{:02x}{:02x}".format(*one["colour"])}) for one in model_classes(info)]


@router.get("/v1/model", summary="The model and its limits")
async def model(request: Request) -> Served:
    found, settings = await _model(request), state_of(request).settings
    info, drawn_by = found.info, {} if found.identity is None else asdict(found.identity)
    return Served(
        preset=info.preset,
        classes=info.classes,
        dont_care=info.dont_care,
        height=info.height,
        width=info.width,
        instances=info.instances,
        style=info.style,
        styles=list(info.named_styles()),
        engine=drawn_by.get("engine"),
        precision=drawn_by.get("precision"),
        isa=drawn_by.get("isa"),
        weights=drawn_by.get("weights"),
        limits=Limits(
            max_batch=info.max_batch,
            max_count=settings.max_count,
            max_pixels=info.max_pixels,
            max_body_bytes=settings.doors.max_body_bytes,
        ),
    )


async def _model(request: Request) -> Model:
    try:
        return await state_of(request).model()
    except UpstreamError as error:
        raise as_problem(error) from None
