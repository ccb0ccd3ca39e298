"""Own how an upload's route is called: documented by FastAPI as any other, and answered without its detours."""

from __future__ import annotations

from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic import BaseModel, ValidationError
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match, Route
from starlette.types import Receive, Scope, Send

from service.api.schemas import PredictionQuery
from service.errors import InvalidParameterError

NOTHING_ASKED = PredictionQuery()
MAX_PARAMETERS = 32


class UploadRoute(APIRoute):
    """A route whose endpoint takes (request, query) and returns a model of the answer.

    FastAPI would find out anew at each request how the endpoint takes its parameters, and look for each of them
    (``docs/performance.md``).
    """

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Say whether this route takes the request, by its path and method."""
        return Route.matches(self, scope)

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["method"] != "POST":
            await Route.handle(self, scope, receive, send)
            return
        request = Request(scope, receive)
        answer: BaseModel = await self.endpoint(request, _read_query(request))
        body = answer.__pydantic_serializer__.to_json(answer, exclude_none=True)
        await Response(body, media_type="application/json")(scope, receive, send)


def _read_query(request: Request) -> PredictionQuery:
    if not request.scope["query_string"]:
        return NOTHING_ASKED
    given = request.query_params
    if len(given.multi_items()) > MAX_PARAMETERS:
        raise InvalidParameterError(
            f"{len(given.multi_items())} parameters are given; send at most {MAX_PARAMETERS}"
        )
    for name in given:
        if len(given.getlist(name)) > 1:
            raise InvalidParameterError(
                f"{name[:40]} is given {len(given.getlist(name))} times; send it once"
            )
    try:
        return PredictionQuery.model_validate(dict(given))
    except ValidationError as error:
        raise RequestValidationError(error.errors()) from error
