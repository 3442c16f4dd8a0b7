"""The Python API: what the command line has, images from memory, no output, notebooks."""

from __future__ import annotations

import inspect
import logging
import sys
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from importlib.util import find_spec
from io import BytesIO, StringIO
from pathlib import Path
from types import ModuleType
from typing import Any, get_type_hints

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console
from rich.progress import Progress

import automl_tl
from automl_tl.data.in_memory import open_images
from automl_tl.errors import ImageValueError, SourceNotFoundError
from automl_tl.models.engines import BREAK_EVEN_IMAGES, best_device
from automl_tl.runtime import progress_bars
from automl_tl.trackers import Row
from automl_tl.values import FitOutcome, Plan, Prediction
from automl_tl.workflows.constraints import ConstraintOptions
from automl_tl_registry import Registry
from automl_tl_registry.sharing import SharedRegistry
from tests.fakes import write_colors
from tests.optional import import_of_dev_group
from tests.reports.example_facts import HOSTILE, example_facts
from tests.test_docs import COMMANDS
from tests.toy_plugin import TOY, toy_backbone

ONLY_OUTPUT = {"json", "help", "quiet", "verbose", "no_plugins", "version"}
# What the functions have instead of an option that is about output or exit codes.
INSTEAD = {
    ("check", "strict"): "DataCheck.report.num_warnings",
    ("predict", "format"): "Predictions.to_records",
    ("predict", "out"): "Predictions.to_arrow",
    ("explain", "images"): "training_images, as images are what is explained",
}
VERBS = {
    name: {"tl data export": "export_data", "tl data next": "next_labels"}.get(name, name.split()[-1])
    for name in COMMANDS
    if name.split()[1] in {"auto", "data"} or name.count(" ") == 1
}
LONG_RUNNING = {"serve", "review"}  # servers, which a program has no use for
METHODS = {"list": "versions", "show": "resolve", "import": "import_"}


def test_every_verb_is_a_function() -> None:
    assert set(VERBS.values()) - LONG_RUNNING <= set(automl_tl.__all__)
    assert {"fit", "plan", "check", "split", "load", "registry"} <= set(automl_tl.__all__)


@pytest.mark.parametrize("command", sorted(name for name, verb in VERBS.items() if verb not in LONG_RUNNING))
def test_function_has_the_options_of_its_command(command: str) -> None:
    verb = VERBS[command]
    signature = inspect.signature(getattr(automl_tl, verb))
    parameters = set(signature.parameters)
    if "options" in parameters:
        parameters |= ConstraintOptions.__annotations__.keys()
    options = {
        option.opts[0].lstrip("-").replace("-", "_").split("/")[0]
        for option in COMMANDS[command].params
        if option.param_type_name == "option"
    }

    missing = {name for name in options - parameters - ONLY_OUTPUT if (verb, name) not in INSTEAD}

    assert not missing


@pytest.mark.parametrize("command", sorted(name for name in COMMANDS if name.startswith("tl registry ")))
def test_registry_has_the_options_of_its_command(command: str) -> None:
    verb = METHODS.get(command.split()[-1], command.split()[-1])
    options = {option.name for option in COMMANDS[command].params if option.param_type_name == "option"}
    # In Python, --remote URL is registry().shared(URL), which has the same methods.
    for owner in (Registry, SharedRegistry) if "remote" in options else (Registry,):
        parameters = inspect.signature(getattr(owner, verb)).parameters

        assert options - ONLY_OUTPUT - {"as_json", "registry", "card", "remote"} <= parameters.keys()


def test_functions_describe_every_parameter() -> None:
    for name in automl_tl.__all__:
        function = getattr(automl_tl, name)
        if inspect.isfunction(function):
            undescribed = [
                name for name in inspect.signature(function).parameters if f"{name}:" not in (function.__doc__ or "")
            ]
            assert not undescribed or len(inspect.signature(function).parameters) < 2, (name, undescribed)


# ------------------------------------------------------------------------------------------------------------- a fit


@dataclass
class Recording:
    """A listener that keeps what it hears."""

    heard: list[tuple[str, Any]] = field(default_factory=list)

    def started(self, name: str, plan: Plan) -> None:
        self.heard.append(("started", (name, plan)))

    def epoch(self, row: Row) -> None:
        self.heard.append(("epoch", dict(row)))

    def finished(self, outcome: FitOutcome) -> None:
        self.heard.append(("finished", outcome))

    def failed(self, error: BaseException) -> None:
        self.heard.append(("failed", error))


