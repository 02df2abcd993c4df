"""Errors as responses: every error has the same shape (`schemas.ErrorResponse`) and a reason that is counted."""

from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from lvm.errors import InputError
from lvm.serving.batcher import ClientLeft, DeadlinePassed
from lvm.serving.middleware import CLIENT_LEFT_STATUS
from lvm.serving.requests import FieldError
from lvm.serving.responses import error_detail
from lvm.serving.server import NotReady


def add_error_handlers(app: FastAPI) -> None:
    """Make `app` turn the exceptions of the server into responses."""

    @app.exception_handler(RequestValidationError)
    async def invalid_request(request: Request, error: RequestValidationError) -> JSONResponse:
        return _respond(request, 422, [{"type": e["type"], "loc": list(e["loc"]), "msg": e["msg"]} for e in error.errors()])

    @app.exception_handler(InputError)
    async def unusable_input(request: Request, error: InputError) -> JSONResponse:
        loc = ["body", *error.loc] if isinstance(error, FieldError) else ["body"]
        field = ".".join(map(str, loc[1:]))
        return _respond(request, 422, [{"type": "unusable", "loc": loc, "msg": f"field '{field}': {error}" if field else str(error)}])

    @app.exception_handler(NotReady)
    async def not_ready(request: Request, error: NotReady) -> JSONResponse:
        return _respond(request, 503, error_detail("not_ready", str(error)), {"retry-after": "1"})

    @app.exception_handler(DeadlinePassed)
    async def deadline_passed(request: Request, error: DeadlinePassed) -> JSONResponse:
        return _respond(request, 504, error_detail("deadline_passed", "the prediction did not begin before its deadline"))

    @app.exception_handler(ClientLeft)
    async def client_left(request: Request, error: ClientLeft) -> Response:
        request.state.reason = "client_left"
        return Response(status_code=CLIENT_LEFT_STATUS)

    @app.exception_handler(HTTPException)
    async def http_error(request: Request, error: HTTPException) -> JSONResponse:
        if error.status_code == 400:  # FastAPI's answer to a body that is not UTF-8
            return _respond(request, 422, [{"type": "unusable", "loc": ["body"], "msg": "not JSON in UTF-8"}])
        detail: Any = error.detail
        details = detail if isinstance(detail, list) else error_detail("refused", detail)
        return _respond(request, error.status_code, details, dict(error.headers or {}))


def _respond(request: Request, status: int, details: list[dict[str, Any]], headers: dict[str, str] | None = None) -> JSONResponse:
    request.state.reason = details[0]["type"]
    return JSONResponse({"detail": details}, status, headers)
