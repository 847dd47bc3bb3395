"""The rules by which one image file becomes pixels (row 38's kinds), and resizing."""

import functools
import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from tenfold.data.decoding import (
    MAX_PIXELS,
    BrokenImageError,
    decode_image,
    measure_image,
    prepare_image,
    require_pixels,
    resize_pixels,
    white_level_for,
)

RED, WHITE, BLUE = (255, 0, 0), (255, 255, 255), (0, 0, 255)


def encoded(image, kind="PNG", **options):
    content = io.BytesIO()
    image.save(content, kind, **options)
    return content.getvalue()


def halves(left, right, *, mode, size=(8, 8)):
    image = Image.new(mode, size, left)
    image.paste(right, (size[0] // 2, 0, *size))
    return image


def noise(height, width, *, seed=3):
    random = np.random.default_rng(seed)
    return random.integers(0, 256, (height, width, 3), dtype=np.uint8)


def left_and_right(content):
    pixels = decode_image(content).pixels
    assert pixels.dtype == np.uint8
    assert pixels.shape == (8, 8, 3)
    assert pixels.flags.c_contiguous
    return tuple(pixels[4, 1].tolist()), tuple(pixels[4, 6].tolist())


def palette():
    image = Image.new("P", (8, 8), 0)
    image.putpalette([255, 0, 0, 0, 0, 255])
    image.paste(1, (4, 0, 8, 8))
    return image


TRANSPARENT = (255, 0, 0, 0)


@pytest.mark.parametrize(
    ("image", "options", "expected"),
    [
        (halves((*RED, 255), TRANSPARENT, mode="RGBA"), {}, (RED, WHITE)),
        (halves((*RED, 255), (0, 0, 0, 128), mode="RGBA"), {}, (RED, (127, 127, 127))),
        (halves((10, 255), (10, 0), mode="LA"), {}, ((10, 10, 10), WHITE)),
        (palette(), {}, (RED, BLUE)),
        (palette(), {"transparency": 1}, (RED, WHITE)),
        (palette(), {"kind": "GIF"}, (RED, BLUE)),
        (palette(), {"kind": "GIF", "transparency": 1}, (RED, WHITE)),
        (palette(), {"transparency": b"\xff\x00"}, (RED, WHITE)),
        (halves(RED, BLUE, mode="RGB"), {"transparency": BLUE}, (RED, WHITE)),
        (halves(0, 255, mode="1"), {}, ((0, 0, 0), WHITE)),
        (halves(0, 255, mode="L"), {}, ((0, 0, 0), WHITE)),
    ],
)
def test_row_38_transparency_is_laid_on_white_and_grey_is_made_colour(image, options, expected):
    assert left_and_right(encoded(image, **options)) == expected


@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_row_38_cmyk(kind):
    image = halves((0, 255, 255, 0), (0, 0, 0, 0), mode="CMYK", size=(64, 64))
    pixels = decode_image(encoded(image, kind)).pixels
    assert np.abs(pixels[32, 8].astype(int) - RED).max() <= 3
    assert np.abs(pixels[32, 56].astype(int) - WHITE).max() <= 3


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_row_38_sixteen_bits_are_scaled_not_cut(kind):
    values = np.array([[0, 128, 257, 32768], [65535, 65407, 65406, 256]], dtype=np.uint16)
    pixels = decode_image(encoded(Image.fromarray(values), kind)).pixels
    expected = np.round(values / 257).astype(int)
    np.testing.assert_array_equal(pixels, np.repeat(expected[..., None], 3, axis=2))


def test_row_38_sixteen_bit_grey_is_resized_too():
    values = np.full((40, 60), 32896, dtype=np.uint16)
    pixels = decode_image(encoded(Image.fromarray(values)), image_size=16).pixels
    assert np.unique(pixels).tolist() == [128]


def test_row_38_floating_point_is_refused():
    image = Image.fromarray(np.zeros((8, 8), dtype=np.float32))
    with pytest.raises(BrokenImageError, match="floating-point"):
        decode_image(encoded(image, "TIFF"))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_row_38_exif_orientation_is_applied(kind, orientation):
    """Against a picture whose corners say where they belong."""
    upright = np.zeros((32, 48, 3), dtype=np.uint8)
    upright[:16, :24] = RED
    upright[16:, 24:] = BLUE
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: np.rot90(upright, 1),
        7: np.rot90(upright, 2).transpose(1, 0, 2),
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"quality": 95} | ({"lossless": True} if kind == "WEBP" else {})
    content = encoded(Image.fromarray(np.ascontiguousarray(stored)), kind, exif=exif, **options)
    picture = decode_image(content)
    assert picture.original_size == (32, 48)
    corners = picture.pixels[[3, 3, -4, -4], [3, -4, 3, -4]].astype(int)
    expected = np.array([RED, (0, 0, 0), (0, 0, 0), BLUE])
    assert np.abs(corners - expected).max() <= 12
    small = decode_image(content, image_size=16)
    assert small.original_size == (32, 48)
    corners = small.pixels[[1, 1, -2, -2], [1, -2, 1, -2]].astype(int)
    assert np.abs(corners - expected).max() <= 24


XMP = (
    '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF><rdf:Description '
    'xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="6"/></rdf:RDF></x:xmpmeta>'
)


def turned_by_xmp(kind, image):
    if kind == "PNG":
        info = PngInfo()
        info.add_itxt("XML:com.adobe.xmp", XMP)
        return encoded(image, kind, pnginfo=info)
    if kind == "TIFF":
        return encoded(image, kind, tiffinfo={700: XMP.encode()})
    if kind == "JPEG":
        content, block = encoded(image, kind, quality=95), b"http://ns.adobe.com/xap/1.0/\0"
        block += XMP.encode()
        return content[:2] + b"\xff\xe1" + struct.pack(">H", len(block) + 2) + block + content[2:]
    return encoded(image, kind, xmp=XMP.encode(), quality=95)


@pytest.mark.parametrize("size", [0, 16])
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_an_orientation_in_xmp_is_applied_in_files_and_to_what_pillow_opened(kind, size):
    upright = np.zeros((32, 48, 3), dtype=np.uint8)
    upright[:16, :24] = RED
    stored = Image.fromarray(np.ascontiguousarray(np.rot90(upright, 1)))
    content = turned_by_xmp(kind, stored)
    picture = decode_image(content, image_size=size)
    assert picture.original_size == (32, 48)
    assert np.abs(picture.pixels[3, 3].astype(int) - RED).max() <= 24
    assert picture.pixels[-3, 3].max() <= 24
    opened = prepare_image(Image.open(io.BytesIO(content)), size=(16, 16))
    from_file = prepare_image(content, size=(16, 16))
    np.testing.assert_array_equal(opened, from_file)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("damage", [bytes(range(40, 140)), b"MM\0*\0\0\0\x08\0\x09", b""])
def test_damaged_exif_leaves_an_image_as_it_is_stored(kind, damage):
    options = {"lossless": True} if kind == "WEBP" else {}
    image = Image.fromarray(noise(12, 20))
    content = encoded(image, kind, exif=b"Exif\0\0" + damage, **options)
    plain = encoded(image, kind, **options)
    expected = decode_image(plain).pixels
    np.testing.assert_array_equal(decode_image(content).pixels, expected)
    opened = prepare_image(Image.open(io.BytesIO(content)), size=(12, 20))
    np.testing.assert_array_equal(opened, expected)


@pytest.mark.parametrize("level", [255, 1023, 4095, 16383, 65535])
@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_files_that_use_few_of_sixteen_bits_are_as_bright_as_those_that_use_all(level, kind):
    eight = np.arange(256).reshape(16, 16)
    values = np.round(eight / 255 * level).astype(np.uint16)
    picture = decode_image(encoded(Image.fromarray(values), kind), window=(0, level))
    np.testing.assert_array_equal(picture.pixels[..., 1], eight)
    assert white_level_for(picture.peak) == level
    assert decode_image(encoded(Image.fromarray(noise(8, 8)))).peak == 0


def deep_png(values, *, clear=()):
    """Sixteen bits of each channel, which Pillow reads and does not write. clear: the value of
    each that is transparent."""
    height, width, channels = values.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    kind = (0, 4, 2, 6)[channels - 1]
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, kind, 0, 0, 0))
    header += chunk(b"tRNS", struct.pack(f">{len(clear)}H", *clear)) if clear else b""
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def deep_tiff(values, order="<", *, packed=False):
    height, width, _ = values.shape
    content = values.astype(f"{order}u2").tobytes()
    content = zlib.compress(content) if packed else content
    start = 8 + 2 + 12 * 9 + 4
    tags = [
        (256, 4, 1, width),
        (257, 4, 1, height),
        (258, 3, 3, start),
        (259, 3, 1, 1 + 7 * packed),
    ]
    tags += [(262, 3, 1, 2), (273, 4, 1, start + 6), (277, 3, 1, 3), (278, 4, 1, height)]
    tags += [(279, 4, 1, len(content))]
    file = b"II*\0" if order == "<" else b"MM\0*"
    file += struct.pack(f"{order}IH", 8, 9)
    for tag, kind, number, value in tags:
        packing = "HHIHH" if (kind, number) == (3, 1) else "HHII"
        file += struct.pack(order + packing, tag, kind, number, value, *[0] * (packing[-1] == "H"))
    return file + struct.pack(f"{order}I3H", 0, 16, 16, 16) + content


