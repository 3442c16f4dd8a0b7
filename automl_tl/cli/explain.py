"""``tl explain``."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from automl_tl.cli.options import AsJson, Model, RegistryDir
from automl_tl.cli.render import table
from automl_tl.cli.telling import ConsoleProgress, result
from automl_tl.cli.writing import folder_to_write
from automl_tl.errors import SourceNotFoundError
from automl_tl.runtime.formatting import percent

__all__ = ["explain"]


def explain(
    model: Model,
    inputs: Annotated[list[str], typer.Argument(metavar="IMAGE...", help="Images, folders, zips.", show_default=False)],
    out: Annotated[
        Path, typer.Option(help="Folder for explanation.html and one PNG for each image.", callback=folder_to_write)
    ] = Path("explanations"),
    images: Annotated[
        Path | None, typer.Option(help="The images that the model learned from, to show the nearest.", show_default=False)
    ] = None,
    registry: RegistryDir = None,
    as_json: AsJson = False,
) -> None:
    """Show why MODEL says what it says: where it looked, how sure it is, which training images are nearest."""
    from automl_tl import data
    from automl_tl.errors import UndecodableError
    from automl_tl.models.features import load_pixels
    from automl_tl.models.image_inputs import find_images
    from automl_tl.workflows.explain import explain as explain_one
    from automl_tl.workflows.explain import to_html, to_picture
    from automl_tl.workflows.model import open_model, thumbnails

    progress, pictures, trusted = ConsoleProgress(), find_images(inputs), open_model(model, registry=registry)
    explained = []
    with progress.track("explaining", len(pictures)) as advance:
        for name in pictures:
            try:
                pixels = load_pixels(pictures.read(name), trusted.classifier.facts.preprocessing)
                explained.append(explain_one(trusted.classifier, name, pixels, trusted.reference))
            except (UndecodableError, OSError) as error:
                progress.warn(f"{name}: {error}")
            advance(1)
    if not explained:
        raise SourceNotFoundError(" ".join(inputs), "at least one image that can be read")
    out.mkdir(parents=True, exist_ok=True)
    files = [out / f"{number:03}.png" for number in range(1, len(explained) + 1)]
    for file, one in zip(files, explained, strict=True):
        to_picture(one).save(file)
    picture = thumbnails(data.open_source(images)) if images else None
    (out / "explanation.html").write_text(to_html(explained, picture), encoding="utf-8")
    rows = [
        {
            "path": one.path,
            "label": one.label,
            "top": one.top,
            "ood_score": one.ood_score,
            "neighbors": [{"path": near.path, "label": near.label, "distance": near.distance} for near in one.neighbors],
            "picture": str(file),
        }
        for file, one in zip(files, explained, strict=True)
    ]
    if as_json:
        sys.stdout.write(json.dumps(rows, indent=2, ensure_ascii=False) + "\n")
        return
    shown = ((one.path, one.label, percent(one.top[one.label]), file) for file, one in zip(files, explained, strict=True))
    result.print(table("image", "label", "probability", "picture", rows=shown))
    result.print(str(out / "explanation.html"))
