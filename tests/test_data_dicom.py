"""DICOM files that pydicom itself writes, windows, and patients on one side of a split."""

import io
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

import commands
from tenfold.data import export, load
from tenfold.data.decoding import (
    BrokenImageError,
    TooLargeImageError,
    decode_image,
    measure_image,
    prepare_image,
)
from tenfold.data.relabel import relabel
from tenfold.data.splits import evaluation_split, training_data
from tenfold.errors import TenfoldError

pydicom = pytest.importorskip("pydicom")

GREY = np.arange(0, 4096, 16, dtype=np.uint16).reshape(16, 16)


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("TENFOLD_CACHE", str(tmp_path_factory.mktemp("cache")))


def write(path, pixels=GREY, *, patient="P1", syntax=None, **fields):
    """A file of these pixels, of the given keywords besides what every file has."""
    from pydicom.dataset import FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage, generate_uid

    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid()
    meta.TransferSyntaxUID = syntax or ExplicitVRLittleEndian
    dataset = pydicom.Dataset()
    dataset.file_meta = meta
    dataset.SOPClassUID, dataset.SOPInstanceUID = meta[0x00020002].value, meta[0x00020003].value
    dataset.PatientID = patient
    dataset.Rows, dataset.Columns = pixels.shape[:2]
    dataset.SamplesPerPixel = 3 if pixels.ndim == 3 else 1
    dataset.PhotometricInterpretation = "RGB" if pixels.ndim == 3 else "MONOCHROME2"
    if pixels.ndim == 3:
        dataset.PlanarConfiguration = 0
    dataset.BitsAllocated = 8 * pixels.itemsize
    dataset.BitsStored = 8 if pixels.itemsize == 1 else 12
    dataset.HighBit = dataset.BitsStored - 1
    dataset.PixelRepresentation = int(pixels.dtype.kind == "i")
    dataset.PixelData = pixels.tobytes()
    for name, value in fields.items():
        setattr(dataset, name, value)
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset.save_as(path, enforce_file_format=True)
    return path


def grey(path, **options):
    pixels = decode_image(path, **options).pixels
    assert (pixels == pixels[..., :1]).all()
    return pixels[..., 0].astype(int)


def test_without_a_window_all_of_its_bits_count(tmp_path):
    found = grey(write(tmp_path / "a.dcm"))
    np.testing.assert_array_equal(found, np.floor(GREY / 4095 * 255 + 0.5))
    assert measure_image((tmp_path / "a.dcm").read_bytes()) == (16, 16)
    inverted = write(tmp_path / "b.dcm", PhotometricInterpretation="MONOCHROME1")
    np.testing.assert_array_equal(grey(inverted), 255 - found)


def test_its_window_counts_in_rescaled_units_and_a_wanted_one_before_it(tmp_path):
    fields = {"RescaleSlope": 2, "RescaleIntercept": -1024, "WindowCenter": 40, "WindowWidth": 400}
    path, units = write(tmp_path / "ct.dcm", **fields), GREY.astype(float) * 2 - 1024
    # PS3.3 C.11.2.1.2.1: y from 0 to 1 over center - 0.5 -+ (width - 1) / 2.
    own = ((units - 39.5) / 399 + 0.5).clip(0, 1)
    np.testing.assert_allclose(grey(path), own * 255, atol=0.51)
    wanted = ((units + 1000) / 1400).clip(0, 1)
    np.testing.assert_allclose(grey(path, window=(-1000, 400)), wanted * 255, atol=0.51)
    signed = write(
        tmp_path / "s.dcm", (GREY.astype(np.int16) - 2048), WindowCenter=0.5, WindowWidth=1
    )
    assert set(grey(signed).ravel()) == {0, 255}  # A window of one value is a threshold.


def test_a_negative_slope_makes_the_least_stored_value_the_brightest(tmp_path):
    fields = {"RescaleSlope": -1, "RescaleIntercept": 4095}
    found = grey(write(tmp_path / "a.dcm", **fields))
    np.testing.assert_array_equal(found, np.floor((4095 - GREY) / 4095 * 255 + 0.5))
    fields |= {"WindowCenter": 2048, "WindowWidth": 401}
    own = ((4095 - GREY.astype(float) - 2047.5) / 400 + 0.5).clip(0, 1)
    np.testing.assert_allclose(grey(write(tmp_path / "b.dcm", **fields)), own * 255, atol=0.51)
    flat = write(tmp_path / "c.dcm", RescaleSlope=0, RescaleIntercept=7)
    with pytest.raises(BrokenImageError, match="a slope by which all its values are 7"):
        decode_image(flat)


