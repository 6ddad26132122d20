"""The repository: HTML in the sources, the wheel, tracked files, the tests' browser, and the architecture page."""

from __future__ import annotations

import ast
import json
import os
import re
import shlex
import subprocess
import sys
import types
import zipfile
from collections.abc import Callable
from graphlib import TopologicalSorter
from pathlib import Path

import grimp
import numpy as np
import pytest
import torch
from ensure_browser import (
    MISSING,
    OVERRIDE,
    BrowserMissingError,
    Installer,
    default_installers,
    ensure_browser,
    find_browser,
)

from saliency_widgets.widgets.explorer import Explorer

ROOT = Path(__file__).resolve().parent.parent
STATIC = ROOT / "saliency_widgets" / "widgets" / "static"
BUNDLE = ("views.js", "views.css", "display.js", "page.js", "page.css")


# ---- the tests


def test_the_readme_has_a_row_for_each_method_and_names_existing_test_files() -> None:
    from saliency_widgets import methods

    table = (ROOT / "tests" / "README.md").read_text()
    rows = re.findall(r"^\| `([a-z_]+)` \|", table, re.MULTILINE)
    assert sorted(rows) == sorted(methods())
    there = {path.stem for path in (ROOT / "tests").rglob("test_*.py")}
    assert set(re.findall(r"\btest_[a-z_]+\b", table)) <= there


# ---- HTML

_MARKUP, _TEXT = "saliency_widgets/markup.py", "saliency_widgets/widgets/base/text.py"
_ONLY_IN = {  # names that make HTML of text, and the only module that may use each
    **dict.fromkeys(("html", "Markup()"), _MARKUP),
    **dict.fromkeys(("HTML", "HTMLMath", "description_allow_html"), _TEXT),
}
_HTML_IN_THE_BROWSER = re.compile(
    r"\b(innerHTML|outerHTML|insertAdjacentHTML|document\.write|createContextualFragment|DOMParser|srcdoc)\b"
)


def html_makers(path: str, source: str) -> list[str]:
    """Return the names and lines with which a Python file makes HTML outside the modules that escape text."""
    names = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            names.append((f"{node.func.id}()", node.lineno))
        elif isinstance(node, ast.Import):
            names += [(alias.name.partition(".")[0], node.lineno) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names += [(name, node.lineno) for name in (node.module or "", *(alias.name for alias in node.names))]
        elif isinstance(node, ast.Attribute):
            names.append((node.attr, node.lineno))
        elif isinstance(node, ast.keyword):
            names.append((node.arg or "", node.value.lineno))
    return [f"{path}:{line}: {name}" for name, line in names if _ONLY_IN.get(name, path) != path]


def test_all_text_becomes_html_in_one_place() -> None:
    sources = {path.relative_to(ROOT).as_posix(): path for path in (ROOT / "saliency_widgets").rglob("*.py")}
    assert {_MARKUP, _TEXT} <= set(sources)
    assert [one for name, path in sources.items() for one in html_makers(name, path.read_text())] == []


@pytest.mark.parametrize(
    "planted",
    [
        "self._help = w.HTML(f'<b>{name}</b>')",
        "from ipywidgets import HTML as Text",
        "box = ipywidgets.HTMLMath",
        "w.Text(description=name, description_allow_html=True)",
        "control.description_allow_html = True",
        "import html",
        "from html import escape",
        "value = Markup(f'<b>{name}</b>')",
    ],
)
def test_html_made_elsewhere_is_detected(planted: str) -> None:
    assert len(html_makers("saliency_widgets/widgets/base/panel.py", planted)) == 1


def test_markup_converted_to_text_is_a_type_error(tmp_path: Path) -> None:
    planted = tmp_path / "planted.py"
    planted.write_text(
        "from saliency_widgets.markup import element, joined\n"
        "from saliency_widgets.widgets.base.text import RichText\n\n"
        "lines, shown = [element('b', 'a')], RichText()\n"
        "shown.value = joined(lines)\n"
        "shown.value = ''.join(lines)\n"
        "shown.value = f'{lines[0]}'\n"
    )
    command = [sys.executable, "-m", "pyright", "--outputjson", "--pythonpath", sys.executable, str(planted)]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, cwd=ROOT)
    errors = json.loads(ran.stdout)["generalDiagnostics"]
    assert [error["range"]["start"]["line"] for error in errors] == [5, 6], ran.stdout


