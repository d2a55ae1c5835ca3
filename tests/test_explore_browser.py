"""The explorer in a browser: what a person does, and what she sees. Needs Chromium, and the extra [browser]."""

import io
import json
import shutil
import zipfile

import numpy as np
import pytest
from PIL import Image

import dd_jax
from dd_jax.scripts.clicks import NAMES, QUIET

pytest.importorskip("gradio")
browser = pytest.importorskip("playwright.sync_api")
CHROMIUM = next(filter(None, map(shutil.which, NAMES)), None)
pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium")]
WAIT = 180_000  # ms: programs are compiled


@pytest.fixture(scope="module")
def address(tiny_run):
    from dd_jax.explore import page

    made = page.build(dd_jax.load(tiny_run[0]), "tiny", str(tiny_run[0]))
    yield page.launch(made, "127.0.0.1")
    made.close()


@pytest.fixture(scope="module")
def chromium():
    with browser.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        yield started
        started.close()


@pytest.fixture
def page(chromium, address):
    """Open, with every column drawn. Nothing but the server itself was asked, and the browser kept no picture.

    gradio 6.24 to 6.31 (routes.py, launch) would keep the last hundred events there, which tripled the time of a click.
    """
    opened = chromium.new_page(viewport={"width": 1200, "height": 1000}, accept_downloads=True)
    asked = []
    opened.on("request", lambda request: asked.append(request.url))
    opened.goto(address)
    opened.wait_for_function("document.querySelectorAll('#grid td img').length == 16", timeout=WAIT)
    yield opened
    kept = opened.evaluate("JSON.stringify(localStorage)")
    opened.close()
    assert "data:image" not in kept
    assert not [url for url in asked if not url.startswith((address, "data:", "blob:"))]


def pictures(page, place="#grid"):
    return page.eval_on_selector_all(f"{place} td img", "found => found.map(one => one.src)")


def changed(page, before, place="#grid"):
    """Wait until these pictures are others."""
    page.wait_for_function(
        "([place, before]) => { const now = [...document.querySelectorAll(place + ' td img')].map(one => one.src);"
        "return now.length && JSON.stringify(now) != JSON.stringify(before) }",
        arg=[place, before],
        timeout=WAIT,
    )


def column(sources, i, columns=4):
    return sources[i::columns]


def slide(page, label, value):
    box = page.get_by_label(f"number input for {label}")
    box.fill(value)
    box.press("Enter")


def downloaded(page, button):
    with page.expect_download(timeout=WAIT) as found:
        page.click(button)
    return zipfile.ZipFile(io.BytesIO(found.value.path().read_bytes()))


def test_rows_share_their_noise_and_a_slider_redraws_the_teacher_alone(page, address):
    before = pictures(page)
    assert "16 passes" in page.inner_text("#grid")
    assert " ms" in page.inner_text("#grid")
    slide(page, "Temperature (T, J)", "0.3")
    changed(page, before)
    page.wait_for_timeout(1000)
    after = pictures(page)
    assert column(after, 0) == column(before, 0)
    assert column(after, 3) != column(before, 3)


def test_another_seed_and_a_download_that_draws_it_again(page, tiny_run):
    before = pictures(page)
    page.click("#again")
    changed(page, before)
    page.wait_for_timeout(1000)
    with downloaded(page, "#download-drawn") as file:
        called = [name for name in file.namelist() if name.endswith("sample.json")]
        assert len(called) == 4
        pipe = dd_jax.load(tiny_run[0])
        for name in called:
            given = json.loads(file.read(name))
            assert given["seed"] == 1
            drawn = pipe.sample(**given)
            folder = name.rpartition("/")[0]
            for i, image in enumerate(drawn):
                shown = np.asarray(Image.open(io.BytesIO(file.read(f"{folder}/{i:02d}.png"))))
                assert np.array_equal(shown, image[..., 0]), name


