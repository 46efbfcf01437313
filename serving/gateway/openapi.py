"""The description of the calls whose bodies the gateway parses by itself, with an example for each."""

from __future__ import annotations

import copy
from typing import Any

from serving.gateway.problems import KINDS, TYPE_PREFIX
from serving.protocol import ModelInfo

_BINARY = {"type": "string", "format": "binary"}
_PNG: dict[str, Any] = {**_BINARY, "description": "PNG: ids as grey, palette or 16 bit, or RGB in the classes' colours"}
_PHOTO: dict[str, Any] = {
    **_BINARY,
    "description": "A photo, whose style the images take, where the weights can read one",
}
_STYLE_EXAMPLE = "[" + ",".join(["0.0"] * 256) + "]"


def problem_response(*kinds: str) -> dict[str, Any]:
    """An answer that is an error, with an example of its first kind."""
    status, title = KINDS[kinds[0]]
    example = {
        "type": TYPE_PREFIX + kinds[0],
        "title": title,
        "status": status,
        "detail": "[..] expected .. but got ..",
    }
    return {
        "description": "; ".join(KINDS[kind][1] for kind in kinds),
        "content": {
            "application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}, "example": example}
        },
    }


PROBLEM_SCHEMA = {
    "type": "object",
    "description": "RFC 9457",
    "required": ["type", "title", "status", "detail"],
    "properties": {
        "type": {"type": "string", "enum": [TYPE_PREFIX + kind for kind in KINDS]},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string", "description": "What was expected, what came, and what to do"},
        "request_id": {"type": "string", "description": "The line of the server's log"},
    },
}

_COMMON = {
    "401": problem_response("unauthenticated"),
    "429": problem_response("too-many-requests"),
    "500": problem_response("internal"),
    "503": problem_response("unavailable", "queue-full"),
}
PROBLEMS: dict[int | str, dict[str, Any]] = {int(status): answer for status, answer in _COMMON.items()}

_DRAWING = {
    **_COMMON,
    "400": problem_response("invalid-request"),
    "408": problem_response("request-timeout"),
    "413": problem_response("too-large"),
    "504": problem_response("timeout"),
}

_HEADERS = {
    "X-Spade-Timings": {
        "schema": {"type": "string"},
        "description": "Milliseconds: queue, plan, codebook, convs, total",
        "example": "queue;dur=0.402, plan;dur=0.310, codebook;dur=1.950, convs;dur=3.020, total;dur=5.480",
    },
    "X-Spade-Batch-Size": {"schema": {"type": "string"}, "description": "Label maps in the engine's batch"},
    "X-Spade-Seed": {"schema": {"type": "string"}, "description": "The seed of each image"},
    "X-Spade-Engine": {"schema": {"type": "string"}, "description": "Engine, precision, instruction set"},
    "X-Spade-Weights": {"schema": {"type": "string"}, "description": "sha256 of the weights"},
    "ETag": {"schema": {"type": "string"}, "description": "Equal for equal bits: send it back as If-None-Match"},
}

_WHOLE = {"type": "integer"}
_OPTIONS: dict[str, dict[str, Any]] = {
    "style_name": {"type": "string", "description": "One of the model's `styles` (GET /v1/model) in place of a seed"},
    "seed": {**_WHOLE, "minimum": 0, "maximum": 2**62, "description": "Of the first image; the next ones count up"},
    "count": {**_WHOLE, "minimum": 1, "maximum": 64, "default": 1, "description": "Images in as many styles"},
    "format": {"type": "string", "enum": ["png", "jpeg", "webp"], "description": "Default: what Accept likes, or png"},
    "quality": {**_WHOLE, "minimum": 1, "maximum": 100, "description": "Of jpeg and webp; default 90"},
    "size": {"type": "string", "description": "WIDTHxHEIGHT; auto: the model's", "examples": ["auto"]},
    "timeout": {
        "type": "number", "exclusiveMinimum": 0, "maximum": 3600,
        "description": "Seconds; a request that cannot be answered in time is refused at once",
    },
}  # fmt: skip
_FIELDS: dict[str, dict[str, Any]] = {
    "label_map": _PNG,
    "instance_map": {**_BINARY, "description": "PNG, exactly where the model reads instances (GET /v1/model)"},
    "style": {
        "type": "string",
        "description": "256 numbers as JSON, or a list of such lists: one for each image",
        "examples": [_STYLE_EXAMPLE],
    },
    "style_image": _PHOTO,
    **_OPTIONS,
    "colours": {"type": "string", "description": "CSV or JSON colour table of an RGB map; default: the classes' own"},
}

_IF_NONE_MATCH = {
    "name": "If-None-Match", "in": "header", "required": False, "schema": {"type": "string"},
    "description": "An ETag: 304 without drawing where the answer would have the same bits",
}  # fmt: skip

