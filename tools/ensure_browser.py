"""Find a Chromium or Chrome for the browser tests; as a script, install one if there is none.

The tests use `find_browser` and `MISSING`, so that they look for the browser that `make test` prepares. Only the
standard library is imported, because this runs before anything is installed.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

OVERRIDE = "SALIENCY_WIDGETS_BROWSER"
"""Environment variable with the path of the browser to use. If it is set, no other is tried."""

MISSING = (
    "No working Chromium or Chrome was found for the browser tests: run `make browser`, or install one "
    f"(Debian: apt-get install chromium), or set {OVERRIDE} to its path."
)

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")

PLACES = (
    "/usr/bin/chromium",
    "/usr/lib/chromium/chromium",
    "/opt/google/chrome/chrome",
    "/snap/bin/chromium",
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
    "/Applications/Chromium.app/Contents/MacOS/Chromium",
    "~/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
    "~/Applications/Chromium.app/Contents/MacOS/Chromium",
)

FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
"""The browser's command-line flags: it makes no requests of its own, and renders the same on every machine."""

# Browsers below one of playwright's download folders, of which the newest is tried first.
_PLAYWRIGHT_FOLDERS = ("~/.cache/ms-playwright", "~/Library/Caches/ms-playwright")
_PLAYWRIGHT_PATTERNS = (
    "chromium-*/chrome-linux*/chrome",
    "chromium-*/chrome-mac*/*.app/Contents/MacOS/*",
    "chromium_headless_shell-*/chrome-*/*headless*shell",
)


class BrowserMissingError(RuntimeError):
    """There is no browser and none could be installed; the message is one line."""


@dataclass(frozen=True)
class Installer:
    """A way to install a browser: its name, its commands, and the seconds that each may take."""

    name: str
    commands: tuple[tuple[str, ...], ...]
    seconds: float


def find_browser(environ: Mapping[str, str] | None = None, places: Iterable[str | Path] = PLACES) -> Path | None:
    """Return a browser that starts, or None.

    They are tried in this order: the override, PATH, the usual paths, playwright's downloads. A file counts only if it
    runs with `--version`: Ubuntu's `chromium-browser` is a stub, and a download may lack libraries.

    Args:
        environ: Environment to read PATH, HOME and the override from; by default the process's.
        places: Further full paths to try.
    """
    environ = os.environ if environ is None else environ
    if override := environ.get(OVERRIDE):
        return Path(override) if _answers(Path(override)) else None
    for candidate in _candidates(environ, places):
        if _answers(candidate):
            return candidate
    return None


def ensure_browser(
    environ: Mapping[str, str] | None = None,
    places: Iterable[str | Path] = PLACES,
    installers: Sequence[Installer] | None = None,
) -> Path:
    """Return a browser that starts; install one if necessary.

    Args:
        environ: As for `find_browser`; also the environment of the installers.
        places: As for `find_browser`.
        installers: Ways to install one, tried in order; by default those that this machine has.

    Raises:
        BrowserMissingError: If there is none and none could be installed; the message says what was tried.
    """
    environ = os.environ if environ is None else environ
    places = tuple(places)
    if browser := find_browser(environ, places):
        return browser
    if override := environ.get(OVERRIDE):
        raise BrowserMissingError(f"{OVERRIDE} is set to {override!r}, which is not a Chromium or Chrome that starts.")
    tried = []
    for installer in default_installers(environ) if installers is None else installers:
        print(f"No Chromium or Chrome here: trying {installer.name} ...", flush=True)
        problem = _install(installer, environ)
        if browser := find_browser(environ, places):
            return browser
        tried.append(f"{installer.name}: {problem or 'installed, but it does not start'}")
    raise BrowserMissingError(f"{MISSING} Tried: {'; '.join(tried) or 'nothing, this user has no way to install one'}.")


def default_installers(environ: Mapping[str, str]) -> list[Installer]:
    """The installers of this machine: playwright's download, then apt if the user is root."""
    installers = [
        Installer("playwright's download", ((sys.executable, "-m", "playwright", "install", "chromium"),), 300)
    ]
    apt = shutil.which("apt-get", path=environ.get("PATH"))
    if apt and os.geteuid() == 0:
        wait = ("-o", "DPkg::Lock::Timeout=120")
        commands = (
            (apt, *wait, "update", "-qq"),
            (apt, *wait, "install", "-y", "-qq", "--no-install-recommends", "chromium"),
        )
        installers.append(Installer("apt", commands, 420))
    return installers


def _candidates(environ: Mapping[str, str], places: Iterable[str | Path]) -> Iterable[Path]:
    for name in NAMES:
        if path := shutil.which(name, path=environ.get("PATH", "")):
            yield Path(path)
    home = environ.get("HOME", "")
    for folder in places:
        yield _at_home(folder, home)
    variable = environ.get("PLAYWRIGHT_BROWSERS_PATH")
    for folder in (variable,) if variable else _PLAYWRIGHT_FOLDERS:
        for pattern in _PLAYWRIGHT_PATTERNS:
            yield from sorted(_at_home(folder, home).glob(pattern), reverse=True)


def _at_home(path: str | Path, home: str) -> Path:
    text = str(path)
    return Path(home, text[2:]) if text.startswith("~/") else Path(text)


def _answers(path: Path) -> bool:
    if not (path.is_file() and os.access(path, os.X_OK)):
        return False
    try:
        answer = subprocess.run(
            [path, "--version"], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=30
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return answer.returncode == 0 and any(name in answer.stdout for name in ("Chrom", "Headless"))


def _install(installer: Installer, environ: Mapping[str, str]) -> str | None:
    """Run the installer's commands; return what went wrong in a few words, or None."""
    env = {**environ, "DEBIAN_FRONTEND": "noninteractive", "PLAYWRIGHT_DOWNLOAD_CONNECTION_TIMEOUT": "15000"}
    for command in installer.commands:
        try:
            process = subprocess.Popen(
                command,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                start_new_session=True,  # so that the time limit also kills the command's children
            )
        except OSError as error:
            return str(error)
        try:
            output, _ = process.communicate(timeout=installer.seconds)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            return f"not done after {installer.seconds:g} s"
        if process.returncode:
            return _essence(output) or f"exit status {process.returncode}"
    return None


def _essence(output: str) -> str:
    """The most informative line of a failed command's output: the first that names an error, else the last."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    errors = [line for line in lines if line.lower().startswith(("e:", "error"))]
    return (errors or lines[-1:] or [""])[0][:160]


def main() -> int:
    """Print the browser's path, or one line that says what to do."""
    try:
        print(f"Browser for the tests: {ensure_browser()}")
    except BrowserMissingError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