class Broken(Recording):
    """A listener that fails at the first epoch."""

    def epoch(self, row: Row) -> None:
        super().epoch(row)
        print("on stdout")
        raise OSError("no route to host")


@dataclass(frozen=True)
class Fit:
    """One fit from Python, with what it printed, logged and told its listeners."""

    folder: Path
    outcome: FitOutcome
    model: automl_tl.Model
    printed: str
    records: list[logging.LogRecord]
    listener: Recording
    broken: Broken


@pytest.fixture(scope="module")
def fit(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fit]:
    folder = tmp_path_factory.mktemp("fit")
    images, printed, records = write_colors(folder / "Color Cards", 12), StringIO(), list[logging.LogRecord]()
    handler = logging.Handler()
    handler.emit = records.append  # type: ignore[method-assign,assignment]
    logger, listener, broken = logging.getLogger("automl_tl"), Recording(), Broken()
    with toy_backbone(folder), redirect_stdout(printed), redirect_stderr(printed):
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
        try:
            outcome = automl_tl.fit(images, backbone=TOY, strategy="full_finetune", budget="5m", track=[broken, listener])
            model = automl_tl.load(outcome.model)
            automl_tl.evaluate(outcome.model, images)
            automl_tl.report(outcome.model, out=folder / "report.html")
            automl_tl.split(images)
        finally:
            logger.removeHandler(handler)
            logger.setLevel(logging.NOTSET)
        yield Fit(folder, outcome, model, printed.getvalue(), records, listener, broken)


def test_python_api_prints_nothing_and_logs(fit: Fit) -> None:
    lines = [record.getMessage() for record in fit.records]

    assert fit.printed.replace("on stdout\n", "") == ""
    assert any(line.startswith("data: ") for line in lines)
    assert any(line.startswith("plan: full_finetune on toy/three_blocks") for line in lines)


def test_fit_tells_its_listeners_plan_epochs_and_outcome(fit: Fit) -> None:
    events = [event for event, _ in fit.listener.heard]
    name, plan = fit.listener.heard[0][1]

    assert events == ["started", *["epoch"] * (len(events) - 2), "finished"]
    assert (name, plan.strategy) == ("color-cards", "full_finetune")
    assert [row["epoch"] for event, row in fit.listener.heard if event == "epoch"] == list(range(1, len(events) - 1))
    assert fit.listener.heard[-1][1] == fit.outcome


def test_fit_leaves_out_a_listener_that_fails(fit: Fit) -> None:
    warned = [record.getMessage() for record in fit.records if record.levelno == logging.WARNING]

    assert [event for event, _ in fit.broken.heard] == ["started", "epoch"]
    assert "Broken failed (OSError: no route to host); the fit continues without it." in warned


def test_fit_reads_budget_and_backbone_like_the_command_line(fit: Fit) -> None:
    assert fit.outcome.plan.constraints.budget_s == 300
    assert fit.outcome.plan.constraints.backbones == (TOY,)


def test_fit_names_an_option_that_does_not_exist() -> None:
    with pytest.raises(TypeError, match=r"unexpected keyword argument bugdet; the options are backbone, .*budget"):
        automl_tl.fit("nowhere", bugdet="5m")  # type: ignore[call-arg]
    with pytest.raises(ValueError, match="'5 minuets' is not a positive quantity"):
        automl_tl.fit("nowhere", budget="5 minuets")


def test_fit_refuses_constraints_beside_a_plan(fit: Fit) -> None:
    with pytest.raises(ValueError, match="strategy would change it"):
        automl_tl.fit("nowhere", plan=fit.outcome.plan, strategy="tail")


# ------------------------------------------------------------------------------------------------ images from memory


@pytest.fixture
def path(fit: Fit) -> Path:
    return fit.folder / "Color Cards" / "green" / "000.png"


def pixels_of(path: Path) -> NDArray[np.uint8]:
    return np.asarray(Image.open(path))


@pytest.mark.skipif(best_device().type != "cpu", reason="engines for CPUs")
@pytest.mark.skipif(find_spec("openvino") is None, reason="openvino is not installed")
@pytest.mark.parametrize(("num_images", "library"), [(BREAK_EVEN_IMAGES, "PyTorch"), (BREAK_EVEN_IMAGES + 1, "OpenVINO")])
def test_predict_uses_the_engine_that_finishes_first(
    fit: Fit, path: Path, caplog: pytest.LogCaptureFixture, num_images: int, library: str
) -> None:
    pixels = pixels_of(path)

    with caplog.at_level(logging.DEBUG, "automl_tl.models.engines"):
        labels = [row.label for row in fit.model.predict(pixels for _ in range(num_images))]

    assert labels == ["green"] * num_images
    assert f"engine for {num_images} images: {library}" in caplog.text


