from __future__ import annotations

import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from automl_tl.evaluation import evaluate
from automl_tl.reports import FitHistory, ReportFacts, render_report
from tests.reports.example_facts import HOSTILE, example_facts, example_thumbnail

BROWSER = next((path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None)
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
        attributes = dict(attrs)
        self.seen.append(tag)
        self.sources += [attributes["src"] or ""] if "src" in attributes else []
        self.links += [attributes["href"] or ""] if "href" in attributes else []
        self.ids += [attributes["id"] or ""] if "id" in attributes else []
        self.open += [] if tag in VOID else [tag]

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.headings += [data] if self.open and self.open[-1] == "h2" else []


def structure(page: str) -> Structure:
    parser = Structure()
    parser.feed(page)
    return parser


@pytest.fixture(scope="module")
def page() -> str:
    return render_report(example_facts(), example_thumbnail)


def test_report_has_every_section_and_closes_every_tag(page: str) -> None:
    parsed = structure(page)

    assert parsed.open == []
    assert parsed.headings == [
        "Data",
        "Plan",
        "Training",
        "Evaluation",
        "Images to review",
        "Learning curve",
        "Abstention",
        "Provenance",
    ]
    assert sorted(parsed.links) == sorted(f"#{name}" for name in parsed.ids)


def test_report_loads_nothing_and_runs_no_script(page: str) -> None:
    parsed = structure(page)

    assert "script" not in parsed.seen
    assert all(source.startswith("data:image/png;base64,") for source in parsed.sources)
    assert parsed.sources
    assert "http" not in page.replace('http-equiv="Content-Security-Policy"', "")


def test_report_escapes_hostile_names(page: str) -> None:
    assert HOSTILE not in page
    assert "&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt;" in page


def test_report_shows_control_characters() -> None:
    facts = example_facts()
    classes = ("\x1b[31m\u202ered", *facts.evaluation.classes[1:])

    page = render_report(facts.model_copy(update={"evaluation": facts.evaluation.model_copy(update={"classes": classes})}))

    assert r"\x1b[31m\u202ered" in page
    assert not set("\x1b\u202e") & set(page)


def test_report_renders_without_the_images_and_with_few_facts() -> None:
    facts = example_facts()
    little = {"index": None, "data": None, "split": None, "fit": FitHistory(), "learning": None, "tested": ()}

    parsed = structure(render_report(facts.model_copy(update=little)))

    assert parsed.open == []
    assert parsed.headings == ["Plan", "Evaluation", "Abstention", "Provenance"]


def test_report_starts_with_balanced_accuracy_and_missed_classes_if_imbalanced(page: str) -> None:
    labels = np.array([0] * 60 + [1] * 5)
    imbalanced = evaluate(labels, np.eye(2)[np.zeros(65, dtype=int)], ("daisy", "dandelion"))

    head = render_report(example_facts().model_copy(update={"evaluation": imbalanced})).partition("</header>")[0]

    assert '<div class="score">50%<small>balanced test accuracy' in head
    assert "<b>dandelion: 0 of 5 found</b>" in head
    assert "balanced test accuracy" not in page.partition("</header>")[0]


def test_report_frames_missing_thumbnails() -> None:
    def broken(path: str) -> bytes:
        raise OSError(path)

    assert "no image" in render_report(example_facts(), broken)


def test_report_rejects_thumbnails_that_are_not_images() -> None:
    assert structure(render_report(example_facts(), lambda path: b"<svg onload=alert(1)>")).sources == []


def test_report_facts_round_trip_through_json() -> None:
    facts = example_facts()

    assert ReportFacts.model_validate_json(facts.model_dump_json()) == facts


def test_report_compares_predicted_and_measured(page: str) -> None:
    assert "the intervals do not overlap" in page
    assert "as predicted, within a quarter" in page


@pytest.mark.integration
@pytest.mark.skipif(BROWSER is None, reason="no chromium is installed: apt-get install chromium")
@pytest.mark.parametrize("width_px", [390, 1200])
def test_report_fits_the_width_of_a_browser(page: str, width_px: int, tmp_path: Path) -> None:
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
