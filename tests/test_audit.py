"""Audits of real runs: what is found, what is kept, and when it is computed again."""

import dataclasses
import html
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import commands
from pages import in_all_sizes, opened
from tenfold.audit import PARTS, AuditOptions, audit
from tenfold.audit.answer import Missing
from tenfold.audit.calibration import chosen_by_validation
from tenfold.audit.store import Store, answer_type, known_answers
from tenfold.audit.subject import Subject
from tenfold.cli.app import app
from tenfold.deployment import export as exporting
from tenfold.errors import TenfoldError
from tenfold.evaluation import robustness
from tenfold.evaluation.trained import load, load_model, save_model
from tenfold.files import read_json, write_json
from tenfold.recipe import load_recipe
from tenfold.registry import find_part
from tenfold.reporting.page import write_report
from tenfold.reporting.templating import TEMPLATES
from tenfold.run import RunFolder

OPTIONS = AuditOptions(images=40)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a trained run of a tiny convolutional network, `runs/tiny/1`."""
    place = tmp_path_factory.mktemp("audited")
    commands.write_tiny_recipe(place)
    data = commands.write_tiny_data(place / "tiny.npz")
    # So little that it makes mistakes.
    changes = ["--set", "training.epochs=1", "--set", "optimizer.lr=0.003"]
    command = commands.run(["train", "tiny.toml", "--data", str(data), *changes], folder=place)
    assert command.wait() == 0, command.output
    return place


@pytest.fixture(scope="module")
def run(folder):
    return RunFolder(folder / "runs/tiny/1")


@pytest.fixture(scope="module")
def findings(run):
    return audit(run, options=OPTIONS)


def test_every_part_finds_something_or_says_what_is_missing(findings, run):
    assert tuple(findings) == PARTS
    missing = {name for name, found in findings.items() if isinstance(found, Missing)}
    assert missing == {"agreement", "new-images"}  # The tiny data is not CIFAR-10.
    for name in PARTS:
        json.dumps(findings[name].to_dict())
        assert (run.path / f"audit/{name}.json").exists()


@pytest.mark.parametrize("name", PARTS)
def test_each_question_has_a_heading_a_template_and_an_option_for_all_it_needs(name):
    kind = answer_type(name)
    assert kind.question.endswith("?")
    assert (TEMPLATES / f"audit/{kind.template}.html").is_file()
    options = find_part("question", name).options.model_fields
    assert set(options) - {"name"} <= {each.name for each in dataclasses.fields(AuditOptions)}


def test_what_is_known_is_not_computed_again(findings, run):
    asked, uses = [], len(read_json(run.result)["test_uses"])
    again = audit(run, options=OPTIONS, starting=asked.append)
    audit(run, starting=asked.append)  # Without a word on options, what is kept is good enough.
    assert asked == []
    assert len(read_json(run.result)["test_uses"]) == uses
    for name in PARTS:
        assert again[name].to_dict() == findings[name].to_dict()
        assert set(again[name].arrays) == set(findings[name].arrays)


def test_other_options_ask_for_their_part_alone(findings, run):
    asked = []
    audit(run, options=dataclasses.replace(OPTIONS, images=30), starting=asked.append)
    assert asked == ["robustness", "novelty"]
    audit(run, options=OPTIONS)  # As the other tests expect it.


def test_what_older_versions_kept_by_other_names_is_known(findings, run, tmp_path):
    copy = RunFolder(Path(shutil.copytree(run.path, tmp_path / "1")))
    older = {"examples": "pictures", "predicted": "guess", "images": "pictures", "ood": "strange"}
    for path in list((copy.path / "audit").glob("*.json")):
        text = path.read_text()
        for new, old in older.items():
            text = text.replace(f'"{new}":', f'"{old}":')
        path.write_text(text)
        for each in (path, path.with_suffix(".npz")):
            each.rename(each.with_stem(each.stem.replace("new-images", "new-pictures")))
    assert not (copy.path / "audit/new-images.json").exists()
    known = {name: answer.to_dict() for name, answer in known_answers(copy).items()}
    assert known == {name: answer.to_dict() for name, answer in findings.items()}
    again = audit(copy, ["robustness"], options=OPTIONS, starting=pytest.fail)
    assert again["robustness"].to_dict() == findings["robustness"].to_dict()


def test_the_look_at_the_test_pictures_is_written_down(findings, run):
    uses = read_json(run.result)["test_uses"]
    assert [use["purpose"] for use in uses][:2] == ["after training", "tenfold audit"]


def test_the_temperature_is_kept_and_used(run):
    kept = read_json(run.result)["calibration"]
    assert kept["num_images"] == 64
    model = load(run.path)
    assert model.temperature == kept["temperature"]
    pixels = np.zeros((1, *model.image_size, 3), dtype=np.uint8)
    logits = model.logits(pixels)[0] / kept["temperature"]
    expected = np.exp(logits) / np.exp(logits).sum()
    assert np.allclose(model.predict_proba(pixels)[0], expected, atol=1e-6)
    assert load(run.model).temperature == 1.0  # The file alone knows nothing of it.


def test_thresholds_of_an_older_version_are_fitted_anew(findings, run, tmp_path):
    copy = RunFolder(shutil.copytree(run.path, tmp_path / "1"))
    result = read_json(copy.result)
    for threshold in result["calibration"]["thresholds"]:
        assert threshold.pop("num_images") == 64
    write_json(copy.result, result)
    shutil.rmtree(copy.path / "audit")
    found = audit(copy, ["calibration"])["calibration"]
    assert [each.num_images for each in found.thresholds] == [64, 64]
    kept = read_json(copy.result)["calibration"]["thresholds"]
    assert [each["num_images"] for each in kept] == [64, 64]


def test_page_and_card_say_that_nothing_can_be_promised(findings, run, tmp_path):
    page = write_report([run.path], tmp_path / "page.html").read_text()
    for text in (page.replace("\N{NO-BREAK SPACE}", " "), (run.path / "card.md").read_text()):
        assert "No confidence can promise 99 % accuracy from 64 validation images" in text
        assert "299 that are all right are the fewest" in text


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (["training.early_stopping=3"], "chose the epoch whose weights are used, so"),
        (["schedule.name=plateau"], "chose when the learning rate fell, so"),
        ([], None),
    ],
)
def test_it_is_said_what_else_went_by_the_validation_images(findings, run, changes, words):
    chosen = chosen_by_validation(load_recipe("cnn", changes))
    told = findings["calibration"].model_copy(update={"chosen_by": chosen}).promises()
    assert words in told[-1] if words else told == findings["calibration"].promises()
    assert findings["calibration"].chosen_by == ""


def test_figures_agree_with_each_other(findings, run):
    result = read_json(run.result)
    accuracy = result["splits"]["test"]["accuracy"]
    trust = findings["calibration"]
    assert trust.temperature == result["calibration"]["temperature"]
    assert trust.selective[-1] == pytest.approx((1.0, accuracy))
    number = result["splits"]["test"]["num_images"]
    assert findings["errors"].num_wrong == round((1 - accuracy) * number)
    groups = findings["errors"].groups
    assert sum(group.num_images for group in groups) == round((1 - accuracy) * number)
    assert findings["labels"].num_images == number
    lines = (run.path / "audit/labels.csv").read_text().splitlines()
    assert len(lines) == number + 1
    robust = findings["robustness"]
    assert robust.num_images == 40
    assert len(robust.corruptions) == 15
    assert robust.mean == pytest.approx(np.mean([each.accuracies for each in robust.corruptions]))


def test_other_weights_make_what_is_known_worthless(findings, run):
    assert set(known_answers(run)) == set(PARTS)
    before = run.model.read_bytes()
    try:
        run.model.write_bytes(before + b"\n")
        assert known_answers(run) == {}
    finally:
        run.model.write_bytes(before)
    assert set(known_answers(run)) == set(PARTS)


def test_changed_data_is_not_taken_for_what_it_was_trained_on(findings, run, folder):
    data = folder / "tiny.npz"
    before = data.read_bytes()
    with np.load(data) as file:
        arrays = dict(file)
    name = next(each for each in arrays if arrays[each].ndim == 4)
    try:
        np.savez(data, **(arrays | {name: 255 - arrays[name]}))
        with pytest.raises(TenfoldError, match="has changed since"):
            audit(run, ["errors"], options=AuditOptions(seed=3))
    finally:
        data.write_bytes(before)


def test_a_plain_grey_map_says_that_nothing_stands_out(findings):
    found = findings["explanation"]
    arrays = found.arrays | {"grad-cam": -np.ones_like(found.arrays["grad-cam"])}
    silent = found.model_copy(deep=True).having(arrays)
    label, pixels = silent.images(0, [("grad-cam", "Grad-CAM")])[1]
    assert label == "nothing stands out"
    assert (pixels == pixels[..., :1]).all(), "no red"
    nearest = [name for name, _ in silent.images(0, [])[1:]]
    assert nearest == list(found.examples[0].neighbours)


def test_a_part_that_lacks_something_says_so_and_is_tried_again(findings, run, monkeypatch):
    from tenfold.audit import store as kept_in

    def fail(subject):
        raise TenfoldError("There is no such thing here.")

    real = kept_in.find_part

    def lacking(kind, name):
        return (
            dataclasses.replace(real(kind, name), call=fail)
            if name == "labels"
            else real(kind, name)
        )

    store = Store(run)
    store.path("labels", "json").unlink()
    monkeypatch.setattr(kept_in, "find_part", lacking)
    found = audit(run)
    assert found["labels"].to_dict() == {"missing": "There is no such thing here."}
    assert audit(run)["labels"].to_dict() == found["labels"].to_dict()
    with pytest.raises(TenfoldError, match="no such thing"):
        audit(run, ["labels"])
    monkeypatch.setattr(kept_in, "find_part", real)
    assert audit(run, ["labels"])["labels"].num_images == findings["labels"].num_images


def test_maps_are_made_once_what_they_need_is_there(findings, run, monkeypatch):
    from tenfold.audit import explanation

    store = Store(run)
    kept = store.load("explanation")
    unavailable = {"occlusion": "It needs captum."}
    lacking = kept.model_copy(update={"unavailable": unavailable})
    options = read_json(store.path("explanation", "json"))["options"]
    store.save("explanation", lacking, options=options)
    asked = []
    monkeypatch.setattr(explanation, "has_captum", lambda: False)
    audit(run, starting=asked.append)
    assert asked == []
    monkeypatch.setattr(explanation, "has_captum", lambda: True)
    again = audit(run, starting=asked.append)["explanation"]
    assert asked == ["explanation"]
    assert again.unavailable == {}


def test_what_is_strange_and_can_not_be_read_costs_nothing(findings, run):
    before = Store(run).load("novelty").to_dict()
    options = dataclasses.replace(OPTIONS, ood="nowhere.npz")
    with pytest.raises(TenfoldError, match=r"nowhere.npz"):
        audit(run, options=options)
    assert Store(run).load("novelty").to_dict() == before


def test_strange_pictures_are_of_classes_that_it_does_not_know(run, folder):
    options = AuditOptions(images=20, ood=str(folder / "tiny.npz"))
    with pytest.raises(TenfoldError, match="All classes of these images are known"):
        audit(run, ["novelty"], options=options)


def test_what_is_damaged_is_computed_again(findings, run):
    (run.path / "audit/errors.npz").write_bytes(b"nothing")
    assert Store(run).load("errors") is None
    asked = []
    audit(run, ["errors"], starting=asked.append)
    assert asked == ["errors"]


def test_wrong_arguments_are_refused(run, tmp_path):
    with pytest.raises(TenfoldError, match="no part 'trust'; there are: calibration"):
        audit(run, ["trust"])
    with pytest.raises(TenfoldError, match="at least one image, not 0"):
        audit(run, options=AuditOptions(images=0))
    with pytest.raises(TenfoldError, match="is not finished"):
        Subject(RunFolder(tmp_path), seed=0, progress=None)


def test_the_page_has_a_section_for_each_question(findings, run, tmp_path):
    page = write_report([run.path], tmp_path / "page.html").read_text()
    for question in (
        "May it be trusted?",
        "Calibration: when it is confident, is it right?",
        "Attribution: where does it look?",
        "Errors: what do they have in common?",
        "Robustness: what if an image is not perfect?",
        "Out of distribution: does it notice what it does not know?",
        "Are the labels right?",
    ):
        assert question in page
    assert "Human agreement: does it see what people see?" not in page
    for table in re.findall("<table.*?</table>", page, re.DOTALL):
        head, _, body = table.partition("<tbody>")
        rows = body.split("<tr")[1:]
        widths = {len(re.findall("<t[dh][ >]", row)) for row in rows}
        assert "<th " not in head or widths <= {len(re.findall("<t[dh][ >]", head))}, head
    card = (run.path / "card.md").read_text()
    assert card.startswith("---\nlibrary_name: tenfold\n")
    assert "## Where it fails" in card


@pytest.fixture(scope="module")
def plain(folder):
    """Another run, which was not audited."""
    command = commands.run(
        [*("train", "tiny.toml", "--data", "tiny.npz", "--new", "--runs", "plain"),
         *("--set", "training.epochs=1")],
        folder=folder,
    )  # fmt: skip
    assert command.wait() == 0, command.output
    return folder / "plain/tiny/1"


def test_a_run_without_an_audit_has_none_of_it(plain, tmp_path):
    page = write_report([plain], tmp_path / "page.html").read_text()
    assert "May it be trusted?" not in page
    assert not (plain / "card.md").exists()


def test_a_comparison_sets_audits_side_by_side(findings, run, plain, tmp_path):
    text = write_report([run.path, plain], tmp_path / "both.html").read_text()
    assert "Beyond accuracy" in text
    assert text.count("OOD AUROC") == 1
    assert not (plain / "card.md").exists()


@pytest.mark.browser
def test_a_browser_shows_it_all_without_complaint(findings, run, tmp_path, browser):
    with opened(browser, write_report([run.path], tmp_path / "page.html")) as page:
        assert list(in_all_sizes(page))
        images = "[...document.querySelectorAll('.strips img')]"
        assert page.evaluate(f"{images}.length") > 50
        assert page.evaluate(f"{images}.every(i => i.complete && i.naturalWidth > 0)")


# -- the commands --------------------------------------------------------------------------------


def test_the_command_says_what_it_found(findings, folder):
    command = commands.run(
        ["audit", "runs/tiny/1", "calibration", "labels", "--json"], folder=folder
    )
    assert command.wait() == 0, command.output
    lines = [json.loads(line) for line in command.output.splitlines()]
    parts = {line["part"]: line for line in lines if line["event"] == "part"}
    assert set(parts) == {"calibration", "labels"}
    assert parts["calibration"]["temperature"] > 0


@pytest.fixture(scope="module")
def moved(run, tmp_path_factory):
    """A copy of the run, whose images are at `there.npz` beside it and no longer where they were,
    and others at `other.npz`."""
    place = tmp_path_factory.mktemp("moved")
    data = commands.write_tiny_data(place / "there.npz")
    with np.load(data) as file:
        arrays = dict(file)
    name = next(each for each in arrays if arrays[each].ndim == 4)
    np.savez(place / "other.npz", **(arrays | {name: 255 - arrays[name]}))
    shutil.copytree(run.path, place / "1")
    old = place / "gone.npz"
    for file in ("recipe.json", "provenance.json"):
        values = read_json(place / "1" / file)
        values["data"] |= {"name": str(old)} if file == "recipe.json" else {"location": str(old)}
        write_json(place / "1" / file, values)
    model = load_model(place / "1/model.safetensors")
    recipe = model.recipe.but(data=model.recipe.data.but(name=str(old)))
    save_model(place / "1/model.safetensors", dataclasses.replace(model, recipe=recipe))
    return place


@pytest.mark.parametrize(
    "arguments",
    [
        ["evaluate", "1"],
        ["audit", "1", "errors"],
        ["explain", "1", "test/3", "--out", "e.html"],
        pytest.param(["export", "1", "--out", "model.onnx"], marks=pytest.mark.long),
    ],
    ids=lambda arguments: arguments[0],
)
def test_row_60_a_moved_run_says_what_is_missing_and_takes_data(moved, arguments, monkeypatch):
    monkeypatch.chdir(moved)
    result = CliRunner().invoke(app, arguments)
    assert isinstance(result.exception, TenfoldError)
    assert "gone.npz, where nothing is now; say with --data where" in str(result.exception)
    if arguments[0] in ("audit", "explain"):  # The others take other data as well.
        result = CliRunner().invoke(app, [*arguments, "--data", "other.npz"])
        assert "other has changed since" in str(result.exception)
    result = CliRunner().invoke(app, [*arguments, "--data", "there.npz"])
    assert result.exit_code == 0, result.output


def test_row_60_a_page_says_where_its_images_are_missed(moved, monkeypatch):
    monkeypatch.chdir(moved)

    def page(*arguments):
        result = CliRunner().invoke(app, ["report", "1", "--out", "page.html", *arguments])
        assert result.exit_code == 0, result.output
        return html.unescape((moved / "page.html").read_text())

    assert "gone.npz; say with --data where its images are." in page()
    assert "other.npz has changed since the training" in page("--data", "other.npz")
    whole = page("--data", "there.npz")
    assert "could not be opened again" not in whole
    assert whole.count("data:image/png") > page().count("data:image/png")


def test_an_export_may_be_compared_on_other_images_of_its_classes(moved, monkeypatch):
    monkeypatch.setattr(exporting, "TIMED_SECONDS", 0.01)
    run = RunFolder(moved / "1")
    elsewhere = exporting.ExportOptions(data=str(moved / "other.npz"))
    found = exporting.export_run(run, moved / "o.onnx", elsewhere)
    assert (found.gate.split, found.gate.num_images) == ("test of other", 128)
    assert read_json(run.result)["test_uses"][-1]["split"] == "test of other"


def test_pictures_of_ones_own_are_explained(findings, folder):
    from PIL import Image

    noise = np.random.default_rng(0).integers(0, 256, (40, 30, 3), dtype=np.uint8)
    Image.fromarray(noise).save(folder / "own.png")
    command = commands.run(
        ["explain", "runs/tiny/1", "own.png", "test/3", "--out", "e.html"], folder=folder
    )
    assert command.wait() == 0, command.output
    page = (folder / "e.html").read_text()
    assert "Attribution: where does it look?" in page
    assert page.count("data:image/png") > 10
    command = commands.run(["explain", "runs/tiny/1", "nowhere.png"], folder=folder)
    assert command.wait() == 2
    assert "There is no image or folder nowhere.png" in command.output
    command = commands.run(["explain", "runs/tiny/1", "test/9999"], folder=folder)
    assert command.wait() == 2
    assert "no image test/9999 in the test split, whose ids are like test/1 and" in command.output
    (folder / "broken.png").write_bytes(b"nothing")
    command = commands.run(["explain", "runs/tiny/1", "broken.png"], folder=folder)
    assert command.wait() == 2
    assert "broken.png can't be used" in command.output


def test_pictures_that_a_shift_changes_are_shown(findings, run, tmp_path, monkeypatch):
    copy = RunFolder(shutil.copytree(run.path, tmp_path / "1"))
    found = robustness.Shifts(0.9, (robustness.Flip(2, 0, 3, "left"),))
    monkeypatch.setattr(robustness, "shift_consistency", lambda *_, **__: found)
    finding = audit(copy, ["robustness"], options=AuditOptions(images=10, seed=5))["robustness"]
    before, after = finding.arrays["flipped"][0], finding.arrays["moved"][0]
    assert np.array_equal(after[:, :-1], before[:, 1:])
    page = write_report([copy.path], tmp_path / "page.html").read_text()
    assert "What one pixel changes" in page
    assert "predicted red; shifted left: grey" in page


OWN_QUESTION = """
from matplotlib.figure import Figure

