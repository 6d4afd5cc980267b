"""Recognize files by their first bytes, to say what an unreadable one is and what to do with it."""

from __future__ import annotations

from pathlib import Path

from splatfix.extras import install_line

POINTER = "a git-lfs pointer, not the file itself; run git lfs pull in its repository"
RAW_SUFFIXES = (
    *(".dng", ".cr2", ".cr3", ".crw", ".nef", ".nrw", ".arw", ".sr2", ".srf", ".raf", ".rw2", ".rwl", ".orf", ".pef"),
    *(".srw", ".3fr", ".fff", ".iiq", ".gpr", ".erf", ".kdc", ".dcr", ".mef", ".mos", ".x3f"),
)
RAW = "a raw photo of a camera; develop it to PNG or JPEG"
_HEIC_BRANDS = (b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1")
_AS_PNG = "wanted 8 or 16 bits per channel: export the photos as PNG or JPEG"
_KINDS: tuple[tuple[bytes, str], ...] = (
    (b"\x76\x2f\x31\x01", f"a float (HDR) image, OpenEXR; {_AS_PNG}"),
    (b"#?RADIANCE", f"a float (HDR) image, Radiance; {_AS_PNG}"),
    (b"#?RGBE", f"a float (HDR) image, Radiance; {_AS_PNG}"),
    (b"<!DOCTYPE", "a web page, not an image; download it again"),
    (b"<!doctype", "a web page, not an image; download it again"),
    (b"<html", "a web page, not an image; download it again"),
    (b"PK\x03\x04", "a zip archive, not an image; unzip it first"),
    (b"\xff\x0a", "a JPEG XL image; export the photos as PNG or JPEG"),
    (b"\0\0\0\x0cJXL ", "a JPEG XL image; export the photos as PNG or JPEG"),
)
_HEIC = f"a HEIC image, which pillow-heif reads: {install_line('heic')} (or export JPEG)"


def is_pointer(start: bytes) -> bool:
    """Whether a file that starts with these bytes is a pointer that git-lfs has not replaced by the file."""
    return start.startswith(b"version https://git-lfs")


def refuse_pointer(path: Path) -> None:
    """Check that a file is not a git-lfs pointer. ValueError if it is."""
    if is_pointer(_read_start(path)):
        raise ValueError(f"{path}: {POINTER}")


def register_heic(path: Path) -> bool:
    """Let Pillow read HEIC if this file is one and pillow-heif is installed; returns whether it does now."""
    if not _is_heic(_read_start(path)):
        return False
    try:
        import pillow_heif
    except ImportError:
        return False
    pillow_heif.register_heif_opener()
    return True


def describe_unreadable(path: Path) -> str | None:
    """Describe a file that Pillow does not read, and its remedy; None if the file gives no clue."""
    start = _read_start(path)
    if not start:
        return "the file is empty (0 bytes); copy or download it again"
    if is_pointer(start):
        return POINTER
    if not any(start):
        return "the file holds only zeros; copy or download it again"
    if _is_heic(start):
        return _HEIC
    if start[4:8] == b"ftyp" and start[8:12] not in (b"avif", b"avis"):
        return "a video, not an image; splatfix pose VIDEO --out CAPTURE picks frames and finds their cameras"
    if start[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return f"a TIFF of a kind that cannot be read (float?); {_AS_PNG}"
    return next((kind for magic, kind in _KINDS if start.startswith(magic)), None)


def _is_heic(start: bytes) -> bool:
    return start[4:8] == b"ftyp" and start[8:12] in _HEIC_BRANDS


def _read_start(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(512)
