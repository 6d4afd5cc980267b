"""Images: exact area averages, files as they are stored, and errors in one line."""

import struct
import sys
import warnings
import zlib
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image, ImageFile, ImageOps

from splatfix.images import (
    check_image,
    image_size,
    read_header,
    read_image,
    read_pixels,
    resize,
    to_bytes,
    to_float,
    write_image,
)


def area_average(image, width, height):
    """Reference: repeat pixels to a common multiple, then average blocks."""
    fine = np.repeat(np.repeat(image.astype(np.float64), height, axis=0), width, axis=1)
    rows, columns = image.shape[:2]
    return fine.reshape(height, rows, width, columns, -1).mean(axis=(1, 3)).reshape(height, width, *image.shape[2:])


@pytest.mark.parametrize("size", [(12, 8), (6, 4), (9, 5), (5, 8), (12, 3), (1, 1)])
@pytest.mark.parametrize("channels", [(), (1,), (3,), (4,)])
def test_shrinking_averages_over_areas(size, channels):
    image = np.random.default_rng(0).uniform(size=(8, 12, *channels)).astype(np.float32)
    made = resize(image, *size)
    assert made.dtype == np.float32
    np.testing.assert_allclose(made, area_average(image, *size), atol=1e-5)


def test_shrinking_does_not_shift():
    """A ramp stays in place within a tenth of a pixel at a ratio of 1.5 (Pillow's BOX moves it by a quarter)."""
    width = 480
    ramp = np.repeat((np.arange(width, dtype=np.float32)[None] + 0.5) / width, 4, axis=0)
    np.testing.assert_allclose(resize(ramp, 320, 4)[0], (np.arange(320) + 0.5) / 320, atol=0.1 / width)


def test_enlarging_keeps_constants_and_range():
    image = np.zeros((4, 4, 3), np.float32)
    image[1:3, 1:3] = 1
    made = resize(image, 9, 7)
    assert made.shape == (7, 9, 3)
    assert made.min() >= 0
    assert made.max() <= 1
    np.testing.assert_allclose(resize(np.full((4, 4), 0.3, np.float32), 8, 2), 0.3, atol=1e-6)


@pytest.mark.parametrize("channels", [3, 4])
def test_png_round_trip(channels, tmp_path):
    image = np.random.default_rng(0).uniform(size=(5, 7, channels)).astype(np.float32)
    write_image(tmp_path / "deep" / "a.png", image)
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["a.png"]
    read = read_image(tmp_path / "deep" / "a.png")
    np.testing.assert_array_equal(to_bytes(read), to_bytes(image))
    header = read_header(tmp_path / "deep" / "a.png")
    assert (header.width_px, header.height_px, header.has_alpha) == (7, 5, channels == 4)
    assert image_size(tmp_path / "deep" / "a.png") == (7, 5)


@pytest.mark.parametrize(
    ("mode", "value", "wanted"),
    [
        ("L", 51, [0.2] * 3),
        ("1", 1, [1.0] * 3),
        ("I;16", 13107, [0.2] * 3),
        ("LA", (51, 102), [0.2, 0.2, 0.2, 0.4]),
        ("CMYK", (0, 0, 0, 204), [0.2] * 3),
    ],
)
def test_other_modes(mode, value, wanted, tmp_path):
    path = tmp_path / ("a.tif" if mode == "CMYK" else "a.png")
    Image.new(mode, (3, 2), value).save(path)
    np.testing.assert_allclose(read_image(path), np.broadcast_to(wanted, (2, 3, len(wanted))), atol=1e-3)
    assert read_header(path).has_alpha == (len(wanted) == 4)


def test_palette_with_transparency(tmp_path):
    image = Image.new("P", (3, 2), 0)
    image.putpalette([255, 0, 0] * 256)
    image.save(tmp_path / "a.png", transparency=0)
    assert read_header(tmp_path / "a.png").has_alpha
    np.testing.assert_array_equal(read_image(tmp_path / "a.png")[0, 0], [1, 0, 0, 0])


def test_errors_name_the_file_in_one_line(tmp_path):
    with pytest.raises(ValueError, match=r"absent\.png: no such image file"):
        read_image(tmp_path / "absent.png")
    (tmp_path / "text.png").write_text("no image")
    for read in (read_image, read_header, image_size):
        with pytest.raises(ValueError, match=r"text\.png: cannot be read as an image \(unknown format\)"):
            read(tmp_path / "text.png")
    for suffix in (".png", ".jpg"):
        path = tmp_path / f"cut{suffix}"
        write_image(path, np.random.default_rng(0).uniform(size=(64, 64, 3)))
        path.write_bytes(path.read_bytes()[:1500])
        assert image_size(path) == (64, 64)
        with pytest.raises(ValueError, match=r"cannot be decoded .*is the file whole"):
            read_image(path)


