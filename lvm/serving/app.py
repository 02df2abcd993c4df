"""The HTTP interface: routes, their errors, and what happens when the server starts and ends."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from importlib.resources import files
from typing import Any

import numpy as np
from fastapi import FastAPI, HTTPException, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse
from fastapi_offline import FastAPIOffline
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.middleware.trustedhost import TrustedHostMiddleware

from lvm import __version__
from lvm.decoding.protocol import require_vectors
from lvm.errors import InputError
from lvm.serving.batcher import ClientLeft, DeadlinePassed
from lvm.serving.loaded_model import Served
from lvm.serving.middleware import Guard
from lvm.serving.model_store import Models
from lvm.serving.requests import JSON, NPY, Asked, FieldError, check_contexts, read_json, read_npy
from lvm.serving.responses import as_json, as_npy, rows, step_answer, who, words_answer
from lvm.serving.schemas import (
    REFUSALS,
    SENTENCES,
    DecodeAnswer,
    DecodeRequest,
    EncodeAnswer,
    EncodeRequest,
    PredictAnswer,
    PredictRequest,
    PredictTextAnswer,
    PredictTextRequest,
)
from lvm.serving.server import NotReady, Server, has_left

PAGE_POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; img-src data:"

PARSED_AT_ONCE = 2**18
"""Bytes of a body that are read in the event loop; larger ones would keep everybody waiting."""


BINARY = {"schema": {"type": "string", "format": "binary"}}
PREDICT_BODY = {"content": {JSON: {"schema": PredictRequest.model_json_schema()}, NPY: BINARY}, "required": True}
PREDICT_ANSWER = {"model": PredictAnswer, "content": {NPY: BINARY}}


def make_app(server: Server, hosts: Sequence[str] = ("*",)) -> FastAPI:
    """The application around a server, which answers to the names in `hosts`."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        tasks = [asyncio.create_task(work()) for work in (server.batcher.run, server.load, server.watch)]
        yield
        for task in tasks:
            task.cancel()
        for task in tasks:
            with suppress(asyncio.CancelledError):
                await task

    app = FastAPIOffline(  # its pages of documentation come from here, not from elsewhere
        title="Latent vector model",
        version=__version__,
        description="Predicts the embedding of a document's next chunk from those of its last few, with its text and its neighbours.",
        lifespan=lifespan,
        redoc_url=None,
    )
    # A page of elsewhere could have its name resolved to this address, and then read what is served here.
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=hosts)
    app.add_middleware(Guard, measures=server.measures, rooms=server.rooms, key=server.key)
    _errors(app)
    _health(app, server)
    _vectors(app, server)
    _words(app, server)
    _examples(app, server)
    return app


