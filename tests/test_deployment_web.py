"""The page that classifies in the browser, beside the predictor, from a server of files alone."""

import base64
import contextlib
import functools
import http.server
import io
import json
import shutil
import struct
import threading
import zlib

import numpy as np
import pytest
from PIL import Image

import commands
import served
from photographs import photographs
from tenfold.deployment.predictor import Predictor

NUM_IMAGES = 200
CONTENT = served.encoded(np.full((40, 60, 3), (200, 30, 30), np.uint8))
RED = {"name": "a.png", "mimeType": "image/png", "buffer": CONTENT}
ASK = """async contents => {
  const replies = [];
  for (const [kind, content] of contents) {
    const bytes = Uint8Array.from(atob(content), letter => letter.charCodeAt(0));
    replies.push(await local.predict(new Blob([bytes], {type: kind}), false));
  }
  return replies;
}"""


def in_browser(test):
    return pytest.mark.browser(pytest.mark.network(test))


class Quiet(http.server.SimpleHTTPRequestHandler):
    """Says nothing of what it is asked for."""

    def log_message(self, *arguments: object) -> None:
        """Nothing."""


@pytest.fixture(scope="module")
def folder(made_once):
    return made_once(served.make_run)


@pytest.fixture(scope="module")
def web(folder):
    """The exported folder."""
    if shutil.which("npm") is None:
        pytest.skip("needs npm")
    done = commands.run(["export", served.RUN, "--maps", "--web", "page"], folder=folder)
    assert done.wait() == 0, done.output
    return folder / "page"


