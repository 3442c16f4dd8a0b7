"""``tl review``: look at suspicious images in a browser and correct their labels."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

import automl_tl
from automl_tl.cli.options import AsJson, ClassesAreFolders, Images, RegistryDir, file_to_write
from automl_tl.cli.render import ConsoleProgress, plain, print_json, result
from automl_tl.cli.server import check_server_packages

HOST = "127.0.0.1"


def review(
    images: Images,
    model: Annotated[
        str | None, typer.Option(help="Also show the mistakes of this registered model.", metavar="MODEL", show_default=False)
    ] = None,
    fixes: Annotated[
        Path | None,
        typer.Option(
            help="Also show the proposals of this table of `tl data check --fix`.",
            exists=True,
            dir_okay=False,
            show_default=False,
        ),
    ] = None,
    corrections: Annotated[
        Path | None,
        typer.Option(
            help="File that decisions are appended to. Default: IMAGES.corrections.csv.",
            show_default=False,
            callback=file_to_write,
        ),
    ] = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port of the page on this machine; 0: any free one.")] = 8001,
    classes_are_folders: ClassesAreFolders = False,
    registry: RegistryDir = None,
    as_json: AsJson = False,
) -> None:
    """Review suspicious IMAGES in a browser, most suspicious first, and write corrections of their labels.

    Images are never changed. Each decision is saved at once; `tl auto fit --corrections` applies them. With --json, print the
    queue and end.
    """
    rank = partial(
        automl_tl.review,
        images,
        model=model,
        fixes=fixes,
        classes_are_folders=classes_are_folders,
        registry=registry,
        progress=ConsoleProgress(),
    )
    if as_json:
        print_json(rank())
        return
    check_server_packages()
    from automl_tl.data import corrections_file, open_source, read_corrections
    from automl_tl.server.listener import listen, run, url_of
    from automl_tl.server.review import ReviewServer
    from automl_tl.server.security import Guard

    # 1) Refuse what cannot work before the images are read.
    file = corrections or file_to_write(corrections_file(images)) or Path()
    if file.exists():
        read_corrections(file)
    listening = listen(HOST, port)
    # 2) Find what to review.
    queue = rank()
    source = open_source(images, classes_are_folders=classes_are_folders, fetch=False)
    server = ReviewServer(queue, source, file, images)
    # 3) Show it until Ctrl-C.
    result.print(plain(f"{queue.num_suspicious} of {len(queue.items)} images to review: {url_of(listening)}"), soft_wrap=True)
    result.file.flush()
    ConsoleProgress().info(f"decisions are saved in {file}; Ctrl-C stops")
    run(Guard(server.app(), host=HOST), listening)
    counts = server.decisions.counts()
    made = f"{counts['relabel']} relabeled, {counts['keep']} kept, {counts['exclude']} excluded"
    result.print(plain(f"{made}; apply them with --corrections {file}"), soft_wrap=True)
