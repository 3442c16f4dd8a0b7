"""Push a version to the Hugging Face Hub, as the folder of ``tl export --format hf``."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from automl_tl.errors import ModelError
from automl_tl.runtime.progress import QUIET, Progress
from automl_tl.workflows.export import export

SCHEME: Final = "hf://"


def push_to_hub(model: str, url: str, *, registry: str | Path | None = None, progress: Progress = QUIET) -> str:
    """Export a version and upload its folder; return the address of the commit.

    The token and the endpoint are those of huggingface_hub (``hf auth login``, ``HF_TOKEN``, ``HF_ENDPOINT``).

    Args:
        model: ``name``, ``name@3`` or ``name@production``.
        url: ``hf://USER/REPOSITORY``; a missing repository is created, private.
        registry: folder of the registry; by default the user's.
        progress: receives progress.

    Raises:
        ModelError: the version can't be exported, or the hub refuses it or can't be reached.
    """
    from huggingface_hub import HfApi

    if url.removeprefix(SCHEME).strip("/").count("/") != 1:
        raise ModelError(f"{url} names no repository. Expected hf://USER/REPOSITORY.")
    with TemporaryDirectory(prefix="tl-hub-", ignore_cleanup_errors=True) as folder:
        export(model, format="hf", out=folder, registry=registry, progress=progress)
        api = HfApi(library_name="automl_tl")
        try:
            repository = api.create_repo(url.removeprefix(SCHEME), private=True, exist_ok=True).repo_id
            return str(api.upload_folder(repo_id=repository, folder_path=folder, commit_message=f"Upload {model}"))
        except Exception as error:  # of huggingface_hub, or of the HTTP library that it happens to use
            reason = str(error).strip().partition("\n")[0]
            raise ModelError(
                f"{url} can't be pushed to: {reason}. Expected hf://USER/REPOSITORY and a token (`hf auth login`)."
            ) from error