@contextlib.contextmanager
def files_of(folder):
    """The address of a server of the files in `folder`."""
    handler = functools.partial(Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


@contextlib.contextmanager
def opened(browser, folder):
    """The page in `folder`, whose every complaint and outside request is a failure."""
    with files_of(folder) as address:
        page = browser.new_page(viewport={"width": 900, "height": 900})
        complaints, outside = [], []
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        ours = (address, "data:", "blob:")
        page.on("request", lambda asked: asked.url.startswith(ours) or outside.append(asked.url))
        page.goto(address)
        page.wait_for_function(
            "document.querySelector('#about').textContent.includes('This model knows')"
        )
        yield page
        assert (outside, complaints) == ([], [])
        page.close()


@pytest.fixture
def page(browser, web):
    with opened(browser, web) as page:
        yield page


def ask(page, contents: list[bytes], kind: str = "image/png") -> list[dict]:
    return page.evaluate(ASK, [[kind, base64.b64encode(each).decode()] for each in contents])


def require_same(replies, expected):
    for reply, right in zip(replies, expected, strict=True):
        assert reply["label"] == right.label
        for name, share in right.probabilities.items():
            assert abs(reply["probabilities"][name] - share) < 1e-3
        assert reply.get("positive", {}) == right.positive


@in_browser
def test_images_of_the_models_size_get_the_predictors_probabilities(page, web):
    generator = np.random.default_rng(0)
    pixels = generator.integers(0, 256, (NUM_IMAGES, 16, 16, 3), dtype=np.uint8)
    pixels = pixels // 2 + generator.integers(0, 128, (NUM_IMAGES, 1, 1, 3), dtype=np.uint8)
    contents = [served.encoded(each) for each in pixels]
    expected = Predictor(web / "model.onnx", threads=1).predict_many(contents)
    assert len({each.label for each in expected}) > 1
    require_same(ask(page, contents), expected)


@in_browser
def test_large_photographs_get_the_predictors_class(page, web):
    generator, contents = np.random.default_rng(0), []
    wholes = list(photographs().values())
    for number in range(NUM_IMAGES):
        whole, sides = wholes[number % 3], generator.integers(100, 400, 2)
        rooms = zip(whole.shape, sides, strict=False)
        top, left = (generator.integers(0, length - side) for length, side in rooms)
        part = whole[top : top + sides[0], left : left + sides[1]]
        contents.append(served.encoded(part, "JPEG"))
    expected = Predictor(web / "model.onnx", threads=1).predict_many(contents)
    found = list(zip(ask(page, contents, "image/jpeg"), expected, strict=True))
    assert sum(a["label"] == b.label for a, b in found) >= 0.98 * NUM_IMAGES
    assert np.median([abs(a["confidence"] - b.confidence) for a, b in found]) < 0.02


@in_browser
def test_windows_and_operating_points_are_the_models(browser, web, tmp_path):
    shutil.copytree(web, tmp_path / "page")
    contents = [deep_png(seed, 1 + seed % 4, 16 + 20 * (seed % 3)) for seed in range(24)]
    contents += [
        deep_png(seed, channels, 16, is_clear=True) for seed, channels in ((24, 1), (25, 3))
    ]
    contents += [served.encoded(served.noise(seed)) for seed in range(6)]
    predictor = Predictor(web / "model.onnx", threads=1)
    predictor.window = (1000, 3000)
    shares = sorted(each.probabilities["red"] for each in predictor.predict_many(contents))
    between = (shares[14] + shares[15]) / 2
    predictor.operating_points = {"red": between}
    expected = predictor.predict_many(contents)
    known = json.loads((web / "model.json").read_text())
    point = {"class_name": "red", "sensitivity": 0.9, "threshold": between}
    known |= {"window": [1000, 3000], "operating_points": [point]}
    (tmp_path / "page/model.json").write_text(json.dumps(known))
    file = {"name": "a.png", "mimeType": "image/png", "buffer": contents[0]}
    with opened(browser, tmp_path / "page") as page:
        require_same(ask(page, contents), expected)
        page.set_input_files("#files", file)
        page.wait_for_selector("#one:not([hidden])")
        said = "red: yes" if expected[0].positive["red"] else "red: no"
        assert page.inner_text("#points").startswith(said)


@in_browser
def test_a_dropped_image_is_shown_with_its_map(page):
    page.set_input_files("#files", RED)
    page.wait_for_selector("#one:not([hidden]), #status.error")
    assert page.is_visible("#map"), page.inner_text("#status")
    assert page.locator("#classes .class").count() == 4
    assert "go nowhere" in page.inner_text("#kept")
    page.set_input_files("#files", RED | {"buffer": b"no"})
    page.wait_for_selector("#status.error")
    assert "no image of a kind" in page.inner_text("#status")
    page.evaluate(
        """() => {
            const carried = new DataTransfer();
            carried.setData("text/uri-list", "https://a.example/a.png");
            dispatchEvent(new DragEvent("drop", {dataTransfer: carried, cancelable: true}));
        }"""
    )
    assert "That is no file" in page.inner_text("#status")


@in_browser
def test_an_image_that_comes_before_the_model_is_known_waits_for_it(browser, web):
    held = []
    with files_of(web) as address:
        page = browser.new_page()
        page.route("**/model.json", lambda route: held.append(route))
        page.goto(address)
        page.set_input_files("#files", RED)
        assert not page.locator("#status.error").count()
        held[0].continue_()
        page.wait_for_selector("#one:not([hidden]), #status.error")
        assert page.is_visible("#map"), page.inner_text("#status")
        page.close()


@in_browser
def test_what_can_not_be_loaded_is_said(browser, web, tmp_path):
    shutil.copytree(web, tmp_path / "page")
    (tmp_path / "page/model.onnx").unlink()
    with files_of(tmp_path / "page") as address:
        for place, said in (
            (address, "The model can't be loaded here ("),
            ((web / "index.html").as_uri(), "run python -m http.server in its folder."),
        ):
            page = browser.new_page()
            page.goto(place)
            page.set_input_files("#files", RED)
            page.wait_for_selector("#status.error")
            assert said in page.inner_text("#status")
            page.close()


TURNS = [Image.Exif() for _ in range(8)]
for number, exif in enumerate(TURNS, start=1):
    exif[0x0112] = number


@in_browser
def test_files_of_many_kinds_get_the_predictors_probabilities(page, web):
    photo = Image.fromarray(next(iter(photographs().values()))).resize((16, 16))
    other = photo.transpose(Image.Transpose.ROTATE_180)
    opaque = np.linspace(0, 255, 16).astype(np.uint8)
    see_through = np.dstack([np.asarray(photo), np.broadcast_to(opaque, (16, 16))])
    contents = [
        *(saved(photo, "PNG", exif=exif) for exif in TURNS),
        *(saved(photo, kind, save_all=True, append_images=[other]) for kind in ("GIF", "PNG")),
        *(saved(photo.convert(mode), "PNG") for mode in ("P", "L", "1")),
        saved(photo, "BMP"),
        deep_png(0, 1, 16),
        deep_png(1, 3, 16),
    ]
    # Browsers decode JPEG, and lay half transparent pixels on white, with other roundings.
    nearly = [saved(photo, "JPEG", exif=exif) for exif in TURNS]
    nearly += [saved(photo.convert("CMYK"), "JPEG"), saved(photo, "JPEG", progressive=True)]
    nearly += [saved(Image.fromarray(see_through), "PNG")]
    predictor = Predictor(web / "model.onnx", threads=1)
    require_same(ask(page, contents), predictor.predict_many(contents))
    for reply, right in zip(ask(page, nearly), predictor.predict_many(nearly), strict=True):
        assert abs(reply["probabilities"][right.label] - right.confidence) < 0.02
    names = ["a.txt", "a.svg"]
    vector = b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"></svg>'
    for name, content in zip(names, (b"text", vector), strict=True):
        page.set_input_files("#files", {"name": name, "mimeType": "", "buffer": content})
        page.wait_for_selector("#status.error")
        assert "no image of a kind" in page.inner_text("#status")
        page.evaluate("say('')")


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    content = io.BytesIO()
    image.save(content, kind, **options)
    return content.getvalue()


def deep_png(seed: int, channels: int, side: int, *, is_clear: bool = False) -> bytes:
    """A PNG of sixteen bits, grey or in colour, whose lines have all five filters. 2 and 4 channels
    have opacity; is_clear: of others one value is transparent."""
    generator = np.random.default_rng(seed)
    tint = generator.integers(0, 2000, channels)
    values = (generator.integers(500, 2500, (side, side, channels)) + tint).astype(">u2")
    values[: side // 2] = values[0, 0] if is_clear else values[: side // 2]
    if channels % 2 == 0:
        values[..., -1] = generator.integers(0, 65536, (side, side))
    lines = values.reshape(side, -1).view(np.uint8).astype(int)
    step, packed = 2 * channels, b""
    for y, line in enumerate(lines):
        above = lines[y - 1] if y else np.zeros_like(line)
        left, corner = (np.append(np.zeros(step, int), each)[: len(line)] for each in (line, above))
        apart = [abs(left + above - corner - each) for each in (left, above, corner)]
        nearest = np.choose(np.argmin(apart, axis=0), (left, above, corner))
        predicted = (0 * line, left, above, (left + above) // 2, nearest)[y % 5]
        packed += bytes([y % 5]) + ((line - predicted) % 256).astype(np.uint8).tobytes()
    header = struct.pack(">IIBBBBB", side, side, 16, (0, 4, 2, 6)[channels - 1], 0, 0, 0)
    clear = {b"tRNS": values[0, 0].tobytes()} if is_clear else {}
    parts = {b"IHDR": header, **clear, b"IDAT": zlib.compress(packed), b"IEND": b""}
    chunks = [
        struct.pack(">I", len(part)) + kind + part + struct.pack(">I", zlib.crc32(kind + part))
        for kind, part in parts.items()
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def test_row_e_a_runtime_that_is_none_is_named(folder, tmp_path):
    command = ["export", served.RUN, "--web", "other", "--runtime", str(tmp_path)]
    names = ("ort.wasm.min.js", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm")
    for files, arguments, said in (
        ((), command, "has no ort.wasm.min.js; name the folder dist of onnxruntime-web@"),
        (names, command, "is not that of onnxruntime-web@"),
        ((), ["export", served.RUN, "--runtime", "dist"], "--runtime is for --web"),
    ):
        for name in files:
            (tmp_path / name).write_text("something else")
        done = commands.run(arguments, folder=folder)
        assert done.wait() == 2
        assert said in done.output
        assert not (folder / "other/index.html").exists()
