"""The server of the review page: what it serves, what it refuses, and that every decision is on disk."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageOps

pytest.importorskip("starlette")

from automl_tl.data.corrections import Correction, append_correction, read_corrections
from automl_tl.server.review import ReviewServer
from automl_tl.server.security import Guard
from tests.server.planted_errors import content_of, planted_review, write_planted
from tests.server.toy_server import RunningServer, running


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """30 images, 6 of them in the wrong folder, one broken and one large."""
    folder = tmp_path_factory.mktemp("review") / "colors"
    write_planted(folder, 30, 6)
    (folder / "red" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nno image")
    ImageOps.colorize(Image.linear_gradient("L").resize((2600, 1300)), "maroon", "red").save(folder / "red" / "large.jpg")
    return folder


@pytest.fixture
def corrections(tmp_path: Path) -> Path:
    return tmp_path / "colors.corrections.csv"


@pytest.fixture
def server(images: Path, corrections: Path) -> Iterator[RunningServer]:
    with serving(images, corrections) as started:
        yield started


@contextmanager
def serving(images: Path, corrections: Path) -> Iterator[RunningServer]:
    """A server with a state of its own over the same file, like that of another process."""
    app = ReviewServer(*planted_review(images), corrections, images).app()
    with running(Guard(app, host="127.0.0.1")) as port:
        yield RunningServer(port)


def first(server: RunningServer) -> dict[str, Any]:
    return item(server, 0)


def item(server: RunningServer, place: int) -> dict[str, Any]:
    answer: dict[str, Any] = server.request("GET", f"/api/items?ids={place}").json["items"][0]
    return answer


def decide(server: RunningServer, place: int, decision: str, label: str | None = None, **known: object) -> Any:  # noqa: ANN401
    posted = {"digest": item(server, place)["digest"], "decision": decision, "label": label, **known}
    return server.post_json("/api/decisions", posted)


def test_facts_count_the_kinds(server: RunningServer) -> None:
    facts = server.request("GET", "/api/review").json

    assert facts["classes"] == ["blue", "green", "red"]
    assert facts["kinds"]["label_issues"] == {"title": "Label issues", "count": 6}
    assert facts["kinds"]["broken_files"]["count"] == 1
    assert (facts["name"], facts["num_items"]) == ("colors", 32)


def test_queue_filters_by_kind_and_class(server: RunningServer) -> None:
    suspicious = server.request("GET", "/api/queue").json["ids"]
    issues = server.request("GET", "/api/queue?kind=label_issues").json["ids"]
    red = server.request("GET", "/api/queue?kind=all&label=red").json["ids"]

    assert suspicious[:6] == issues == [0, 1, 2, 3, 4, 5]
    assert len(server.request("GET", "/api/queue?kind=all").json["ids"]) == 32
    assert {label for place in red for label in item(server, place)["labels"]} == {"red"}
    assert server.request("GET", "/api/queue?kind=strange").status == 400


@pytest.mark.parametrize("ids", ["", "x", "-1", "32", "1,,2", ",".join(["1"] * 101), "%00"])
def test_items_refuse_what_is_not_in_the_queue(server: RunningServer, ids: str) -> None:
    assert server.request("GET", f"/api/items?ids={ids}").status == 400


def test_decision_is_on_disk_when_it_is_answered(server: RunningServer, corrections: Path) -> None:
    answer = decide(server, 0, "relabel", first(server)["label"])

    row = read_corrections(corrections).by_digest[first(server)["digest"]]
    assert (row.decision, row.label, row.previous) == ("relabel", first(server)["label"], first(server)["labels"][0])
    assert (row.path, row.kind) == (first(server)["paths"][0], "label_issues")
    assert answer.json["changes"] == [[0, "relabel", first(server)["label"]]]


def test_decisions_leave_the_images_alone(server: RunningServer, images: Path) -> None:
    before = content_of(images)

    for place, decision in enumerate(("keep", "exclude", "undo")):
        assert decide(server, place, decision).status == 200

    assert content_of(images) == before


def test_later_decision_wins_and_undo_takes_it_back(server: RunningServer, corrections: Path) -> None:
    digest = first(server)["digest"]

    decide(server, 0, "keep")
    decide(server, 0, "relabel", "red")
    after = read_corrections(corrections).by_digest[digest]
    known = server.request("GET", "/api/decisions").json
    undone = decide(server, 0, "undo", run=known["run"], seen=known["seen"]).json

    assert (after.decision, after.label) == ("relabel", "red")
    assert undone["changes"] == [[0, None, None]]
    assert not read_corrections(corrections).by_digest
    assert len(corrections.read_text(encoding="utf-8").splitlines()) == 4  # nothing is ever removed


def test_changes_hold_only_what_a_window_does_not_know(server: RunningServer) -> None:
    one = decide(server, 0, "keep").json
    two = decide(server, 1, "exclude", run=one["run"], seen=one["seen"]).json

    again = server.request("GET", f"/api/decisions?run={two['run']}&seen={two['seen']}").json
    afresh = server.request("GET", "/api/decisions?run=earlier&seen=7").json

    assert two["changes"] == [[1, "exclude", None]]
    assert again["changes"] == []
    assert sorted(afresh["changes"]) == [[0, "keep", None], [1, "exclude", None]]


def test_two_servers_see_the_decisions_of_each_other(images: Path, corrections: Path) -> None:
    with serving(images, corrections) as one, serving(images, corrections) as two:
        decide(one, 0, "keep")
        decide(two, 0, "exclude")
        decide(two, 1, "relabel", "red")

        changes = one.request("GET", "/api/decisions").json["changes"]

    assert sorted(changes) == [[0, "exclude", None], [1, "relabel", "red"]]


def test_decisions_survive_a_torn_last_line(images: Path, corrections: Path) -> None:
    with serving(images, corrections) as server:
        decide(server, 0, "keep")
        decide(server, 1, "exclude")
    content = corrections.read_bytes()
    corrections.write_bytes(content[:-20])

    with serving(images, corrections) as server:
        changes = server.request("GET", "/api/decisions").json["changes"]
        decide(server, 2, "keep")

    assert changes == [[0, "keep", None]]
    assert len(read_corrections(corrections).by_digest) == 2


def test_decisions_follow_a_file_that_was_edited_or_deleted(server: RunningServer, corrections: Path) -> None:
    decide(server, 0, "keep")
    decide(server, 1, "exclude")
    lines = corrections.read_text(encoding="utf-8").splitlines(keepends=True)

    corrections.write_text("".join([lines[0], lines[2]]), encoding="utf-8")
    edited = server.request("GET", "/api/decisions").json["changes"]
    corrections.write_text("".join(lines).rstrip("\n"), encoding="utf-8")  # as some editors do
    decide(server, 2, "keep")
    restored = server.request("GET", "/api/decisions").json["changes"]
    corrections.unlink()

    assert edited == [[1, "exclude", None]]
    assert sorted(restored) == [[0, "keep", None], [1, "exclude", None], [2, "keep", None]]
    assert server.request("GET", "/api/decisions").json["changes"] == []


def test_decisions_about_other_images_stay_in_the_file(server: RunningServer, corrections: Path) -> None:
    append_correction(corrections, Correction("ab" * 32, "elsewhere.jpg", "exclude"))

    changes = decide(server, 0, "keep").json["changes"]

    assert changes == [[0, "keep", None]]
    assert len(read_corrections(corrections).by_digest) == 2


def test_new_class_is_offered_after_a_reload(server: RunningServer) -> None:
    decide(server, 0, "relabel", "violet")

    assert "violet" in server.request("GET", "/api/review").json["classes"]


@pytest.mark.parametrize(
    ("posted", "status"),
    [
        ({"digest": "0" * 64, "decision": "keep"}, 404),
        ({"digest": "../../etc/passwd", "decision": "keep"}, 404),
        ({"digest": "FIRST", "decision": "relabel"}, 400),
        ({"digest": "FIRST", "decision": "relabel", "label": "  "}, 400),
        ({"digest": "FIRST", "decision": "keep", "label": "red"}, 400),
        ({"digest": "FIRST", "decision": "delete"}, 400),
        ({"digest": "FIRST", "decision": "keep", "path": "/etc/passwd"}, 400),
        ({"decision": "keep"}, 400),
        ([], 400),
    ],
)
def test_decide_refuses_what_is_no_decision(
    server: RunningServer, corrections: Path, posted: dict[str, object] | list[object], status: int
) -> None:
    text = json.dumps(posted).replace("FIRST", first(server)["digest"])

    answer = server.request("POST", "/api/decisions", text.encode(), Content_Type="application/json")

    assert (answer.status, list(answer.json)) == (status, ["error"])
    assert not corrections.exists()


def test_decide_refuses_other_web_sites(server: RunningServer, corrections: Path) -> None:
    posted = json.dumps({"digest": first(server)["digest"], "decision": "keep"}).encode()

    answer = server.request("POST", "/api/decisions", posted, Origin="http://evil.example")

    assert answer.status == 403
    assert server.request("GET", "/", Host="evil.example").status == 421
    assert not corrections.exists()


def test_broken_file_can_be_excluded_but_not_relabeled(server: RunningServer, corrections: Path) -> None:
    place = server.request("GET", "/api/queue?kind=broken_files").json["ids"][0]

    assert decide(server, place, "relabel", "red").status == 400
    assert decide(server, place, "exclude").status == 200
    assert server.request("GET", f"/images/{item(server, place)['digest']}/full").status == 404
    assert [row.path for row in read_corrections(corrections).by_digest.values()] == ["red/broken.png"]


def test_decide_says_that_the_file_cannot_be_written(images: Path, tmp_path: Path) -> None:
    with serving(images, tmp_path / "gone" / "colors.csv") as server:
        answer = decide(server, 0, "keep")

    assert answer.status == 500
    assert "colors.csv cannot be written" in answer.json["error"]


def test_foreign_file_is_an_error_and_stays_as_it_is(server: RunningServer, corrections: Path) -> None:
    corrections.write_text("my,notes\n1,2\n", encoding="utf-8")

    answer = decide(server, 0, "keep")

    assert answer.status == 409
    assert corrections.read_text(encoding="utf-8") == "my,notes\n1,2\n"


def test_image_shows_small_images_exactly_and_reduces_large_ones(server: RunningServer, images: Path) -> None:
    places = server.request("GET", "/api/queue?kind=all").json["ids"]
    large = next(one for one in (item(server, place) for place in places) if one["paths"] == ["red/large.jpg"])
    small = first(server)

    exact = server.request("GET", f"/images/{small['digest']}/full")
    reduced = server.request("GET", f"/images/{large['digest']}/full")
    thumbnail = server.request("GET", f"/images/{large['digest']}/thumbnail")

    with Image.open(BytesIO(exact.body)) as shown, Image.open(images / small["paths"][0]) as file:
        assert shown.tobytes() == file.convert("RGB").tobytes()
    assert Image.open(BytesIO(reduced.body)).size == (2048, 1024)
    assert max(Image.open(BytesIO(thumbnail.body)).size) == 336
    assert (exact.headers["content-type"], thumbnail.headers["content-type"]) == ("image/png", "image/jpeg")
    assert "immutable" in thumbnail.headers["cache-control"]


@pytest.mark.parametrize(
    "path", ["/images/x/full", "/images/..%2f..%2fetc%2fpasswd/full", "/static/..%2freview.py", "/etc/passwd"]
)
def test_no_path_of_a_client_is_opened(server: RunningServer, path: str) -> None:
    assert server.request("GET", path).status == 404


def test_image_refuses_a_file_that_has_changed(tmp_path: Path) -> None:
    write_planted(tmp_path / "colors", 9, 1)
    with serving(tmp_path / "colors", tmp_path / "c.csv") as server:
        shown = first(server)
        Image.new("RGB", (24, 24)).save(tmp_path / "colors" / shown["paths"][0])

        assert server.request("GET", f"/images/{shown['digest']}/full").status == 409


def test_page_has_a_strict_policy_and_names_no_other_host(server: RunningServer) -> None:
    page = server.request("GET", "/")
    files = [page, *(server.request("GET", f"/static/review.{suffix}") for suffix in ("css", "js"))]

    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert all(file.status == 200 and b"http://" not in file.body and b"https://" not in file.body for file in files)
