"""Options that every command has, before and after its name."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from importlib.metadata import version

import pytest

import automl_tl
from automl_tl.cli import main
from tests.test_docs import COMMANDS

WARNING = "! TL_DISABLE_PLUGINS names plugins that are not installed"
SECONDS = re.compile(r'"import_s": .*')
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run ``tl`` in this process: exit code, standard output, standard error."""

    def run_main(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["tl", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        return int(ended.value.code or 0), *capsys.readouterr()

    return run_main


def test_version_is_that_of_the_distribution(run: Run) -> None:
    assert run("--version") == (0, f"automl-tl {version('automl-tl')}\n", "")
    assert automl_tl.__version__ == version("automl-tl")


@pytest.mark.parametrize("name", ["tl", "tl auto", *sorted(COMMANDS)])
def test_h_shows_the_help_of_every_command(name: str, run: Run) -> None:
    code, out, err = run(*name.split()[1:], "-h")

    assert (code, err) == (0, "")
    assert name.removeprefix("tl") + " [OPTIONS]" in out
    assert "--quiet" in out


@pytest.mark.parametrize("option", ["--quiet", "-q"])
@pytest.mark.parametrize("place", [0, 1, 2])
def test_quiet_leaves_the_result_alone(option: str, place: int, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TL_DISABLE_PLUGINS", "nonsense")
    words = ["plugins", "list", "--json"]

    usual = run(*words)
    quiet = run(*words[:place], option, *words[place:])
    usual_again = run(*words)

    assert usual[2].startswith(WARNING)
    assert quiet[2] == ""
    assert usual_again[2] == usual[2]
    assert len({SECONDS.sub("", out) for _, out, _ in (usual, quiet, usual_again)}) == 1


def test_quiet_keeps_errors(run: Run) -> None:
    code, out, err = run("registry", "show", "nothing", "-q")

    assert (code, out) == (6, "")
    assert err.startswith("error: ")


@pytest.mark.parametrize("arguments", [("-v", "registry", "show", "nothing"), ("registry", "show", "nothing", "--verbose")])
def test_verbose_adds_debug_messages_and_tracebacks(arguments: tuple[str, ...], run: Run) -> None:
    verbose, usual = run(*arguments), run("registry", "show", "nothing")

    assert verbose[0] == usual[0] == 6
    assert "Traceback" in verbose[2]
    assert f"automl-tl {version('automl-tl')}, Python " in verbose[2]
    assert verbose[2].endswith(usual[2])
    assert "Traceback" not in usual[2]


def test_no_plugins_may_follow_the_command(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TL_DISABLE_PLUGINS", "")

    assert run("plugins", "list", "--no-plugins")[0] == 0
    assert os.environ["TL_DISABLE_PLUGINS"] == "*"