def sure(subject, *, above: float = 0.5):
    \"\"\"How often is it sure?

    By class.
    \"\"\"
    figure = Figure((2, 1))
    figure.subplots().plot([0, 1])
    found = subject.measured_predictions()
    rows = [{"class": name, "share": (found.logits[:, i] > 0).mean()}
            for i, name in enumerate(found.class_names)]
    return rows, figure
"""


def test_a_question_of_ones_own_is_a_section_of_the_page(findings, run, folder, monkeypatch):
    monkeypatch.chdir(folder)
    (folder / "my.py").write_text(OWN_QUESTION)
    found = audit(run, ["my.py:sure"])["my.py:sure"]
    assert [row["class"] for row in found.rows] == ["red", "green", "blue", "grey"]
    assert found.arrays["figure"].shape[2] == 3
    page = write_report([run.path]).read_text()
    assert "<h2>How often is it sure?</h2>" in page
    assert "As my.py:sure measures it." in page
    kept = Store(run).path("my.py:sure", "json")
    assert read_json(kept)["options"] == {"seed": 0, "above": 0.5}
    for path in kept.parent.glob(f"{kept.stem}.*"):
        path.unlink()  # As the other tests expect it.


@pytest.mark.parametrize(
    ("name", "code", "said"),
    [
        ("my.py:sur", "def sure(subject): ...", "did you mean 'sure'"),
        ("my.py:sure", "def sure(subject): return 3", "must give a dict or a list of dicts, not 3"),
        ("my.py:sure", "def sure(subject, above): ...", "its option above needs a default"),
        ("sure", "", "no part 'sure'; .* such as my.py:question"),
    ],
)
def test_a_question_that_is_none_is_a_sentence(run, folder, monkeypatch, name, code, said):
    monkeypatch.chdir(folder)
    (folder / "my.py").write_text(code)
    with pytest.raises(TenfoldError, match=said):
        audit(run, [name])
