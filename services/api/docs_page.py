"""The description of the API to try out: Swagger UI, from files of the service itself; nothing is loaded from elsewhere."""

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from fastapi import APIRouter, Request
from starlette.exceptions import HTTPException
from starlette.responses import FileResponse, HTMLResponse, JSONResponse, Response

router = APIRouter(include_in_schema=False)

_KEPT_S: Final = 86_400
_HEADERS: Final = {
    "cache-control": "no-cache",
    "content-security-policy": "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "frame-ancestors 'none'",
}
"""Swagger UI writes style attributes and has pictures in its style sheet; scripts come from files only."""
_PAGE: Final = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Moodline API</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="docs/swagger-ui.css">
</head>
<body>
<div id="api"></div>
<script src="docs/swagger-ui-bundle.js"></script>
<script src="docs/start.js"></script>
</body>
</html>
"""
_START: Final = """SwaggerUIBundle({
  url: "openapi.json",
  dom_id: "#api",
  deepLinking: true,
  presets: [SwaggerUIBundle.presets.apis, SwaggerUIBundle.SwaggerUIStandalonePreset],
  layout: "BaseLayout",
  persistAuthorization: false,
  validatorUrl: null,
});
"""
_FILES: Final[Mapping[str, str]] = {"swagger-ui.css": "text/css", "swagger-ui-bundle.js": "text/javascript"}


@router.get("/openapi.json")
def description(request: Request) -> Response:
    """Return the description of the API for machines (OpenAPI 3.1): made once, beside the event loop: that takes 0.5 s."""
    state = request.app.state
    if not hasattr(state, "description"):
        state.description = JSONResponse(request.app.openapi()).body
    return Response(state.description, media_type="application/json")


@router.get("/docs")
async def docs_page() -> Response:
    """Return the page."""
    return HTMLResponse(_PAGE, headers=_HEADERS)


@router.get("/docs/start.js")
async def docs_start() -> Response:
    """Return the script that starts Swagger UI on this API's own description."""
    return Response(_START, media_type="text/javascript", headers=_HEADERS)


@router.get("/docs/{name}")
async def docs_file(name: str) -> Response:
    """Return one of Swagger UI's two files, as the package `fastapi-offline` brings them."""
    folder = _folder()
    if name not in _FILES or folder is None:
        raise HTTPException(404)
    headers = {"cache-control": f"public, max-age={_KEPT_S}"}
    return FileResponse(folder / name, media_type=_FILES[name], headers=headers)


def _folder() -> Path | None:
    """Return where the files are, without importing the package that has them."""
    found = find_spec("fastapi_offline")
    return None if found is None or found.origin is None else Path(found.origin).parent / "static"
