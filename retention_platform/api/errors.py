"""What clients see when something is wrong: problem details (RFC 9457), never a traceback.

Problem            what a handler raises
├── unknown_video  404
├── bad_parameter  422
├── 422, 404, 405  made from the framework's own errors
└── 503            made from the warehouse's errors, with Retry-After
"""

from __future__ import annotations

from http import HTTPStatus
from typing import Any
from urllib.parse import quote

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from retention_platform.api.models.base import ProblemDetails
from retention_platform.api.warehouse import MartsMissing, WarehouseAway, WarehouseBusy
from retention_platform.errors import RetentionError, ServiceError

MEDIA_TYPE = "application/problem+json"

#: The warehouse's failures: name of the problem, title, seconds after which asking again makes sense.
_UNAVAILABLE: dict[type[ServiceError], tuple[str, str, int]] = {
    WarehouseAway: ("warehouse-away", "The warehouse does not answer", 5),
    WarehouseBusy: ("warehouse-busy", "The warehouse is busy", 5),
    MartsMissing: ("marts-missing", "The marts are not there", 30),
}


_BAD_PARAMETER = "A parameter cannot be used"


class Problem(RetentionError):
    """A request that cannot be answered; ``name`` identifies the kind of problem to programs."""

    def __init__(self, status: int, name: str, title: str, detail: str, **more: Any) -> None:
        super().__init__(detail)
        self.status = status
        self.name = name
        self.title = title
        self.more = more


def unknown_video(video_id: str) -> Problem:
    """The 404 for a video that nobody has described and nobody has watched."""
    return Problem(
        404,
        "unknown-video",
        "No such video",
        f"no video {video_id!r}: neither the catalogue nor any event names it, or the marts have not been refreshed "
        "since; GET /videos lists those there are",
    )


def bad_parameter(field: str, message: str) -> Problem:
    """The 422 for parameters that are right by themselves and cannot be used together."""
    errors = [{"field": field, "message": message}]
    return Problem(422, "bad-parameter", _BAD_PARAMETER, f"{field}: {message}", errors=errors)


def responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The documented problems of a path, for OpenAPI."""
    return {
        status: {
            "description": HTTPStatus(status).phrase,
            "content": {MEDIA_TYPE: {"schema": ProblemDetails.model_json_schema()}},
        }
        for status in statuses
    }


def install(app: FastAPI) -> None:
    """Make every failure of ``app`` a problem."""

    @app.exception_handler(Problem)
    async def _problem(request: Request, error: Problem) -> JSONResponse:
        return problem_response(request, error.status, error.name, error.title, str(error), **error.more)

    @app.exception_handler(RequestValidationError)
    async def _invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        # Only places and messages: the input itself may be anything, also what JSON cannot hold.
        found = [{"field": ".".join(map(str, e["loc"])), "message": str(e["msg"])} for e in error.errors()]
        detail = "; ".join(f"{e['field']}: {e['message']}" for e in found)
        return problem_response(request, 422, "bad-parameter", _BAD_PARAMETER, detail, errors=found)

    @app.exception_handler(HTTPException)
    async def _http(request: Request, error: HTTPException) -> JSONResponse:
        status = HTTPStatus(error.status_code)
        detail = str(error.detail)
        if status == HTTPStatus.NOT_FOUND:
            detail = "there is nothing at this path; GET / lists the paths, /docs describes them"
        name = status.phrase.lower().replace(" ", "-")
        answer = problem_response(request, status, name, status.phrase, detail)
        answer.headers.update(error.headers or {})
        return answer

    async def _unavailable(request: Request, error: Exception) -> JSONResponse:
        name, title, seconds = _UNAVAILABLE[type(error)]  # type: ignore[index]
        answer = problem_response(request, 503, name, title, str(error))
        answer.headers["Retry-After"] = str(seconds)
        return answer

    for kind in _UNAVAILABLE:
        app.add_exception_handler(kind, _unavailable)

    @app.exception_handler(Exception)
    async def _fault(request: Request, error: Exception) -> JSONResponse:
        # The server logs the traceback; the client learns only that the fault is ours.
        detail = "the fault is not in the request; the API's log tells more"
        return problem_response(request, 500, "internal-error", "Internal error", detail)


def problem_response(request: Request, status: int, name: str, title: str, detail: str, **more: Any) -> JSONResponse:
    """An answer that says what is wrong; ``more`` are members of its own kind."""
    content = {
        "type": f"urn:retention:problem:{name}",
        "title": title,
        "status": int(status),
        "detail": detail,
        "instance": _path(request),
        **more,
    }
    return JSONResponse(content, status_code=int(status), media_type=MEDIA_TYPE)


def _path(request: Request) -> str:
    """The path as it was asked for, still percent-encoded."""
    raw: bytes | None = request.scope.get("raw_path")
    return raw.decode("latin-1") if raw else quote(request.url.path)
