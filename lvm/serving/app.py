"""The HTTP application: its routes and their OpenAPI description, and what runs from start to shutdown."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import numpy as np
from fastapi import FastAPI, HTTPException, Request, Response
from fastapi.responses import HTMLResponse
from fastapi_offline import FastAPIOffline
from starlette.middleware.trustedhost import TrustedHostMiddleware

from lvm import __version__
from lvm.serving.error_handlers import add_error_handlers
from lvm.serving.middleware import ServingMiddleware
from lvm.serving.requests import JSON, NPY, ContextRequest, FieldError, check_contexts, read_json, read_npy
from lvm.serving.responses import (
    decoded_fields,
    error_detail,
    json_response,
    model_fields,
    npy_response,
    step_fields,
    vectors_of_lists,
)
from lvm.serving.schemas import (
    ERRORS,
    EXAMPLE_SENTENCES,
    DecodeRequest,
    DecodeResponse,
    EncodeRequest,
    EncodeResponse,
    PredictRequest,
    PredictResponse,
    PredictTextRequest,
    PredictTextResponse,
)
from lvm.serving.server import ModelServer, has_left

if TYPE_CHECKING:
    from lvm.serving.loaded_model import LoadedModel
    from lvm.serving.model_store import ModelStore

PAGE_POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; img-src data:"

MAX_BYTES_IN_LOOP = 2**18
"""Bodies up to this size are parsed in the event loop, larger ones in a thread: parsing them would delay other requests."""

MAX_TIMEOUT_SECONDS = 3600

NPY_SCHEMA = {"schema": {"type": "string", "format": "binary"}}
PREDICT_BODY = {"content": {JSON: {"schema": PredictRequest.model_json_schema()}, NPY: NPY_SCHEMA}, "required": True}
PREDICT_RESPONSE = {"model": PredictResponse, "content": {NPY: NPY_SCHEMA}}


def make_app(server: ModelServer, hosts: Sequence[str] = ("*",)) -> FastAPI:
    """The application around `server`. It answers requests whose Host header is one of `hosts`."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        tasks = [asyncio.create_task(work()) for work in (server.batcher.run, server.load, server.watch)]
        yield
        for task in tasks:
            task.cancel()
        for task in tasks:
            with suppress(asyncio.CancelledError):
                await task

    app = FastAPIOffline(  # serves the scripts of its documentation pages itself instead of from the internet
        title="Latent vector model",
        version=__version__,
        description="Predicts the embedding of a document's next chunk from the embeddings of its last chunks, and the text and the "
        "nearest real chunks of that prediction.",
        lifespan=lifespan,
        redoc_url=None,
    )
    # Against DNS rebinding: another site's page could make its own name resolve to this address and then read the responses.
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=hosts)
    app.add_middleware(
        ServingMiddleware,
        metrics=server.metrics,
        admission=server.admission,
        key=server.key,
        max_body=server.config.max_body * 2**20,
    )
    add_error_handlers(app)
    _add_status_routes(app, server)
    _add_predict_route(app, server)
    _add_text_routes(app, server)
    _add_vector_examples(app, server)
    return app


def _add_status_routes(app: FastAPI, server: ModelServer) -> None:
    """Health, information, metrics, and the page to try the server with."""
    template = files("lvm.serving").joinpath("page.html").read_text(encoding="utf-8")
    html = template.replace("/*SENTENCES*/[]", json.dumps(EXAMPLE_SENTENCES))

    @app.get("/livez")
    async def livez() -> dict[str, str]:
        """Whether the process answers."""
        return {"status": "alive"}

    @app.get("/readyz", responses={503: ERRORS[503]})
    async def readyz() -> dict[str, str]:
        """Whether the models have reproduced their golden predictions and the encoder and decoder are loaded."""
        assert server.models and server.text
        return {"status": "ready"}

    @app.get("/info", responses={status: ERRORS[status] for status in (401, 503)})
    async def info() -> dict[str, Any]:
        """The models: version, encoder recipe, dataset, gates, and skill with intervals."""
        models, text = server.models, server.text
        return {
            "models": [model.info() for model in models.models],
            "refused": models.errors,
            "decoder": text.decoder is not None,
            "neighbours": text.library is not None,
            "code_version": __version__,
        }

    @app.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}, 401: ERRORS[401]})
    async def metrics() -> Response:
        """Counts, failures by reason, latency, queue and batch sizes, in Prometheus's text format."""
        return Response(server.metrics.exposition(), media_type="text/plain; version=0.0.4; charset=utf-8")

    @app.get("/", response_class=HTMLResponse)
    async def page() -> HTMLResponse:
        """A page to try the model in a browser."""
        return HTMLResponse(html, headers={"content-security-policy": PAGE_POLICY})


