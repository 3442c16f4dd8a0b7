"""The routes of ``tl serve``: Hugging Face's form, the Open Inference Protocol, and what the live page uses."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from hashlib import sha256
from importlib.metadata import version as version_of
from pathlib import Path
from typing import Final, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray
from prometheus_client import CONTENT_TYPE_LATEST
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from automl_tl.data.decode import UndecodableError
from automl_tl.runtime.formatting import printable
from automl_tl.runtime.threads import num_cores
from automl_tl.server import open_inference
from automl_tl.server.assets import Assets
from automl_tl.server.batcher import Batcher, OverloadedError
from automl_tl.server.deployment import Deployment
from automl_tl.server.inbox import Inbox
from automl_tl.server.open_inference import RequestError, from_base64, parse_json
from automl_tl.server.security import RETRY_AFTER, error_response
from automl_tl.server.served_model import Answer, InputImage, ServedModel
from automl_tl.server.telemetry import Metrics
from automl_tl_registry.errors import InvalidNameError, NotFoundError

PAGE: Final = Path(__file__).with_name("page")
TOP_K: Final = 5
MAX_LABEL: Final = 200  # characters
HEALTH_PATHS: Final = ("/v2/health/live", "/v2/health/ready")
STATUS_OF: Final[dict[type[Exception], int]] = {
    RequestError: 400,
    UndecodableError: 400,
    ClientDisconnect: 400,
    NotFoundError: 404,
    InvalidNameError: 404,
    OverloadedError: 503,
}

_log = logging.getLogger(__name__)
T = TypeVar("T")


class _Json(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class ClassificationParameters(_Json):
    """Parameters of Hugging Face's image classification task."""

    top_k: int | None = Field(default=None, ge=1)
    function_to_apply: Literal["softmax"] | None = None


class ClassificationRequest(_Json):
    """A request with parameters; the image is base64."""

    inputs: str
    parameters: ClassificationParameters = ClassificationParameters()


class FeedbackRequest(_Json):
    """The correct label of an image that was predicted a moment ago."""

    digest: str = Field(pattern=r"^[0-9a-f]{64}$")
    label: str = Field(min_length=1, max_length=MAX_LABEL)