DEEP = {
    "png": deep_png,
    "tiff": deep_tiff,
    "other order": functools.partial(deep_tiff, order=">"),
    "packed": functools.partial(deep_tiff, packed=True),
    "packed, other order": functools.partial(deep_tiff, order=">", packed=True),
}


@pytest.mark.parametrize("level", [255, 1023, 4095, 65535])
@pytest.mark.parametrize("kind", DEEP)
def test_colours_of_sixteen_bits_that_use_few_are_as_bright_too(kind, level, tmp_path):
    eight = noise(9, 14)
    eight[0, 0] = 255
    content = DEEP[kind](np.round(eight / 255 * level).astype(np.uint16))
    first = decode_image(content)
    assert white_level_for(first.peak) == level
    (tmp_path / "file").write_bytes(content)
    for source in (content, tmp_path / "file"):
        found = decode_image(source, window=(0, level)).pixels
        np.testing.assert_array_equal(found, eight)
    assert decode_image(content, image_size=8, window=(0, level)).pixels.max() > 128


@pytest.mark.parametrize("is_stated", [True, False], ids=["one value is clear", "a channel"])
@pytest.mark.parametrize("channels", [1, 3])
def test_row_38_transparent_images_of_sixteen_bits_are_on_white_and_have_a_window(
    channels, is_stated, tmp_path
):
    values = np.full((9, 14, channels), 4095, dtype=np.uint16)
    values[:, :7] = np.arange(2000, 2000 + channels)
    values[0, :7] += 1  # Nearly that value, with the same upper byte.
    is_clear = (values == values[1, 0]).all(axis=2)
    opacity = np.where(is_clear, 0, 65535)[..., None].astype(np.uint16)
    clear = values[1, 0].tolist()
    content = deep_png(values, clear=clear)
    if not is_stated:
        content = deep_png(np.concatenate([values, opacity], axis=2))
    expected = np.floor(values / 4095 * 255 + 0.5).astype(int)
    expected = np.where(is_clear[..., None], 255, np.broadcast_to(expected, (9, 14, 3)))
    (tmp_path / "file").write_bytes(content)
    for source in (content, tmp_path / "file"):
        found = decode_image(source, window=(0, 4095))
        np.testing.assert_array_equal(found.pixels, expected)
        assert white_level_for(found.peak) == 4095
    whole = decode_image(content)
    assert white_level_for(whole.peak) == 4095
    assert (whole.pixels[1:, :7] == 255).all()
    assert whole.pixels[0, :7].max() < 10
    assert whole.pixels[:, 7:].max() <= 16


