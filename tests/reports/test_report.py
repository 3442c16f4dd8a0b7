from __future__ import annotations

import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest

from automl_tl.reports import ReportFacts, render_report
from tests.reports.made_facts import HOSTILE, MADE_AT, made_facts, made_thumbnail

BROWSER = next((found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None)
VOID = {"meta", "br", "wbr", "img", "link", "hr", "input"}


class Structure(HTMLParser):
    """Collects what a page has and whether its tags close."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[str] = []
        self.headings: list[str] = []
        self.sources: list[str] = []
        self.links: list[str] = []
        self.ids: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.seen.append(tag)
        self.sources += [given["src"] or ""] if "src" in given else []
        self.links += [given["href"] or ""] if "href" in given else []
        self.ids += [given["id"] or ""] if "id" in given else []
        self.open += [] if tag in VOID else [tag]

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.headings += [data] if self.open and self.open[-1] == "h2" else []


def structure(page: str) -> Structure:
    found = Structure()
    found.feed(page)
    return found


@pytest.fixture(scope="module")
def page() -> str:
    return render_report(made_facts(), made_thumbnail)


def test_every_section_is_there_and_every_tag_closes(page: str) -> None:
    found = structure(page)

    assert found.open == []
    assert found.headings == [
        "Data",
        "Plan",
        "Training",
        "Evaluation",
        "Images to review",
        "Learning curve",
        "Abstention",
        "Provenance",
    ]
    assert sorted(found.links) == sorted(f"#{name}" for name in found.ids)


def test_nothing_is_loaded_and_no_script_runs(page: str) -> None:
    found = structure(page)

    assert "script" not in found.seen
    assert all(source.startswith("data:image/png;base64,") for source in found.sources)
    assert found.sources
    assert "http" not in page.replace('http-equiv="Content-Security-Policy"', "")


def test_hostile_class_names_and_paths_are_only_text(page: str) -> None:
    assert HOSTILE not in page
    assert "&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt;" in page


def test_what_is_missing_is_left_out() -> None:
    found = structure(render_report(ReportFacts(model="bare", created_at=MADE_AT)))

    assert (found.open, found.headings) == ([], [])


@pytest.mark.parametrize("left_out", ["index", "data", "split", "plan", "fit", "evaluation", "learning"])
def test_any_single_part_may_be_missing(left_out: str) -> None:
    facts = made_facts().model_copy(update={left_out: None})

    assert structure(render_report(facts, made_thumbnail)).open == []


def test_pictures_that_can_not_be_had_leave_a_frame() -> None:
    def broken(path: str) -> bytes:
        raise OSError(path)

    assert "no image" in render_report(made_facts(), broken)


def test_a_thumbnail_that_is_no_picture_is_not_put_in() -> None:
    assert structure(render_report(made_facts(), lambda path: b"<svg onload=alert(1)>")).sources == []


def test_facts_survive_json() -> None:
    facts = made_facts()

    assert ReportFacts.model_validate_json(facts.model_dump_json()) == facts


def test_predicted_stands_beside_measured_with_a_verdict(page: str) -> None:
    assert "the intervals do not overlap" in page
    assert "as predicted, within a quarter" in page


@pytest.mark.slow
@pytest.mark.skipif(BROWSER is None, reason="no chromium is installed: apt-get install chromium")
@pytest.mark.parametrize("width_px", [390, 1200])
def test_a_real_browser_lays_the_page_out_without_sideways_scrolling(page: str, width_px: int, tmp_path: Path) -> None:
    (tmp_path / "report.html").write_text(page, encoding="utf-8")
    probe = (
        f'<iframe id="f" src="report.html" style="width:{width_px}px;height:800px"></iframe><script>'
        "f.onload = () => { const d = f.contentDocument.documentElement;"
        "document.title = d.scrollWidth + ' ' + d.querySelectorAll('h2').length }</script>"
    )
    (tmp_path / "frame.html").write_text(probe, encoding="utf-8")

    dom = browse(tmp_path / "frame.html", tmp_path)

    wide, num_headings = dom.split("<title>")[1].split("</title>")[0].split()
    assert int(wide) <= width_px
    assert int(num_headings) == 8


def browse(file: Path, profile: Path) -> str:
    """The page's document after its scripts ran."""
    assert BROWSER is not None
    flags = ["--headless=new", "--no-sandbox", "--disable-gpu", "--allow-file-access-from-files", "--virtual-time-budget=4000"]
    command = [BROWSER, *flags, f"--user-data-dir={profile / 'profile'}", "--dump-dom", file.as_uri()]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