def _add_predict_route(app: FastAPI, server: ModelServer) -> None:
    async def predict(request: Request) -> Response:
        fields, model, contexts = await _read_contexts(request, server.models)
        request.state.model = model.name
        deadline = time.monotonic() + _timeout_seconds(request, server.config.deadline)
        predicted = await server.batcher.predict(model, contexts, deadline, lambda: has_left(request))
        server.metrics.out_of_distribution.inc(int(predicted.out_of_distribution.sum()))
        return (npy_response if _content_type(request) == NPY else json_response)(predicted, fields, model)

    # A plain Starlette route: this request has no parameters that FastAPI could handle, and its handling takes time.
    app.add_route("/predict", predict, methods=["POST"])

    @app.post("/predict", response_model=None, responses={200: PREDICT_RESPONSE, **ERRORS}, openapi_extra={"requestBody": PREDICT_BODY})
    async def documented() -> None:
        """Predict the embedding of the next chunk.

        Send contexts as JSON, or as a .npy file of float32, [T, D] or [B, T, D]. With a .npy file, `output_type` and `model` are
        query parameters and the response is a .npy file too: [D] or [B, D], and for `both` [2, D] or [2, B, D] with y_dec first.
        Its headers carry the other fields.
        """


def _add_text_routes(app: FastAPI, server: ModelServer) -> None:
    errors = {status: error for status, error in ERRORS.items() if status not in (415, 504)}

    @app.post("/predict_text", responses=errors, openapi_extra=_example({"context": EXAMPLE_SENTENCES}))
    async def predict_text(body: PredictTextRequest, request: Request) -> PredictTextResponse:
        """Predict what follows a text: the nearest real chunks, and the prediction decoded into text."""
        model, text = server.models.get(body.model), server.text
        request.state.model = model.name
        steps = await server.in_text_thread(
            request, lambda: text.continue_text(model, body.context, body.steps, body.decode, body.neighbours)
        )
        server.metrics.out_of_distribution.inc(sum(step.out_of_distribution for step in steps))
        return PredictTextResponse.model_validate({**model_fields(model), "steps": [step_fields(step) for step in steps]})

    @app.post("/encode", responses=errors, openapi_extra=_example({"texts": EXAMPLE_SENTENCES[:2]}))
    async def encode(body: EncodeRequest, request: Request) -> EncodeResponse:
        """Embed texts with the encoder that the models were trained on."""
        model, text = server.models.get(None), server.text
        vectors = await server.in_text_thread(request, lambda: text.encode(body.texts, "texts"))
        return EncodeResponse(**model_fields(model), vectors=vectors.tolist())

    @app.post("/decode", responses=errors)
    async def decode(body: DecodeRequest, request: Request) -> DecodeResponse:
        """Decode vectors of that encoder into text."""
        model, text = server.models.get(None), server.text
        vectors = vectors_of_lists(body.vectors)
        decoded = await server.in_text_thread(request, lambda: text.decode(vectors))
        return DecodeResponse(**model_fields(model), results=[decoded_fields(one) for one in decoded])


def _add_vector_examples(app: FastAPI, server: ModelServer) -> None:
    """Show a real vector of the model in the documentation, so that its examples can be run."""
    plain = app.openapi

    def openapi() -> dict[str, Any]:
        document = plain()
        vector = server.models.get(None).example_contexts[0, -1].astype(float).round(4).tolist()
        for path, example in (("/predict", {"context_vectors": [vector]}), ("/decode", {"vectors": [vector]})):
            document["paths"][path]["post"]["requestBody"]["content"][JSON]["example"] = example
        return document

    app.openapi = openapi  # type: ignore[method-assign]


async def _read_contexts(request: Request, models: "ModelStore") -> "tuple[ContextRequest, LoadedModel, np.ndarray]":
    """The request's fields, its model, and its contexts [B, T, D], checked for that model."""
    kind, body = _content_type(request), await request.body()

    def read() -> "tuple[ContextRequest, LoadedModel, np.ndarray]":
        fields = read_npy(body, request.query_params) if kind == NPY else read_json(body)
        model = models.get(fields.model)
        return fields, model, check_contexts(fields.vectors, model)

    return read() if len(body) <= MAX_BYTES_IN_LOOP else await asyncio.to_thread(read)


def _content_type(request: Request) -> str:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind not in (JSON, NPY):
        raise HTTPException(415, error_detail("media_type", f"content-type {kind!r}: expected {JSON} or {NPY}"))
    return kind


def _timeout_seconds(request: Request, longest: float) -> float:
    """Seconds in which the prediction must begin: the header Request-Timeout, but at most `longest`."""
    given = request.headers.get("request-timeout")
    if given is None:
        return longest
    try:
        seconds = float(given)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds <= MAX_TIMEOUT_SECONDS:
        raise FieldError(f"{given[:20]!r}: expected seconds", "Request-Timeout")
    return min(seconds, longest)


def _example(value: dict[str, Any]) -> dict[str, Any]:
    return {"requestBody": {"content": {JSON: {"example": value}}}}
