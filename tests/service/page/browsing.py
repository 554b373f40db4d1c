"""What the tests do with the page in a browser, and read from it."""

import base64
import io
import re

import numpy as np
import requests
from PIL import Image
from playwright.sync_api import Page, expect

SECONDS = 300  # that the page may take on a busy machine

expect.set_options(timeout=SECONDS * 1000)


def choose(page: Page, selector: str, option: str) -> None:
    """Choose an option of a dropdown."""
    page.click(f"{selector} input")
    page.get_by_role("option", name=option).first.click()


def fill(page: Page, **options: object) -> None:
    """Fill in text and number fields of the form."""
    for name, value in options.items():
        field = page.locator(f"#option-{name}").locator("input, textarea")
        field.fill(str(value))


def open_form(page: Page) -> None:
    """Open the further options of the form."""
    page.locator("#start-a-job").get_by_role("button", name="More options").click()


def read(page: Page, selector: str, pattern: str) -> str:
    """Return the text of a part of the page as soon as it matches."""
    place = page.locator(selector)
    expect(place).to_contain_text(re.compile(pattern), timeout=SECONDS * 1000)
    return place.inner_text()


def image(page: Page, selector: str) -> np.ndarray:
    """Return the pixels of a picture on the page."""
    source = page.locator(f"{selector} img").first.get_attribute("src")
    assert source is not None
    content = (
        base64.b64decode(source.split(",", 1)[1])
        if source.startswith("data:")
        else requests.get(source, timeout=SECONDS).content
    )
    return np.asarray(Image.open(io.BytesIO(content)))


def draw(page: Page, points: list[tuple[float, float]]) -> None:
    """Draw a line with the mouse; the points are fractions of the canvas."""
    box = page.locator("#sketch canvas").bounding_box()
    assert box is not None
    places = [
        (box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in points
    ]
    page.mouse.move(*places[0])
    page.mouse.down()
    for place in places[1:]:
        page.mouse.move(*place, steps=10)
    page.mouse.up()


def probabilities(page: Page) -> dict[str, int]:
    """Return the percentages by class as soon as the page shows them."""
    lines = read(page, "#probabilities", r"\d%").splitlines()
    words = [line.strip() for line in lines if line.strip()]
    percents = [i for i, word in enumerate(words) if word.endswith("%")]
    return {words[i - 1]: int(words[i].removesuffix("%")) for i in percents}


def choose_job(page: Page, job: int) -> None:
    """Click on a job's row in the table."""
    number = re.compile(rf"^\s*{job}\s*$")
    page.locator("#jobs [role=gridcell]", has_text=number).first.click()