def test_predict_takes_one_image_in_every_form(fit: Fit, path: Path) -> None:
    pixels = pixels_of(path)
    forms: list[Any] = [
        str(path),
        path,
        path.read_bytes(),
        Image.open(path),
        pixels,
        pixels[None],
        [path],
        iter([path]),
        (pixels,),
    ]

    (expected,) = fit.model.predict(path)
    predictions = [prediction for form in forms for prediction in fit.model.predict(form)]

    assert len(predictions) == len(forms)
    assert {prediction.label for prediction in predictions} == {"green"}
    assert [prediction.probability for prediction in predictions] == pytest.approx([expected.probability] * len(forms))
    assert [prediction.path for prediction in predictions[:4]] == [str(path), str(path), "[0]", "[0]"]


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK", "I;16", "I", "F", "YCbCr", "HSV", "PA"])
def test_open_images_encodes_every_mode_of_pillow(mode: str) -> None:
    gradient = Image.linear_gradient("L")
    image = (
        gradient.convert("RGB").convert("HSV")
        if mode == "HSV"
        else gradient.convert("LA").convert("P")
        if mode == "P"
        else None
    )
    image = image or (gradient.convert("RGBA").convert("LA").convert("PA") if mode == "PA" else gradient.convert(mode))

    ((_, read),) = open_images(image)[0]

    assert Image.open(BytesIO(read())).size == (256, 256)


def test_open_images_turns_pillow_images_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (30, 20)).save(tmp_path / "turned.jpg", exif=exif)

    ((_, read),) = open_images(Image.open(tmp_path / "turned.jpg"))[0]

    assert Image.open(BytesIO(read())).size == (20, 30)


def test_predict_gives_batches_and_gray_images_a_row_each(fit: Fit, path: Path) -> None:
    gray = np.asarray(Image.open(path).convert("L"))

    batch = list(fit.model.predict(np.stack([pixels_of(path)] * 3)))
    gray_batch = list(fit.model.predict(np.stack([gray] * 5)))
    (one,) = fit.model.predict(gray)

    assert [prediction.path for prediction in batch] == ["[0]", "[1]", "[2]"]
    assert len(gray_batch) == 5
    assert gray_batch[0].label == one.label
    assert list(fit.model.predict(np.zeros((0, 8, 8, 3), np.uint8))) == []


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        (np.zeros((8, 8, 3), np.float32), r"an array of float32 .* Expected uint8, 0 to 255; convert it"),
        (np.zeros((8, 8), np.uint16), "an array of uint16"),
        (np.zeros((8, 8), bool), "an array of bool"),
        (np.zeros((3, 8, 8), np.uint8), r"shape \(3, 8, 8\) .* channels last"),
        (np.zeros((2, 3, 8, 8), np.uint8), r"np\.moveaxis"),
        (np.zeros(8, np.uint8), r"shape \(8,\)"),
        (np.zeros((0, 8), np.uint8), r"shape \(0, 8\)"),
        (np.zeros((2, 2, 2, 2, 3), np.uint8), r"shape \(2, 2, 2, 2, 3\)"),
        (3, "builtins.int"),
        ([None], "builtins.NoneType"),
        ([[1, 2]], "builtins.list"),
    ],
)
def test_predict_refuses_what_is_no_image(fit: Fit, value: object, problem: str) -> None:
    with pytest.raises(ImageValueError, match=problem) as caught:
        list(fit.model.predict(value))  # type: ignore[arg-type]

    assert isinstance(caught.value, ValueError)


def test_predict_gives_a_row_to_each_unreadable_image_of_several(fit: Fit, path: Path) -> None:
    truncated = path.read_bytes()[:300]

    rows = list(fit.model.predict([path, "missing.png", b"text", truncated, path]))

    assert [row.error is None for row in rows] == [True, False, False, False, True]
    assert rows[1].path == "missing.png"
    assert rows[1].error == "can't be read: file not found"
    with pytest.raises(SourceNotFoundError):
        fit.model.predict("missing.png")