def test_there_are_no_import_cycles() -> None:
    """Includes imports inside functions and those for type checkers."""
    graph = grimp.build_graph("saliency_widgets", exclude_type_checking_imports=False, cache_dir=None)
    imports = {module: graph.find_modules_directly_imported_by(module) for module in graph.modules}
    tuple(TopologicalSorter(imports).static_order())  # raises CycleError, which names a cycle


def test_no_typescript_source_sets_html() -> None:
    sources = list((ROOT / "js" / "src").rglob("*.ts"))
    assert sources
    assert [path.name for path in sources if _HTML_IN_THE_BROWSER.search(path.read_text())] == []


@pytest.mark.parametrize(
    "planted", ["label.innerHTML = name;", "el.insertAdjacentHTML('beforeend', x)", "document.write(x)"]
)
def test_html_in_typescript_is_detected(planted: str) -> None:
    assert _HTML_IN_THE_BROWSER.search(planted)


# ---- the package


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.Path:
    out = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(ROOT)]
    built = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert built.returncode == 0, built.stdout + built.stderr
    (path,) = out.glob("*.whl")
    return zipfile.Path(path)


@pytest.mark.parametrize("name", BUNDLE)
def test_the_wheel_holds_the_bundle_that_is_tested(wheel: zipfile.Path, name: str) -> None:
    packed = (wheel / "saliency_widgets" / "widgets" / "static" / name).read_bytes()
    assert packed
    assert packed == (STATIC / name).read_bytes()


def test_the_wheel_holds_the_types_and_nothing_but_the_package(wheel: zipfile.Path) -> None:
    assert (wheel / "saliency_widgets" / "py.typed").exists()
    names = sorted(entry.name for entry in wheel.iterdir())
    assert [name for name in names if not name.endswith(".dist-info")] == ["saliency_widgets"]


def test_the_wheel_holds_every_module(wheel: zipfile.Path) -> None:
    packed = {name for name in wheel.root.namelist() if name.endswith(".py")}
    modules = {path.relative_to(ROOT).as_posix() for path in (ROOT / "saliency_widgets").rglob("*.py")}
    assert packed == modules


def test_the_bundle_is_not_older_than_its_sources() -> None:
    built = min((STATIC / name).stat().st_mtime for name in BUNDLE)
    sources = [path for path in (ROOT / "js" / "src").rglob("*") if path.is_file()]
    assert sources
    stale = [path.relative_to(ROOT).as_posix() for path in sources if path.stat().st_mtime > built]
    assert not stale, "changed since the bundle was built: run `make bundle`"


# ---- tracked files


@pytest.fixture(scope="module")
def tracked() -> list[Path]:
    """Every file that is, or would be, tracked by git."""
    command = ["git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert listed.returncode == 0, f"this check needs a git checkout: {listed.stderr}"
    return [path for name in listed.stdout.split("\0") if name and (path := ROOT / name).is_file()]


def test_no_tracked_file_holds_a_download_address(tracked: list[Path]) -> None:
    """A lock file that names one machine's registry works on that machine only."""
    address = re.compile(rb"""https?://[^\s"'<>]+\.(?:tgz|whl|tar\.gz)\b|["']resolved["']:\s*["']https?:""")
    assert ROOT / "js" / "package-lock.json" in tracked
    holders = [path.relative_to(ROOT).as_posix() for path in tracked if address.search(path.read_bytes())]
    assert holders == []


def test_the_lock_file_is_complete() -> None:
    """`npm ci` refuses a lock file without other systems' binaries, which npm omits if its registry does."""
    packages = json.loads((ROOT / "js" / "package-lock.json").read_text())["packages"]
    named = {name for entry in packages.values() for name in entry.get("optionalDependencies", {})}
    locked = {key.rpartition("node_modules/")[2] for key in packages}
    assert sorted(named - locked) == [], "run `node tools/complete_lock.mjs`"


def test_no_build_output_is_tracked(tracked: list[Path]) -> None:
    assert [path.name for path in tracked if path.parent == STATIC] == [".gitkeep"]


# ---- the browser

MakeBrowser = Callable[..., Path]


@pytest.fixture
def fake(tmp_path: Path) -> MakeBrowser:
    """Return a function that creates an executable with a fixed output and exit status."""

    def make(path: str, answer: str = "Chromium 156.0", status: int = 0) -> Path:
        file = tmp_path / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"#!/bin/sh\necho {shlex.quote(answer)}\nexit {status}\n")
        file.chmod(0o755)
        return file

    return make


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    """An environment whose PATH and HOME are inside the test's folder."""
    return {"PATH": str(tmp_path / "bin"), "HOME": str(tmp_path / "home")}


