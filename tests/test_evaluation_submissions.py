"""Tables of predictions: ids as label tables have them, joined by id, scored, or one sentence."""

import csv

import numpy as np
import pytest

from tenfold.data import export, load
from tenfold.data.images import Dataset, Images, numbered_ids
from tenfold.errors import TenfoldError
from tenfold.evaluation.metrics import wilson_interval
from tenfold.evaluation.submissions import score_submission, submission_ids, write_submission

NAMES = ("ant", "bee", "cat")
TRUE = ("ant", "bee", "cat", "ant", "bee", "cat", "ant", "bee")
GUESSED = ("ant", "bee", "cat", "bee", "bee", "ant", "ant", "cat")  # five of eight


def write(path, rows, *, header="id,label", separator=",", encoding="utf-8"):
    lines = [header.replace(",", separator), *(separator.join(map(str, row)) for row in rows)]
    path.write_bytes(("\n".join(lines) + "\n").encode(encoding))
    return path


def numbered(labels):
    return list(enumerate(labels, start=1))


@pytest.fixture
def truth(tmp_path):
    return write(tmp_path / "labels.csv", numbered(TRUE))


def submit(tmp_path, rows=None, **options):
    return write(
        tmp_path / "submission.csv", numbered(GUESSED) if rows is None else rows, **options
    )


def sentence(submission, truth, **options):
    with pytest.raises(TenfoldError) as caught:
        score_submission(submission, truth, **options)
    return str(caught.value)


# -- ids -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ids", "expected"),
    [
        (["test/1", "test/2", "test/3"], ["1", "2", "3"]),
        (["train/7", "train/19"], ["7", "19"]),
        (["test/tom", "test/anna"], ["tom", "anna"]),
        (["test/3", "test/1"], ["test/3", "test/1"]),  # an export would call them 1 and 2
        (["test/tom.png", "test/2.png"], ["test/tom.png", "test/2.png"]),  # may be paths of files
        (["train/cats/tom.jpg"], ["train/cats/tom.jpg"]),
        (["cats/1", "cats/2"], ["cats/1", "cats/2"]),
        (["train/1", "test/2"], ["train/1", "test/2"]),
        (["1", "2"], ["1", "2"]),
    ],
)
def test_ids_are_those_of_the_splits_label_table(ids, expected):
    assert submission_ids(np.array(ids)) == expected


