"""The page of the service in a real browser."""

import re

import numpy as np
import pytest
from playwright.sync_api import expect

import served

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def folder(made_once):
    return made_once(served.make_run, served.make_model)


@pytest.fixture(scope="module")
def server(folder):
    with served.serving(folder / served.MODEL, folder=folder) as running:
        yield running


def image(tint=0, *, side=48):
    pixels = np.random.default_rng(tint).integers(0, 120, (side, side, 3), dtype=np.uint8)
    pixels[..., tint % 3] += 60
    return served.encoded(pixels)


@pytest.fixture(params=[("light", 1280), ("dark", 390)], ids=["light-wide", "dark-narrow"])
def page(request, browser, server):
    """The page, whose every complaint and outside request is a failure."""
    scheme, width = request.param
    opened = browser.new_page(color_scheme=scheme, viewport={"width": width, "height": 900})
    complaints, outside = [], []
    opened.on("console", lambda message: complaints.append(message.text))
    opened.on("pageerror", lambda error: complaints.append(str(error)))
    opened.on(
        "request",
        lambda asked: (
            None
            if asked.url.startswith((server.address, "data:", "blob:"))
            else outside.append(asked.url)
        ),
    )
    opened.goto(server.address)
    opened.wait_for_selector("#samples button")
    yield opened
    assert outside == []
    refused = "the server responded with a status of 4"  # What a test provokes.
    assert [text for text in complaints if refused not in text] == []
    assert opened.evaluate("document.documentElement.scrollWidth") <= width
    opened.close()


def upload(page, *contents, names=None):
    names = names or [f"{number}.png" for number in range(len(contents))]
    files = [
        {"name": name, "mimeType": "image/png", "buffer": content}
        for name, content in zip(names, contents, strict=True)
    ]
    page.set_input_files("#files", files)


def test_it_says_what_the_model_knows(page):
    about = page.inner_text("#about").replace("\u00a0", " ")
    assert "red, green, blue, grey" in about
    assert re.search(
        r"on 128 test images.* is [\d.]+ % \(95 % interval [\d.]+ % to [\d.]+ %\)", about
    )
    assert page.locator("#samples img").count() == 4


def test_it_says_with_how_many_views_its_accuracy_was_measured(page):
    assert "views" not in page.inner_text("#about")
    for kind, said in (("six", ", with up to six views of each."), ("one", ", where it takes one")):
        page.evaluate(
            """async kind => {
                const found = {...model, measured_views: "six", views: {kind, below: 1}};
                known = async () => found;
                await begin();
            }""",
            kind,
        )
        assert said in page.inner_text("#about")


def test_an_image_that_is_picked(page):
    upload(page, image())
    page.wait_for_selector("#one:not([hidden])")
    verdict, remark = page.inner_text("#verdict"), page.inner_text("#remark")
    best = page.locator(".class span").first.inner_text()
    if verdict == "Not sure":  # Of noise the model is likelier wrong than right.
        assert remark.startswith(f"Perhaps {best}, ")
    else:
        assert verdict == best
        assert remark.endswith(" sure.")
    assert best in ("red", "green", "blue", "grey")
    assert page.locator(".class").count() == 4
    assert page.locator("#map").is_visible()
    assert page.evaluate("document.getElementById('seen').naturalWidth") == 16
    expect(page.locator("#where")).to_have_attribute("width", "224")


def test_a_sample_by_the_keyboard_alone(page):
    page.focus("#samples button")
    page.keyboard.press("Enter")
    page.wait_for_selector("#one:not([hidden])")
    assert page.inner_text("#verdict")


@pytest.mark.parametrize("how", ["drop", "paste"])
def test_an_image_that_is_dropped_or_pasted(page, how):
    page.evaluate(
        """async ([bytes, how]) => {
            const file = new File([new Uint8Array(bytes)], "p.png", {type: "image/png"});
            const carried = new DataTransfer();
            carried.items.add(file);
            const event = how === "drop"
                ? new DragEvent("drop", {dataTransfer: carried, bubbles: true, cancelable: true})
                : new ClipboardEvent("paste", {clipboardData: carried, bubbles: true});
            document.getElementById("drop").dispatchEvent(event);
        }""",
        [list(image(1)), how],
    )
    page.wait_for_selector("#one:not([hidden])")
    assert page.inner_text("#verdict")


def test_several_give_a_table_and_a_csv(page, tmp_path):
    contents = [*(image(number) for number in range(12)), b"nothing"]
    names = [*(f"{number}.png" for number in range(12)), "=broken<b>.png"]
    upload(page, *contents, names=names)
    expect(page.locator("#status")).to_have_text("13 of 13 done", timeout=30_000)
    rows = page.locator("#rows tr")
    assert rows.count() == 13
    assert "=broken<b>.png" in rows.nth(12).inner_text()
    assert "no image" in rows.nth(12).locator(".error").inner_text()
    with page.expect_download() as found:
        page.click("#csv")
    found.value.save_as(tmp_path / "found.csv")
    lines = (tmp_path / "found.csv").read_text().splitlines()
    assert lines[0] == "image,label,confidence,unsure,error"
    assert len(lines) == 14
    assert lines[-1].startswith('"\'=broken<b>.png"')


def test_what_is_no_image_is_said(page):
    upload(page, b"nothing")
    page.wait_for_selector("#status.error")
    assert "no image" in page.inner_text("#status")
    assert not page.locator("#one").is_visible()


def test_a_key_is_asked_for_and_kept_for_the_session(folder, browser):
    model = folder / served.MODEL
    (folder / "key").write_text("correct horse battery staple\n")
    extra = ["--host", "0.0.0.0", "--allow-remote", "--key-file", "key"]
    with served.serving(model, *extra, folder=folder) as running:
        opened = browser.new_page()
        opened.goto(f"http://127.0.0.1:{running.port}/")
        opened.wait_for_selector("#lock:not([hidden])")
        opened.fill("#key", "wrong horse battery staple")
        opened.press("#key", "Enter")
        opened.wait_for_selector("#status.error")
        opened.fill("#key", "correct horse battery staple")
        opened.press("#key", "Enter")
        opened.wait_for_selector("#samples button", state="attached")
        assert not opened.locator("#lock").is_visible()
        upload(opened, image())
        opened.wait_for_selector("#one:not([hidden])")
        opened.reload()
        expect(opened.locator("#about")).to_contain_text("knows")
        opened.close()


def test_classes_whose_names_are_numbers_keep_their_order(page):
    page.evaluate(
        """() => show("data:,", {label: "7", confidence: 0.6, unsure: true, seen: "data:,",
            probabilities: {"7": 0.6, "0": 0.3, "3": 0.1}})"""
    )
    assert page.locator(".class").all_inner_texts()[0].startswith("7")
    assert page.inner_text("#verdict") == "Not sure"
    assert "Perhaps 7" in page.inner_text("#remark")


def test_a_server_that_has_gone_is_said(folder, browser):
    model = folder / served.MODEL
    with served.serving(model, folder=folder) as running:
        opened = browser.new_page()
        opened.goto(running.address)
        opened.wait_for_selector("#samples button")
    upload(opened, image())
    opened.wait_for_selector("#status.error")
    assert "does not answer" in opened.inner_text("#status")
    opened.close()
