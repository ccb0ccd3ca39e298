"""``GET /`` and ``GET /docs``: two HTML pages and the files that they load."""

from __future__ import annotations

from collections.abc import Set
from pathlib import Path
from string import Template

from fastapi import APIRouter, Request
from starlette.exceptions import HTTPException
from starlette.responses import HTMLResponse, Response
from starlette.staticfiles import StaticFiles

FOLDER = Path(__file__).parent
# Swagger UI's package also holds Python files.
DOCS_FILES = {"favicon-32x32.png", "start.js", "swagger-ui-bundle.js", "swagger-ui.css"}


def page_router() -> APIRouter:
    """Return the routes of the page at ``/``."""
    folder = FOLDER / "files"
    names = {path.name for path in folder.iterdir()}
    return _router("/", "/page", FOLDER / "page.html", StaticFiles(directory=folder), names)


def docs_router() -> APIRouter:
    """Return the routes of ``/docs``: Swagger UI, from a package that carries its files."""
    files = StaticFiles(
        directory=FOLDER / "documentation", packages=[("fastapi_swagger", "resources")]
    )
    return _router("/docs", "/docs", FOLDER / "docs.html", files, DOCS_FILES)


def _router(
    path: str, files_path: str, page: Path, files: StaticFiles, names: Set[str]
) -> APIRouter:
    template = Template(page.read_text(encoding="utf-8"))
    router = APIRouter(include_in_schema=False)

    @router.head(path)
    @router.get(path)
    async def show_page(request: Request) -> HTMLResponse:
        # Without a root path the URLs are relative: they also work below a path that only the
        # proxy knows.
        root_path = request.scope.get("root_path", "")
        base = f"{root_path}/" if root_path else ""
        return HTMLResponse(template.substitute(base=base), headers={"Cache-Control": "no-cache"})

    @router.head(files_path + "/{name}")
    @router.get(files_path + "/{name}")
    async def send_file(request: Request, name: str) -> Response:
        if name not in names:
            raise HTTPException(404)
        response = await files.get_response(name, request.scope)
        response.headers["Cache-Control"] = "no-cache"  # a new version's page needs its own script
        return response

    return router