@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_a_tiff_file_may_have_white_as_its_lowest_value(kind):
    values = np.arange(256, dtype=kind).reshape(16, 16) * (257 if kind == np.uint16 else 1)
    content = encoded(Image.fromarray(values), "TIFF")
    photometric, white_is_0 = (struct.pack("<HHIHH", 262, 3, 1, value, 0) for value in (1, 0))
    assert content.count(photometric) == 1
    found = decode_image(content.replace(photometric, white_is_0)).pixels[..., 0]
    np.testing.assert_array_equal(found, 255 - np.arange(256).reshape(16, 16))


def test_a_bmp_of_five_and_six_bits_a_colour_has_eight():
    header = struct.pack("<2sIHHI", b"BM", 66 + 8, 0, 0, 66)
    header += struct.pack("<IiiHHIIiiII", 40, 2, 1, 1, 16, 3, 8, 0, 0, 0, 0)
    content = (
        header + struct.pack("<3I", 0xF800, 0x7E0, 0x1F) + struct.pack("<4H", 0xF800, 31, 0, 0)
    )
    for window in ((), (0, 4095)):
        found = decode_image(content, window=window)
        assert found.pixels.tolist() == [[[255, 0, 0], [0, 0, 255]]]
        assert found.peak == 0


def test_the_level_is_the_least_that_holds_all_values():
    peaks = (0, 1, 256, 4000, 5000, 60_000)
    assert list(map(white_level_for, peaks)) == [0, 255, 1023, 4095, 16383, 65535]


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64])
def test_floats_between_0_and_1_are_images(kind):
    pixels = noise(9, 7)
    np.testing.assert_array_equal(require_pixels(pixels), pixels)
    np.testing.assert_array_equal(require_pixels((pixels / 255).astype(kind)), pixels)