def test_predict_reads_a_stream_a_few_batches_ahead(fit: Fit, path: Path) -> None:
    taken = 0
    pixels = pixels_of(path)

    def frames() -> Iterator[NDArray[np.uint8]]:
        nonlocal taken
        while True:
            taken += 1
            yield pixels

    predictions = fit.model.predict(frames())
    first = [next(predictions) for _ in range(50)]

    assert [prediction.path for prediction in first] == [f"[{number}]" for number in range(50)]
    assert taken < 50 + 5 * 32


def test_predict_copies_a_buffer_that_its_generator_uses_again(fit: Fit) -> None:
    def frames() -> Iterator[NDArray[np.uint8]]:
        buffer = np.empty((40, 40, 3), np.uint8)
        for path in ("green/000.png", "red/000.png"):
            buffer[:] = pixels_of(fit.folder / "Color Cards" / path)
            yield buffer

    assert [prediction.label for prediction in fit.model.predict(frames())] == ["green", "red"]


def test_predict_sorts_images_from_memory_into_folders(fit: Fit, path: Path, tmp_path: Path) -> None:
    list(fit.model.predict([path, path.read_bytes()], copy_to=tmp_path, reject_ood=False))

    assert sorted(file.name for file in (tmp_path / "green").iterdir()) == ["000.png", "[1]"]


def test_predictions_convert_to_records_arrow_and_pandas(fit: Fit, path: Path) -> None:
    pandas = import_of_dev_group("pandas")

    records = fit.model.predict([path, b""]).to_records()
    table = fit.model.predict([path, b""]).to_arrow()
    frame = fit.model.predict([path, b""]).to_pandas()

    assert [Prediction(**record) for record in records] == fit.model.predict([path, b""]).to_list()
    assert table.column_names == ["path", "label", "probability", "abstained", "error", "top"]
    assert table["label"].to_pylist() == ["green", None]
    assert isinstance(frame, pandas.DataFrame)
    assert frame["error"].isna().tolist() == [True, False]
    assert frame["label"][0] == "green"


# ---------------------------------------------------------------------------------------------------------- notebooks


def test_values_show_escaped_tables_in_notebooks(fit: Fit) -> None:
    shown: list[Any] = [
        fit.outcome,
        fit.outcome.plan,
        fit.outcome.test,
        example_facts(),
        Registry(fit.folder / "home" / "registry"),
    ]
    shown.append(Registry(fit.folder / "home" / "registry").versions())
    pages = [value._repr_html_() for value in shown]

    assert all("<table>" in page for page in pages)
    assert all("style" not in page and "color:" not in page for page in pages)
    assert HOSTILE not in pages[3]
    assert "color-cards@1" in pages[-1]


def test_empty_listing_shows_a_word_in_notebooks(tmp_path: Path) -> None:
    assert Registry(tmp_path / "registry").history()._repr_html_() == "<p>none</p>"


class Notebook(ModuleType):
    """Takes the place of ``IPython.display``; ``shown`` is what one output showed, one after the other."""

    def __init__(self) -> None:
        super().__init__("IPython.display")
        self.shown: list[str] = []

    def display(self, bar: Progress, *, display_id: bool) -> Notebook:
        assert display_id
        self.update(bar)
        return self

    def update(self, bar: Progress | str) -> None:
        with (console := Console(file=StringIO(), width=80)).capture() as captured:
            console.print(bar, end="")
        self.shown.append(captured.get())

    HTML = str


def test_progress_bars_are_drawn_and_removed_in_one_output_of_a_notebook(monkeypatch: pytest.MonkeyPatch) -> None:
    notebook, printed = Notebook(), StringIO()
    monkeypatch.setitem(sys.modules, "IPython", ModuleType("IPython"))
    monkeypatch.setitem(sys.modules, "IPython.display", notebook)
    monkeypatch.setattr(progress_bars, "REDRAW_S", 0)

    with automl_tl.ProgressBars(Console(force_jupyter=True, file=printed)).track("predicting", 2) as advance:
        advance(1)

    assert ["0/2" in notebook.shown[0], "1/2" in notebook.shown[1], *notebook.shown[2:]] == [True, True, ""]
    assert "predicting" in notebook.shown[1]
    assert printed.getvalue() == ""


def test_progress_bars_show_in_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = StringIO()
    monkeypatch.setattr(screen, "isatty", lambda: True)
    monkeypatch.setattr("sys.stderr", screen)

    with automl_tl.ProgressBars().track("predicting", 2) as advance:
        advance(1)

    assert "predicting" in screen.getvalue()


def test_package_documents_its_names() -> None:
    for name in automl_tl.__all__:
        assert getattr(automl_tl, name).__doc__
    assert get_type_hints(ConstraintOptions)
