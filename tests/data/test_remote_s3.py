"""Images in S3: moto's server on loopback, with requests that fail at random."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote
from urllib.request import Request, urlopen

import pytest

from automl_tl.data import open_source, scan
from automl_tl.data.image_inputs import find_images
from automl_tl.data.remote import RemoteFiles
from automl_tl_registry.errors import RemoteError
from automl_tl_registry.remote_store import connect
from tests.data.source_makers import FILES, put
from tests.registry.test_sharing_s3 import endpoint, requests, s3  # noqa: F401 - fixtures

obstore = pytest.importorskip("obstore", reason="obstore is not installed")


def upload(address: str, key: str, content: bytes) -> None:
    headers = {"Content-Type": "application/octet-stream"}
    urlopen(Request(f"{address}/{quote(key)}", data=content, headers=headers, method="PUT")).close()


@pytest.fixture
def bucket(s3: str) -> str:  # noqa: F811
    for name, content in FILES.items():
        obstore.put(connect("s3://team"), f"images/{name}", content)
    requests(s3)
    return s3


def test_bucket_equals_the_folder_and_is_read_once(bucket: str, tmp_path: Path) -> None:
    local = scan(open_source(put(tmp_path / "local", FILES)))

    index = scan(open_source("s3://team/images"))

    assert (index.images, index.layout, index.source) == (local.images, local.layout, local.source)
    assert index.root == "s3://team/images"
    assert len(requests(bucket)) == 1 + len(FILES)
    scan(open_source("s3://team/images"))
    assert requests(bucket) == ["GET /team"]


def test_bucket_whose_requests_fail_at_random_equals_the_folder(s3: str, tmp_path: Path) -> None:  # noqa: F811
    files = {f"{path}.{number}.png": content for path, content in FILES.items() for number in range(20)}
    for name, content in files.items():
        upload(s3, f"flaky/images/{name}", content)

    images = scan(open_source("s3://flaky/images")).images

    assert [(image.path, image.digest) for image in images] == [
        (image.path, image.digest) for image in scan(open_source(put(tmp_path / "local", files))).images
    ]
    assert len(images) == len(files) == 120


def test_object_that_changes_after_the_listing_is_an_error(bucket: str) -> None:
    files, name = RemoteFiles(), next(iter(FILES))
    files.list("s3://team/images")
    obstore.put(connect("s3://team"), f"images/{name}", b"other")

    with pytest.raises(OSError, match="changed after it was listed"):
        files.read(f"s3://team/images/{name}")


def test_odd_keys_of_a_bucket(s3: str) -> None:  # noqa: F811
    content = next(iter(FILES.values()))
    for key in ("ants/", "ants/a b#?&ä%20.png", "ants/A.png", "ants/a.png", "bees/back\\slash.png"):
        upload(s3, f"team/odd/{key}", b"" if key.endswith("/") else content)

    paths = [image.path for image in scan(open_source("s3://team/odd")).images]

    assert paths == ["ants/A.png", "ants/a b#?&ä%20.png", "ants/a.png", "bees/back/slash.png"]


def test_key_with_an_empty_part_is_named(s3: str) -> None:  # noqa: F811
    upload(s3, "team/empty/a//b.png", b"x")

    with pytest.raises(RemoteError, match=r"empty/a//b\.png.*rename the object"):
        open_source("s3://team/empty")


@pytest.mark.parametrize(
    ("url", "key", "why"),
    [("s3://absent/x", "ada", "there is no such bucket"), ("s3://team/x", "wrong", "access was denied")],
)
def test_unreachable_bucket_is_explained(s3: str, monkeypatch: pytest.MonkeyPatch, url: str, key: str, why: str) -> None:  # noqa: F811
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", key)

    with pytest.raises(RemoteError, match=why):
        open_source(url)


def test_predict_reads_a_bucket(bucket: str) -> None:
    images = find_images(["s3://team/images/ants", "s3://team/images/bees/0.png"])

    assert list(images) == [*(f"s3://team/images/ants/{number}.png" for number in range(3)), "s3://team/images/bees/0.png"]
    assert images.read("s3://team/images/bees/0.png") == FILES["bees/0.png"]
