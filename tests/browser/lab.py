"""Control JupyterLab in a browser: the class behind the browser tests' `lab` fixture.

Everything goes through `window.jupyterapp` or through the elements that a user operates. There are no fixed delays:
each call returns when its effect has happened, or raises after its time limit.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import shutil
import signal
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import nbformat
import psutil
from playwright.sync_api import Error, Locator, Page

DARK = re.compile(r"rgb\(([0-9]|[1-5][0-9]), ")
"""The grounds of the dark theme, as CSS."""
THEMES = {"light": "JupyterLab Light", "dark": "JupyterLab Dark"}

PLAIN = "plain"
"""A kernel that isn't forked. If a kernel is ready at once, a page that is loaded doesn't show stored widgets."""

_ANSI = re.compile(r"\x1b\[[0-9;]*m")
_workspaces = itertools.count()

# The start of every script that runs in the page: the notebook that was opened last, and its kernel.
_PRELUDE = """
const app = window.jupyterapp;
const panel = window.__panel;
const kernel = panel?.sessionContext?.session?.kernel;
"""

_OPEN = """
const widget = await app.commands.execute('docmanager:open', {path: arg, factory: 'Notebook'});
await widget.context.ready;
await widget.sessionContext.ready;
await widget.revealed;
window.__panel = widget;
if (!widget.__counted) {
  widget.__counted = true;
  window.__messages = {};
  widget.sessionContext.session.kernel.anyMessage.connect((_, {msg, direction}) => {
    const echoed = msg.content.data?.method === 'echo_update';
    const key = direction + ' ' + (echoed ? 'echo' : msg.header.msg_type);
    window.__messages[key] = (window.__messages[key] ?? 0) + 1;
  });
}
await widget.sessionContext.session.kernel.info;
"""

_RUN_ALL = """
app.shell.activateById(panel.id);
await app.commands.execute('notebook:run-all-cells');
"""

_RUN_CELL = """
app.shell.activateById(panel.id);
panel.content.deselectAll();
panel.content.activeCellIndex = arg;
await app.commands.execute('notebook:run-cell');
"""

_ADD_CELL = """
panel.content.model.sharedModel.addCell({cell_type: 'code', source: arg});
const index = panel.content.widgets.length - 1;
await panel.content.scrollToItem(index);
return index;
"""

_OUTPUTS = """
const outputs = panel.content.model.cells.get(arg).outputs;
return outputs ? outputs.toJSON() : [];
"""

_EXECUTE = """
const outputs = [];
const future = kernel.requestExecute({code: arg, store_history: false, stop_on_error: false});
future.onIOPub = ({header, content}) => {
  if (['stream', 'execute_result', 'display_data', 'error'].includes(header.msg_type))
    outputs.push({output_type: header.msg_type, ...content});
};
await future.done;
return outputs;
"""

_IDLE = """
if (kernel.status === 'idle') return;
await new Promise(resolve => {
  const check = () => {
    if (kernel.status !== 'idle') return;
    kernel.statusChanged.disconnect(check);
    resolve();
  };
  kernel.statusChanged.connect(check);
});
"""

_THEME = """
if (document.body.dataset.jpThemeName !== arg)
  await app.commands.execute('apputils:change-theme', {theme: arg});