def test_a_submission_reads_as_competitions_want_it(tmp_path):
    write_submission(tmp_path / "s.csv", numbered_ids("test", 3), ["cat", "a, b", 'say "x"'])
    with open(tmp_path / "s.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))
    assert rows == [["id", "label"], ["1", "cat"], ["2", "a, b"], ["3", 'say "x"']]


def images_of(ids, labels):
    pixels = np.random.default_rng(0).integers(0, 256, (len(ids), 8, 8, 3), dtype=np.uint8)
    numbers = np.array([NAMES.index(label) for label in labels])
    return Images(pixels, numbers, NAMES, np.array(ids))


@pytest.mark.parametrize(
    "ids",
    [
        [f"test/{n}" for n in range(1, 9)],
        [f"test/{n}" for n in (3, 1, 2, 8, 7, 6, 5, 4)],
        [f"test/{n}" for n in (2, 3, 5, 7, 11, 13, 17, 19)],
        [f"test/{name}/{n}.png" for n, name in enumerate(TRUE)],
        [f"photo {n}.jpg" for n in range(8)],
        [f"test/größe-{n}" for n in range(8)],
    ],
    ids=["numbers", "shuffled numbers", "some numbers", "paths", "names", "named in a split"],
)
def test_predictions_match_what_data_export_writes(tmp_path, ids):
    test = images_of(ids, TRUE)
    train = images_of([f"train/{n}" for n in range(1, 9)], TRUE)
    dataset = Dataset("insects", train, None, test, "made for a test")
    export(dataset, tmp_path / "folder", "folder")
    write_submission(tmp_path / "s.csv", test.ids, list(GUESSED))
    metrics = score_submission(tmp_path / "s.csv", tmp_path / "folder/testLabels.csv")
    assert metrics.accuracy == 5 / 8
    again = load(tmp_path / "folder").test  # and so does what was read back from there
    write_submission(tmp_path / "again.csv", again.ids, list(GUESSED))
    assert score_submission(tmp_path / "again.csv", tmp_path / "folder/testLabels.csv") == metrics


@pytest.mark.parametrize(
    "spell",
    [
        lambda n: f"test/{n}",
        lambda n: f"{n}.png",
        lambda n: f"test/{n}.PNG",
        lambda n: f"./test/{n}.jpg",
        lambda n: f"C:\\pictures\\test\\{n}.jpg",
        lambda n: f"/home/me/test/{n}.jpeg",
    ],
)
@pytest.mark.parametrize("turned", [False, True])
def test_ids_may_be_spelled_as_files_on_either_side(tmp_path, truth, spell, turned):
    spelled, plain = (GUESSED, TRUE) if not turned else (TRUE, GUESSED)
    first = write(tmp_path / "a.csv", [(spell(n), label) for n, label in numbered(spelled)])
    second = write(tmp_path / "b.csv", numbered(plain))
    pair = (second, first) if turned else (first, second)
    assert score_submission(*pair).accuracy == 5 / 8


def test_equal_file_names_in_two_folders_are_not_taken_for_one(tmp_path):
    truth = write(tmp_path / "l.csv", [("ants/1.png", "ant"), ("bees/1.png", "bee")])
    right = submit(tmp_path, [("bees/1", "bee"), ("ants/1", "bee")])
    assert score_submission(right, truth).accuracy == 0.5
    unclear = submit(tmp_path, [("1", "bee"), ("2", "bee")])
    assert "No id of" in sentence(unclear, truth)


def test_a_number_that_could_mean_two_pictures_is_not_guessed_at(tmp_path):
    rows = [(1, "ant", "test/2"), (2, "bee", "test/1")]
    truth = write(tmp_path / "labels.csv", rows, header="id,label,original_id")
    unclear = submit(tmp_path, [(1, "ant"), (2, "bee")])
    assert "may be those of the column id or of original_id" in sentence(unclear, truth)
    clear = submit(tmp_path, [("test/1", "ant"), ("test/2", "bee")])
    assert score_submission(clear, truth).accuracy == 0


@pytest.mark.parametrize("spell", ["{}", "train/{}", "./{}"])
def test_row_numbers_beside_file_names_are_not_taken_for_ids(tmp_path, spell):
    rows = [(0, "2.png", "ant"), (1, "0.png", "bee"), (2, "1.png", "cat")]
    truth = write(tmp_path / "metadata.csv", rows, header="id,file_name,label")
    submission = submit(tmp_path, [(spell.format(file), label) for _, file, label in rows])
    assert score_submission(submission, truth).accuracy == 1


def test_labels_of_a_split_without_predictions_do_not_count(tmp_path):
    rows = [(f"a{n}", label, "train") for n, label in enumerate(TRUE)]
    rows += [(n, label, "test") for n, label in numbered(TRUE)]
    truth = write(tmp_path / "labels.csv", rows, header="filename,class,split")
    metrics = score_submission(submit(tmp_path), truth)
    assert (metrics.num_images, metrics.accuracy) == (8, 5 / 8)


# -- scores --------------------------------------------------------------------------------------


def test_a_score_has_accuracy_interval_recalls_and_confusions(tmp_path, truth):
    metrics = score_submission(submit(tmp_path), truth).to_dict()
    assert metrics["num_images"] == 8
    assert metrics["accuracy"] == 5 / 8
    assert metrics["accuracy_interval"] == list(wilson_interval(5, 8))
    assert [row["name"] for row in metrics["per_class"]] == list(NAMES)
    assert [row["recall"] for row in metrics["per_class"]] == [2 / 3, 2 / 3, 1 / 2]
    assert metrics["confusion"] == [[2, 1, 0], [0, 2, 1], [1, 0, 1]]
    assert metrics["most_confused"][0] == {
        "true": "ant",
        "predicted": "bee",
        "count": 1,
        "share": 1 / 3,
    }
    assert metrics["num_missing"] == 0


def test_the_order_of_rows_means_nothing(tmp_path, truth):
    rows = numbered(GUESSED)
    expected = score_submission(submit(tmp_path, rows), truth)
    for seed in range(3):
        shuffled = [rows[i] for i in np.random.default_rng(seed).permutation(len(rows))]
        assert score_submission(submit(tmp_path, shuffled), truth) == expected


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("header", ["id,label", "Image_ID,Class", "label,filename"])
def test_separators_marks_and_columns_of_spreadsheets(tmp_path, truth, separator, encoding, header):
    rows = [row[::-1] if header.startswith("label") else row for row in numbered(GUESSED)]
    options = {"separator": separator, "encoding": encoding, "header": header}
    assert score_submission(submit(tmp_path, rows, **options), truth).accuracy == 5 / 8


def test_accents_count_as_the_same_however_they_are_composed(tmp_path):
    truth = write(tmp_path / "labels.csv", [(1, "caf\u00e9"), (2, "th\u00e9")])
    rows = [(1, " cafe\u0301 "), (2, "the\u0301")]
    assert score_submission(submit(tmp_path, rows), truth).accuracy == 1


def test_missing_predictions_are_an_error_or_wrong(tmp_path, truth):
    some = submit(tmp_path, numbered(GUESSED)[:3])
    text = sentence(some, truth)
    assert "5 ids of" in text
    assert "labels.csv without a prediction ('4' in line 5, '5' in line 6" in text
    assert "--allow-missing" in text
    metrics = score_submission(some, truth, allow_missing=True)
    assert (metrics.num_missing, metrics.accuracy) == (5, 3 / 8)
    assert [row.recall for row in metrics.per_class] == [1 / 3, 1 / 3, 1 / 2]


@pytest.mark.parametrize("extra", ["probability,error", "probability,unsure,error", "note"])
@pytest.mark.parametrize("empty", [(2,), (1, 3, 8), tuple(range(1, 9))])
def test_a_table_of_predict_with_broken_images_is_scored(tmp_path, truth, extra, empty):
    rows = [
        (n, "" if n in empty else label, *["x" for _ in extra.split(",")])
        for n, label in numbered(GUESSED)
    ]
    table = submit(tmp_path, rows, header=f"id,label,{extra}")
    text = sentence(table, truth)
    assert f"submission.csv line {empty[0] + 1} lacks an image or a label" in text
    assert "--allow-missing" in text
    metrics = score_submission(table, truth, allow_missing=True)
    num_right = sum(
        a == b for n, (a, b) in enumerate(zip(TRUE, GUESSED, strict=True), 1) if n not in empty
    )
    assert (metrics.num_missing, metrics.accuracy) == (len(empty), num_right / 8)


def test_a_broken_image_that_has_no_label_is_a_stranger_still(tmp_path, truth):
    rows = [*numbered(GUESSED), (9, "")]
    assert "1 id of" in sentence(submit(tmp_path, rows), truth, allow_missing=True)


# -- classes as numbers --------------------------------------------------------------------------


def test_numbers_are_classes_in_the_order_of_classes_txt(tmp_path, truth):
    (tmp_path / "classes.txt").write_text("cat\nant\nbee\n")
    numbers = [(n, ("cat", "ant", "bee").index(label)) for n, label in numbered(GUESSED)]
    metrics = score_submission(submit(tmp_path, numbers), truth)
    assert metrics.accuracy == 5 / 8
    assert [row.name for row in metrics.per_class] == ["cat", "ant", "bee"]
    truths = [(n, ("cat", "ant", "bee").index(label)) for n, label in numbered(TRUE)]
    assert score_submission(submit(tmp_path), write(truth, truths)) == metrics


@pytest.mark.parametrize("numbers_in", ["submission", "labels"])
def test_numbers_without_an_order_of_the_names_are_not_guessed_at(tmp_path, numbers_in):
    named, as_numbers = [(1, "cat"), (2, "dog")], [(1, 0), (2, 1)]
    pair = (as_numbers, named) if numbers_in == "submission" else (named, as_numbers)
    text = sentence(submit(tmp_path, pair[0]), write(tmp_path / "labels.csv", pair[1]))
    assert f"line 2 has the label {str(pair[0][0][1])!r}, which is none of the 2 classes" in text
    assert "classes.txt" in text


def test_a_number_beyond_the_classes_is_named(tmp_path, truth):
    (tmp_path / "classes.txt").write_text("ant\nbee\ncat\n")
    text = sentence(submit(tmp_path, [(n, n % 4) for n in range(1, 9)]), truth)
    assert "submission.csv line 4 has the label 3," in text


def test_numbers_on_both_sides_need_no_names(tmp_path):
    truth = write(tmp_path / "labels.csv", [(n, n % 12) for n in range(24)])
    metrics = score_submission(submit(tmp_path, [(n, n % 12) for n in range(24)]), truth)
    assert metrics.accuracy == 1
    assert [row.name for row in metrics.per_class] == [str(n) for n in range(12)]


# -- one sentence for what is wrong --------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "submission.csv is empty"),
        (b"\xef\xbb\xbf\n", "submission.csv is empty"),
        (b"id,label\n", "submission.csv has no rows"),
        (b"id,guess\n1,ant\n", "line 1 names the columns id, guess"),
        (b"1,ant\n2,bee\n", "line 1 names the columns 1, ant"),
        (b"id,label\n1,ant\n2\n", "submission.csv line 3 has 1 field "),
        (b"id,label\n1,ant\n2,\n", "submission.csv line 3 lacks an image or a label"),
        (b"id,label\n1,ant\n2,b\xfce\n", "submission.csv line 3 is not UTF-8"),
        ("id,label\n1,ant\n".encode("utf-16"), "submission.csv line 1 is not UTF-8"),
        (b'id,label\n1,"ant\n', "submission.csv line 2 can't be read as CSV"),
        (b"id,label\n1,ant\n2,bee\n1,ant\n", "line 4 has the id '1' again, after line 2"),
        (b"id,label\n8,ant\n9,bee\n10,bee\n", "2 ids of"),
        (b"id,label\nx,ant\ny,bee\n", "('x' in line 2, 'y' in line 3) is in"),
    ],
)
def test_row_27_what_is_wrong_in_a_table_is_named_with_its_line(tmp_path, truth, content, expected):
    (tmp_path / "submission.csv").write_bytes(content)
    assert expected in sentence(tmp_path / "submission.csv", truth)
    if "ids of" not in expected and " is in" not in expected:
        (tmp_path / "submission.csv").rename(tmp_path / "other.csv")
        swapped = sentence(truth, tmp_path / "other.csv")
        assert expected.replace("submission.csv", "other.csv") in swapped


