from __future__ import annotations

import base64
import json
import re
from pathlib import Path

import pytest
from huggingface_hub import InferenceClient

pytest.importorskip("starlette")

from automl_tl.server.batcher import MAX_QUEUED
from tests.server.toy_server import BLUE, GRAY, RED, RunningServer, png, serving

BASE64 = base64.b64encode(RED).decode()


def test_inference_client_classifies_bytes_and_files(server: RunningServer, tmp_path: Path) -> None:
    (tmp_path / "blue.png").write_bytes(BLUE)
    client = InferenceClient(model=server.url)

    by_bytes = client.image_classification(RED)
    by_path = client.image_classification(str(tmp_path / "blue.png"), top_k=1)

    assert [row.label for row in by_bytes] == ["red", "blue"]
    assert by_bytes[0].score == pytest.approx(1 - by_bytes[1].score)
    assert [row.label for row in by_path] == ["blue"]


def test_example_of_the_page_classifies_a_file(server: RunningServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = Path(__file__).parents[2] / "docs" / "serve.md"
    (example,) = re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    (tmp_path / "photo.jpg").write_bytes(RED)
    monkeypatch.chdir(tmp_path)
    *statements, call = example.replace("http://127.0.0.1:8000", server.url).strip().splitlines()
    names: dict[str, object] = {}

    exec("\n".join(statements), names)

    assert [row.label for row in eval(call, names)] == ["red", "blue"]


def test_inference_client_sees_that_a_prediction_is_withheld(server: RunningServer) -> None:
    (first, _) = InferenceClient(model=server.url).image_classification(GRAY)

    assert "out of distribution" in first["abstained"]


def test_classify_names_version_and_decision_in_headers(server: RunningServer) -> None:
    answered, withheld = (server.request("POST", "/", image) for image in (RED, GRAY))

    assert answered.json[0].keys() == {"label", "score"}
    assert (answered.headers["x-model-version"], answered.headers["x-decision"]) == ("colors@1", "answered")
    assert withheld.headers["x-decision"] == "unlike the training images"
    assert withheld.headers["x-reason"] == withheld.json[0]["abstained"]


def test_classify_reads_base64_with_line_breaks_and_data_urls(server: RunningServer) -> None:
    for text in (BASE64, base64.encodebytes(RED).decode(), f"data:image/png;base64,{BASE64}"):
        answered = server.post_json("/", {"inputs": text, "parameters": {"top_k": 1}})
        assert [row["label"] for row in answered.json] == ["red"]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[" * 100_000,
        b"\xff\xfe",
        b"null",
        b'{"inputs": 3}',
        b'{"inputs": "%%%"}',
        b'{"inputs": ""}',
        json.dumps({"inputs": BASE64, "parameters": {"top_k": 0}}).encode(),
        json.dumps({"inputs": BASE64, "parameters": {"top_k": "2"}}).encode(),
        json.dumps({"inputs": BASE64, "parameters": {"topk": 2}}).encode(),
        json.dumps({"inputs": BASE64, "parameters": {"function_to_apply": "sigmoid"}}).encode(),
    ],
)
def test_classify_explains_malformed_json(server: RunningServer, body: bytes) -> None:
    answered = server.request("POST", "/", body, Content_Type="application/json")

    assert answered.status == 400
    assert answered.json["error"]


@pytest.mark.parametrize("body", [b"", b"no image", RED[:40], b"GIF89a"])
def test_classify_explains_unusable_images(server: RunningServer, body: bytes) -> None:
    assert server.request("POST", "/", body).status == 400


def test_classify_refuses_bombs_and_forms(server: RunningServer) -> None:
    bomb = bytearray(RED)
    bomb[16:24] = (60_000).to_bytes(4, "big") * 2

    assert server.request("POST", "/", bytes(bomb)).status in {400, 413}
    assert server.request("POST", "/", RED, Content_Type="multipart/form-data; boundary=x").status == 415


def test_unknown_paths_and_methods_are_json_errors(server: RunningServer) -> None:
    missing = [server.request("GET", path) for path in ("/nothing", "/static/../../etc/passwd", "/static/%2e%2e%2fserve.py")]
    wrong = server.request("DELETE", "/")
    no_collection = server.post_json("/api/feedback", {"digest": "0" * 64, "label": "red"})

    assert [one.status for one in missing] == [404, 404, 404]
    assert (wrong.status, no_collection.status) == (405, 404)
    assert all(one.json["error"] for one in (*missing, wrong, no_collection))


