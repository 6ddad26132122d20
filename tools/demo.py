"""Open the demonstration notebook in JupyterLab; Ctrl-C ends the server and its kernels."""

from __future__ import annotations

import os
import secrets
import signal
import sys
from pathlib import Path

from lab_server import LabServer, ServerFailedError

CHECKOUT = Path(__file__).resolve().parent.parent
NOTEBOOK = "explore.ipynb"


def has_display() -> bool:
    """Whether the user would see a browser that is opened here."""
    if "SSH_CONNECTION" in os.environ and "DISPLAY" not in os.environ:
        return False
    if sys.platform in ("darwin", "win32"):
        return True
    return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


def main() -> int:
    """Start JupyterLab, print its address, and wait for Ctrl-C."""
    root = CHECKOUT / "notebooks"
    if not (root / NOTEBOOK).is_file():
        print(f"error: {root / NOTEBOOK} is not there; is the checkout complete?", file=sys.stderr)
        return 1
    for number in (signal.SIGINT, signal.SIGTERM):  # `kill` ends the kernels as Ctrl-C does
        signal.signal(number, signal.default_int_handler)
    home = CHECKOUT / ".jupyter"
    opens = has_display()
    server = LabServer(
        root,
        home,
        token=secrets.token_urlsafe(24),
        log=home / "jupyterlab.log",
        open_path=NOTEBOOK,
        open_browser=opens,
    )
    try:
        server.start()
        print(f"\n  The demonstration is at\n\n      {server.url}\n")
        print("  It opens in your browser now." if opens else "  Open this address in a browser.", end=" ")
        print("Ctrl-C here ends it.", flush=True)
        return server.wait()
    except ServerFailedError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nStopped.")
        return 0
    finally:
        server.stop()


if __name__ == "__main__":
    sys.exit(main())
