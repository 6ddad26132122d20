"""`make bench`: measure, print a table, and write it as JSON.

    python benchmarks/run.py [--rounds N] [--only numerics|browser|sweep] [--cuda] [--out FILE]

Most figures are ratios within one run: the compared computations alternate, and their medians are used. The table marks
figures over their limits; the exit status only says whether they could be measured.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(Path(__file__).resolve().parent)]


def main() -> None:
    """Measure, print the table, and write it."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5, help="how often each computation is timed")
    parser.add_argument("--only", choices=("numerics", "browser", "sweep"), help="measure only this part")
    parser.add_argument("--cuda", action="store_true", help="measure the numerics on the first CUDA device")
    parser.add_argument("--out", type=Path, default=CHECKOUT / "benchmarks" / "results.json")
    chosen = parser.parse_args()

    import torch
    from timing import Row

    rows: list[Row] = []
    if chosen.cuda:
        import on_gpu

        rows += on_gpu.measure(chosen.rounds)
    elif chosen.only in (None, "numerics"):
        import numerics
        import texts

        rows += numerics.measure(chosen.rounds)
        rows += texts.measure(chosen.rounds)
    if chosen.only in (None, "sweep") and not chosen.cuda:
        import sweeping

        rows += sweeping.measure(chosen.rounds)
    if chosen.only in (None, "browser") and not chosen.cuda:
        import browser

        rows += [
            Row("EfficientNet-Lite0", r["what"], r["value"], r["limit"], r["unit"], _times(r))
            for r in browser.measure(max(3, chosen.rounds))
        ]
    _print(rows)
    device = torch.cuda.get_device_name() if chosen.cuda else platform.processor() or platform.machine()
    about = {"torch": torch.__version__, "python": platform.python_version(), "device": device}
    chosen.out.write_text(json.dumps({"about": about, "rows": [row.as_dict() for row in rows]}, indent=1) + "\n")
    print(f"\nWritten to {chosen.out}")


def _times(row: dict) -> str:
    pair = [f"{row[k]:.0f} ms {who}" for k, who in (("ours_ms", "ours"), ("theirs_ms", "theirs")) if row.get(k)]
    return ", ".join(pair)


def _print(rows: list) -> None:
    for model in dict.fromkeys(row.model for row in rows):
        print(f"\n{model}\n{'':2}{'what':76}{'figure':>8}{'at most':>9}  held  note")
        for row in rows:
            if row.model == model:
                limit = "" if row.limit is None else f"{row.limit:g}"
                held = {None: "", True: "yes", False: "NO"}[row.held]
                print(f"  {row.what:76}{row.value:8.3f}{limit:>9}  {held:4}  {row.note}")


if __name__ == "__main__":
    main()