def _health(app: FastAPI, server: Server) -> None:
    written = files("lvm.serving").joinpath("page.html").read_text(encoding="utf-8")
    shown = written.replace("/*SENTENCES*/[]", json.dumps(SENTENCES))

    @app.get("/livez")
    async def livez() -> dict[str, str]:
        """The process answers."""
        return {"status": "alive"}

    @app.get("/readyz", responses={503: REFUSALS[503]})
    async def readyz() -> dict[str, str]:
        """Models have reproduced their golden predictions, and all that makes text has answered once."""
        assert server.models and server.text
        return {"status": "ready"}

    @app.get("/info", responses={s: REFUSALS[s] for s in (401, 503)})
    async def info() -> dict[str, Any]:
        """The models that are served: version, recipe, data, gates, skill with intervals."""
        models, text = server.models, server.text
        return {
            "models": [served.info() for served in models.served],
            "refused": models.errors,
            "decoder": text.decoder is not None,
            "neighbours": text.library is not None,
            "code_version": __version__,
        }

    @app.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}, 401: REFUSALS[401]})
    async def metrics() -> Response:
        """Counts, failures by reason, latency, queue and batch sizes, for Prometheus."""
        return Response(server.measures.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    @app.get("/", response_class=HTMLResponse)
    async def page() -> HTMLResponse:
        """A page to try it on."""
        return HTMLResponse(shown, headers={"content-security-policy": PAGE_POLICY})


def _vectors(app: FastAPI, server: Server) -> None:
    async def predict(request: Request) -> Response:
        asked, served, contexts = await _asked(request, server.models)
        request.state.model = served.name
        until = time.monotonic() + _seconds(request, server.limits.deadline)
        found = await server.batcher.predict(served, contexts, until, lambda: has_left(request))
        server.measures.out_of_distribution.inc(int(found.out_of_distribution.sum()))
        return as_npy(found, asked, served) if _kind(request) == NPY else as_json(found, asked, served)

    # A route of Starlette's: FastAPI's handling of parameters would only take time, since none of this request is one.
    app.add_route("/predict", predict, methods=["POST"])

    @app.post("/predict", response_model=None, responses={200: PREDICT_ANSWER, **REFUSALS}, openapi_extra={"requestBody": PREDICT_BODY})
    async def documented() -> None:
        """Predict the embedding of the next chunk.

        Contexts come as JSON or as a .npy file of float32, [T, D] or [B, T, D]. Of a .npy file `output_type` and `model` stand in the
        query, and the answer is one too: [D] or [B, D], for `both` [2, D] or [2, B, D] with y_dec first; its headers say the rest.
        """


def _words(app: FastAPI, server: Server) -> None:
    refusals = {status: refusal for status, refusal in REFUSALS.items() if status not in (415, 504)}

    @app.post("/predict_text", responses=refusals, openapi_extra=_example({"context": SENTENCES}))
    async def predict_text(asked: PredictTextRequest, request: Request) -> PredictTextAnswer:
        """Predict what follows a text: its words, and the nearest real chunks."""
        served, text = server.models.get(asked.model), server.text
        request.state.model = served.name
        steps = await server.in_text_thread(
            request, lambda: text.follow(served, asked.context, asked.steps, asked.decode, asked.neighbours)
        )
        server.measures.out_of_distribution.inc(sum(step.out_of_distribution for step in steps))
        return PredictTextAnswer.model_validate({**who(served), "steps": [step_answer(step) for step in steps]})

    @app.post("/encode", responses=refusals, openapi_extra=_example({"texts": SENTENCES[:2]}))
    async def encode(asked: EncodeRequest, request: Request) -> EncodeAnswer:
        """Embed texts by the encoder that the models were trained with."""
        served, text = server.models.get(None), server.text
        vectors = await server.in_text_thread(request, lambda: text.encode(asked.texts, "texts"))
        return EncodeAnswer(**who(served), vectors=vectors.tolist())

    @app.post("/decode", responses=refusals)
    async def decode(asked: DecodeRequest, request: Request) -> DecodeAnswer:
        """Put vectors into words by the decoder of that encoder."""
        served, text = server.models.get(None), server.text
        vectors = require_vectors(rows(asked.vectors), served.recipe)
        found = await server.in_text_thread(request, lambda: text.decode(vectors))
        return DecodeAnswer(**who(served), results=[words_answer(one) for one in found])


def _examples(app: FastAPI, server: Server) -> None:
    """Show a real vector of the served model in the documentation, so that its examples run."""
    plain = app.openapi

    def openapi() -> dict[str, Any]:
        shown = plain()
        vector = server.models.get(None).example[0, -1].astype(float).round(4).tolist()
        for path, example in (("/predict", {"context_vectors": [vector]}), ("/decode", {"vectors": [vector]})):
            shown["paths"][path]["post"]["requestBody"]["content"][JSON]["example"] = example
        return shown

    app.openapi = openapi  # type: ignore[method-assign]


def _errors(app: FastAPI) -> None:
    """Every refusal has one shape, and a reason that is counted."""

    def refuse(request: Request, status: int, problems: list[dict[str, Any]], headers: dict[str, str] | None = None) -> JSONResponse:
        request.state.reason = problems[0]["type"]
        return JSONResponse({"detail": problems}, status, headers)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        return refuse(request, 422, [{"type": e["type"], "loc": list(e["loc"]), "msg": e["msg"]} for e in error.errors()])

    @app.exception_handler(InputError)
    async def unusable(request: Request, error: InputError) -> JSONResponse:
        loc = ["body", *error.loc] if isinstance(error, FieldError) else ["body"]
        field = ".".join(map(str, loc[1:]))
        return refuse(request, 422, [{"type": "unusable", "loc": loc, "msg": f"field '{field}': {error}" if field else str(error)}])

    @app.exception_handler(NotReady)
    async def early(request: Request, error: NotReady) -> JSONResponse:
        return refuse(request, 503, _problem("not_ready", str(error)), {"retry-after": "1"})

    @app.exception_handler(DeadlinePassed)
    async def late(request: Request, error: DeadlinePassed) -> JSONResponse:
        return refuse(request, 504, _problem("deadline_passed", "the prediction was not begun in time"))

    @app.exception_handler(ClientLeft)
    async def left(request: Request, error: ClientLeft) -> Response:
        request.state.reason = "client_left"
        return Response(status_code=499)

    @app.exception_handler(StarletteHTTPException)
    async def refused(request: Request, error: StarletteHTTPException) -> JSONResponse:
        if error.status_code == 400:  # FastAPI's word for a body that is not even text
            return refuse(request, 422, [{"type": "unusable", "loc": ["body"], "msg": "not JSON in UTF-8"}])
        detail: Any = error.detail
        return refuse(
            request, error.status_code, detail if isinstance(detail, list) else _problem("refused", detail), dict(error.headers or {})
        )


async def _asked(request: Request, models: Models) -> tuple[Asked, Served, np.ndarray]:
    """The request's contexts, checked for the model that they are meant for."""
    kind, body = _kind(request), await request.body()

    def read() -> tuple[Asked, Served, np.ndarray]:
        asked = read_npy(body, request.query_params) if kind == NPY else read_json(body)
        served = models.get(asked.model)
        return asked, served, check_contexts(asked.vectors, served)

    return read() if len(body) <= PARSED_AT_ONCE else await asyncio.to_thread(read)


def _kind(request: Request) -> str:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind not in (JSON, NPY):
        raise HTTPException(415, _problem("media_type", f"content-type {kind!r}: expected {JSON} or {NPY}"))
    return kind


def _seconds(request: Request, longest: float) -> float:
    asked = request.headers.get("request-timeout")
    if asked is None:
        return longest
    try:
        seconds = float(asked)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds <= 3600:
        raise FieldError(f"{asked[:20]!r}: expected seconds", "Request-Timeout")
    return min(seconds, longest)


def _example(value: dict[str, Any]) -> dict[str, Any]:
    return {"requestBody": {"content": {JSON: {"example": value}}}}


def _problem(kind: str, message: str) -> list[dict[str, Any]]:
    return [{"type": kind, "loc": [], "msg": message}]
