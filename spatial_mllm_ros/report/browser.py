"""A page in a headless browser: its screenshot, its complaints, its requests and its time to load.

This module needs Chromium with its driver, and selenium (extra ``browser``).
"""

from __future__ import annotations

import base64
import io
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from spatial_mllm_ros.errors import ConfigurationError, SourceError
from spatial_mllm_ros.storage import whole_file

_BROWSERS = ("chromium", "chromium-browser", "google-chrome")
_ARGUMENTS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars")


@dataclass(frozen=True)
class Screen:
    """The screen on which a page is shown."""

    width_px: int
    height_px: int
    is_phone: bool = False
    is_dark: bool = False


DESKTOP, PHONE = Screen(1280, 900), Screen(390, 844, is_phone=True)


@dataclass(frozen=True)
class Visit:
    """The outcome of opening a page.

    Attributes:
        load_s: from the start of navigation to the end of the load event.
        console: errors and warnings in the browser's console.
        requests: addresses that were requested besides the page, without data URIs.
        overflow_px: by how much the page is wider than the screen.
    """

    load_s: float
    console: tuple[str, ...]
    requests: tuple[str, ...]
    overflow_px: int


class Browser:
    """An open browser; see ``open_browser``."""

    def __init__(self, driver: Any) -> None:
        self._driver = driver

    def visit(self, page: Path, screen: Screen = DESKTOP) -> Visit:
        """Opens ``page`` on ``screen``."""
        driver = self._driver
        metrics = {"width": screen.width_px, "height": screen.height_px, "mobile": screen.is_phone}
        driver.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride", metrics | {"deviceScaleFactor": 2 if screen.is_phone else 1}
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if screen.is_dark else "light"}
        driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
        for log in ("browser", "performance"):
            driver.get_log(log)  # drops the entries of earlier pages
        address = page.resolve().as_uri()
        driver.get(address)
        load_ms = self.run("return performance.getEntriesByType('navigation')[0].loadEventEnd")
        overflow = self.run("return document.documentElement.scrollWidth - window.innerWidth")
        events = [json.loads(entry["message"])["message"] for entry in driver.get_log("performance")]
        asked = [e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"]
        return Visit(
            load_s=load_ms / 1000,
            console=tuple(entry["message"] for entry in driver.get_log("browser")),
            requests=tuple(url for url in asked if url != address and not url.startswith("data:")),
            overflow_px=int(overflow),
        )

    def run(self, script: str) -> Any:
        """The value of a script run in the page."""
        return self._driver.execute_script(script)

    def screenshot(self, path: Path, *, height_px: int) -> None:
        """Writes the top of the page as PNG with 256 colours, at most ``height_px`` of it.

        Raises:
            OSError: the file cannot be written.
        """
        # Rows out of view are only drawn when they are scrolled to, and a screenshot does not scroll.
        style = "<style>details{content-visibility:visible!important}</style>"
        self.run(f"document.head.insertAdjacentHTML('beforeend', '{style}')")
        width, height = self.run("return [window.innerWidth, document.documentElement.scrollHeight]")
        clip = {"x": 0, "y": 0, "width": width, "height": min(height, height_px), "scale": 1}
        shot = self._driver.execute_cdp_cmd("Page.captureScreenshot", {"captureBeyondViewport": True, "clip": clip})
        picture = Image.open(io.BytesIO(base64.b64decode(shot["data"]))).convert("RGB")
        with whole_file(path) as part:
            # All colours would make the file three times as large.
            picture.quantize(256, dither=Image.Dither.NONE).save(part, format="png", optimize=True)


def write_screenshot(page: Path, path: Path, *, height_px: int = 2450) -> None:
    """Writes a report page as PNG, as a desktop shows it with the first question opened, at most ``height_px`` of it.

    Raises:
        ConfigurationError: see ``open_browser``.
        SourceError: the file cannot be written.
    """
    with open_browser() as browser:
        browser.visit(page)
        browser.run("document.querySelector('#questions > details')?.setAttribute('open', '')")
        try:
            browser.screenshot(path, height_px=height_px)
        except OSError as error:
            raise SourceError(f"The screenshot cannot be written to {path}: {error.strerror}.") from error


@contextmanager
def open_browser() -> Iterator[Browser]:
    """Opens a headless Chromium, and closes it on leaving.

    Raises:
        ConfigurationError: selenium, the browser or its driver is not installed; the message says which.
    """
    try:
        from selenium import webdriver
        from selenium.webdriver.chrome.options import Options
        from selenium.webdriver.chrome.service import Service
    except ImportError as error:
        raise ConfigurationError(
            "selenium is not installed; install it with: pip install 'spatial-mllm-ros[browser]'"
        ) from error
    binary = next((found for name in _BROWSERS if (found := shutil.which(name))), None)
    driver_binary = shutil.which("chromedriver")
    if binary is None or driver_binary is None:
        missing = "Chromium" if binary is None else "chromedriver"
        raise ConfigurationError(
            f"{missing} is not installed; on Debian and Ubuntu: apt-get install chromium chromium-driver"
        )
    options = Options()
    options.binary_location = binary
    for argument in _ARGUMENTS:
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(driver_binary))
    try:
        yield Browser(driver)
    finally:
        driver.quit()