def test_an_unknown_label_comes_with_its_line_and_the_nearest(tmp_path, truth):
    rows = [*numbered(GUESSED)[:7], (8, "bea")]
    text = sentence(submit(tmp_path, rows), truth)
    assert "submission.csv line 9 has the label 'bea'" in text
    assert "did you mean 'bee'?" in text


def test_a_class_without_pictures_may_be_predicted_where_it_is_listed(tmp_path, truth):
    rows = [*numbered(GUESSED)[:7], (8, "dog")]
    assert "classes.txt" in sentence(submit(tmp_path, rows), truth)
    (tmp_path / "classes.txt").write_text("ant\nbee\ncat\ndog\n")
    metrics = score_submission(submit(tmp_path, rows), truth)
    assert metrics.accuracy == 5 / 8
    assert metrics.per_class[3].num_images == 0


def test_ids_on_one_side_only_are_counted_on_both(tmp_path, truth):
    rows = [*numbered(GUESSED)[:6], (70, "ant"), (80, "bee")]
    text = sentence(submit(tmp_path, rows), truth)
    assert "2 ids of" in text
    assert "lacks ('70' in line 8, '80' in line 9)" in text
    assert "without a prediction ('7' in line 8, '8' in line 9)" in text
    assert "2 ids of" in sentence(submit(tmp_path, rows), truth, allow_missing=True)


def test_what_is_no_file_is_named(tmp_path, truth):
    assert "There is no file" in sentence(tmp_path / "nothing.csv", truth)
    export(
        Dataset("insects", images_of([f"train/{n}" for n in range(1, 9)], TRUE), None, None, ""),
        tmp_path / "folder",
        "folder",
    )
    assert "such as" in sentence(submit(tmp_path), tmp_path / "folder")
    assert "trainLabels.csv" in sentence(submit(tmp_path), tmp_path / "folder")