@pytest.mark.parametrize(
    "wrong",
    [
        noise(9, 7).astype(np.float32),
        noise(9, 7) / 127.5 - 1,
        np.full((9, 7, 3), np.nan),
        noise(9, 7) > 100,
        noise(9, 7).astype(np.uint16) * 16,
        noise(9, 7).astype(np.int64),
        noise(9, 7).astype(object),
        noise(9, 7).transpose(2, 0, 1) / 255,
        [[1, 2, 3]],
    ],
)
def test_other_arrays_have_no_known_range(wrong):
    with pytest.raises(BrokenImageError, match="expected"):
        require_pixels(wrong)
    with pytest.raises(BrokenImageError, match="expected"):
        prepare_image(wrong, size=(9, 7))


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "TIFF"])
def test_row_38_the_first_frame_of_an_animation(kind):
    frames = [Image.new("RGB", (8, 8), color) for color in (RED, BLUE)]
    options = {"lossless": True} if kind == "WEBP" else {}
    content = encoded(frames[0], kind, save_all=True, append_images=frames[1:], **options)
    assert left_and_right(content) == (RED, RED)


def test_row_38_a_colour_profile_is_ignored():
    from PIL import ImageCms

    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    pixels = noise(8, 8)
    for options in ({"icc_profile": profile}, {}):
        image = decode_image(encoded(Image.fromarray(pixels), **options))
        np.testing.assert_array_equal(image.pixels, pixels)
        assert image.original_size == (8, 8)


def test_the_middle_is_kept_and_the_shorter_side_fits():
    picture = np.zeros((40, 100, 3), dtype=np.uint8)
    picture[:, 30:70] = 200
    for pixels in (picture, picture.transpose(1, 0, 2)):
        image = Image.fromarray(np.ascontiguousarray(pixels))
        small = decode_image(encoded(image), image_size=20)
        assert small.pixels.shape == (20, 20, 3)
        assert small.pixels[5:15, 5:15].min() == 200
        assert small.original_size == pixels.shape[:2]


def test_resizing_is_antialiased():
    checks = (np.indices((256, 256)).sum(axis=0) % 2 * 255).astype(np.uint8)
    pixels = decode_image(encoded(Image.fromarray(checks)), image_size=32).pixels
    assert pixels.min() >= 120
    assert pixels.max() <= 135


def test_a_large_jpeg_reduced_while_decoding_looks_like_one_reduced_afterwards():
    coarse = Image.fromarray(noise(6, 9)).resize((1800, 1200), Image.Resampling.BICUBIC)
    content = encoded(coarse, "JPEG", quality=95)
    picture = decode_image(content, image_size=48)
    full = Image.open(io.BytesIO(content)).crop((300, 0, 1500, 1200))
    expected = np.asarray(full.resize((48, 48), Image.Resampling.BICUBIC)).astype(int)
    assert picture.original_size == (1200, 1800)
    assert np.abs(picture.pixels.astype(int) - expected).mean() < 1.5


def test_arrays_are_resized_by_the_same_rule_as_files():
    pixels = noise(30, 50)
    from_file = decode_image(encoded(Image.fromarray(pixels)), image_size=16).pixels
    np.testing.assert_array_equal(resize_pixels(pixels[None], image_size=16)[0], from_file)
    assert resize_pixels(pixels[None, :, :30], image_size=30) is not None


def test_the_content_counts_not_the_name(tmp_path):
    file = tmp_path / "picture.jpg"
    file.write_bytes(encoded(Image.fromarray(noise(9, 9))))
    np.testing.assert_array_equal(decode_image(file).pixels, noise(9, 9))
    assert measure_image(str(file)) == (9, 9)


def chunk(name, content):
    checksum = zlib.crc32(name + content)
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", checksum)


def test_row_39_a_pixel_bomb_is_broken_before_it_is_decoded():
    side = int(MAX_PIXELS**0.5) + 1
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0))
    bomb = b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    with pytest.raises(BrokenImageError, match="pixels"):
        decode_image(bomb, image_size=32)


BROKEN = {
    "empty": b"",
    "text": b"not a picture",
    "cut off": encoded(Image.fromarray(noise(64, 64)))[:2000],
    "cut off jpeg": encoded(Image.fromarray(noise(64, 64)), "JPEG")[:1000],
    "postscript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\nshowpage\n",
}


@pytest.mark.parametrize("name", BROKEN)
@pytest.mark.parametrize("image_size", [0, 32])
def test_row_26_broken_images_are_told_with_a_reason(name, image_size):
    with pytest.raises(BrokenImageError) as caught:
        decode_image(BROKEN[name], image_size=image_size)
    assert str(caught.value)


def test_row_40_altered_bytes_give_an_image_or_are_broken():
    random = np.random.default_rng(11)
    for kind in ("PNG", "JPEG", "GIF", "BMP", "WEBP", "TIFF", "PPM"):
        content = np.frombuffer(encoded(Image.fromarray(noise(24, 24)), kind), dtype=np.uint8)
        for _ in range(60):
            altered = content.copy()
            places = random.integers(0, len(altered), 4)
            altered[places] = random.integers(0, 256, 4)
            try:
                picture = decode_image(altered.tobytes(), image_size=16)
            except BrokenImageError:
                continue
            assert picture.pixels.shape == (16, 16, 3)
