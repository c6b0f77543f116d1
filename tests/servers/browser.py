"""A headless Chromium for the pages that people see; it reaches this machine and nothing else.

Playwright's blocking interface holds an event loop for as long as it is started: nothing that calls
`asyncio.run` works in the same thread meanwhile. So a browser is opened for a module or a test, and
not for a session.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from playwright.sync_api import Browser, ConsoleMessage, Page, Request, Route, sync_playwright

NAMES = ("chromium", "chromium-browser", "google-chrome-stable", "google-chrome")
FLAGS = (
    "--no-sandbox",  # it runs as root in a container
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
)
OWN_SCHEMES = ("data", "blob")


@dataclass
class Visit:
    """A page that was opened, and what it did.

    Attributes:
        page: Playwright's page.
        errors: Console errors and uncaught exceptions so far.
        refused: Requests to elsewhere than the page's own origin so far; none was let through.
    """

    page: Page
    errors: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)


def find_chromium() -> str | None:
    """Return the path of the system's Chromium, None where there is none."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


@contextmanager
def chromium() -> Iterator[Browser]:
    """Start the system's Chromium, without a window, and stop it at the end.

    Raises:
        FileNotFoundError: There is none.
    """
    path = find_chromium()
    if path is None:
        raise FileNotFoundError(f"none of {', '.join(NAMES)} is installed")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=list(FLAGS))
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def visit(
    browser: Browser, url: str, *, width: int = 1400, height: int = 900, scheme: str = "light",
    login: tuple[str, str] | None = None,
) -> Iterator[Visit]:  # fmt: skip
    """Open a page in a context of its own, and watch what it asks for.

    Args:
        browser: From `chromium`.
        url: `file:` or `http:`; a request to its origin, or for that one file, is let through, any
            other is refused.
        width: Of the window, in CSS pixels.
        height: Of the window, in CSS pixels.
        scheme: `light` or `dark`.
        login: User and password of HTTP authentication.
    """
    context = browser.new_context(
        viewport={"width": width, "height": height},
        color_scheme=scheme,  # type: ignore[arg-type]
        http_credentials={"username": login[0], "password": login[1]} if login else None,
    )
    seen = Visit(context.new_page())
    context.route("**/*", lambda route, request: _guard(seen, url, route, request))
    seen.page.on("console", lambda message: _note(seen, message))
    seen.page.on("pageerror", lambda error: seen.errors.append(str(error)))
    try:
        seen.page.goto(url)
        yield seen
    finally:
        context.close()


def _guard(seen: Visit, url: str, route: Route, request: Request) -> None:
    asked, own = urlsplit(request.url), urlsplit(url)
    is_own = asked[:2] == own[:2] and (own.scheme != "file" or asked.path == own.path)
    if asked.scheme in OWN_SCHEMES or is_own:
        route.continue_()
    else:
        seen.refused.append(request.url)
        route.abort()


def _note(seen: Visit, message: ConsoleMessage) -> None:
    if message.type == "error":
        seen.errors.append(message.text)
