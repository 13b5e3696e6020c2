"""A headless Chromium that reaches nothing but 127.0.0.1, for the tests of pages."""

import json
from pathlib import Path

import pytest

BROWSER, DRIVER = Path("/usr/bin/chromium"), Path("/usr/bin/chromedriver")
BROWSER_FLAGS = (
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    *("--disable-dev-shm-usage", "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"),
)
SECONDS = 30  # for the page to answer; usually a tenth of a second
BETWEEN = 0.1  # seconds between two looks at the page

needs_browser = pytest.mark.skipif(
    not (BROWSER.exists() and DRIVER.exists()),
    reason="no browser: apt-get install chromium chromium-driver",
)


class Browser:
    """A page in a browser whose profile and downloads are kept in a folder."""

    def __init__(self, url, folder):
        from selenium import webdriver
        from selenium.common.exceptions import StaleElementReferenceException
        from selenium.webdriver.support.ui import WebDriverWait

        options = webdriver.ChromeOptions()
        options.binary_location = str(BROWSER)
        for word in (*BROWSER_FLAGS, f"--user-data-dir={folder / 'profile'}"):
            options.add_argument(word)
        options.add_experimental_option(
            "prefs", {"download.default_directory": str(folder / "downloads")}
        )
        options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
        service = webdriver.ChromeService(str(DRIVER))
        self.driver = webdriver.Chrome(options=options, service=service)
        # The page may replace an element while it is looked at.
        replaced = [StaleElementReferenceException]
        self.wait = WebDriverWait(self.driver, SECONDS, BETWEEN, replaced)
        try:
            self.driver.get(url)
        except Exception:
            self.driver.quit()
            raise

    def element(self, selector, text=None):
        """Return the element, visible or not, once it is there (with a text)."""

        def first(driver):
            elements = driver.find_elements("css selector", selector)
            return next((e for e in elements if text is None or text in e.text), None)

        return self.wait.until(first, f"no {selector} with {text}")

    def texts(self, selector):
        """Return the text of each element."""
        return [element.text for element in self.driver.find_elements("css selector", selector)]

    def requests(self):
        """Return the addresses that were asked for over a network."""
        messages = [json.loads(e["message"])["message"] for e in self.driver.get_log("performance")]
        urls = {
            message["params"]["request"]["url"]
            for message in messages
            if message["method"] == "Network.requestWillBeSent"
        }
        return {url for url in urls if url.startswith(("http", "ws"))}

    def errors(self):
        """Return the messages of the console that are errors."""
        return [entry for entry in self.driver.get_log("browser") if entry["level"] == "SEVERE"]
