"""The page in a real browser, by a file's URL."""

import shutil

import pytest

from mutual_guidance.visualization.report import read_run, render_report

from .conftest import write_run

PHONE_WIDTH = 390  # pixels
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


@pytest.fixture
def browser(tmp_path):
    """Headless Chromium; the test is skipped where it, its driver or selenium is absent."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not chromium or not driver:
        pytest.skip("Chromium or its driver is absent (Debian: chromium, chromium-driver)")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in (*FLAGS, f"--user-data-dir={tmp_path / 'profile'}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    chrome = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    yield chrome
    chrome.quit()


@pytest.fixture
def page(browser, tmp_path):
    """The browser with the report of two runs open in it."""
    folders = [write_run(tmp_path / s, s) for s in ("static", "mutual_guidance")]
    runs = [read_run(folder, folder.name) for folder in folders]
    path = tmp_path / "report.html"
    path.write_text(render_report(runs))
    browser.get(path.as_uri())
    return browser


def visible(page, selector):
    return [e for e in page.find_elements("css selector", selector) if e.is_displayed()]


def test_tabs_slider_and_phone(page):
    assert page.title == "Report: static, mutual_guidance"  # the class <script> did nothing
    buttons = page.find_elements("css selector", "nav button")
    assert [b.text for b in buttons][:2] == ["Results", "Detections"] and len(buttons) == 6
    size = {"height": 800, "deviceScaleFactor": 1}
    for width, mobile in ((1280, False), (PHONE_WIDTH, True)):
        metrics = {**size, "width": width, "mobile": mobile}
        page.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        for button in buttons:
            button.click()
            (section,) = visible(page, "section")
            assert section.get_attribute("id") == button.text.lower()
            assert button.get_attribute("aria-selected") == "true"
            assert page.execute_script("return document.documentElement.scrollWidth") <= width
            pictures = visible(page, "section img")
            assert all(page.execute_script("return arguments[0].naturalWidth", p) for p in pictures)
            assert pictures or button.text == "Configuration"

    buttons[4].click()
    for value, iteration in (("0", "0"), ("1", "50"), ("2", "100")):
        page.execute_script(
            "const s = document.querySelector('input[type=range]'); s.value = arguments[0];"
            "s.dispatchEvent(new Event('input'))",
            value,
        )
        assert page.find_element("css selector", "output").text == iteration
        frames = visible(page, "figure[data-iteration]")  # one of each run
        assert [f.get_attribute("data-iteration") for f in frames] == [iteration] * 2
        assert f"only static {int(iteration) + 7}" in frames[0].text
    assert page.get_log("browser") == []