def test_no_browser_is_found_in_an_empty_environment(environ: dict[str, str]) -> None:
    assert find_browser(environ, places=()) is None


@pytest.mark.parametrize("name", ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"])
def test_a_browser_on_path_is_found(fake: MakeBrowser, environ: dict[str, str], name: str) -> None:
    browser = fake(f"bin/{name}")
    assert find_browser(environ, places=()) == browser


def test_an_executable_that_is_no_working_browser_is_skipped(fake: MakeBrowser, environ: dict[str, str]) -> None:
    fake("bin/chromium", answer="Please run: snap install chromium", status=1)
    fake("bin/chromium-browser", answer="not a browser")
    fake("bin/google-chrome", "Google Chrome 140.0", status=127)
    assert find_browser(environ, places=()) is None
    good = fake("bin/google-chrome", "Google Chrome 140.0")
    assert find_browser(environ, places=()) == good


def test_a_file_that_is_not_executable_is_skipped(fake: MakeBrowser, environ: dict[str, str]) -> None:
    file = fake("opt/chrome")
    file.chmod(0o644)
    assert find_browser(environ, places=[file]) is None


def test_the_usual_paths_below_home_are_searched(fake: MakeBrowser, environ: dict[str, str]) -> None:
    app = "Applications/Google Chrome.app/Contents/MacOS/Google Chrome"
    expected = fake(f"home/{app}", "Google Chrome 140.0")
    assert find_browser(environ, places=[f"~/{app}"]) == expected


@pytest.mark.parametrize(
    "path",
    [
        "home/.cache/ms-playwright/chromium-1255/chrome-linux64/chrome",
        "home/.cache/ms-playwright/chromium-1187/chrome-linux/chrome",
        "home/.cache/ms-playwright/chromium_headless_shell-1255/chrome-headless-shell-linux64/chrome-headless-shell",
        "home/Library/Caches/ms-playwright/chromium-1187/chrome-mac/Chromium.app/Contents/MacOS/Chromium",
    ],
)
def test_playwrights_download_is_found(fake: MakeBrowser, environ: dict[str, str], path: str) -> None:
    browser = fake(path)
    assert find_browser(environ, places=()) == browser


def test_playwrights_folder_can_be_set(fake: MakeBrowser, environ: dict[str, str], tmp_path: Path) -> None:
    browser = fake("elsewhere/chromium-1255/chrome-linux64/chrome")
    assert find_browser({**environ, "PLAYWRIGHT_BROWSERS_PATH": str(tmp_path / "elsewhere")}, ()) == browser


def test_the_override_excludes_all_other_browsers(fake: MakeBrowser, environ: dict[str, str]) -> None:
    fake("bin/chromium")
    mine = fake("mine")
    assert find_browser({**environ, OVERRIDE: str(mine)}, places=()) == mine
    missing = {**environ, OVERRIDE: f"{mine}-not-there"}
    assert find_browser(missing, places=()) is None
    with pytest.raises(BrowserMissingError, match=OVERRIDE):
        ensure_browser(missing, places=(), installers=[])


def test_installers_are_tried_in_order_until_one_succeeds(
    fake: MakeBrowser, environ: dict[str, str], tmp_path: Path
) -> None:
    browser = tmp_path / "bin" / "chromium"
    source = fake("packed")
    script = f"mkdir -p {tmp_path}/bin; cp {source} {browser}"
    installers = [
        Installer("first", (("/bin/sh", "-c", "echo E: no network; exit 7"),), 30),
        Installer("second", (("/bin/sh", "-c", "true"), ("/bin/sh", "-c", f"PATH=/usr/bin:/bin; {script}")), 30),
        Installer("third", (("/bin/sh", "-c", f"echo reached > {tmp_path}/third"),), 30),
    ]
    assert ensure_browser(environ, places=(), installers=installers) == browser
    assert not (tmp_path / "third").exists()


def test_an_existing_browser_is_not_installed_again(fake: MakeBrowser, environ: dict[str, str], tmp_path: Path) -> None:
    browser = fake("bin/chromium")
    installer = Installer("any", (("/bin/sh", "-c", f"echo reached > {tmp_path}/reached"),), 30)
    assert ensure_browser(environ, places=(), installers=[installer]) == browser
    assert not (tmp_path / "reached").exists()


def test_failure_is_a_one_line_message_with_the_attempts_and_the_remedy(environ: dict[str, str]) -> None:
    installers = [
        Installer("the network", (("/bin/sh", "-c", "echo trying; echo E: no network; echo bye; exit 7"),), 30),
        Installer("something slow", (("/bin/sh", "-c", "PATH=/usr/bin:/bin; sleep 60"),), 0.2),
        Installer("something that lies", (("/bin/sh", "-c", "true"),), 30),
        Installer("nothing at all", (("/nonexistent/installer",),), 30),
    ]
    with pytest.raises(BrowserMissingError) as caught:
        ensure_browser(environ, places=(), installers=installers)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(MISSING)
    assert "the network: E: no network;" in message
    assert "something slow: not done after 0.2 s;" in message
    assert "something that lies: installed, but it does not start;" in message
    assert "nothing at all: " in message


@pytest.mark.parametrize(("user", "names"), [(0, ["playwright's download", "apt"]), (1000, ["playwright's download"])])
def test_apt_is_used_only_by_root(
    fake: MakeBrowser, environ: dict[str, str], monkeypatch: pytest.MonkeyPatch, user: int, names: list[str]
) -> None:
    apt = fake("bin/apt-get")
    monkeypatch.setattr(os, "geteuid", lambda: user)
    installers = default_installers(environ)
    assert [installer.name for installer in installers] == names
    if user == 0:
        update, install = installers[-1].commands
        assert update[0] == install[0] == str(apt)
        assert "update" in update, "a fresh machine has no package lists"
        assert install[-1] == "chromium"


def test_the_script_fails_with_a_one_line_message(environ: dict[str, str]) -> None:
    script = [sys.executable, str(ROOT / "tools" / "ensure_browser.py")]
    missing = {**environ, OVERRIDE: "/nonexistent/browser"}
    result = subprocess.run(script, env=missing, capture_output=True, text=True, timeout=60)
    assert result.returncode == 1
    assert result.stdout == ""
    assert result.stderr.startswith(f"error: {OVERRIDE} is set to '/nonexistent/browser'")
    assert result.stderr.count("\n") == 1


@pytest.mark.soak
def test_without_a_browser_the_browser_tests_fail_and_do_not_skip() -> None:
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-p",
        "no:cacheprovider",
        "-n0",
        "tests/browser/test_harness.py",
        "-x",
    ]
    env = {**os.environ, OVERRIDE: "/nonexistent/browser"}
    result = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=120)
    assert result.returncode == 1, result.stdout
    assert MISSING in result.stdout
    assert "1 error" in result.stdout
    assert "skipped" not in result.stdout