def test_a_table_of_interest_is_followed(tmp_path):
    item = pydicom.Dataset()
    item.LUTDescriptor, item.LUTData = [4096, 0, 8], [n // 32 for n in range(4096)]
    item.add_new(0x00283002, "US", [4096, 0, 8])
    item.add_new(0x00283006, "US", [n // 32 for n in range(4096)])
    found = grey(write(tmp_path / "a.dcm", VOILUTSequence=[item]))
    np.testing.assert_array_equal(found, GREY // 32)


def test_colour_and_compressed_files_are_read(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (12, 20, 3), dtype=np.uint8)
    found = decode_image(write(tmp_path / "rgb.dcm", pixels)).pixels
    np.testing.assert_array_equal(found, pixels)
    dataset = pydicom.dcmread(write(tmp_path / "rle.dcm"))
    dataset.compress(pydicom.uid.RLELossless)
    dataset.save_as(tmp_path / "rle.dcm")
    np.testing.assert_array_equal(grey(tmp_path / "rle.dcm"), grey(write(tmp_path / "a.dcm")))


def test_what_is_no_single_image_or_is_damaged_is_said(tmp_path):
    frames = write(tmp_path / "f.dcm", np.stack([GREY] * 3).reshape(48, 16), Rows=16)
    dataset = pydicom.dcmread(frames)
    dataset.NumberOfFrames = 3
    dataset.save_as(frames)
    with pytest.raises(BrokenImageError, match="holds 3 frames where one is expected"):
        decode_image(frames)
    with pytest.raises(TooLargeImageError, match="has 16x16 pixels where at most 99 are allowed"):
        decode_image(write(tmp_path / "a.dcm").read_bytes(), max_pixels=99)
    cut = (tmp_path / "a.dcm").read_bytes()[:-100]
    with pytest.raises(BrokenImageError):
        decode_image(cut)
    deflated = write(tmp_path / "d.dcm", syntax=pydicom.uid.DeflatedExplicitVRLittleEndian)
    with pytest.raises(BrokenImageError, match="is a deflated DICOM file"):
        decode_image(deflated)
    dataset = pydicom.dcmread(write(tmp_path / "rle.dcm"))
    dataset.compress(pydicom.uid.RLELossless)
    dataset.PixelData = pydicom.encaps.encapsulate([b"\0" * (1 << 17)])
    dataset.save_as(tmp_path / "rle.dcm")
    with pytest.raises(BrokenImageError, match="more bytes than its pixels can need"):
        decode_image(tmp_path / "rle.dcm")


def test_without_pydicom_the_command_is_named(tmp_path):
    path = write(tmp_path / "a.dcm")
    code = (
        "import sys; sys.modules['pydicom'] = None\n"
        "from tenfold.data.decoding import BrokenImageError, decode_image\n"
        "try: decode_image(sys.argv[1])\n"
        "except BrokenImageError as error: print(error)\n"
    )
    command = [sys.executable, "-c", code, str(path)]
    found = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "pip install pydicom" in found.stdout


def clinic(folder, *, patients=20, images=4):
    """Files of two classes, each patient in a tint of its own with noise on it."""
    generator = np.random.default_rng(0)
    for patient in range(patients):
        label = ("benign", "malignant")[patient % 2]
        for number in range(images):
            pixels = generator.integers(0, 3000, (16, 16), dtype=np.uint16) + 50 * patient
            write(folder / label / f"{patient}-{number}.dcm", pixels, patient=f"Name {patient}")
    return folder


def patients_of(images):
    return {name.split("/")[-1].split("-")[0] for name in images.ids.tolist()}


def test_a_patient_stays_on_one_side_of_every_split(tmp_path):
    for _ in range(2):  # The second time from the cache.
        dataset = load(clinic(tmp_path / "data"))
        assert any("20 groups, such as patients" in note for note in dataset.notes)
        assert "Name" not in "".join(dataset.train.groups.tolist())
    sizes = {"train_size": 0, "validation_size": 0.2, "seed": 0}
    data = training_data(dataset, **sizes)
    sides = [data.train, data.validation, evaluation_split(dataset, "test", **sizes)]
    names = list(map(patients_of, sides))
    assert [len(side) for side in sides] == [56, 8, 16]
    assert sum(map(len, names)) == len(set.union(*names)) == 20
    with pytest.raises(TenfoldError, match=r"few patients or groups that stay together"):
        training_data(dataset, train_size=0, validation_size=2, seed=0, test_size=0.2)


def test_tables_say_who_belongs_together_too(tmp_path):
    generator = np.random.default_rng(0)
    lines = ["filename,label,Patient ID"]
    for number in range(40):
        pixels = generator.integers(0, 256, (12, 12, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{number}-0.png")
        lines.append(f"{number}-0.png,{'ab'[number % 2]},p{number // 4}")
    (tmp_path / "labels.csv").write_text("\n".join(lines))
    dataset = load(tmp_path)
    test = evaluation_split(dataset, "test", train_size=0, validation_size=0, seed=1)
    numbers = sorted(int(name) for name in patients_of(test))
    assert len(numbers) == 8
    assert numbers == [n for n in range(40) if n // 4 in {each // 4 for each in numbers}]


@pytest.mark.parametrize("column", ["patient_id", "PatientID", "Patient ID", "Group"])
def test_every_table_knows_who_belongs_together_however_the_column_is_spelt(column, tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    file = io.BytesIO()
    Image.fromarray(GREY).save(file, "PNG")
    content, labels, groups = file.getvalue(), ["cat", "dog"] * 2, ["1", "1 ", "2", "2"]
    names = [f"{number}.png" for number in range(4)]
    for name in names:
        (tmp_path / name).write_bytes(content)
    rows = [",".join(row) + "\n" for row in zip(names, labels, groups, strict=True)]
    (tmp_path / "labels.csv").write_text(f"filename,label,{column}\n{''.join(rows)}")
    table = pa.table({"image": [content] * 4, "label": labels, column: groups})
    pq.write_table(table, tmp_path / "table.parquet")
    for place in (tmp_path / "labels.csv", tmp_path / "table.parquet"):
        assert load(place).train.groups.tolist() == ["1", "1", "2", "2"]


@pytest.mark.parametrize("kind", ["folder", "parquet", "npz"])
def test_what_is_exported_keeps_who_belongs_together(kind, tmp_path):
    dataset = load(clinic(tmp_path / "data", patients=4))
    out = tmp_path / "out.npz" if kind == "npz" else tmp_path / "out"
    export(dataset, out, kind)
    np.testing.assert_array_equal(load(out).train.groups, dataset.train.groups)


def test_an_npz_file_keeps_them_while_images_are_dropped_and_has_one_for_each(tmp_path):
    dataset = load(clinic(tmp_path / "data", patients=4))
    export(dataset, tmp_path / "a.npz", "npz")
    first, *rest = dataset.train.groups.tolist()
    (tmp_path / "wrong.csv").write_text(f"id,label,action\n{dataset.train.ids[0]},,drop\n")
    relabel(tmp_path / "a.npz", tmp_path / "wrong.csv", tmp_path / "b.npz")
    assert load(tmp_path / "b.npz").train.groups.tolist() == rest
    with np.load(tmp_path / "a.npz") as arrays:
        np.savez(tmp_path / "c.npz", **{**arrays, "train_groups": np.array([first])})
    with pytest.raises(TenfoldError, match=r"16 images and groups of shape \(1,\)"):
        load(tmp_path / "c.npz")


def test_a_patient_in_two_splits_of_the_data_is_said(tmp_path, caplog):
    for split, patient in (("train", "A"), ("train", "B"), ("test", "A"), ("test", "C")):
        for label in ("benign", "malignant"):
            write(tmp_path / split / label / f"{patient}.dcm", patient=patient)
    notes = load(tmp_path).notes
    assert any(
        "1 group of images, such as a patient's, of the train split is in the test" in n
        for n in notes
    )


def test_a_window_of_the_recipe_holds_wherever_the_model_goes(tmp_path):
    path = write(tmp_path / "a.dcm")
    Image.fromarray(GREY).save(tmp_path / "a.png")
    Image.fromarray(GREY).save(tmp_path / "a.tif")
    for label in ("benign", "malignant"):
        for kind in ("png", "tif", "dcm"):
            (tmp_path / "data" / label).mkdir(parents=True, exist_ok=True)
            (tmp_path / "data" / label / f"a.{kind}").write_bytes(
                (tmp_path / f"a.{kind}").read_bytes()
            )
    dataset = load(tmp_path / "data", window=(1000, 2000))
    expected = np.floor((GREY.astype(float).clip(1000, 2000) - 1000) * 255 / 1000 + 0.5)
    for pixels in dataset.train.pixels:
        np.testing.assert_array_equal(pixels[..., 0], expected)
    assert dataset.window == (1000, 2000)
    for kind in ("png", "tif", "dcm"):
        found = prepare_image(tmp_path / f"a.{kind}", size=(16, 16), window=(1000, 2000))
        np.testing.assert_array_equal(found[..., 0], expected)
    assert path.exists()


def test_a_window_of_the_command_line_is_that_of_a_recipe(tmp_path):
    for label in "ab":
        (tmp_path / "data" / label).mkdir(parents=True)
        Image.fromarray(GREY).save(tmp_path / "data" / label / "a.png")
    commands.succeed(["data", "export", "data", "out.npz", "--window", "-1000", "400"], tmp_path)
    expected = load(tmp_path / "data", window=(-1000, 400)).train
    np.testing.assert_array_equal(load(tmp_path / "out.npz").train.pixels, expected.pixels)
    said = commands.refuse(["data", "eda", "data", "--window", "400", "400"], tmp_path)
    assert "window 400 400 must be two rising numbers" in said
    for window in ((400, 400), (5, 1), (1,), (0, float("nan")), (0, float("inf"))):
        with pytest.raises(TenfoldError, match="must be two rising numbers such as 0 4095"):
            load(tmp_path / "data", window=window)
