"""Images behind URLs: a web server on loopback that fails at random, and fsspec's file system in memory."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from zipfile import ZipFile

import pytest

from automl_tl.data import open_source, scan
from automl_tl.data.image_inputs import find_images
from automl_tl.data.remote import FAILURES_IN_A_ROW, RemoteFiles, file_name_of, is_url, shown
from automl_tl.data.sources.source import Source
from automl_tl.errors import BrokenSourceError, ResourceError, SourceNotFoundError
from automl_tl_registry.errors import RemoteError, UsageError
from tests.data.source_makers import FILES
from tests.data.web_server import WebServer, web_server


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TL_HOME", str(tmp_path / "home"))
    return tmp_path / "home" / "cache"


@pytest.fixture
def server() -> Iterator[WebServer]:
    with web_server({**FILES, "all.zip": zip_of(FILES)}) as running:
        yield running


def zip_of(files: dict[str, bytes]) -> bytes:
    target = BytesIO()
    with ZipFile(target, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return target.getvalue()


def table(paths: list[str]) -> str:
    return "\n".join(["path,label", *(f"{path},{path.split('/')[-2]}" for path in paths)])


def digests(source: Source) -> dict[str, str]:
    """Digest of each image by the end of its path."""
    return {"/".join(image.path.split("/")[-2:]): image.digest for image in scan(source).images}


def local_digests(tmp_path: Path) -> dict[str, str]:
    for name, content in FILES.items():
        file = tmp_path / "local" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    return digests(open_source(tmp_path / "local"))


def test_archive_by_http_equals_the_folder(server: WebServer, tmp_path: Path) -> None:
    source = open_source(f"{server.url}/all.zip")

    assert digests(source) == local_digests(tmp_path)
    assert scan(source).root == f"{server.url}/all.zip"


def test_table_of_urls_equals_the_folder_although_requests_fail(tmp_path: Path) -> None:
    with web_server(FILES, fail_first=True) as server:
        (tmp_path / "urls.csv").write_text(table([f"{server.url}/{name}" for name in FILES]))

        source = open_source(tmp_path / "urls.csv")

        assert len(server.requests) == 2 * len(FILES)
    assert digests(source) == local_digests(tmp_path)


def test_remote_table_names_paths_relative_to_itself(server: WebServer, tmp_path: Path) -> None:
    server.files["labels.csv"] = table(list(FILES)).encode()

    assert digests(open_source(f"{server.url}/labels.csv")) == local_digests(tmp_path)


def test_failed_object_is_a_rejected_row(server: WebServer, tmp_path: Path) -> None:
    first, second, *_ = FILES
    server.broken.add(first)
    del server.files[second]
    (tmp_path / "urls.csv").write_text(table([f"{server.url}/{name}" for name in FILES]))

    index = scan(open_source(tmp_path / "urls.csv"))

    assert [(row.path, row.reason) for row in index.rejected] == sorted(
        [(f"{server.url}/{first}", "unreadable"), (f"{server.url}/{second}", "missing_file")]
    )
    assert "500" in next(row.detail for row in index.rejected if row.path.endswith(first))
    assert len(index.images) == len(FILES) - 2


def test_outage_ends_the_command(tmp_path: Path) -> None:
    names = [f"a/{number}.png" for number in range(3 * FAILURES_IN_A_ROW)]
    with web_server(dict.fromkeys(names, b"")) as server:
        server.broken.update(names)
        (tmp_path / "urls.csv").write_text(table([f"{server.url}/{name}" for name in names]))

        with pytest.raises(RemoteError, match=f"{FAILURES_IN_A_ROW} objects in a row failed"):
            open_source(tmp_path / "urls.csv")


def test_second_run_transfers_nothing_unless_an_object_changed(server: WebServer, tmp_path: Path) -> None:
    (tmp_path / "urls.csv").write_text(table([f"{server.url}/{name}" for name in FILES]))
    before = digests(open_source(tmp_path / "urls.csv"))
    first, second, *_ = FILES
    server.files[first] = FILES[second]

    after = digests(open_source(tmp_path / "urls.csv"))

    assert after == {**before, first: before[second]}


def test_credentials_are_sent_but_never_shown(server: WebServer, tmp_path: Path) -> None:
    secret = server.url.replace("http://", "http://ada:secret@")
    rows = table([f"{secret}/{name}" for name in FILES]).replace(".png,", ".png?X-Amz-Signature=s,")
    (tmp_path / "urls.csv").write_text(rows)

    index = scan(open_source(tmp_path / "urls.csv"))

    assert server.authorizations == {"Basic YWRhOnNlY3JldA=="}
    assert "secret" not in index.model_dump_json()
    assert "Signature" not in index.model_dump_json()


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("https://ada:x@host/a.png?size=2&token=t#part", "https://host/a.png?size=2"),
        ("https://host/a b.png?id=7", "https://host/a b.png?id=7"),
        ("sftp://ada:x@host/a", "sftp://host/a"),
        ("s3://bucket/a@b:c?d#e", "s3://bucket/a@b:c?d#e"),
    ],
)
def test_shown_leaves_out_credentials(url: str, name: str) -> None:
    assert shown(url) == name


def test_urls_that_differ_in_their_signature_only_keep_different_names() -> None:
    files = RemoteFiles()

    names = {files.add(f"https://host/image?key={key}") for key in "ab"}

    assert len(names) == 2
    assert files.add("https://host/image?key=a") in names


def test_path_is_no_url() -> None:
    assert all(map(is_url, ("s3://b", "hf://datasets/u/r", "https://host")))
    assert not any(map(is_url, ("C://x", "images/a", "s3:/b", Path("s3://b"))))
    assert file_name_of("https://host/a%20b.zip?x=1") == "a b.zip"


def test_damaged_archive_names_the_url(server: WebServer, own_cache: Path) -> None:
    server.files["bad.zip"] = b"PK nonsense"

    with pytest.raises(BrokenSourceError, match=f"{server.url}/bad.zip: the archive can't be read") as raised:
        open_source(f"{server.url}/bad.zip")

    assert str(own_cache) not in str(raised.value)


def test_missing_archive_is_explained(server: WebServer) -> None:
    with pytest.raises(SourceNotFoundError, match=r"absent\.zip does not exist"):
        open_source(f"{server.url}/absent.zip")


@pytest.mark.parametrize("url", ["file:///etc", "zip://x.png::file:///etc/a.zip", "nonsense://host/x"])
def test_other_schemes_are_refused(url: str) -> None:
    with pytest.raises(UsageError, match="://"):
        open_source(url)


def test_source_of_urls_can_be_read_by_another_process(server: WebServer, tmp_path: Path) -> None:
    (tmp_path / "urls.csv").write_text(table([f"{server.url}/{name}" for name in FILES]))
    source = pickle.loads(pickle.dumps(open_source(tmp_path / "urls.csv")))
    num_requests = len(server.requests)

    assert {source.read(f"{server.url}/{name}") for name in FILES} == set(FILES.values())
    assert len(server.requests) == num_requests


def test_predict_reads_urls_archives_and_lists(server: WebServer, tmp_path: Path) -> None:
    name = next(iter(FILES))
    (tmp_path / "list.txt").write_text(f"{server.url}/{name}\n{server.url}/absent.png\n")

    images = find_images([f"{server.url}/{name}", f"{server.url}/all.zip", str(tmp_path / "list.txt")])

    members = {f"{server.url}/all.zip/{path}" for path in FILES}
    assert set(images) == {f"{server.url}/{name}", f"{server.url}/absent.png", *members}
    assert images.read(f"{server.url}/{name}") == images.read(f"{server.url}/all.zip/{name}") == FILES[name]
    with pytest.raises(FileNotFoundError):
        images.read(f"{server.url}/absent.png")


# ------------------------------------------------------------------------------------------------------ fsspec's folders


@pytest.fixture
def memory() -> Iterator[str]:
    fsspec = pytest.importorskip("fsspec")
    files = fsspec.filesystem("memory")
    for name, content in FILES.items():
        files.pipe_file(f"/data/{name}", content)
    yield "memory://data"
    files.store.clear()


def test_folder_of_fsspec_equals_the_folder(memory: str, tmp_path: Path) -> None:
    assert digests(open_source(memory)) == local_digests(tmp_path)


def test_odd_keys_get_rows(memory: str) -> None:
    import fsspec

    files = fsspec.filesystem("memory")
    content = next(iter(FILES.values()))
    for key in ("ants/x../ok.png", "ants/A.png", "ants/a.png", "ants/back\\slash.png"):
        files.pipe_file(f"/data/{key}", content)
    files.pipe_file("/data/ants/notes.txt", b"notes")
    files.pipe_file("/data/ants/empty.png", b"")

    index = scan(open_source(memory))

    assert {"ants/x../ok.png", "ants/A.png", "ants/a.png", "ants/back/slash.png"} <= {image.path for image in index.images}
    assert [(row.path, row.reason) for row in index.rejected] == [("ants/empty.png", "empty")]
    assert index.ignored == {"other_file": 1}


def test_empty_folder_is_explained(memory: str) -> None:
    with pytest.raises(SourceNotFoundError, match="there are none"):
        open_source("memory://nothing")


def test_download_larger_than_the_disk_is_refused(memory: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from automl_tl.data.sources import remote_folders

    monkeypatch.setattr(remote_folders, "SPARE_BYTES", 2**70)

    with pytest.raises(ResourceError, match="The download needs"):
        open_source(memory)


def test_source_that_is_not_fetched_reads_each_image_when_it_is_needed(server: WebServer, tmp_path: Path) -> None:
    (tmp_path / "urls.csv").write_text(table([f"{server.url}/{name}" for name in FILES]))

    source = open_source(tmp_path / "urls.csv", fetch=False)

    assert server.requests == []
    name = next(iter(FILES))
    assert source.read(f"{server.url}/{name}") == FILES[name]
    assert server.requests == [name]
