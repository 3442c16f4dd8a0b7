from __future__ import annotations

import base64
import json
import struct
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

pytest.importorskip("starlette")

from tests.optional import import_of_dev_group
from tests.server.toy_server import BLUE, GRAY, RED, RunningServer

triton = import_of_dev_group("tritonclient.http")
BASE64 = base64.b64encode(RED).decode()
INFER = "/v2/models/colors/infer"


@pytest.fixture
def client(server: RunningServer) -> Iterator[Any]:
    """Triton's client of the server."""
    with triton.InferenceServerClient(server.url.removeprefix("http://")) as connected:
        yield connected


def tensor(**changes: object) -> dict[str, Any]:
    return {"name": "image", "datatype": "BYTES", "shape": [1], "data": [BASE64], **changes}


def test_triton_client_predicts_in_binary_and_json(client: Any) -> None:  # noqa: ANN401
    images = np.array([RED, BLUE, GRAY], dtype=np.object_)
    binary, text = triton.InferInput("image", [3], "BYTES"), triton.InferInput("image", [1], "BYTES")
    binary.set_data_from_numpy(images)
    text.set_data_from_numpy(np.array([BASE64.encode()], dtype=np.object_), binary_data=False)

    by_binary = client.infer("colors", [binary], request_id="7")
    wanted = [triton.InferRequestedOutput("label", binary_data=False)]
    by_json = client.infer("colors", [text], model_version="2", outputs=wanted)

    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("colors")
    assert client.get_server_metadata()["name"] == "automl_tl"
    assert client.get_model_metadata("colors")["versions"] == ["1", "2", "3", "4"]
    assert by_binary.as_numpy("label").tolist() == [b"red", b"blue", by_binary.as_numpy("label")[2]]
    assert by_binary.as_numpy("decision").tolist() == [b"answered", b"answered", b"unlike the training images"]
    assert by_binary.as_numpy("probabilities").shape == (3, 2)
    assert by_binary.as_numpy("score")[0] == by_binary.as_numpy("probabilities")[0].max()
    assert by_binary.get_response()["id"] == "7"
    assert by_json.as_numpy("label").tolist() == ["red"]
    assert by_json.get_response()["model_version"] == "2"


def test_triton_client_gets_the_error_text(client: Any) -> None:  # noqa: ANN401
    image = triton.InferInput("image", [1], "BYTES")
    image.set_data_from_numpy(np.array([b"no image"], dtype=np.object_))

    with pytest.raises(triton.InferenceServerException, match="not an image"):
        client.infer("colors", [image])


def test_infer_answers_versions_by_number_and_alias(server: RunningServer) -> None:
    versions = [
        server.post_json(f"/v2/models/colors/versions/{version}/infer", {"inputs": [tensor()]}).json["model_version"]
        for version in ("1", "2", "3", "production", "latest")
    ]

    assert versions == ["1", "2", "3", "1", "3"]


def test_infer_reads_raw_bytes_as_characters(server: RunningServer) -> None:
    answered = server.post_json(INFER, {"inputs": [tensor(data=[RED.decode("latin-1")])]})

    assert answered.json["outputs"][0]["data"] == ["red"]


@pytest.mark.parametrize(
    "path", ["/v2/models/other", "/v2/models/colors/versions/9", "/v2/models/colors/versions/..%2F1", INFER + "/x"]
)
def test_unknown_models_and_versions_are_not_found(server: RunningServer, path: str) -> None:
    assert server.request("GET", path).status == 404


@pytest.mark.parametrize(
    "message",
    [
        {},
        {"inputs": []},
        {"inputs": [tensor(), tensor()]},
        {"inputs": [tensor(name="pixels")]},
        {"inputs": [tensor(datatype="UINT8")]},
        {"inputs": [tensor(shape=[2])]},
        {"inputs": [tensor(shape=[-1])]},
        {"inputs": [tensor(shape=[])]},
        {"inputs": [tensor(shape=[10**30])]},
        {"inputs": [tensor(shape="1")]},
        {"inputs": [tensor(data=None)]},
        {"inputs": [tensor(data=[1])]},
        {"inputs": [tensor(data=["\u2603"])]},
        {"inputs": [tensor(data=[""])]},
        {"inputs": [tensor(parameters={"binary_data_size": 5})]},
        {"inputs": [tensor(shape=[129], data=[BASE64] * 129)]},
        {"inputs": [tensor()], "outputs": [{"name": "nothing"}]},
    ],
)
def test_infer_explains_malformed_requests(server: RunningServer, message: object) -> None:
    answered = server.post_json(INFER, message)

    assert answered.status == 400
    assert answered.json["error"]


@pytest.mark.parametrize("length", ["-1", "x", "99999999"])
def test_infer_explains_a_wrong_header_length(server: RunningServer, length: str) -> None:
    body = json.dumps({"inputs": [tensor()]}).encode()

    assert server.request("POST", INFER, body, Inference_Header_Content_Length=length).status == 400


@pytest.mark.parametrize("data", [b"", b"\x01", struct.pack("<I", 10) + b"short", struct.pack("<I", 2**32 - 1), b"\0" * 800])
def test_infer_explains_malformed_binary_data(server: RunningServer, data: bytes) -> None:
    head = json.dumps({"inputs": [tensor(data=None, parameters={"binary_data_size": len(data)})]}).encode()

    answered = server.request("POST", INFER, head + data, Inference_Header_Content_Length=str(len(head)))

    assert answered.status == 400
