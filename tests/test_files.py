"""Files are written atomically at any path of the caller; errors leave an existing file unchanged."""

from __future__ import annotations

import io
import os
import socket
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import saliency_widgets as sw
from saliency_widgets import render
from saliency_widgets.files import as_path, put, resolve_target

not_as_root = pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere")


def mode_of(path):
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture
def umask():
    before = os.umask(0o027)
    yield
    os.umask(before)


@pytest.mark.parametrize("path", ["new.html", Path("new.html"), b"new.html"])
def test_a_new_file_has_the_content_and_the_mode_of_the_umask(tmp_path, monkeypatch, umask, path):
    monkeypatch.chdir(tmp_path)
    assert put(path, b"content") == 7
    (tmp_path / "other").write_bytes(b"")
    assert (tmp_path / "new.html").read_bytes() == b"content"
    assert mode_of(tmp_path / "new.html") == mode_of(tmp_path / "other") == 0o640


def test_the_home_directory_is_expanded(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    put("~/a.html", b"x")
    assert (tmp_path / "a.html").read_bytes() == b"x"
    assert as_path("~/a.html") == tmp_path / "a.html"


@pytest.mark.parametrize("mode", [0o600, 0o644, 0o664])
def test_a_file_that_is_replaced_keeps_its_mode(tmp_path, umask, mode):
    path = tmp_path / "a"
    path.write_bytes(b"old")
    path.chmod(mode)
    put(path, b"new")
    assert (path.read_bytes(), mode_of(path)) == (b"new", mode)


def test_a_symbolic_link_is_followed_and_remains_a_link(tmp_path):
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "real").write_bytes(b"old")
    (tmp_path / "link").symlink_to(tmp_path / "there" / "real")
    (tmp_path / "relative").symlink_to("there/real")
    (tmp_path / "dangling").symlink_to("there/new")
    for name, target in (("link", "real"), ("relative", "real"), ("dangling", "new")):
        put(tmp_path / name, name.encode())
        assert (tmp_path / name).is_symlink()
        assert (tmp_path / "there" / target).read_bytes() == name.encode()
    assert sorted(path.name for path in (tmp_path / "there").iterdir()) == ["new", "real"]


@pytest.fixture
def special(tmp_path):
    """A folder that contains a directory, a pipe, a socket, a link cycle and a link to a device."""
    (tmp_path / "folder").mkdir()
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    (tmp_path / "to null").symlink_to(os.devnull)
    os.mkfifo(tmp_path / "pipe")
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(os.path.relpath(tmp_path / "socket"))
        yield tmp_path


@pytest.mark.parametrize(
    ("path", "error", "message"),
    [
        ("folder", IsADirectoryError, "is a folder. Add the name"),
        (".", IsADirectoryError, "is a folder"),
        ("pipe", ValueError, "is a pipe"),
        ("socket", ValueError, "is a socket"),
        ("to null", ValueError, "is a device"),
        (os.devnull, ValueError, "is a device"),
        ("a", ValueError, "leads back to itself"),
        ("nowhere/x", FileNotFoundError, "there is no folder .*nowhere"),
        ("pipe/x", FileNotFoundError, "there is no folder .*pipe"),
        ("x" * 300, OSError, "can't be written: File name too long"),
        ("", ValueError, "expected a path such as 'maps/cat', got ''"),
        ("a\0b", ValueError, "got 'a.x00b'"),
        ("\ud800", ValueError, "characters that file names can't have"),
        ("~nobody-of-this-name/x", ValueError, "there is no user"),
        (None, TypeError, "got a NoneType"),
        (5, TypeError, "got a int"),
        (["a"], TypeError, "got a list"),
        (type("Odd", (os.PathLike,), {"__fspath__": lambda _self: 5})(), TypeError, "got a non-string path"),
    ],
)
def test_special_files_and_invalid_paths_are_refused_and_left_unchanged(special, monkeypatch, path, error, message):
    monkeypatch.chdir(special)
    before = {one.name: one.lstat().st_mode for one in special.iterdir()}
    for refuse in (resolve_target, lambda path: put(path, b"content")):
        with pytest.raises(error, match=f"^path: .*{message}"):
            refuse(path)
    assert {one.name: one.lstat().st_mode for one in special.iterdir()} == before


@not_as_root
def test_write_protected_files_and_folders_are_refused(tmp_path):
    (tmp_path / "file").write_bytes(b"old")
    (tmp_path / "file").chmod(0o444)
    with pytest.raises(PermissionError, match="write-protected"):
        put(tmp_path / "file", b"new")
    tmp_path.chmod(0o555)
    with pytest.raises(PermissionError, match=r"the folder .* can't be written to"):
        put(tmp_path / "new", b"new")
    tmp_path.chmod(0o755)


def test_missing_permissions_raise_one_clear_error(tmp_path, monkeypatch):
    """Covers root as well, who may write anywhere: ``os.access`` is replaced."""
    (tmp_path / "file").write_bytes(b"old")
    with monkeypatch.context() as patched:
        patched.setattr(os, "access", lambda path, _mode: Path(path) != tmp_path)
        with pytest.raises(PermissionError, match=r"the folder .* can't be written to"):
            put(tmp_path / "file", b"new")
        patched.setattr(os, "access", lambda path, _mode: Path(path) == tmp_path)
        with pytest.raises(PermissionError, match="write-protected"):
            put(tmp_path / "file", b"new")
    assert (tmp_path / "file").read_bytes() == b"old"