def test_facts_say_what_the_model_does_not_know(server: RunningServer) -> None:
    facts = server.request("GET", "/api/model").json

    assert (facts["name"], facts["version"], facts["alias"]) == ("colors", 1, "production")
    assert facts["classes"] == ["red", "blue"]
    assert "90%" in " ".join(facts["limits"])
    assert facts["collect"] is False


def test_predict_gives_everything_on_request(server: RunningServer) -> None:
    plain = server.request("POST", "/api/predict", RED).json
    full = server.request("POST", "/api/predict?top_k=1&explain=1&neighbors=1", RED).json

    assert (plain["label"], plain["decision"], plain["version"]) == ("red", "answered", "colors@1")
    assert (plain["heatmap"], plain["neighbors"], len(plain["scores"])) == (None, None, 2)
    assert full["heatmap"].startswith("data:image/png;base64,")
    assert {one["label"] for one in full["neighbors"]} == {"red"}
    assert len(full["scores"]) == 1


@pytest.mark.parametrize("query", ["top_k=0", "top_k=-1", "top_k=x", "explain=2", "neighbors=yes"])
def test_predict_explains_wrong_parameters(server: RunningServer, query: str) -> None:
    assert server.request("POST", f"/api/predict?{query}", RED).status == 400


def test_feedback_files_the_image_under_its_label(tmp_path: Path) -> None:
    with serving(inbox=tmp_path / "inbox") as server:
        digest = server.request("POST", "/api/predict", RED).json["digest"]
        filed = server.post_json("/api/feedback", {"digest": digest, "label": "blue"})
        moved = server.post_json("/api/feedback", {"digest": digest, "label": "a/b"})
        unknown = server.post_json("/api/feedback", {"digest": "0" * 64, "label": "red"})
        broken = server.post_json("/api/feedback", {"digest": digest, "label": "a\nb"})
        traversal = server.post_json("/api/feedback", {"digest": "../" * 10, "label": "red"})
        metrics = server.request("GET", "/metrics").body.decode()

    assert (filed.status, filed.json["num_images"], moved.json["num_images"]) == (200, 1, 1)
    assert [one.status for one in (unknown, broken, traversal)] == [404, 400, 400]
    assert (tmp_path / "inbox" / "a%2Fb" / f"{digest}.png").read_bytes() == RED
    assert [path for path in (tmp_path / "inbox").rglob("*") if path.is_file()] == [
        tmp_path / "inbox" / "a%2Fb" / f"{digest}.png"
    ]
    assert 'tl_corrections_total{label="blue"} 1.0' in metrics


def test_overload_is_answered_with_retry_after() -> None:
    with serving() as server:
        assert server.batcher is not None
        with server.batcher.admit(MAX_QUEUED):
            refused = server.request("POST", "/", RED)
        accepted = server.request("POST", "/", RED)

    assert (refused.status, refused.headers["retry-after"], accepted.status) == (503, "1", 200)


def test_metrics_count_requests_and_decisions(server: RunningServer) -> None:
    server.request("POST", "/", RED)
    text = server.request("GET", "/metrics").body.decode()

    assert 'tl_requests_total{endpoint="classify",method="POST",status="200"}' in text
    assert 'tl_predictions_total{decision="answered",version="colors@1"}' in text
    assert 'tl_model{alias="production",name="colors",version="1"} 1.0' in text
    assert "tl_batch_images_bucket" in text


@pytest.mark.parametrize(("given", "expected"), [("abc-123", "abc-123"), ("no spaces", None), ("x" * 500, None)])
def test_request_id_is_taken_or_made_up(server: RunningServer, given: str, expected: str | None) -> None:
    answered = server.request("GET", "/v2", X_Request_Id=given)

    assert answered.headers["x-request-id"] == (expected or answered.headers["x-request-id"])
    assert len(answered.headers["x-request-id"]) <= 64


def test_large_image_is_answered(server: RunningServer) -> None:
    assert server.request("POST", "/", png((230, 10, 10), side_px=500)).json[0]["label"] == "red"
