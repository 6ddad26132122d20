"""Lint: print banned identifiers and British spelling, and exit with 1 if there are any.

Identifiers are taken from the syntax tree where they are defined, also inside f-strings. js/rules.mjs does the same
for TypeScript.
"""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
BANNED = {"found", "told", "asked", "given", "known", "kept", "beside", "own", "way", "place", "so_many"}
BRITISH = re.compile(
    r"\b\w*(?:colour|grey(?!hound)|behaviour|neighbour|centre[ds]?\b|normalis|randomis|recognis|visualis|initialis|"
    r"optimis[ei]|serialis|summaris|minimis|maximis|labelled|modelled)\w*",
    re.IGNORECASE,
)
_ALLOWED = {"Visualising"}  # in titles of papers


def defined(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Return the line and name of everything that a module defines."""
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            yield node.lineno, node.name
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.lineno, node.id
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.lineno, node.attr
        elif isinstance(node, ast.arg):
            yield node.lineno, node.arg
        elif isinstance(node, ast.alias) and node.asname:
            yield node.lineno, node.asname
        elif (isinstance(node, ast.ExceptHandler) and node.name) or (
            isinstance(node, (ast.MatchAs, ast.MatchStar)) and node.name
        ):
            yield node.lineno, node.name


def is_banned(name: str) -> bool:
    """Return whether a whole identifier is a banned word."""
    return name.strip("_").lower() in BANNED


def code_of(path: Path, text: str) -> Iterator[ast.AST]:
    """Return the syntax trees of a module, of a notebook's code cells, or of the examples in a Markdown file."""
    if path.suffix == ".py":
        yield ast.parse(text)
    elif path.suffix == ".ipynb":
        cells = json.loads(text)["cells"]
        yield from (ast.parse("".join(cell["source"])) for cell in cells if cell["cell_type"] == "code")
    elif path.suffix == ".md":
        yield from map(ast.parse, re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL))


def violations(path: Path) -> Iterator[tuple[int, str]]:
    """Return the line and word of each violation; an identifier's line counts from the start of its code block."""
    text = path.read_text(encoding="utf-8")
    if is_banned(path.stem):
        yield 1, path.stem
    for tree in code_of(path, text):
        yield from ((line, name) for line, name in defined(tree) if is_banned(name))
    for number, line in enumerate(text.splitlines(), 1):
        yield from ((number, match[0]) for match in BRITISH.finditer(line) if match[0] not in _ALLOWED)


def main() -> int:
    """Check all tracked sources and texts."""
    patterns = ["*.py", "*.ts", "*.css", "*.md", "*.ipynb", "*.toml"]
    listed = subprocess.run(["git", "ls-files", *patterns], cwd=ROOT, capture_output=True, text=True, check=True)
    count = 0
    for name in listed.stdout.split():
        path = ROOT / name
        if path == Path(__file__).resolve() or not path.is_file():
            continue
        for line, word in violations(path):
            print(f"{name}:{line}: {word}")
            count += 1
    return 1 if count else 0


if __name__ == "__main__":
    sys.exit(main())
