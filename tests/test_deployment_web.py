"""The page that classifies in the browser, beside the predictor, from a server of files alone."""

import functools
import http.server
import io
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import commands
import served
from photographs import photographs
from tenfold.deployment.predictor import Predictor

NUM_IMAGES = 200
ASK = """async contents => {
  const replies = [];
  for (const [kind, content] of contents) {
    const bytes = Uint8Array.from(atob(content), letter => letter.charCodeAt(0));
    replies.push(await local.predict(new Blob([bytes], {type: kind}), false));
  }
  return replies;
}"""


class Quiet(http.server.SimpleHTTPRequestHandler):
    """Says nothing of what it is asked for."""

    def log_message(self, *arguments: object) -> None:
        """Nothing."""


@pytest.fixture(scope="module")
def folder(made_once):
    return made_once(served.make_run)


@pytest.fixture(scope="module")
def web(folder):
    """The exported folder; its second export finds the runtime of the first in the cache."""
    if shutil.which("npm") is None:
        pytest.skip("needs npm")
    done = commands.run(["export", served.RUN, "--maps", "--web", "page"], folder=folder)
    assert done.wait() == 0, done.output
    return folder / "page"


@pytest.fixture(scope="module")
def address(web):
    handler = functools.partial(Quiet, directory=str(web))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


@pytest.fixture
def page(browser, address):
    """The page, whose every complaint and outside request is a failure."""
    opened = browser.new_page(viewport={"width": 900, "height": 900})
    complaints, outside = [], []
    opened.on("console", lambda message: complaints.append(message.text))
    opened.on("pageerror", lambda error: complaints.append(str(error)))
    ours = (address, "data:", "blob:")
    opened.on("request", lambda asked: asked.url.startswith(ours) or outside.append(asked.url))
    opened.goto(address)
    opened.wait_for_function("document.querySelector('#about').textContent.includes('knows')")
    yield opened
    assert (outside, complaints) == ([], [])
    opened.close()


def encoded(pixels: np.ndarray, kind: str) -> bytes:
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, kind)
    return content.getvalue()


def ask(page, contents: list[bytes], kind: str) -> list[dict]:
    import base64

    return page.evaluate(ASK, [[kind, base64.b64encode(each).decode()] for each in contents])


@pytest.mark.browser
@pytest.mark.network
def test_images_of_the_models_size_get_the_predictors_probabilities(page, web):
    generator = np.random.default_rng(0)
    pixels = generator.integers(0, 256, (NUM_IMAGES, 16, 16, 3), dtype=np.uint8)
    pixels = pixels // 2 + generator.integers(0, 128, (NUM_IMAGES, 1, 1, 3), dtype=np.uint8)
    contents = [encoded(each, "PNG") for each in pixels]
    expected = Predictor(web / "model.onnx", threads=1).predict_many(contents)
    assert len({each.label for each in expected}) > 1
    for reply, right in zip(ask(page, contents, "image/png"), expected, strict=True):
        assert reply["label"] == right.label
        for name, share in right.probabilities.items():
            assert abs(reply["probabilities"][name] - share) < 1e-3


@pytest.mark.browser
@pytest.mark.network
def test_large_photographs_get_the_predictors_class(page, web):
    generator, contents = np.random.default_rng(0), []
    for number in range(NUM_IMAGES):
        whole = photographs_()[number % 3]
        sides = generator.integers(100, 400, 2)
        top, left = (generator.integers(0, n - s) for n, s in zip(whole.shape, sides, strict=False))
        part = whole[top : top + sides[0], left : left + sides[1]]
        contents.append(encoded(part, "JPEG"))
    expected = Predictor(web / "model.onnx", threads=1).predict_many(contents)
    found = ask(page, contents, "image/jpeg")
    same = [a["label"] == b.label for a, b in zip(found, expected, strict=True)]
    assert sum(same) >= 0.98 * NUM_IMAGES
    apart = [abs(a["confidence"] - b.confidence) for a, b in zip(found, expected, strict=True)]
    assert np.median(apart) < 0.02


@functools.cache
def photographs_() -> list[np.ndarray]:
    return list(photographs().values())


@pytest.mark.browser
@pytest.mark.network
def test_a_dropped_image_is_shown_with_its_map(page, tmp_path):
    content = encoded(np.full((40, 60, 3), (200, 30, 30), np.uint8), "PNG")
    page.set_input_files("#files", {"name": "a.png", "mimeType": "image/png", "buffer": content})
    page.wait_for_selector("#one:not([hidden])")
    assert page.is_visible("#map")
    assert page.locator("#guesses .guess").count() == 4
    assert "go nowhere" in page.inner_text("#kept")


@pytest.mark.browser
@pytest.mark.network
def test_what_is_no_image_is_said(page):
    page.set_input_files("#files", {"name": "a.png", "mimeType": "image/png", "buffer": b"no"})
    page.wait_for_selector("#status.error")
    assert "no image of a kind" in page.inner_text("#status")


def test_row_e_a_runtime_that_is_none_is_named(folder, tmp_path):
    (tmp_path / "dist").mkdir()
    command = ["export", served.RUN, "--web", "other", "--runtime", str(tmp_path / "dist")]
    done = commands.run(command, folder=folder)
    assert done.wait() == 2
    assert "has no ort.wasm.min.js; name the folder dist of onnxruntime-web@" in done.output
    for name in ("ort.wasm.min.js", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm"):
        Path(tmp_path / "dist" / name).write_text("something else")
    done = commands.run(command, folder=folder)
    assert done.wait() == 2
    assert "is not that of onnxruntime-web@" in done.output
    assert not (folder / "other/index.html").exists()
    done = commands.run(["export", served.RUN, "--runtime", "dist"], folder=folder)
    assert done.wait() == 2
    assert "--runtime is for --web" in done.output
