"""Chromium without a window, as a person would use it: open a page, read it, click, take a picture."""

import io
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from selenium import webdriver
from selenium.common.exceptions import StaleElementReferenceException, TimeoutException
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import WebDriverWait

SIZE = (1400, 900)
SECONDS = 60.0
"""For whatever is waited for; a quiet machine takes two."""

FAILURES = ("Something went wrong", "Something's gone wrong", "Page not found", "Internal Server Error", "Failed to fetch")
"""What MLflow's and Prefect's pages say when they break."""

CHOICES = """
localStorage.setItem("mlflow.workflowType_v1", '"machine_learning"');
localStorage.setItem("mlflow.assistant.fab.autoOpenedOnFirstLoad_v1", "true");
"""
"""What a person has chosen before in MLflow: the pages for training, and no assistant in front of them."""


class Browser:
    """One window."""

    def __init__(self) -> None:
        programs = shutil.which("chromium"), shutil.which("chromedriver")
        if None in programs:
            pytest.skip("chromium is not installed: apt-get install chromium chromium-driver")
        options = Options()
        options.binary_location = programs[0]
        # It sees this machine alone. Its sandbox needs what a container does not give; the pages are our own.
        resolve = "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"
        for word in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--no-proxy-server", "--hide-scrollbars", resolve):
            options.add_argument(word)
        self.driver = webdriver.Chrome(options, Service(programs[1]))
        self._prepare()

    def open(self, address: str, *words: str) -> None:
        """Open a page and read the words on it."""
        self.driver.get("about:blank")  # an address that differs after its # alone would not be loaded anew
        self.driver.get(address)
        self.reads(*words)

    def reads(self, *words: str) -> None:
        """Wait until all of the words are to be seen, and no failure."""
        self.until(lambda: all(word in self.text for word in words), f"{words} in")
        assert [failure for failure in FAILURES if failure in self.text] == []

    @property
    def text(self) -> str:
        """What is to be seen."""
        return self.driver.find_element(By.TAG_NAME, "body").text

    def count(self, selector: str, least: int) -> None:
        """Wait until at least so many elements are to be seen."""
        self.until(lambda: len(self._shown(By.CSS_SELECTOR, selector)) >= least, f"{least} of {selector} in")

    def click(self, by: str, what: str) -> None:
        """Click the first such element once it is there; a tab that opens takes this one's place."""
        before = len(self.driver.window_handles)
        self.until(lambda: self._clicked(by, what), f"a click on {what} in")
        if len(self.driver.window_handles) > before:
            self.driver.close()
            self.driver.switch_to.window(self.driver.window_handles[-1])
            self._prepare()

    def paste(self, selector: str, words: str) -> None:
        """Paste into a field: letter by letter, a page that filters as one types would draw itself as often."""
        self.click(By.CSS_SELECTOR, selector)
        self.driver.execute_cdp_cmd("Input.insertText", {"text": words})

    def picture(self, file: Path) -> None:
        """What is to be seen, as a PNG of 256 colours, once nothing is loading."""
        self.until(
            lambda: not self._shown(By.CSS_SELECTOR, "[class*=skeleton i], [class*=spinner i], [aria-busy=true]"), "an end of loading in"
        )
        # The buttons that lie over a chart belong to the pointer, and here is none.
        self.driver.execute_script("document.head.insertAdjacentHTML('beforeend', '<style>.modebar { display: none }</style>')")
        image = Image.open(io.BytesIO(self.driver.get_screenshot_as_png())).convert("RGB")
        assert image.size == SIZE and len(image.getcolors(SIZE[0] * SIZE[1]) or []) > 50, "a page, not a blank"
        file.parent.mkdir(parents=True, exist_ok=True)
        image.quantize(256, dither=Image.Dither.NONE).save(file, optimize=True)

    def _prepare(self) -> None:
        """Size and choices, which each tab has for itself."""
        self.driver.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": CHOICES})
        shape = {"width": SIZE[0], "height": SIZE[1], "deviceScaleFactor": 1, "mobile": False}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", shape)

    def _shown(self, by: str, what: str) -> list[WebElement]:
        return [element for element in self.driver.find_elements(by, what) if element.is_displayed()]

    def _clicked(self, by: str, what: str) -> bool:
        for element in self._shown(by, what)[:1]:
            self.driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", element)
            element.click()
            return True
        return False

    def until(self, condition: Callable[[], Any], sought: str) -> None:
        """Wait until the condition holds; the test fails with what was sought, where, and what is to be seen there."""
        wait = WebDriverWait(self.driver, SECONDS, 0.2, ignored_exceptions=[StaleElementReferenceException])
        try:
            wait.until(lambda _: condition())
        except TimeoutException:
            pytest.fail(f"waited in vain for {sought} {self.driver.current_url}:\n{self.text}")