"""

_END_KERNELS = """
await app.serviceManager.sessions.shutdownAll();
await app.serviceManager.kernels.shutdownAll();
"""

# Disposing of a notebook skips the dialog that asks whether to save it.
_CLOSE = """
for (const widget of [...app.shell.widgets('main')]) widget.dispose();
app.shell.expandLeft();
window.__panel = window.__messages = window.__paints = undefined;
"""


class KernelError(AssertionError):
    """Code in the kernel raised an error; the message is its traceback."""


class Lab:
    """One JupyterLab page with one notebook at a time.

    Args:
        page: The playwright page to use; it stays available as `lab.page`. JupyterLab may be loaded in it.
        base_url: The server's address.
        root: The server's root folder.
        folder: The test's folder below `root`.
        artifacts: The folder for screenshots.

    Attributes:
        reusable: Whether the next test can use the page: no test has patched it, and JupyterLab was not reloaded,
            after which it may reopen a notebook at any time.
    """

    def __init__(self, page: Page, base_url: str, root: Path, folder: Path, artifacts: Path) -> None:
        self.page = page
        self.base_url = base_url
        self.root = root
        self.folder = folder
        self.artifacts = artifacts
        self.console: list[str] = []
        self.page_errors: list[str] = []
        self.path: str | None = None
        self.reusable = True
        self._listeners = {
            "console": lambda message: self.console.append(f"{message.type}: {message.text}"),
            "pageerror": lambda error: self.page_errors.append(str(error.stack or error)),
        }
        for event, listener in self._listeners.items():
            page.on(event, listener)

    # ---- the application

    def start(self) -> None:
        """Load JupyterLab in an empty workspace, unless it is loaded already, and choose the light theme."""
        if not self.page.url.startswith(self.base_url):
            self.page.goto(f"{self.base_url}/lab/workspaces/test-{next(_workspaces)}?reset")
            self._wait_for_application()
        self.theme("light")

    def reload(self) -> None:
        """Reload the page and reopen the notebook: the kernel keeps running, the widgets are rendered anew."""
        path = self.path
        self.reusable = False
        self.page.reload()
        self._wait_for_application()
        if path is not None:
            self.open(path)

    def theme(self, name: Literal["light", "dark"]) -> None:
        """Switch JupyterLab's theme and wait until the page shows it."""
        self.js(_THEME, THEMES[name])
        light = "true" if name == "light" else "false"
        self.page.wait_for_function("light => document.body.dataset.jpThemeLight === light", arg=light)
        self._wait_for_splash()

    def end_kernels(self) -> None:
        """Shut down every kernel of the server."""
        self.js(_END_KERNELS)

    def close(self) -> None:
        """Close every notebook and shut down every kernel; another `Lab` can then use the page."""
        self.js(_CLOSE)
        self.end_kernels()
        for event, listener in self._listeners.items():
            self.page.remove_listener(event, listener)

    # ---- notebooks

    def write_notebook(self, cells: Sequence[str], name: str = "test.ipynb", kernel: str = "python3") -> str:
        """Write a notebook with these code cells into the test's folder; return its path for `open`."""
        book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
        return self._write(book, name, kernel)

    def copy_notebook(self, source: Path, name: str | None = None) -> str:
        """Copy a notebook, without its outputs, into the test's folder; return its path for `open`."""
        book = nbformat.read(source, as_version=4)
        for cell in book.cells:
            if cell.cell_type == "code":
                cell.outputs, cell.execution_count = [], None
        book.metadata.pop("widgets", None)
        return self._write(book, name or source.name)

    def copy_file(self, source: Path) -> None:
        """Copy a file that the notebook reads into the test's folder."""
        shutil.copy(source, self.folder)

    def open(self, path: str) -> None:
        """Open the notebook at `path` (relative to the server's root), and wait for its kernel."""
        self.js(_OPEN, path, seconds=90)
        self.path = path

    def save(self) -> None:
        """Save the notebook to disk, with the widgets' state if JupyterLab is configured to."""
        self.js("await panel.context.save();")

    def set_source(self, index: int, code: str) -> None:
        """Replace the source of a cell."""
        self.js("panel.content.model.cells.get(arg[0]).sharedModel.setSource(arg[1]);", [index, code])

    # ---- running code

    def run_all(self, seconds: float = 120, allow_errors: bool = False) -> None:
        """Run every cell and wait until the kernel is idle.

        Raises:
            KernelError: If a cell raised, unless `allow_errors`.
        """
        self.js(_RUN_ALL, seconds=seconds)
        self.wait_idle(seconds)
        if not allow_errors:
            for index in range(self.cell_count()):
                self._raise_error(self.outputs(index), f"cell {index}")

    def run_cell(self, index: int, seconds: float = 60, allow_errors: bool = False) -> str:
        """Run one cell, wait until the kernel is idle, and return the cell's text output.

        Raises:
            KernelError: If the cell raised, unless `allow_errors`.
        """
        index = index % self.cell_count()
        self.js(_RUN_CELL, index, seconds=seconds)
        self.wait_idle(seconds)
        if not allow_errors:
            self._raise_error(self.outputs(index), f"cell {index}")
        return self.text_output(index)

    def add_cell(self, code: str, run: bool = True, seconds: float = 60) -> int:
        """Append a code cell, run it if `run`, and return its index."""
        index = self.js(_ADD_CELL, code)
        if run:
            self.run_cell(index, seconds)
        return index

    def execute(self, code: str, seconds: float = 60) -> str:
        """Run code in the notebook's kernel without a cell, and return its output as text.

        Raises:
            KernelError: If the code raised.
        """
        outputs = self.js(_EXECUTE, code, seconds=seconds)
        self._raise_error(outputs, "execute")
        return _text(outputs)

    def value(self, expression: str, seconds: float = 60) -> Any:
        """Return the value of a Python expression in the kernel, which must be representable as JSON."""
        code = f"import json as _json; print(_json.dumps({expression}))"
        return json.loads(self.execute(code, seconds).splitlines()[-1])

    def wait_for_value(self, expression: str, expected: Any, seconds: float = 30) -> None:
        """Wait until a Python expression in the kernel has this value.

        After a gesture, wait for its effect instead of reading it once with `value`: the kernel may handle a
        widget's message on another thread.
        """
        deadline = time.monotonic() + seconds
        while (value := self.value(expression)) != expected:
            if time.monotonic() > deadline:
                raise AssertionError(f"{expression} is {value!r} after {seconds:g} s, not {expected!r}")
            self.page.wait_for_timeout(50)

    def wait_idle(self, seconds: float = 60) -> None:
        """Wait until the front end has seen the kernel become idle."""
        self.js(_IDLE, seconds=seconds)

    # ---- cells and outputs

    def cell_count(self) -> int:
        """Number of cells."""
        return self.js("return panel.content.widgets.length;")

    def cell(self, index: int) -> Locator:
        """The cell as a locator; negative indices count from the end."""
        return self.page.locator(".jp-NotebookPanel:visible .jp-Notebook .jp-Cell").nth(index)

    def output(self, index: int) -> Locator:
        """The output area of a cell as a locator: `lab.output(1).locator("canvas")`."""
        return self.cell(index).locator(".jp-Cell-outputArea")

    def outputs(self, index: int) -> list[dict[str, Any]]:
        """A cell's outputs in nbformat's structure."""
        return self.js(_OUTPUTS, index % self.cell_count())

    def text_output(self, index: int) -> str:
        """A cell's output as text: what it printed, and its value."""
        return _text(self.outputs(index))

    # ---- the kernel

    def kernel_pid(self) -> int:
        """Process id of the notebook's kernel."""
        return int(self.execute("import os; print(os.getpid())"))

    @contextmanager
    def paused_kernel(self) -> Iterator[int]:
        """Stop the kernel's process within the block: whatever works there needs no kernel."""
        pid = self.kernel_pid()
        kernel = psutil.Process(pid)
        try:
            os.kill(pid, signal.SIGSTOP)
            while kernel.status() != psutil.STATUS_STOPPED:  # its threads stop one after another
                self.page.wait_for_timeout(10)
            yield pid
        finally:
            os.kill(pid, signal.SIGCONT)

    def restart_kernel(self, seconds: float = 60) -> None:
        """Restart the kernel without the confirmation dialog."""
        self.js("await kernel.restart(); await kernel.info;", seconds=seconds)

    def messages(self) -> Counter[str]:
        """The number of messages on the kernel's channels so far, by direction and type.

        Keys look like "send comm_msg" (to the kernel) and "recv comm_msg"; "recv echo" counts the page's own updates
        that the kernel has echoed. Subtract two results to count the messages of a gesture.
        """
        return Counter(self.js("return window.__messages;"))

    def settled_messages(self) -> Counter[str]:
        """The number of messages once the page has sent all it had to send, which takes long on a busy machine."""
        before, now = None, self.messages()
        while now["send comm_msg"] != before:
            before = now["send comm_msg"]
            self.page.wait_for_timeout(1000)
            now = self.messages()
        return now

    # ---- errors and screenshots

    @property
    def errors(self) -> list[str]:
        """Uncaught errors of the page and everything logged with `console.error`."""
        return self.page_errors + [line for line in self.console if line.startswith("error: ")]

    def screenshot(self, name: str, target: Locator | None = None) -> Path:
        """Save an image of the page, or of one element, in the test's folder under test-results/."""
        path = self.artifacts / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        (self.page if target is None else target).screenshot(path=path)
        return path

    def keep_evidence(self) -> None:
        """Save the console's messages, and a screenshot if the page still responds."""
        self.artifacts.mkdir(parents=True, exist_ok=True)
        lines = [*self.console, *(f"uncaught: {error}" for error in self.page_errors)]
        try:
            self.screenshot("failure")
        except Error as error:
            lines.append(f"no screenshot: {error}")
        (self.artifacts / "console.txt").write_text("\n".join(lines) + "\n")

    # ---- internals

    def js(self, body: str, arg: Any = None, seconds: float = 60) -> Any:
        """Run the body of an async JavaScript function in the page and return what it returns.

        The body can use `arg`, `app` (JupyterLab), `panel` (the notebook panel opened last) and `kernel`.

        Raises:
            playwright.sync_api.Error: If it throws, or is not done after `seconds`.
        """
        first = next((line for line in body.splitlines() if line.strip()), "")
        script = f"""([arg, ms]) => {{
          {_PRELUDE}
          let timer;
          const late = new Promise((_, reject) => {{
            const error = new Error(`not done after ${{ms / 1000}} s: ` + {json.dumps(first)});
            timer = setTimeout(() => reject(error), ms);
          }});
          const work = (async () => {{ {body} }})();
          return Promise.race([work, late]).finally(() => clearTimeout(timer));
        }}"""
        return self.page.evaluate(script, [arg, 1000 * seconds])

    def _wait_for_application(self) -> None:
        self.page.wait_for_function("() => window.jupyterapp", timeout=60_000)
        self.js("await app.restored;", seconds=60)
        self._wait_for_splash()

    def _wait_for_splash(self) -> None:
        # JupyterLab throws if a theme change shows its splash screen while the first one is still fading out.
        self.page.locator("#jupyterlab-splash").wait_for(state="detached", timeout=60_000)

    def _write(self, book: nbformat.NotebookNode, name: str, kernel: str = "python3") -> str:
        book.metadata["kernelspec"] = {"name": kernel, "display_name": "Python 3 (ipykernel)", "language": "python"}
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        nbformat.write(book, path)
        return path.relative_to(self.root).as_posix()

    @staticmethod
    def _raise_error(outputs: list[dict[str, Any]], where: str) -> None:
        for output in outputs:
            if output["output_type"] == "error":
                trace = _ANSI.sub("", "\n".join(output["traceback"]))
                raise KernelError(f"{where}: {output['ename']}: {output['evalue']}\n{trace}")


def _text(outputs: list[dict[str, Any]]) -> str:
    parts = []
    for output in outputs:
        text = output.get("text", output.get("data", {}).get("text/plain", ""))
        parts.append(text if isinstance(text, str) else "".join(text))
    return "".join(parts)
