"""Image formats by suffix and by the first bytes of a file."""

from __future__ import annotations

from pathlib import PurePath
from typing import Final

# fmt: off
IMAGE_SUFFIXES: Final = frozenset((
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".gif", ".webp", ".bmp", ".dib", ".tif", ".tiff", ".avif", ".heic",
    ".heif", ".hif", ".ppm", ".pgm", ".pbm", ".pnm", ".jp2", ".j2k", ".ico", ".pcx", ".sgi",
))
# fmt: on
RAW_SUFFIXES: Final = frozenset((".dng", ".nef", ".cr2", ".cr3", ".arw", ".orf", ".rw2", ".raf", ".pef", ".srw"))
"""Camera raw files look like TIFF, but only a small preview is an image."""

HEAD_BYTES: Final = 32  # what `looks_like_image` and `is_heif` need

MAGIC: Final = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF87a", b"GIF89a", b"II*\0", b"MM\0*", b"\0\0\0\x0cjP  ")
HEIF_BRANDS: Final = (b"heic", b"heix", b"hevc", b"heim", b"heis", b"mif1", b"msf1")
OTHER_FILES: Final = (
    (b"version https://git-lfs", "a Git LFS pointer instead of the file; `git lfs pull` fetches it"),
    (b"%PDF", "a PDF document"),
    (b"PK\x03\x04", "a zip archive or office document"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"<svg", "an SVG drawing; render it to PNG first"),
    (b"\0\x05\x16\x07", "a macOS resource fork"),
)
HTML: Final = (b"<!doctype html", b"<html", b"<head", b"<body")


def has_image_suffix(path: str) -> bool:
    """Whether a file is an image by its name."""
    return PurePath(path).suffix.lower() in IMAGE_SUFFIXES


def looks_like_image(head: bytes) -> bool:
    """Whether the first ``HEAD_BYTES`` are those of an image format that can be read."""
    return (
        head.startswith(MAGIC)
        or (head[:4] == b"RIFF" and head[8:12] == b"WEBP")
        or (head[:2] == b"BM" and head[6:10] == b"\0\0\0\0")
        or (head[4:8] == b"ftyp" and head[8:12] in (b"avif", b"avis", *HEIF_BRANDS))
    )


def is_heif(head: bytes) -> bool:
    """Whether the first ``HEAD_BYTES`` are those of an HEIC or HEIF photograph (AVIF is not)."""
    return head[4:8] == b"ftyp" and head[8:12] in HEIF_BRANDS and b"avif" not in head[12:32]


def describe(data: bytes) -> str:
    """A phrase for the content of a file that is not an image."""
    head = data[:512].lstrip()
    for magic, description in OTHER_FILES:
        if head.startswith(magic):
            return description
    if head.lower().startswith(HTML):
        return "an HTML page, perhaps a failed download"
    if b"<svg" in head:
        return "an SVG drawing; render it to PNG first"
    try:
        text = head[:500].decode("utf-8")
    except UnicodeDecodeError:
        return f"no image format begins with these bytes ({data[:8].hex(' ')})"
    printable = sum(character.isprintable() or character.isspace() for character in text)
    return f"plain text ({text[:40]!r})" if printable > 0.9 * len(text) else "no known image format"
