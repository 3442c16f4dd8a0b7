"""The page of a web export, served by ``http.server``, classifies files as ``tl predict`` does."""

from __future__ import annotations

import csv
import os
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from automl_tl.data.decode import decode
from automl_tl.exports import ExportReference, export_model
from automl_tl.exports.exporter import TOLERANCES
from automl_tl.exports.web import PACKAGE, VARIABLE
from automl_tl.models.bundle import Classifier
from automl_tl.models.predictor import Predictor
from automl_tl.plugin_host import Catalog
from automl_tl.testing.toy_task import SIDE_PX
from tests.browser.conftest import AXE_FILE, PHONE, OpenPage, missing
from tests.data.sample_images import encoded, sample_image
from tests.exports.classifiers import CLASSES, toy_classifier

for package in ("onnx", "onnxscript", "onnxruntime"):
    pytest.importorskip(package)

if TYPE_CHECKING:
    from playwright.sync_api import Page

RUNTIME = AXE_FILE.parents[1] / "onnxruntime-web"

DECODE_IN_PAGE = """async ([bytes, side]) => {
  const { decode } = await import("./pixels.js");
  const { rgb, width, height } = await decode(new Blob([new Uint8Array(bytes)]), side);
  return { rgb: Array.from(rgb), width, height };
}"""


