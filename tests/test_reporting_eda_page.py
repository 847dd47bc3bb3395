import base64
import io
import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from pages import in_all_sizes, opened, without_sorting
from tenfold.data.explore import OriginalSizes, SplitCounts, explore
from tenfold.data.images import Dataset, Images
from tenfold.errors import TenfoldError
from tenfold.reporting.eda import render_exploration, write_exploration_page

HOSTILE = ('<script>alert("1")</script>', 'a & b\'s "c" {{ 7 * 7 }}', "ümläut 猫", "</style><b>")


def images_of(number, names, *, split="train", seed=0, labels=None, side=32):
    generator = np.random.default_rng(seed)
    patches = generator.integers(0, 256, (number, side // 2, side // 2, 3), dtype=np.uint8)
    pixels = patches.repeat(2, axis=1).repeat(2, axis=2)
    labels = np.arange(number) % len(names) if labels is None else np.array(labels)
    ids = np.array([f"{split}/{names[0]}/{n}.png" for n in range(number)])
    return Images(pixels, labels, tuple(names), ids)


def made(names=("cat", "dog"), *, number=24, **more):
    train = images_of(number, names)
    test = images_of(8, names, split="test", seed=1)
    return Dataset("pets", train, None, test, "a folder", **more)


def leaking(names=("cat", "dog")):
    data = made(names)
    assert data.test is not None
    pixels = data.test.pixels.copy()
    pixels[0], pixels[3] = data.train.pixels[5], data.train.pixels[6]
    return replace(data, test=replace(data.test, pixels=pixels))


def page_of(data, **changes):
    return without_sorting(render_exploration(replace(explore(data), **changes), data))


class Outline(HTMLParser):
    """The elements of a page, that all were closed, and its visible text."""

    VOID = ("meta", "link", "img", "br", "path", "line")

    def __init__(self, page):
        super().__init__()
        self.open, self.seen, self.text = [], [], []
        self.feed(page)
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.seen.append((tag, dict(attributes)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in self.VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] not in ("style", "title"):
            self.text.append(data)

    def words(self):
        return re.sub(r"\s+", " ", " ".join(self.text))


def test_the_page_says_in_words_what_was_found():
    words = Outline(page_of(made(number=40))).words()
    assert "Classes are balanced: 20 images each in train and 4 images each in test." in words
    assert "There is no validation split" in words
    assert "shares of a split" not in words, "twenty bars of one length"
    assert "No copies were found, within a split or across." in words
    assert "Every image has 32×32 pixels, as it came." in words
    found = explore(made(number=40)).normalisation
    assert "mean = ({:.4f}, {:.4f}, {:.4f})".format(*found.mean) in words


def test_uneven_and_missing_classes_are_named():
    names = ("cat", "dog", "owl")
    train = images_of(30, names, labels=[0] * 25 + [1] * 5)
    words = Outline(page_of(Dataset("pets", train, None, None, "a folder"))).words()
    assert "In train, classes are uneven: cat has 25, dog 5 images, 5 to 1." in words
    assert "No image of train is of owl." in words
    assert "the bars are shares of a split, on one scale for all" in words
    assert "Judge a model by each class" in words


@pytest.mark.parametrize(
    ("many", "ratio"), [(7, "3.5"), (199, "99.5"), (249, "124"), (2630, "1,315"), (2000, "1,000")]
)
def test_how_uneven_classes_are_is_a_plain_number(many, ratio):
    split = SplitCounts("train", many + 2, (many, 2), many / 2, ())
    words = Outline(page_of(made(), splits=(split,))).words()
    assert f"2 images, {ratio} to 1." in words


def test_sizes_that_are_all_the_same_have_no_larger_half():
    square, wide = (150, 150), (100, 200)
    sizes = OriginalSizes(1, square, square, square, ((*square, 32),), 0)
    words = Outline(page_of(made(), original_sizes=sizes)).words()
    assert "Every image came with 150×150 pixels" in words
    assert "larger than" not in words
    assert "median" not in words
    sizes = OriginalSizes(2, square, square, wide, ((*square, 31), (*wide, 1)), 0)
    assert "the median is 150 wide" in Outline(page_of(made(), original_sizes=sizes)).words()


def test_the_page_asks_for_nothing_from_outside_and_runs_nothing():
    page = page_of(leaking())
    outline = Outline(page)
    assert not {tag for tag, _ in outline.seen} & {"script", "iframe", "object", "base"}
    for _, attributes in outline.seen:
        for name in ("src", "href"):
            value = attributes.get(name) or "data:"
            assert value.startswith(("data:", "#")), value
        assert not [name for name in attributes if name.startswith("on")]
    assert set(re.findall(r"url\((.{10})", page)) <= {"data:image"}
    assert "http" not in page


def test_every_link_of_the_contents_leads_somewhere():
    outline = Outline(page_of(made()))
    ids = {attributes["id"] for _, attributes in outline.seen if "id" in attributes}
    links = {a["href"] for tag, a in outline.seen if tag == "a"}
    assert links
    assert {link[1:] for link in links} <= ids


def test_hostile_names_are_shown_as_they_are_and_do_nothing():
    data = replace(leaking(HOSTILE), name=HOSTILE[0], source=HOSTILE[3], notes=(HOSTILE[1],))
    outline = Outline(page_of(data))
    words = outline.words()
    for name in HOSTILE:
        assert re.sub(r"\s+", " ", name) in words
    assert not {tag for tag, _ in outline.seen} & {"script", "b"}
    labels = [a["alt"] for tag, a in outline.seen if tag == "img"]
    assert any(label.startswith(HOSTILE[0]) for label in labels)


def test_pictures_of_two_splits_are_put_side_by_side():
    outline = Outline(page_of(leaking()))
    words = outline.words()
    assert "2 test images (25.0 %) are in train too, pixel for pixel:" in words
    assert "In train and in test" in words
    assert "dog, the same pixels" not in words  # train/5 is a dog, its copy is called a cat
    assert "dog or cat?" in words
    assert "Some copies carry different labels" in words
    labels = [attributes.get("alt") for _, attributes in outline.seen]
    assert "dog, train/cat/5.png" in labels
    assert "cat, test/cat/0.png" in labels


def test_every_picture_shown_is_what_it_is_called():
    data = leaking()
    shown = [a for tag, a in Outline(page_of(data)).seen if tag == "img" and "title" in a]
    assert len(shown) > 24
    index = {name: (i, n) for i in data.splits().values() for n, name in enumerate(i.ids)}
    for attributes in shown:
        label, _, name = attributes["alt"].partition(", ")
        images, number = index[name.partition(":")[0]]
        assert label == images.class_names[images.labels[number]]
        content = base64.b64decode(attributes["src"].partition(",")[2])
        assert (np.asarray(Image.open(io.BytesIO(content))) == images.pixels[number]).all()


def test_near_duplicates_nobody_looked_for_are_not_claimed_absent():
    data = made()
    found = explore(data)
    overlaps = tuple(replace(overlap, near=None) for overlap in found.duplicates)
    page = page_of(data, duplicates=overlaps)
    words = Outline(page).words()
    assert "No exact copies were found" in words
    assert "not looked for" in words


def test_sizes_before_resizing_are_a_section_of_their_own():
    data = made()
    sizes = np.array([[40, 60]] * 20 + [[20, 10]] * 4, dtype=np.int32)
    words = Outline(page_of(replace(data, train=replace(data.train, original_sizes=sizes)))).words()
    assert "Images came in 2 sizes, from 10×20 to 60×40" in words
    assert "4 images had to be enlarged." in words.replace("\N{NO-BREAK SPACE}", " ")


def test_grey_pictures_have_one_curve():
    data = made()
    grey = data.train.pixels.mean(axis=3, keepdims=True).astype(np.uint8).repeat(3, axis=3)
    page = page_of(replace(data, train=replace(data.train, pixels=grey)))
    assert "All images are grey." in Outline(page).words()
    assert page.count('class="outline ') == 2  # one a class


@pytest.mark.parametrize("names", [("only",), tuple(f"class {n}" for n in range(100))])
def test_one_class_and_a_hundred_make_a_page_of_sensible_size(names):
    data = made(names, number=3 * len(names) + 5)
    assert len(page_of(data)) < 3_000_000
    Outline(page_of(data))


def test_pictures_larger_than_a_screen_need_are_made_smaller():
    train = images_of(12, ("cat", "dog"), side=256)
    page = page_of(Dataset("pets", train, None, None, "a folder"))
    assert len(page) < 1_000_000


def test_the_page_is_written_whole_or_not_at_all(tmp_path):
    data = made()
    path = tmp_path / "new folder" / "eda.html"
    write_exploration_page(explore(data), data, path)
    assert path.read_text(encoding="utf-8").endswith("</html>")
    assert [entry.name for entry in path.parent.iterdir()] == ["eda.html"]
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(TenfoldError, match="file"):
        write_exploration_page(explore(data), data, tmp_path / "file" / "eda.html")


@pytest.mark.browser
@pytest.mark.parametrize("names", [("cat", "dog"), ("w" * 60, "a rather long name " * 4)])
def test_a_browser_shows_the_page_without_complaint(tmp_path, browser, names):
    data = leaking(names)
    path = tmp_path / "eda.html"
    write_exploration_page(explore(data), data, path)
    with opened(browser, path) as page:
        for scheme in in_all_sizes(page):
            images = page.evaluate(
                "[...document.querySelectorAll('img.pixels')]"
                ".map(e => [e.clientWidth, e.clientHeight])"
            )
            assert all(abs(across - down) <= 1 and across >= 24 for across, down in images)
            ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
            assert (int(re.findall(r"\d+", ground)[0]) > 128) == (scheme == "light")