SYNTHESIZE: dict[str, Any] = {
    "description": "One label map, as a form or as the body. Several images (`count`) come as ZIP, or as JSON if "
    "Accept asks for it.",
    "parameters": [
        *({"name": name, "in": "query", "required": False, "schema": schema, "description": "With a PNG as the body"}
          for name, schema in _OPTIONS.items()),
        _IF_NONE_MATCH,
    ],
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object", "required": ["label_map"], "properties": _FIELDS, "additionalProperties": False,
                },
                "encoding": {
                    name: {"contentType": "image/png"} for name in ("label_map", "instance_map", "style_image")
                },
            },
            "image/png": {"schema": _PNG},
        },
    },
    "responses": {
        "200": {
            "description": "The image, or the images",
            "headers": _HEADERS,
            "content": {
                "image/png": {"schema": _BINARY},
                "image/jpeg": {"schema": _BINARY},
                "image/webp": {"schema": _BINARY},
                "application/zip": {"schema": _BINARY},
                "application/json": {
                    "schema": {
                        "type": "object",
                        "required": ["format", "images"],
                        "properties": {
                            "format": {"type": "string"},
                            "images": {
                                "type": "array",
                                "items": {
                                    "type": "object",
                                    "required": ["b64_json"],
                                    "properties": {"b64_json": {"type": "string"}, "seed": _WHOLE},
                                },
                            },
                        },
                    },
                    "example": {"format": "png", "images": [{"b64_json": "iVBORw0KGgo..", "seed": 7}]},
                },
            },
        },
        "304": {"description": "If-None-Match names the answer", "headers": {"ETag": _HEADERS["ETag"]}},
        "406": problem_response("not-acceptable"),
        "415": problem_response("unsupported-media-type"),
        **_DRAWING,
    },
}  # fmt: skip

EDITS: dict[str, Any] = {
    "description": "The shape of OpenAI's images.edit. `image` is the label map; the prompt is not read.",
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["image"],
                    "properties": {
                        "image": _PNG,
                        "prompt": {"type": "string", "description": "Not read", "examples": ["a landscape"]},
                        "model": {"type": "string", "description": "Not read", "examples": ["spade"]},
                        "n": _OPTIONS["count"],
                        "seed": _OPTIONS["seed"],
                        "style_name": _OPTIONS["style_name"],
                        "size": {"type": "string", "examples": ["auto"]},
                        "output_format": _OPTIONS["format"],
                        "output_compression": _OPTIONS["quality"],
                        "response_format": {"type": "string", "enum": ["b64_json"]},
                        "instance_map": _FIELDS["instance_map"],
                    },
                },
                "encoding": {"image": {"contentType": "image/png"}, "instance_map": {"contentType": "image/png"}},
            }
        },
    },
    "responses": {
        "200": {
            "description": "The images",
            "headers": {name: header for name, header in _HEADERS.items() if name != "ETag"},
            "content": {
                "application/json": {
                    "schema": {
                        "type": "object",
                        "required": ["created", "data"],
                        "properties": {
                            "created": _WHOLE,
                            "data": {
                                "type": "array",
                                "items": {"type": "object", "properties": {"b64_json": {"type": "string"}}},
                            },
                            "output_format": {"type": "string"},
                            "size": {"type": "string"},
                        },
                    },
                    "example": {
                        "created": 1795910400,
                        "data": [{"b64_json": "iVBORw0KGgo.."}],
                        "output_format": "png",
                        "size": "256x256",
                    },
                }
            },
        },
        **_DRAWING,
    },
}


STYLES: dict[str, Any] = {
    "description": "By the encoder of the served weights. JPEG, PNG, WebP and every format that Pillow reads.",
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object", "required": ["style_image"], "properties": {"style_image": _PHOTO},
                    "additionalProperties": False,
                },
                "encoding": {"style_image": {"contentType": "image/png"}},
            }
        },
    },
    "responses": _DRAWING,
}  # fmt: skip


def fitted(described: dict[str, Any], info: ModelInfo) -> dict[str, Any]:
    """A description of all calls, for one model: only the fields that it reads, and the needed ones as such."""
    described = copy.deepcopy(described)
    absent = {"style", "style_name", "style_image", "seed", "count", "n"} if not info.style else set()
    if not info.instances:
        absent.add("instance_map")
    for path in ("/v1/synthesize", "/v1/images/edits"):
        call = described["paths"][path]["post"]
        content = call["requestBody"]["content"]
        form = content["multipart/form-data"]
        form["schema"]["properties"] = {
            name: schema for name, schema in form["schema"]["properties"].items() if name not in absent
        }
        if info.instances:
            form["schema"]["required"].append("instance_map")
            content.pop("image/png", None)
        else:
            form["encoding"].pop("instance_map")
        call["parameters"] = [one for one in call.get("parameters", []) if one["name"] not in absent]
    return described
