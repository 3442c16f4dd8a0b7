"""A real server on loopback, with a toy model that tells red images from blue ones."""

from __future__ import annotations

import http.client
import io
import json
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from queue import Queue
from threading import Thread
from typing import Any

import numpy as np
import torch
from PIL import Image
from starlette.types import ASGIApp
from torch import Tensor, nn

from automl_tl.errors import ModelError
from automl_tl.evaluation.abstention import AbstentionPolicy
from automl_tl.evaluation.reference_features import make_reference_features
from automl_tl.models.bundle import BundleFacts, Classifier
from automl_tl.models.heads import HeadShape, build_head
from automl_tl.models.predictor import Predictor
from automl_tl.server.batcher import Batcher
from automl_tl.server.deployment import Deployment
from automl_tl.server.endpoints import HEALTH_PATHS, Endpoints
from automl_tl.server.inbox import Inbox
from automl_tl.server.listener import Stop, listen, run
from automl_tl.server.security import Guard
from automl_tl.server.served_model import ServedModel
from automl_tl.server.telemetry import Metrics, Telemetry
from automl_tl.values import Preprocessing
from automl_tl.workflows.model import Model
from automl_tl_registry import Facts, ModelVersion, VersionView
from automl_tl_registry import Metrics as TestMetrics
from automl_tl_registry.errors import NotFoundError

SIDE_PX = 16


class RedAndBlue(nn.Module):
    """How red and how blue an image is."""

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, 3, H, W)`` to ``(B, 2)``."""
        means = x.mean(dim=(2, 3))
        return means[:, [0, 2]]


def toy_version(number: int) -> ModelVersion:
    metrics = TestMetrics(accuracy=0.9, interval=(0.8, 0.97), num_images=40)
    facts = Facts(
        classes=["red", "blue"], preprocessing={}, backbone="toy/colors", strategy="by hand", model_digest="0", metrics=metrics
    )
    return ModelVersion(
        name="colors",
        version=number,
        created_at=datetime(2026, 1, number, tzinfo=UTC),
        actor="test",
        manifest_digest="0" * 64,
        blobs={},
        facts=facts,
    )


def toy_model(number: int = 1) -> ServedModel:
    """Version ``number`` of a model; gray images are unlike its training images."""
    shape = HeadShape(kind="trained", feature_dim=2, num_classes=2)
    head = build_head(shape)
    head.load_state_dict({"last.weight": torch.eye(2) * 10, "last.bias": torch.zeros(2)})
    facts = BundleFacts(
        classes=("red", "blue"),
        preprocessing=Preprocessing(side_px=SIDE_PX, crop_fraction=1.0, mean=(0, 0, 0), std=(1, 1, 1)),
        backbone="toy/colors",
        backbone_from="tests 0",
        strategy="by hand",
        head=shape,
        temperature=1.0,
    )
    classifier = Classifier(nn.Sequential(RedAndBlue()).eval(), head.eval(), facts)
    features = np.abs(np.repeat([[1.0, 0.0], [0.0, 1.0]], 50, axis=0) - np.random.default_rng(0).uniform(0, 0.1, (100, 2)))
    paths = tuple(f"{row}.png" for row in range(100))
    reference = make_reference_features(features, np.repeat([0, 1], 50), paths)
    version = toy_version(number)
    model = Model(VersionView("colors", number, version.facts, {}), classifier, reference)
    return ServedModel(version, model, Predictor(classifier), AbstentionPolicy(None, reference))


class ToyRegistry:
    """Versions 1 to 4 of ``colors``; ``production`` is movable, version 4 is damaged."""

    def __init__(self) -> None:
        self.production = 1

    def resolve(self, ref: str) -> ModelVersion:
        """Return a version."""
        text = ref.partition("@")[2].replace("latest", "3") or "3"
        number = self.production if text == "production" else int(text) if text.isdecimal() else 0
        if not 1 <= number <= 4:
            raise NotFoundError(f"There is no {ref!r}.")
        return toy_version(number)

    def versions(self, name: str) -> list[ModelVersion]:
        """Return all versions, newest first."""
        return [toy_version(number) for number in (4, 3, 2, 1)]


def open_toy(ref: str) -> ServedModel:
    number = int(ref.partition("@")[2])
    if number == 4:
        raise ModelError("colors@4 is damaged.")
    return toy_model(number)


def png(color: tuple[int, int, int], side_px: int = 20) -> bytes:
    target = io.BytesIO()
    Image.new("RGB", (side_px, side_px), color).save(target, "PNG")
    return target.getvalue()


RED, BLUE, GRAY = png((230, 10, 10)), png((10, 10, 230)), png((128, 128, 128))


@dataclass(frozen=True)
class Answered:
    """An HTTP answer."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:  # noqa: ANN401 - it is JSON
        """Its body, parsed."""
        return json.loads(self.body)


@dataclass(frozen=True)
class RunningServer:
    """A server in a thread of this process."""

    port: int
    registry: ToyRegistry = field(default_factory=ToyRegistry)
    deployment: Deployment | None = None
    batcher: Batcher | None = None

    @property
    def url(self) -> str:
        """Its URL."""
        return f"http://127.0.0.1:{self.port}"

    def request(self, method: str, path: str, body: bytes | None = None, **headers: str) -> Answered:
        """Send a request; underscores in names of headers are dashes."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
            response = connection.getresponse()
            return Answered(response.status, {name.lower(): value for name, value in response.getheaders()}, response.read())
        finally:
            connection.close()

    def post_json(self, path: str, value: object) -> Answered:
        """Send JSON."""
        return self.request("POST", path, json.dumps(value).encode(), Content_Type="application/json")


def send(server: RunningServer, data: bytes) -> bytes:
    """Send raw bytes, and return everything that the server sends until it closes the connection."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as client:
        client.sendall(data)
        client.shutdown(socket.SHUT_WR)
        return b"".join(iter(lambda: client.recv(4096), b""))


@contextmanager
def running(app: ASGIApp) -> Iterator[int]:
    """Serve ``app`` in a thread while the context is open; yield its port."""
    listening, stops = listen("127.0.0.1", 0), Queue[Stop]()
    port = listening.getsockname()[1]
    thread = Thread(target=run, args=(app, listening), kwargs={"on_ready": stops.put})
    thread.start()
    stop = stops.get(timeout=20)
    try:
        yield port
    finally:
        stop()
        thread.join(timeout=20)
        assert not thread.is_alive()


@contextmanager
def serving(*, inbox: Path | None = None, token: str | None = None) -> Iterator[RunningServer]:
    registry, metrics = ToyRegistry(), Metrics()
    deployment = Deployment("colors@production", registry, open_toy)  # type: ignore[arg-type] # what it uses of a registry
    batcher = Batcher(metrics.batches.observe)
    endpoints = Endpoints(deployment, batcher, metrics, inbox=Inbox(inbox) if inbox else None)
    guard = Guard(endpoints.app(), host="127.0.0.1", token=token, open_paths=HEALTH_PATHS)
    batcher.start()
    try:
        with running(Telemetry(guard, metrics)) as port:
            yield RunningServer(port, registry, deployment, batcher)
    finally:
        batcher.stop()
        endpoints.close()
