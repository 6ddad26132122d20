"""Kernels that start with torch already imported: one process imports it and forks for each kernel.

    python forked_kernels.py serve SOCKET        import the modules, print a line, and fork for each connection
    python forked_kernels.py start SOCKET ARG .. what Jupyter runs instead of `python -m ipykernel_launcher ARG ..`

The process that Jupyter starts passes its environment, working directory and output to the kernel, and forwards the
signals that it receives. Each of the two ends when the other does.
"""

from __future__ import annotations

import importlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

# Most of what the tests' notebooks import, but not ipywidgets, which looks for a kernel when it is imported, nor any
# module that imports it.
PRELOADED = ("torch", "pandas", "skimage.data", "ipykernel.kernelapp", "efficientnet_lite_pytorch",
             "saliency_widgets.session", "saliency_widgets.api.compare")  # fmt: skip


@contextmanager
def kernel_server() -> Iterator[Sequence[str]]:
    """Run the process that forks kernels; yield the command with which Jupyter starts a kernel."""
    import psutil  # not at the top: `start` runs without the installed packages

    folder = tempfile.TemporaryDirectory()
    address = Path(folder.name, "kernels")  # a socket's path may have at most 104 characters
    command = [sys.executable, __file__, "serve", address]
    server = psutil.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        if server.stdout.readline() != b"ready\n":
            raise RuntimeError("the process that forks kernels did not start: its traceback is above")
        yield [sys.executable, "-S", __file__, "start", str(address), "-f", "{connection_file}"]
    finally:
        for process in [*server.children(), server]:
            process.kill()
        server.wait()
        folder.cleanup()


def serve(address: str) -> None:
    """Fork a kernel for each connection, until standard input is closed."""
    for name in PRELOADED:
        importlib.import_module(name)
    if "ipywidgets" in sys.modules:
        raise RuntimeError("one of the preloaded modules imports ipywidgets")
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(address)
    listener.listen()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # kernels that exit are reaped automatically
    print("ready", flush=True)
    while 0 not in select.select([listener, 0], [], [])[0]:
        connection, _ = listener.accept()
        if os.fork() == 0:
            listener.close()
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            become_kernel(connection)
        connection.close()


def become_kernel(connection: socket.socket) -> None:
    """Run `python -m ipykernel_launcher` in this process, and exit when it or the connection ends."""
    message, output, *_ = socket.recv_fds(connection, 2**20, 2)
    os.setsid()
    request = json.loads(message)
    os.environ.clear()
    os.environ.update(request["environment"])
    os.chdir(request["folder"])
    for number, descriptor in enumerate([os.open(os.devnull, os.O_RDONLY), *output]):
        os.dup2(descriptor, number)
        os.close(descriptor)
    connection.sendall(f"{os.getpid()}\n".encode())
    threading.Thread(target=lambda: connection.recv(1) or os._exit(1), daemon=True, name="connection").start()
    sys.argv = ["ipykernel_launcher", *request["arguments"]]
    sys.path[0] = ""
    try:
        from ipykernel.kernelapp import launch_new_instance

        launch_new_instance()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)


def start(address: str, arguments: Sequence[str]) -> None:
    """Request a kernel, forward signals to it, and return when it ends."""
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(address)
    environment = {name: value for name, value in os.environ.items() if name != "JPY_PARENT_PID"}
    request = {"environment": environment, "folder": str(Path.cwd()), "arguments": arguments}
    socket.send_fds(connection, [json.dumps(request).encode()], [1, 2])
    pid = int(connection.makefile().readline())
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda received, _: os.kill(pid, received))
    connection.recv(1)


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve(sys.argv[2])
    else:
        start(sys.argv[2], sys.argv[3:])
