"""The web export: a static folder whose page classifies images in the browser, with ONNX Runtime Web beside it.

The page's look is that of `tl serve`. ONNX Runtime Web comes from npm when a model is exported, is checked against the digest
below, and is kept in the user's cache; it is not part of automl_tl.
"""

from __future__ import annotations

import base64
import hashlib
import os
import shutil
import subprocess
import tarfile
from pathlib import Path
from typing import Final

from automl_tl.errors import ModelError
from automl_tl.runtime.paths import cache_dir, scratch_folder, usable_cache

PACKAGE: Final = "onnxruntime-web@1.30.0"
INTEGRITY: Final = "sha512-q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ=="
# File in the package -> its name in the export. No `.mjs`: some servers send it as text/plain, which browsers refuse to run.
RUNTIME_FILES: Final = {
    "dist/ort.wasm.bundle.min.mjs": "ort.js",
    "dist/ort-wasm-simd-threaded.wasm": "ort.wasm",
}
VARIABLE: Final = "TL_ONNXRUNTIME_WEB"
DOWNLOAD_S: Final = 300

PAGE: Final = Path(__file__).parent / "web_page"
LOOK: Final = Path(__file__).parents[1] / "server" / "page"


def write_page(folder: Path) -> None:
    """Add the page and its runtime to a folder that holds ``model.onnx``.

    Args:
        folder: of the export.

    Raises:
        ModelError: ONNX Runtime Web is not on this machine and cannot be downloaded, or is not what npm published.
    """
    package = _package()
    for source, name in RUNTIME_FILES.items():
        if not (package / source).is_file():
            raise ModelError(f"{package} has no {source}. {VARIABLE} must name the unpacked npm package {PACKAGE}.")
        shutil.copyfile(package / source, folder / name)
    for file in (*PAGE.iterdir(), LOOK / "page.css", LOOK / "icon.svg"):
        shutil.copyfile(file, folder / file.name)


def _package() -> Path:
    """Return the folder of ONNX Runtime Web: the user's own, or that in the cache, into which it is downloaded once."""
    if own := os.environ.get(VARIABLE):
        return Path(own)
    cached = usable_cache(cache_dir()) / "web" / PACKAGE
    if not cached.is_dir():
        with scratch_folder("tl-npm-") as scratch:
            _unpack(_download(scratch), scratch / "unpacked")
            cached.parent.mkdir(parents=True, exist_ok=True)
            # A rename within one folder, so that no other process finds half a package.
            complete = Path(shutil.move(scratch / "unpacked", cached.with_name(f".{cached.name}-{os.getpid()}")))
            try:
                complete.rename(cached)
            except OSError:  # another process was faster
                shutil.rmtree(complete)
    return cached


def _download(folder: Path) -> Path:
    """Download the package with npm; return its archive."""
    advice = (
        f"Or download it elsewhere (`npm pack {PACKAGE}`), unpack it, and set {VARIABLE} to its folder `package`. "
        "The format onnx needs none of this."
    )
    npm = shutil.which("npm")
    if npm is None:
        raise ModelError(f"Exporting to web needs {PACKAGE} from npm, and there is no `npm`. Install Node.js. {advice}")
    command = [npm, "pack", PACKAGE, "--pack-destination", str(folder), "--silent"]
    try:
        ended = subprocess.run(command, capture_output=True, cwd=folder, timeout=DOWNLOAD_S, check=False)
        problem = ended.stderr.decode(errors="replace").strip().splitlines()
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ModelError(f"`npm pack {PACKAGE}` failed: {error}. {advice}") from error
    archives = list(folder.glob("*.tgz"))
    if ended.returncode or not archives:
        reason = problem[-1] if problem else f"exit code {ended.returncode}; is there a network?"
        raise ModelError(f"`npm pack {PACKAGE}` failed: {reason}. {advice}")
    return archives[0]


def _unpack(archive: Path, folder: Path) -> None:
    """Check the digest of an archive of npm and unpack what the page needs."""
    digest = "sha512-" + base64.b64encode(hashlib.sha512(archive.read_bytes()).digest()).decode()
    if digest != INTEGRITY:
        raise ModelError(f"npm sent something else than {PACKAGE}: its digest is {digest}, expected {INTEGRITY}.")
    with tarfile.open(archive) as package:
        for source in RUNTIME_FILES:
            member = package.extractfile(f"package/{source}")
            assert member is not None  # the digest is right
            (folder / source).parent.mkdir(parents=True, exist_ok=True)
            (folder / source).write_bytes(member.read())
