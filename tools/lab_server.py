"""A JupyterLab server on 127.0.0.1 that neither reads nor writes the user's Jupyter folders.

`make demo` and the browser tests start the same server, so that users see what was tested. All folders of JupyterLab
are below `home`: settings, workspaces, kernels, data of extensions. The kernel named python3 is this interpreter,
whatever other kernels the machine has; news and update checks are off.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

import psutil

KERNEL = (sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}")
"""The command that starts a kernel with this interpreter."""

_SETTINGS = {
    "@jupyterlab/apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
}


class ServerFailedError(RuntimeError):
    """JupyterLab did not start; the message contains the last lines of its log."""


class LabServer:
    """A running JupyterLab; `stop` ends it and every kernel it started.

    Args:
        root: Folder that the file browser shows and that contains the notebooks.
        home: Folder for JupyterLab's own files; created if necessary.
        token: The access token, or "" for none.
        open_path: Notebook below `root` to open first.
        open_browser: Whether JupyterLab opens the user's browser itself.
        expose_app: Whether pages get `window.jupyterapp`, with which tests control JupyterLab.
        log: File for the server's and the kernels' output.
        kernels: The commands that start kernels, by the name of the kernel.
        settings: JupyterLab's settings by plugin, in addition to those that turn off news and update checks.
    """

    def __init__(
        self,
        root: Path,
        home: Path,
        *,
        token: str,
        log: Path,
        open_path: str | None = None,
        open_browser: bool = False,
        expose_app: bool = False,
        kernels: Mapping[str, Sequence[str]] = {"python3": KERNEL},
        settings: Mapping[str, Mapping[str, object]] = {},
    ) -> None:
        self.root = root.resolve()
        self.home = home.resolve()
        self.token = token
        self.log = log.resolve()
        self._start_page = "/lab" if open_path is None else f"/lab/tree/{open_path}"
        self._open_browser = open_browser
        self._expose_app = expose_app
        self._kernels = kernels
        self._settings = {**_SETTINGS, **settings}
        self._process: subprocess.Popen[bytes] | None = None
        self.base_url = ""

    @property
    def url(self) -> str:
        """The first page's address, with the token if there is one."""
        return f"{self.base_url}{self._start_page}" + (f"?token={self.token}" if self.token else "")

    @property
    def pid(self) -> int:
        """Process id of the server."""
        if self._process is None:
            raise RuntimeError("the server is not running: call start() first")
        return self._process.pid

    def start(self, seconds: float = 90) -> LabServer:
        """Start the server and return once it responds.

        Raises:
            ServerFailedError: If it ends or does not respond within `seconds`.
        """
        self._write_home()
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("wb") as log:
            for _ in range(3):  # another process may take the free port before the server does
                port = _free_port()
                self.base_url = f"http://127.0.0.1:{port}"
                self._process = self._launch(port, log)
                if self._answers(self._process, time.monotonic() + seconds):
                    return self
                if self._process.returncode is None:
                    break
        self.stop()
        tail = "\n".join(self.log.read_text(errors="replace").splitlines()[-30:])
        raise ServerFailedError(f"JupyterLab did not start on 127.0.0.1. The end of its log:\n{tail}")

    def wait(self) -> int:
        """Wait until the server ends by itself, and return its exit status."""
        return self._process.wait() if self._process else 0

    def stop(self, seconds: float = 15) -> None:
        """Terminate the server and its kernels; kill what still runs after `seconds`."""
        if self._process is None:
            return
        descendants: list[psutil.Process] = []
        with contextlib.suppress(psutil.NoSuchProcess):
            descendants = psutil.Process(self._process.pid).children(recursive=True)
        for process in descendants:  # a kernel that was stopped (SIGSTOP) could not shut down
            with contextlib.suppress(psutil.Error):
                process.send_signal(signal.SIGCONT)
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(seconds)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        for process in descendants:  # psutil compares start times, so a reused process id is left alone
            with contextlib.suppress(psutil.Error):
                process.kill()
        self._process = None

    def __enter__(self) -> LabServer:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _launch(self, port: int, log: IO[bytes]) -> subprocess.Popen[bytes]:
        options = {
            "ServerApp.ip": "127.0.0.1",
            "ServerApp.port": port,
            "ServerApp.port_retries": 0,
            "ServerApp.root_dir": self.root,
            "ServerApp.allow_root": True,
            "ServerApp.open_browser": self._open_browser,
            "IdentityProvider.token": self.token,
            "LabApp.default_url": self._start_page,
            "LabApp.expose_app_in_browser": self._expose_app,
            "LabApp.check_for_updates_class": "jupyterlab.NeverCheckForUpdate",
        }
        return subprocess.Popen(
            self._command(options),
            cwd=self.root,
            env=self._environ(),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C in the terminal goes to the caller only, which then calls stop()
        )

    def _command(self, options: dict[str, object]) -> Sequence[str]:
        # The token is passed in a file that only this user can read, because command lines are visible to everyone.
        config = self.home / "server.json"
        nested: dict[str, dict[str, object]] = {}
        for name, value in options.items():
            section, key = name.split(".")
            nested.setdefault(section, {})[key] = str(value) if isinstance(value, Path) else value
        config.touch(mode=0o600)
        config.write_text(json.dumps(nested, indent=1))
        return [sys.executable, "-m", "jupyterlab", f"--config={config}"]

    def _environ(self) -> dict[str, str]:
        env = {key: value for key, value in os.environ.items() if not key.startswith(("JUPYTER", "JPY_"))}
        env["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), env.get("PATH", os.defpath)])
        folders = {
            "JUPYTER_CONFIG_DIR": "config",
            "JUPYTER_DATA_DIR": "data",
            "JUPYTER_RUNTIME_DIR": "runtime",
            "JUPYTER_PATH": "kernels-first",
            "JUPYTERLAB_SETTINGS_DIR": "settings",
            "JUPYTERLAB_WORKSPACES_DIR": "workspaces",
            "IPYTHONDIR": "ipython",
        }
        return env | {name: str(self.home / folder) for name, folder in folders.items()}

    def _write_home(self) -> None:
        # JUPYTER_PATH is searched before every other folder, so that this python3 hides any other.
        for name, command in self._kernels.items():
            kernel = self.home / "kernels-first" / "kernels" / name / "kernel.json"
            kernel.parent.mkdir(parents=True, exist_ok=True)
            spec = {"argv": [*command], "display_name": "Python 3 (ipykernel)", "language": "python"}
            kernel.write_text(json.dumps(spec))
        for name, value in self._settings.items():
            path = self.home / "settings" / f"{name}.jupyterlab-settings"
            if not path.exists():  # later runs keep what the user changed
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(json.dumps(value))

    def _answers(self, process: subprocess.Popen[bytes], deadline: float) -> bool:
        while time.monotonic() < deadline:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(0.1)
                return False
            try:
                with urllib.request.urlopen(f"{self.base_url}/api", timeout=5):
                    return True
            except (urllib.error.URLError, OSError):
                continue
        return False


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