def test_the_architecture_page_has_a_row_for_each_lock() -> None:
    text = (ROOT / "docs" / "ARCHITECTURE.md").read_text()
    made = re.compile(r"(\w+)(?:: [^=\n]+)? = threading\.(?:Lock|RLock|Condition|Semaphore|Event)\(")
    for path in (ROOT / "saliency_widgets").rglob("*.py"):
        name = path.relative_to(ROOT / "saliency_widgets").as_posix()
        for lock in made.findall(path.read_text()):
            assert re.search(rf"^\| `(?:\w+\.)?{lock}` \(`{name}`\)", text, re.MULTILINE), f"{lock} of {name}"


_FILES_OF_A_MOVE = 64  # 44 in the first edition, which had larger modules


def test_the_architecture_page_names_each_file_that_a_slider_move_runs() -> None:
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.Flatten(), torch.nn.Linear(4 * 6 * 6, 3)).eval()
    explorer = Explorer(
        model, np.zeros((8, 8, 3), np.uint8), method="integrated_gradients", n_steps=16, quadrature="trapezoid",
        executor="inline",
    )  # fmt: skip
    (slider,) = (control for param, control in explorer.panel._params.items() if param.name == "n_steps")
    package, executed = ROOT / "saliency_widgets", set()

    def record(frame: types.FrameType, event: str, _argument: object) -> None:
        if event == "call" and frame.f_code.co_filename.startswith(str(package)):
            executed.add(Path(frame.f_code.co_filename).relative_to(package).as_posix())

    sys.setprofile(record)
    try:
        slider.value = 32
    finally:
        sys.setprofile(None)
    assert dict(explorer.request.params)["n_steps"] == 32
    explorer.close()
    text = (ROOT / "docs" / "ARCHITECTURE.md").read_text()
    assert not [file for file in sorted(executed) if Path(file).name not in text], "not named"
    assert len(executed) <= _FILES_OF_A_MOVE, sorted(executed)
