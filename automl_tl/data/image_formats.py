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

HEAD_BYTES: Final = 352  # what `looks_like_image`, `is_heif` and `other_kind` need

MAGIC: Final = (
    *(b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF87a", b"GIF89a", b"\0\0\0\x0cjP  "),
    *(b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"),  # TIFF and BigTIFF
)
HEIF_BRANDS: Final = (b"heic", b"heix", b"hevc", b"heim", b"heis", b"hevx", b"mif1", b"msf1")

NOT_READ: Final = "which is not read; convert it to PNG or JPEG"
# Images of formats that are not read, and what else lies among images: offset, bytes there, description.
OTHER_IMAGES: Final = (
    (128, b"DICM", "a DICOM file; convert it to 16-bit PNG, for instance with `dcmj2pnm` of DCMTK or pydicom"),
    (0, b"8BPS", f"a Photoshop document, {NOT_READ}"),
    (0, b"\xff\x0a", f"a JPEG XL image, {NOT_READ}"),
    (0, b"\0\0\0\x0cJXL \r\n\x87\n", f"a JPEG XL image, {NOT_READ}"),
    (0, b"II\xbc", f"a JPEG XR image, {NOT_READ}"),
    (0, b"v/1\x01", f"an OpenEXR image, {NOT_READ}"),
    (0, b"#?RADIANCE", f"a Radiance HDR image, {NOT_READ}"),
    (0, b"SIMPLE  =", f"a FITS image, {NOT_READ}"),
    (344, b"n+1\0", "a NIfTI volume; export its slices as PNG"),
    (0, b"\x93NUMPY", "a NumPy array; save its images as PNG"),
    (0, b"\x89HDF\r\n\x1a\n", "an HDF5 file; save its images as PNG"),
)
VIDEO: Final = "a video; extract the frames that you need as images"
OTHER_FILES: Final = (
    (0, b"%PDF", "a PDF document; export its pages as images"),
    (0, b"PK\x03\x04", "a zip archive or office document; unpack it"),
    (0, b"\x1f\x8b", "a gzip archive or compressed volume; unpack it"),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7z archive; unpack it"),
    (0, b"Rar!\x1a\x07", "a RAR archive; unpack it"),
    *((4, kind, VIDEO) for kind in (b"ftyp", b"moov", b"mdat", b"wide", b"free")),
    *(
        (at, kind, VIDEO)
        for at, kind in ((8, b"AVI "), (0, b"\x1aE\xdf\xa3"), (0, b"\0\0\x01\xba"), (0, b"0&\xb2u\x8ef\xcf\x11"))
    ),
    (8, b"WAVE", "a sound recording"),
    (0, b"\0\x05\x16\x07", "a macOS resource fork"),
)
LFS_POINTER: Final = b"version https://git-lfs"
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


def other_kind(head: bytes) -> tuple[str, str] | None:
    """Reason and description of a file that is not read although people keep it among images, by its first bytes."""
    if looks_like_image(head):
        return None
    if b"<svg" in head:
        return "unsupported", "an SVG drawing; render it to PNG"
    for reason, kinds in (("unsupported", OTHER_IMAGES), ("not_an_image", OTHER_FILES)):
        for offset, magic, description in kinds:
            if head[offset : offset + len(magic)] == magic:
                return reason, description
    return None


def describe(data: bytes) -> tuple[str, str]:
    """Reason and description of the content of a file that no decoder reads."""
    head = data[:512].lstrip()
    if kind := other_kind(data[:4096]):
        return kind
    if head.startswith(LFS_POINTER):
        return "not_an_image", "a Git LFS pointer instead of the file; `git lfs pull` fetches it"
    if head.lower().startswith(HTML):
        return "not_an_image", "an HTML page, perhaps a failed download"
    if not data.strip(b"\0"):
        return "not_an_image", "only zero bytes, perhaps an unfinished download or copy"
    try:
        text = head[:500].decode("utf-8")
    except UnicodeDecodeError:
        return "not_an_image", f"no image format begins with these bytes ({data[:8].hex(' ')})"
    printable = sum(character.isprintable() or character.isspace() for character in text)
    return "not_an_image", f"plain text ({text[:40]!r})" if printable > 0.9 * len(text) else "no known image format"
