"""The Open Inference Protocol, version 2, over HTTP, with its binary tensor data extension: messages only.

One input, ``image`` ``BYTES [N]``: an encoded image per element, in JSON as base64. Outputs: ``label`` and ``decision``
``BYTES [N]``, ``score`` ``FP32 [N]`` and ``probabilities`` ``FP32 [N, C]``.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
import struct
from collections.abc import Mapping, Sequence
from math import prod
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, JsonValue

MAX_IMAGES: Final = 128  # of one request
INPUT: Final = "image"
HEADER_LENGTH: Final = "Inference-Header-Content-Length"
SPACE: Final = re.compile(r"\s+")
DATA_URL: Final = re.compile(r"data:[\w.+/;=-]*,")


class RequestError(ValueError):
    """A request that does not follow the protocol; the text is for the client."""


class _Message(BaseModel):
    model_config = ConfigDict(extra="ignore", strict=True)


class InputTensor(_Message):
    """An input of a request."""

    name: str
    shape: list[int]
    datatype: str
    parameters: dict[str, JsonValue] = {}
    data: JsonValue = None


class OutputRequest(_Message):
    """An output that the client asks for."""

    name: str
    parameters: dict[str, JsonValue] = {}


class InferRequest(_Message):
    """A request, without the binary data that follows it."""

    id: str | None = None
    parameters: dict[str, JsonValue] = {}
    inputs: list[InputTensor] = Field(min_length=1, max_length=1)
    outputs: list[OutputRequest] = []


def metadata(name: str, versions: Sequence[str], num_classes: int) -> dict[str, Any]:
    """Return the metadata of a model.

    Args:
        name: of the model.
        versions: numbers of its versions.
        num_classes: C.
    """
    outputs = [("label", "BYTES", [-1]), ("score", "FP32", [-1]), ("decision", "BYTES", [-1])]
    return {
        "name": name,
        "versions": list(versions),
        "platform": "automl_tl",
        "inputs": [{"name": INPUT, "datatype": "BYTES", "shape": [-1]}],
        "outputs": [
            {"name": output, "datatype": datatype, "shape": shape}
            for output, datatype, shape in (*outputs, ("probabilities", "FP32", [-1, num_classes]))
        ],
    }


def read_request(body: bytes, header_length: str | None) -> tuple[InferRequest, list[bytes]]:
    """Parse a request, and return it with its images, still encoded.

    Args:
        body: JSON, followed by binary data.
        header_length: length of the JSON; ``None``: all of it.

    Raises:
        RequestError: it does not follow the protocol.
        ValidationError: a field is missing or has another type.
    """
    if header_length is not None and not (header_length.isdecimal() and int(header_length) <= len(body)):
        raise RequestError(f"{HEADER_LENGTH} is {header_length[:40]!r}; expected at most the {len(body)} bytes of the body.")
    length = len(body) if header_length is None else int(header_length)
    request = InferRequest.model_validate(parse_json(body[:length]))
    tensor = request.inputs[0]
    if (tensor.name, tensor.datatype) != (INPUT, "BYTES"):
        name, datatype = tensor.name[:40], tensor.datatype[:40]
        raise RequestError(f"Input {name!r} has datatype {datatype!r}; expected one input 'image' of datatype BYTES.")
    unknown = {output.name for output in request.outputs} - {"label", "score", "decision", "probabilities"}
    if unknown:
        raise RequestError(f"Unknown output {min(unknown)[:40]!r}; expected label, score, decision or probabilities.")
    images = _binary(tensor, body[length:]) if "binary_data_size" in tensor.parameters else _in_json(tensor.data)
    if not 1 <= len(images) <= MAX_IMAGES or min(tensor.shape, default=0) < 1 or prod(tensor.shape) != len(images):
        raise RequestError(
            f"Input 'image' has shape {tensor.shape[:8]} and {len(images)} elements; expected [N] and N, at most {MAX_IMAGES}."
        )
    return request, images


def write_response(
    request: InferRequest, facts: Mapping[str, Any], outputs: Mapping[str, list[str] | NDArray[np.float32]]
) -> tuple[bytes, int | None]:
    """Return a response, and the length of its JSON if binary data follows.

    Args:
        request: whose outputs and encodings are used.
        facts: ``model_name`` and ``model_version``.
        outputs: all outputs by name: lists of texts, or arrays.
    """
    wanted = request.outputs or [OutputRequest(name=name) for name in outputs]
    is_binary = request.parameters.get("binary_data_output", False)
    tensors: list[dict[str, Any]] = []
    binary = b""
    for output in wanted:
        value = outputs[output.name]
        is_text = isinstance(value, list)
        tensor: dict[str, Any] = {
            "name": output.name,
            "datatype": "BYTES" if is_text else "FP32",
            "shape": [len(value)] if isinstance(value, list) else list(value.shape),
        }
        if output.parameters.get("binary_data", is_binary):
            raw = _text_bytes(value) if isinstance(value, list) else value.astype("<f4").tobytes()
            tensor["parameters"] = {"binary_data_size": len(raw)}
            binary += raw
        else:
            tensor["data"] = value if isinstance(value, list) else [float(one) for one in value.ravel()]
        tensors.append(tensor)
    response = {**facts, **({"id": request.id} if request.id else {}), "outputs": tensors}
    head = json.dumps(response, allow_nan=False).encode()
    return head + binary, len(head) if binary else None


def parse_json(text: bytes) -> object:
    """Parse JSON from a client; raise ``RequestError`` for anything else, and for nesting that would exhaust the stack."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise RequestError(f"The body is not JSON ({str(error)[:100]}).") from error


def from_base64(text: str) -> bytes:
    """Decode base64, with or without line breaks or the start of a data URL.

    Raises:
        RequestError: it is something else.
    """
    try:
        return base64.b64decode(SPACE.sub("", DATA_URL.sub("", text[:200], count=1) + text[200:]), validate=True)
    except (binascii.Error, ValueError) as error:
        raise RequestError(f"The image is not base64 ({error}).") from error


def _in_json(data: JsonValue) -> list[bytes]:
    """Return the elements of a tensor in JSON: base64, or the bytes of the image as characters 0 to 255."""
    elements = data if isinstance(data, list) else []
    if not elements or not all(isinstance(element, str) for element in elements):
        raise RequestError("Input 'image' has no data; expected a list of base64 strings, or binary data after the JSON.")
    images = []
    for element in map(str, elements):
        try:
            images.append(from_base64(element))
        except RequestError:
            if not element or max(element) > "\xff":
                raise
            images.append(element.encode("latin-1"))
    return images


def _binary(tensor: InputTensor, data: bytes) -> list[bytes]:
    """Return the elements of a tensor in binary: each with its length as 4 bytes before it."""
    if tensor.parameters["binary_data_size"] != len(data):
        size = str(tensor.parameters["binary_data_size"])[:40]
        raise RequestError(f"binary_data_size is {size}, but {len(data)} bytes follow the JSON.")
    images: list[bytes] = []
    at = 0
    while at < len(data):
        end = at + 4 + (struct.unpack_from("<I", data, at)[0] if at + 4 <= len(data) else len(data))
        if end > len(data) or len(images) == MAX_IMAGES:
            raise RequestError(f"The binary data holds more than {MAX_IMAGES} images, or ends inside one.")
        images.append(data[at + 4 : end])
        at = end
    return images


def _text_bytes(texts: Sequence[str]) -> bytes:
    encoded = (text.encode("utf-8", "surrogatepass") for text in texts)
    return b"".join(struct.pack("<I", len(one)) + one for one in encoded)