@pytest.mark.parametrize("failing", ["fsync", "replace", "chmod"])
@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_an_error_leaves_the_old_file_and_no_temporary_file(tmp_path, monkeypatch, failing, error):
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def fail(*_arguments, **_keywords):
        raise error

    monkeypatch.setattr(os, failing, fail)
    with pytest.raises(type(error)) as caught:
        put(path, b"new")
    if isinstance(error, OSError):
        assert caught.value.errno == 28
        assert str(caught.value).startswith("path: ")
    assert [one.name for one in tmp_path.iterdir()] == ["file"]
    assert path.read_bytes() == b"old"


_FULL = """
import resource, signal, sys
from pathlib import Path
from saliency_widgets.files import put
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, resource.RLIM_INFINITY))
for name in ("old", "new"):
    try:
        put(Path(sys.argv[1]) / name, bytes(10_000))
    except OSError as error:
        print(error.errno, error)
"""


def test_a_full_disk_leaves_the_old_file_and_no_partial_file(tmp_path):
    """The system's limit on the size of files, 4096 bytes, stands for a full disk."""
    (tmp_path / "old").write_bytes(b"old" * 3000)
    done = subprocess.run([sys.executable, "-c", _FULL, tmp_path], capture_output=True, text=True, timeout=300)
    lines = done.stdout.splitlines()
    assert len(lines) == 2, done.stderr
    assert all("can't be written; an existing file is unchanged: File too large" in line for line in lines)
    assert [path.name for path in tmp_path.iterdir()] == ["old"]
    assert (tmp_path / "old").read_bytes() == b"old" * 3000


def test_errors_truncate_a_path_of_a_million_characters(tmp_path):
    long = str(tmp_path / ("x" * 10**6))
    for path in (long, f"{long}/a", f"~{'x' * 10**6}"):
        with pytest.raises((OSError, ValueError)) as caught:
            put(path, b"content")
        assert str(caught.value).startswith("path: ")
        assert len(str(caught.value)) < 2000
    with pytest.raises(OSError) as caught:
        sw.load(long)
    assert len(str(caught.value)) < 2000


# ---- images


@pytest.fixture
def draw():
    rng = np.random.default_rng(0)
    image, quantized = rng.integers(0, 256, (4, 6, 3), np.uint8), render.quantize(rng.random((4, 6)), signed=False)
    look = {"opacity": 0.75, "clip": (0.0, 99.0), "threshold": 0.0, "blend": "by value"}
    return lambda file: render.overlay_png(file, image, quantized, lut=render.lut("hot"), **look)


def test_an_image_is_written_in_one_piece_to_a_path_or_an_open_file(draw, tmp_path):
    class Counted(io.BytesIO):
        writes = 0

        def write(self, content):
            self.writes += 1
            return super().write(content)

    opened = Counted()
    draw(opened)
    draw(tmp_path / "a.png")
    with (tmp_path / "b.png").open("wb") as file:
        draw(file)
    assert opened.writes == 1
    assert opened.getvalue() == (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert Image.open(opened).format == "PNG"


@pytest.mark.parametrize("file", [None, 5, "", ["a.png"]])
def test_an_invalid_path_is_refused_before_the_image_is_drawn(draw, monkeypatch, file):
    monkeypatch.setattr(Image.Image, "resize", lambda *_arguments: pytest.fail("drawn"))
    with pytest.raises((TypeError, ValueError), match=r"^path: expected a path"):
        draw(file)


@pytest.mark.parametrize(
    ("mode", "error", "message"),
    [("w", TypeError, "in text mode"), ("rb", ValueError, "that is read-only"), ("", ValueError, "is closed")],
)
def test_a_file_that_is_not_open_for_bytes_is_refused_before_the_image_is_drawn(
    draw, tmp_path, monkeypatch, mode, error, message
):
    (tmp_path / "a").touch()
    monkeypatch.setattr(Image.Image, "resize", lambda *_arguments: pytest.fail("drawn"))
    with (tmp_path / "a").open(mode or "wb") as file:
        if not mode:
            file.close()
        with pytest.raises(error, match=rf'^path: expected a path, or a file .*{message}\. Pass open\(path, "wb"\)\.'):
            draw(file)


class Short(io.BytesIO):
    """A file that accepts ten bytes per write, and ``room`` bytes in all."""

    def __init__(self, room):
        super().__init__()
        self.room = room

    def write(self, content):
        return super().write(content[: min(10, self.room - self.tell())])


def test_partial_writes_are_continued_and_an_incomplete_file_is_an_error(draw):
    whole, parts = io.BytesIO(), Short(10**9)
    draw(whole)
    draw(parts)
    assert parts.getvalue() == whole.getvalue()
    with pytest.raises(OSError, match=r"^path: the file accepted only 25 of \d+ bytes"):
        draw(Short(25))