class Endpoints:
    """Answers requests with the versions of a deployment."""

    def __init__(
        self,
        deployment: Deployment,
        batcher: Batcher,
        metrics: Metrics,
        *,
        inbox: Inbox | None = None,
    ) -> None:
        """Create the endpoints.

        Args:
            deployment: versions to predict with.
            batcher: predicts images; started.
            metrics: receives counts.
            inbox: files corrections, if they are accepted.
        """
        self._deployment, self._batcher, self._metrics = deployment, batcher, metrics
        self._inbox = inbox
        self._assets = Assets(PAGE)
        self._decoders = ThreadPoolExecutor(max(2, num_cores()), thread_name_prefix="decode")
        self._others = ThreadPoolExecutor(1, thread_name_prefix="explain")  # heatmaps, and loading of other versions

    def app(self) -> Starlette:
        """Return the application, without limits on who may use it."""
        model = "/v2/models/{name}"
        version = model + "/versions/{version}"
        routes = [
            Route("/", self.home, methods=["GET"]),
            Route("/", self.classify, methods=["POST"]),
            Route("/static/{name}", self._assets.endpoint),
            Route("/metrics", self.metrics),
            Route("/api/model", self.facts),
            Route("/api/predict", self.predict, methods=["POST"]),
            Route("/v2", self.server_metadata),
            Route("/v2/health/live", self.live),
            Route("/v2/health/ready", self.ready),
            *(Route(path, self.metadata) for path in (model, version)),
            *(Route(f"{path}/ready", self.model_ready) for path in (model, version)),
            *(Route(f"{path}/infer", self.infer, methods=["POST"]) for path in (model, version)),
        ]
        if self._inbox is not None:
            routes.append(Route("/api/feedback", self.feedback, methods=["POST"]))
        return Starlette(
            routes=routes,
            exception_handlers=dict.fromkeys((*STATUS_OF, HTTPException, Exception), _explain),
        )

    def close(self) -> None:
        """End the threads."""
        self._decoders.shutdown()
        self._others.shutdown()

    # ------------------------------------------------------------------------------------------------ Hugging Face's form

    async def home(self, request: Request) -> Response:
        """The live page for a browser, the facts of the model for other clients."""
        if "text/html" in request.headers.get("accept", ""):
            return self._assets.answer("index.html")
        return await self.facts(request)

    async def classify(self, request: Request) -> Response:
        """Raw bytes of an image, or JSON with base64, to a list of labels and scores."""
        body, top_k = await _body(request), TOP_K
        if request.headers.get("content-type", "").partition(";")[0].strip().lower() == "application/json":
            parsed = await self._run(self._decoders, partial(_parse, ClassificationRequest, body))
            top_k = parsed.parameters.top_k or TOP_K
            body = await self._run(self._decoders, partial(from_base64, parsed.inputs))
        served = self._deployment.current
        (answer,) = await self._predict(request, served, [body])
        verdict = {"abstained": answer.reason} if answer.reason else {}
        rows = [{"label": label, "score": score, **verdict} for label, score in answer.top(top_k)]
        headers = {"X-Model-Version": served.ref, "X-Decision": answer.decision}
        if answer.reason:
            headers["X-Reason"] = answer.reason
        return JSONResponse(rows, headers=headers)

    # ----------------------------------------------------------------------------------------------------- the live page

    async def facts(self, request: Request) -> Response:
        """Facts about the current version."""
        facts = self._deployment.current.facts(alias=self._deployment.alias, collects=self._inbox is not None)
        return Response(facts.model_dump_json(), media_type="application/json")

    async def predict(self, request: Request) -> Response:
        """One image with everything that can be said about it."""
        options = request.query_params
        top_k = _number(options.get("top_k", str(TOP_K)), "top_k")
        explains, compares = (_flag(options.get(name, "0"), name) for name in ("explain", "neighbors"))
        body, served = await _body(request), self._deployment.current
        with self._batcher.admit(1):
            image = await self._read(served, body)
            answer = await self._batcher.predict(served, image.pixels)
            self._count(request, [answer])
            digest = await self._run(self._decoders, lambda: sha256(body).hexdigest())
            heatmap = await self._run(self._others, partial(answer.heatmap, image.pixels)) if explains else None
            neighbors = await self._run(self._others, answer.neighbors) if compares else None
        if self._inbox is not None:
            self._inbox.remember(digest, body, image.suffix)
        scores = [{"label": label, "score": score} for label, score in answer.top(top_k)]
        return JSONResponse(
            {
                "digest": digest,
                "label": scores[0]["label"],
                "scores": scores,
                "decision": answer.decision,
                "reason": answer.reason,
                "heatmap": heatmap,
                "neighbors": neighbors,
                "version": served.ref,
            }
        )

    async def feedback(self, request: Request) -> Response:
        """File the image of a digest under the label that a person chose."""
        assert self._inbox is not None
        correction = await self._run(self._decoders, partial(_parse, FeedbackRequest, await _body(request)))
        label = correction.label
        if printable(label) != label or not label.strip():
            raise HTTPException(400, "The label is empty or has control characters.")
        classes = self._deployment.current.classes
        try:
            count = await self._run(self._others, partial(self._inbox.file, correction.digest, label, classes))
        except KeyError as error:
            raise HTTPException(404, "This image is no longer in memory. Predict it again, then correct it.") from error
        self._metrics.corrections.labels(label if label in classes else "(new class)").inc()
        _log.info("filed an image", extra={"facts": {"label": label, "digest": correction.digest}})
        return JSONResponse({"digest": correction.digest, "label": label, "num_images": count})

    # -------------------------------------------------------------------------------------------- Open Inference Protocol

    async def live(self, request: Request) -> Response:
        """Whether the process answers."""
        return JSONResponse({"live": True})

    async def ready(self, request: Request) -> Response:
        """Whether predictions are made; the current version was proven before the server listened."""
        is_ready = self._batcher.is_running
        return JSONResponse({"ready": is_ready}, 200 if is_ready else 503)

    async def server_metadata(self, request: Request) -> Response:
        """Name and version of the server."""
        return JSONResponse({"name": "automl_tl", "version": version_of("automl-tl"), "extensions": ["binary_tensor_data"]})

    async def metadata(self, request: Request) -> Response:
        """Inputs and outputs of a model."""
        served = await self._version(request)
        versions = await self._run(self._others, self._deployment.versions)
        numbers = [str(version.version) for version in reversed(versions)]
        if "version" in request.path_params:
            numbers = [str(served.version.version)]
        return JSONResponse(open_inference.metadata(self._deployment.name, numbers, len(served.classes)))

    async def model_ready(self, request: Request) -> Response:
        """Whether a version can answer; loads it if necessary."""
        served = await self._version(request)
        return JSONResponse({"name": self._deployment.name, "version": str(served.version.version), "ready": True})

    async def infer(self, request: Request) -> Response:
        """Predict the images of a tensor."""
        served, body = await self._version(request), await _body(request)
        length = request.headers.get(open_inference.HEADER_LENGTH)
        message, images = await self._run(self._decoders, partial(_checked, open_inference.read_request, body, length))
        answers = await self._predict(request, served, images)
        best = [answer.top(1)[0] for answer in answers]
        outputs: dict[str, list[str] | NDArray[np.float32]] = {
            "label": [label for label, _ in best],
            "score": np.array([score for _, score in best], dtype=np.float32),
            "decision": [str(answer.decision) for answer in answers],
            "probabilities": np.stack([answer.probabilities for answer in answers]),
        }
        facts = {"model_name": self._deployment.name, "model_version": str(served.version.version)}
        write = partial(open_inference.write_response, message, facts, outputs)
        content, json_length = await self._run(self._decoders, write)
        if json_length is None:
            return Response(content, media_type="application/json")
        headers = {open_inference.HEADER_LENGTH: str(json_length)}
        return Response(content, media_type="application/octet-stream", headers=headers)

    # ------------------------------------------------------------------------------------------------------------ metrics

    async def metrics(self, request: Request) -> Response:
        """Metrics in Prometheus' format."""
        metrics, deployment = self._metrics, self._deployment
        metrics.queued.set(self._batcher.num_admitted)
        metrics.replaced.set(deployment.num_replaced)
        metrics.failed.set(deployment.num_failed)
        metrics.model.clear()
        version = str(deployment.current.version.version)
        metrics.model.labels(deployment.name, version, deployment.alias or "").set(1)
        return Response(metrics.text(), headers={"Content-Type": CONTENT_TYPE_LATEST})

    # -------------------------------------------------------------------------------------------------------------- parts

    async def _predict(self, request: Request, served: ServedModel, bodies: Sequence[bytes]) -> list[Answer]:
        """Decode and predict images; an unusable one ends the request."""
        with self._batcher.admit(len(bodies)):
            images = await asyncio.gather(*(self._read(served, body) for body in bodies))
            answers = await asyncio.gather(*(self._batcher.predict(served, image.pixels) for image in images))
        self._count(request, answers)
        return answers

    async def _read(self, served: ServedModel, body: bytes) -> InputImage:
        if not body:
            raise HTTPException(400, "The request has no image. Send the bytes of an image file as its body.")
        return await self._run(self._decoders, partial(served.read, body))

    def _count(self, request: Request, answers: Sequence[Answer]) -> None:
        for answer in answers:
            self._metrics.predictions.labels(answer.served.ref, answer.decision).inc()
        decisions = answers[0].decision if len(answers) == 1 else [answer.decision for answer in answers]
        request.state.facts.update(version=answers[0].served.ref, num_images=len(answers), decision=decisions)

    async def _version(self, request: Request) -> ServedModel:
        """Return the version that a path names."""
        name, version = request.path_params["name"], request.path_params.get("version")
        if name != self._deployment.name:
            raise HTTPException(404, f"No model {name[:80]!r} here; this server has {self._deployment.name!r}.")
        if version is None:
            return self._deployment.current
        return await self._run(self._others, partial(self._deployment.version, version))

    async def _run(self, pool: ThreadPoolExecutor, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(pool, work)


async def _body(request: Request) -> bytes:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind.startswith("multipart/"):
        raise HTTPException(
            415, "Forms are not read. Send the bytes of the image as the body: `curl --data-binary @photo.jpg`."
        )
    return await request.body()


def _parse(kind: type[T], body: bytes) -> T:
    """Parse JSON as a message; raise ``RequestError`` if it is none."""
    return _checked(lambda: kind.model_validate(parse_json(body)))  # type: ignore[attr-defined, no-any-return]


def _checked(work: Callable[..., T], *arguments: object) -> T:
    """Call ``work``; a message that does not validate is a ``RequestError`` with its first problem."""
    try:
        return work(*arguments)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(map(str, first["loc"]))[:80]
        raise RequestError(f"{place or 'The request'}: {first['msg']}.") from error


def _number(text: str, name: str) -> int:
    if not (text.isdecimal() and text.isascii() and 1 <= len(text) <= 6 and int(text) >= 1):
        raise HTTPException(400, f"{name} is {text[:40]!r}; expected a number from 1.")
    return int(text)


def _flag(text: str, name: str) -> bool:
    if text not in ("0", "1"):
        raise HTTPException(400, f"{name} is {text[:40]!r}; expected 0 or 1.")
    return text == "1"


async def _explain(request: Request, error: Exception) -> Response:
    """Return the answer to a request that failed: ``{"error": text}``; the details of a bug are only in the log."""
    if isinstance(error, HTTPException):
        return error_response(error)
    status = next((status for kind, status in STATUS_OF.items() if isinstance(error, kind)), 500)
    if isinstance(error, UndecodableError) and error.reason == "too_many_pixels":
        status = 413
    text = str(error) if status < 500 else f"Internal error; see {request.state.request_id} in the log."
    if isinstance(error, OverloadedError):
        text = "Too many requests at once. Try again later."
    return JSONResponse({"error": text}, status, headers=RETRY_AFTER if status == 503 else None)