@pytest.mark.parametrize(
    ("name", "content", "wanted"),
    [
        ("a.jpg", b"", r"the file is empty \(0 bytes\); copy or download it again"),
        (
            "a.jpg",
            b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n",
            "git-lfs pointer.*git lfs pull",
        ),
        ("a.heic", b"\0\0\0\x24ftypheic\0\0\0\0mif1heic" + bytes(500), "HEIC image.*pillow-heif"),
        ("a.jpg", b"\0\0\0\x18ftypmp42" + bytes(500), "a video.*splatfix pose"),
        ("a.exr", b"\x76\x2f\x31\x01" + bytes(90), r"float \(HDR\) image, OpenEXR; wanted 8 or 16 bits"),
        ("a.hdr", b"#?RADIANCE\n" + bytes(90), r"float \(HDR\) image, Radiance"),
        ("a.jpg", b"<!DOCTYPE html><html>", "a web page"),
        ("a.jpg", bytes(900), "only zeros"),
        ("a.NEF", b"II*\0" + bytes(90), "a raw photo"),
        ("a.tif", b"II*\0" + bytes(90), "a TIFF of a kind that cannot be read"),
    ],
)
def test_files_that_are_no_readable_image_are_named(name, content, wanted, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pillow_heif", None)  # as if it were not installed
    (tmp_path / name).write_bytes(content)
    for read in (read_header, read_image, check_image):
        with pytest.raises(ValueError, match=rf"{name}: .*{wanted}"):
            read(tmp_path / name)


def test_heic_is_read_where_its_library_is_installed(tmp_path, monkeypatch):
    """A stand-in for pillow-heif registers a reader of HEIC with Pillow."""

    class Reader(ImageFile.ImageFile):
        format = "HEIF"

        def _open(self):
            self._mode, self._size = "RGB", (3, 2)

        def load(self):
            self.im = Image.new("RGB", (3, 2), (255, 0, 0)).im
            return self.im.pixel_access()

    library = SimpleNamespace(
        register_heif_opener=lambda: Image.register_open("HEIF", Reader, lambda start: start[8:12] == b"heic")
    )
    monkeypatch.setitem(sys.modules, "pillow_heif", library)
    for registry in ("ID", "OPEN"):
        monkeypatch.setattr(Image, registry, getattr(Image, registry).copy())
    (tmp_path / "a.heic").write_bytes(b"\0\0\0\x24ftypheic" + bytes(500))
    np.testing.assert_array_equal(read_image(tmp_path / "a.heic"), np.broadcast_to([1.0, 0, 0], (2, 3, 3)))


def test_float_pixels_are_refused_and_16_bits_are_kept(tmp_path):
    Image.fromarray(np.full((2, 3), 0.5, np.float32)).save(tmp_path / "a.tif")
    for read in (read_header, read_image, check_image):
        with pytest.raises(ValueError, match=r"a\.tif: float pixels, .*wanted 8 or 16 bits per channel"):
            read(tmp_path / "a.tif")
    Image.fromarray(np.full((2, 3), 257, np.uint16)).save(tmp_path / "a.png")
    np.testing.assert_allclose(read_image(tmp_path / "a.png"), 257 / 65535)


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_16_bits_of_colors_are_kept(mode, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 65536, (5, 7, len(mode)), dtype=np.uint16)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    parts = [(b"IHDR", struct.pack(">IIBBBBB", 7, 5, 16, 2 if mode == "RGB" else 6, 0, 0, 0))]
    parts += [(b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    chunks = [struct.pack(">I", len(d)) + t + d + struct.pack(">I", zlib.crc32(t + d)) for t, d in parts]
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunks))
    np.testing.assert_array_equal(read_pixels(tmp_path / "a.png"), pixels)
    np.testing.assert_allclose(read_image(tmp_path / "a.png"), pixels / 65535, atol=1e-6)
    (tmp_path / "a.png").write_bytes((tmp_path / "a.png").read_bytes()[:-60])
    with pytest.raises(ValueError, match=r"a\.png: cannot be decoded"):
        read_image(tmp_path / "a.png")


@pytest.mark.parametrize("size", [(12, 8), (6, 4), (9, 5), (5, 8), (24, 4)])
@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_pixels_are_resized_as_their_floats(size, kind):
    pixels = np.random.default_rng(0).integers(0, np.iinfo(kind).max, (8, 12, 3)).astype(kind)
    np.testing.assert_array_equal(resize(pixels, *size), resize(to_float(pixels), *size))


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tif", ".avif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_read_and_applied_on_request(orientation, suffix, tmp_path):
    path = tmp_path / f"a{suffix}"
    pixels = np.zeros((16, 24, 3), np.uint8)
    pixels[:8, :8] = 255  # the corner tells the orientation
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {} if suffix in (".png", ".tif") else {"quality": 100}
    Image.fromarray(pixels).save(path, exif=exif, **options)
    header = read_header(path)
    assert (header.orientation, header.size()) == (orientation, (24, 16))
    assert header.size(upright=True) == ((16, 24) if orientation >= 5 else (24, 16))
    np.testing.assert_allclose(read_image(path), pixels / 255, atol=0.2)
    upright = read_image(path, upright=True)
    with Image.open(path) as image:
        wanted = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    np.testing.assert_allclose(upright, wanted / 255, atol=0.01)
    row, column = {1: (0, 0), 2: (0, -1), 3: (-1, -1), 4: (-1, 0), 5: (0, 0), 6: (0, -1), 7: (-1, -1), 8: (-1, 0)}[
        orientation
    ]
    assert upright[row, column].min() > 0.8


def test_images_of_200_megapixels_are_opened_without_a_warning(tmp_path):
    Image.new("1", (20000, 10000)).save(tmp_path / "a.png")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert image_size(tmp_path / "a.png") == (20000, 10000)