def test_a_plan_of_ones_own_is_checked_while_it_is_typed(page):
    field = page.get_by_label("A plan of your own")
    field.fill("S0 S3")
    page.wait_for_function("document.querySelector('#verdict').innerText.includes('trained for')", timeout=WAIT)
    field.fill("S0 J2")
    page.wait_for_function("document.querySelector('#verdict').innerText.includes('3 passes')", timeout=WAIT)
    field.press("Enter")
    page.wait_for_function("document.querySelectorAll('#grid td img').length == 20", timeout=WAIT)


def test_locked_tokens_keep_their_noise(page, tiny_run):
    before = pictures(page)
    page.get_by_text("Lock noise, token by token").click()
    page.wait_for_selector("#board rect", timeout=WAIT)
    for i, token in enumerate((3, 6)):
        page.locator(f"#board rect[data-token='{token}']").click()
        page.wait_for_function(
            "n => document.querySelectorAll('#board rect.held').length == n", arg=i + 1, timeout=WAIT
        )
    page.click("#again")
    changed(page, before)
    page.wait_for_timeout(1000)
    with downloaded(page, "#download-drawn") as file:
        noise = np.float32(json.loads(file.read("0_S0/sample.json"))["noise"])
    old, new = (np.array(dd_jax.load(tiny_run[0]).noise(4, seed)) for seed in (0, 1))
    new[:, [3, 6]] = old[:, [3, 6]]
    assert np.array_equal(noise, new)


def test_a_walk_is_played_and_can_be_taken_along(page):
    page.get_by_role("tab", name="Walk").click()
    page.click("#walk")
    page.wait_for_selector("#walked img.film", timeout=WAIT)
    assert page.locator("#walked .dd-strip img").count() == 12
    with downloaded(page, "#download-walk") as file:
        assert len([name for name in file.namelist() if name.endswith(".png")]) == 12


def test_a_picture_is_brought_inverted_and_repainted_with_a_brush(page, tmp_path):
    Image.fromarray(np.full((40, 40, 3), 200, np.uint8)).save(tmp_path / "mine.png")
    page.get_by_role("tab", name="A picture of yours").click()
    page.click("#paint")
    page.get_by_text("there is no picture yet").wait_for(timeout=WAIT)
    with page.expect_file_chooser() as chooser:
        page.click("#bring")
    chooser.value.set_files(tmp_path / "mine.png")
    page.wait_for_selector("#edited td img", timeout=WAIT)
    page.click("#invert")
    page.wait_for_function("document.querySelectorAll('#edited td img').length >= 20", timeout=WAIT)
    page.click("#paint")
    page.get_by_text("nothing is painted over").wait_for(timeout=WAIT)
    drawing = page.locator("#canvas canvas").first
    drawing.scroll_into_view_if_needed()
    box = drawing.bounding_box()
    page.mouse.move(box["x"] + box["width"] * 0.3, box["y"] + box["height"] * 0.3)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.7, box["y"] + box["height"] * 0.5, steps=8)
    page.mouse.up()
    page.wait_for_timeout(1000)
    before = pictures(page, "#edited")
    page.click("#paint")
    changed(page, before, "#edited")
    with downloaded(page, "#download-picture") as file:
        assert any(name.endswith("edit.json") for name in file.namelist())


def test_a_file_that_is_no_picture_gets_one_line(page, tmp_path):
    (tmp_path / "mine.png").write_text("no picture")
    page.get_by_role("tab", name="A picture of yours").click()
    with page.expect_file_chooser() as chooser:
        page.click("#bring")
    chooser.value.set_files(tmp_path / "mine.png")
    page.get_by_text("mine.png is no picture that is read here").wait_for(timeout=WAIT)


@pytest.mark.parametrize("width", [420, 1280])
def test_nothing_is_wider_than_the_screen(page, width):
    page.set_viewport_size({"width": width, "height": 900})
    for tab in ("Draw", "Walk", "A picture of yours"):
        page.get_by_role("tab", name=tab).click()
        page.wait_for_timeout(300)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