def turned(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


def translucent() -> Image.Image:
    image = sample_image(3, 90, 70)
    image.putalpha(sample_image(4, 90, 70).convert("L"))
    return image


# Decoded exactly by browsers, too; what is left are a few pixels that the resize in the graph rounds the other way.
EXACT = {
    "colors.png": encoded(sample_image(1, 60, 50), "PNG"),
    "gray.png": encoded(sample_image(2).convert("L"), "PNG"),
    "palette.png": encoded(sample_image(5, 400, 300).quantize(16), "PNG", transparency=0),
    "one bit.png": encoded(sample_image(6).convert("1"), "PNG"),
    "large.png": encoded(sample_image(7, 403, 301), "PNG"),
    "turned.png": encoded(sample_image(8), "PNG", exif=turned(6)),
    "lossless.webp": encoded(sample_image(9), "WEBP", lossless=True),
    "colors.bmp": encoded(sample_image(10), "BMP"),
    "animation.gif": encoded(sample_image(11), "GIF", save_all=True, append_images=[sample_image(12)]),
}
# Rounded in another place: transparency, and the decoders of lossy formats.
ROUNDED = {
    "translucent.png": encoded(translucent(), "PNG"),
    "photo.jpg": encoded(sample_image(13, 60, 50), quality=90),
    "large.jpg": encoded(sample_image(14, 903, 701), quality=90),
    "lossy.webp": encoded(sample_image(15), "WEBP", quality=90),
    "cmyk.jpg": encoded(sample_image(16).convert("CMYK"), quality=95),
    **{f"turned {value}.jpg": encoded(sample_image(20 + value), quality=95, exif=turned(value)) for value in range(2, 9)},
}
REFUSED = {
    "deep.png": encoded(Image.fromarray(np.arange(64 * 48, dtype=np.uint16).reshape(48, 64)), "PNG"),
    "photo.tif": encoded(sample_image(1), "TIFF"),
    "truncated.png": EXACT["colors.png"][:700],
    "truncated.jpg": ROUNDED["photo.jpg"][:700],
    "words.txt": b"no image",
}


@pytest.fixture
def classifier() -> Classifier:
    return toy_classifier("trained")


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The exported folder."""
    if not RUNTIME.is_dir() and not os.environ.get(VARIABLE):
        missing(PACKAGE)
    folder = tmp_path_factory.mktemp("web")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(VARIABLE, os.environ.get(VARIABLE, str(RUNTIME)))
        reference = ExportReference(toy_classifier("trained"), list(EXACT.values()))
        export_model(toy_classifier("trained"), Catalog(()), folder, reference, export_format="web")
    return folder


@pytest.fixture(scope="module")
def web_page(exported: Path) -> Iterator[str]:
    """URL of the exported folder."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(QuietHandler, directory=str(exported))) as server:
        Thread(target=server.serve_forever).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def classify(page: Page, files: dict[str, bytes]) -> dict[str, dict[str, str]]:
    """Choose files, wait, and return the rows of the downloaded CSV by file name."""
    page.locator("body[data-ready]").wait_for()
    chosen = [{"name": name, "mimeType": "image/png", "buffer": data} for name, data in files.items()]
    page.get_by_label("Choose images", exact=True).set_input_files(chosen)  # type: ignore[arg-type]
    page.wait_for_function("() => !document.querySelector('.pending')")
    with page.expect_download() as download:
        page.get_by_role("button", name="Download CSV").click()
    with Path(download.value.path()).open(newline="", encoding="utf-8") as file:
        return {row["file"]: row for row in csv.DictReader(file)}


@pytest.mark.parametrize(("files", "tolerance"), [(EXACT, TOLERANCES["fp32"]), (ROUNDED, 0.03)], ids=["exact", "rounded"])
def test_web_page_predicts_like_tl(
    files: dict[str, bytes], tolerance: float, open_page: OpenPage, web_page: str, classifier: Classifier, tmp_path: Path
) -> None:
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    ours = {Path(row.path).name: row for row in Predictor(classifier).predict([tmp_path / name for name in files])}

    rows = classify(open_page(web_page), files)

    assert {name: row["label"] for name, row in rows.items()} == {name: row.label for name, row in ours.items()}
    differences = {name: max(abs(float(row[label]) - ours[name].top[label]) for label in CLASSES) for name, row in rows.items()}
    assert max(differences.values()) < tolerance, differences


@pytest.mark.parametrize("name", EXACT)
def test_web_page_sees_the_pixels_of_tl(name: str, open_page: OpenPage, web_page: str) -> None:
    expected = np.asarray(decode(EXACT[name], side_px=SIDE_PX).image)

    image = open_page(web_page).evaluate(DECODE_IN_PAGE, [list(EXACT[name]), SIDE_PX])

    assert np.array_equal(np.reshape(image["rgb"], (image["height"], image["width"], 3)), expected)


def test_web_page_refuses_what_it_cannot_read_as_training_did(open_page: OpenPage, web_page: str) -> None:
    page = open_page(web_page)

    rows = classify(page, {**REFUSED, "colors.png": EXACT["colors.png"]})

    assert [name for name, row in rows.items() if row["error"]] == list(REFUSED)
    assert "16-bit" in rows["deep.png"]["error"]
    assert page.locator("#counts").inner_text() == "6 images: 1 classified, 5 without result."
    page.get_by_role("button", name="Clear").click()
    assert page.get_by_role("article").count() == 0


def test_web_page_forbids_requests_to_other_hosts(open_page: OpenPage, web_page: str) -> None:
    page = open_page(web_page)

    policy = page.locator("meta[http-equiv=Content-Security-Policy]").get_attribute("content")

    assert policy is not None
    assert policy.startswith("default-src 'none'; script-src 'self' 'wasm-unsafe-eval';")
    assert "http" not in policy
    assert "*" not in policy


def test_web_page_predicts_dropped_files(open_page: OpenPage, web_page: str, tmp_path: Path) -> None:
    (tmp_path / "colors.png").write_bytes(EXACT["colors.png"])
    page = open_page(web_page)
    page.locator("body[data-ready]").wait_for()
    browser = page.context.new_cdp_session(page)
    data = {"items": [], "files": [str(tmp_path / "colors.png")], "dragOperationsMask": 1}

    for kind in ("dragEnter", "dragOver", "drop"):
        browser.send("Input.dispatchDragEvent", {"type": kind, "x": 300, "y": 200, "data": data})

    page.get_by_text("1 image: 1 classified.", exact=True).wait_for()


@pytest.mark.parametrize("color_scheme", ["light", "dark"])
def test_web_page_is_accessible_and_fits_a_phone(
    color_scheme: str, open_page: OpenPage, web_page: str, check_accessibility: Callable[[Page], None]
) -> None:
    page = open_page(web_page, color_scheme=color_scheme, viewport=PHONE, has_touch=True, is_mobile=True)

    classify(page, {"colors.png": EXACT["colors.png"], "words.txt": REFUSED["words.txt"]})

    check_accessibility(page)
    assert page.evaluate("document.documentElement.scrollWidth") == PHONE["width"]
