"""Standard streams of the command line: encodings, closed streams, closed pipes and full devices."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fakes import write_colors

PROGRAM = """
import sys
from automl_tl.cli.streams import standard_streams
with standard_streams():
    {body}
"""
POSIX = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


def run_program(
    body: str, *arguments: str, redirect: str = "", environment: dict[str, str] | None = None
) -> subprocess.CompletedProcess[bytes]:
    """Run ``body`` with the streams set up as ``tl`` does, in a shell with a redirection."""
    command = ["sh", "-c", f'exec "$@" {redirect}', "sh", sys.executable, "-c", PROGRAM.format(body=body), *arguments]
    return subprocess.run(command, env={**os.environ, **(environment or {})}, capture_output=True, check=False)


@pytest.mark.parametrize(
    ("encoding", "printed"),
    [
        ("ascii", rb"93-100% | caf\xe9 \U0001f41d"),
        ("latin-1", b"93-100% \xb7 caf\xe9 " + rb"\U0001f41d"),
        ("cp1252", b"93\x96100% \xb7 caf\xe9 " + rb"\U0001f41d"),
        ("utf-8", "93\u2013100% · café 🐝".encode()),
    ],
)
def test_streams_spell_or_escape_what_the_encoding_lacks(encoding: str, printed: bytes) -> None:
    body = "for stream in (sys.stdout, sys.stderr): print('93\\u2013100% \\xb7 caf\\xe9 \\U0001f41d', file=stream)"

    ended = run_program(body, environment={"PYTHONIOENCODING": encoding})

    assert ended.returncode == 0
    assert ended.stdout.rstrip() == ended.stderr.rstrip() == printed


@pytest.mark.parametrize("redirect", ["<&-", ">&-", "2>&-", ">&- 2>&-", "<&- >&- 2>&-", "2>/dev/full", "2</dev/null"])
def test_streams_may_be_closed_and_messages_may_be_lost(redirect: str, tmp_path: Path) -> None:
    body = "print('result'); print('message', file=sys.stderr); sys.stdin.read(); open(sys.argv[1], 'w').write('file')"

    ended = run_program(body, str(tmp_path / "file"), redirect=redirect)

    assert ended.returncode == 0
    assert (tmp_path / "file").read_text() == "file"
    assert ended.stdout == (b"" if ">&- " in redirect or redirect.startswith(">") else b"result\n")
    assert ended.stderr in (b"", b"message\n")


@pytest.mark.parametrize("size", [1, 100_000])
def test_streams_end_silently_when_the_pipe_is_closed(size: int) -> None:
    reader, writer = os.pipe()
    os.close(reader)

    program = PROGRAM.format(body=f"print('x' * {size})")
    ended = subprocess.run([sys.executable, "-c", program], stdout=writer, stderr=subprocess.PIPE, check=False)
    os.close(writer)

    assert (ended.returncode, ended.stderr) == (141, b"")


def test_streams_end_silently_when_windows_closed_the_pipe() -> None:
    body = "import errno; from automl_tl.cli.streams import OutputLost; raise OutputLost(OSError(errno.EINVAL, 'Invalid'))"

    ended = run_program(body)  # how Windows reports it

    assert (ended.returncode, ended.stderr) == (141, b"")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
@pytest.mark.parametrize("size", [1, 100_000])
def test_streams_end_with_exit_code_10_when_the_device_is_full(size: int) -> None:
    ended = run_program(f"print('x' * {size})", redirect=">/dev/full")

    assert ended.returncode == 10
    assert ended.stderr.startswith(b"error: Cannot write the output")
    assert ended.stderr.count(b"\n") == 1


@pytest.mark.parametrize("options", [(), ("--json",)])
def test_tl_prints_chinese_class_names_to_a_pipe_of_windows(options: tuple[str, ...], tmp_path: Path) -> None:
    images = write_colors(tmp_path / "images", 2, classes=("red", "green"))
    (images / "red").rename(images / "\u8718\u86db")
    command = [sys.executable, "-m", "automl_tl", "data", "check", str(images), *options]

    ended = subprocess.run(command, env={**os.environ, "PYTHONIOENCODING": "cp1252"}, capture_output=True, check=False)

    assert (ended.returncode, ended.stderr) == (0, b"")
    printed = ended.stdout.decode("cp1252")
    if options:
        assert json.loads(printed)["index"]["classes"] == ["green", "\u8718\u86db"]
    else:
        assert r"\u8718\u86db" in printed


def test_tl_reads_and_prints_the_real_names_in_any_locale(tmp_path: Path) -> None:
    images = write_colors(tmp_path / "café 蜂", 2, classes=("red", "green"))
    (images / "red").rename(images / "crème [bold]")
    command = [sys.executable, "-m", "automl_tl", "data", "check", str(images), "--json"]

    ended = subprocess.run(command, env={**os.environ, **POSIX}, capture_output=True, check=False)

    assert (ended.returncode, ended.stderr) == (0, b"")
    index = json.loads(ended.stdout.decode("ascii"))["index"]
    assert index["root"] == str(images)
    assert index["classes"] == ["crème [bold]", "green"]


@pytest.mark.parametrize("columns", ["0", "1", "10"])
def test_tl_prints_everything_for_any_number_of_columns(columns: str) -> None:
    command = [sys.executable, "-m", "automl_tl", "cache", "info", "--help"]

    ended = subprocess.run(command, env={**os.environ, "COLUMNS": columns}, capture_output=True, check=False)

    assert ended.returncode == 0
    assert b"Print the result as JSON." in ended.stdout
