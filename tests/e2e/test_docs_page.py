"""The page to try the API out, in a real browser."""

from pathlib import Path

from moodline.services.api.server import ApiServer
from tests.support.api import ApiWorld
from tests.support.browser import open_browser, visit


def test_swagger_ui_shows_every_route_and_asks_nobody_else(tmp_path: Path) -> None:
    with (
        ApiWorld(tmp_path) as world,
        ApiServer(world.app, "127.0.0.1", 0) as server,
        open_browser() as browser,
        visit(browser) as visitor,
    ):
        visitor.page.goto(f"{server.url}/docs")
        visitor.page.wait_for_selector(".opblock", timeout=60_000)
        routes = sum(len(verbs) for verbs in world.app.openapi()["paths"].values())
        assert visitor.page.locator(".opblock").count() == routes
        assert visitor.foreign() == []
        assert visitor.complaints == []
