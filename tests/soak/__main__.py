"""Run the attacks of this folder, each in a separate process, and print their results as a table."""

from __future__ import annotations

import argparse
import json
import random
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path

from soak.running import GRACE, HERE, Run, attacks, run


def main(arguments: Sequence[str] | None = None, folder: Path = HERE) -> int:
    """Run attacks and print their results; return 0 if all finished without a fault, 1 otherwise."""
    available = attacks(folder)
    options = _options(arguments, available)
    if options.list:
        for name, line in available.items():
            print(f"{name:12} {line}")
        return 0
    names = options.only or list(available)
    seed = random.SystemRandom().randrange(10**6) if options.seed is None else options.seed
    seconds = 60 * options.minutes / len(names)
    print(f"{len(names)} attacks of {seconds:.0f} seconds, seed {seed}", flush=True)
    runs: list[Run] = []
    try:
        for name in names:
            print(f"{name} ...", flush=True)
            runs.append(run(name, seed, seconds, folder=folder, grace=options.grace))
            print(f"{name}: {_faults(runs[-1])} faults after {runs[-1].seconds:.0f} s", flush=True)
            for example in _examples(runs[-1]):
                print(example, flush=True)
    except KeyboardInterrupt:
        print("Interrupted: these are the attacks that were finished.")
    print(_table(runs))
    if options.json is not None:
        options.json.write_text(json.dumps([{**vars(one), "figures": vars(one.figures)} for one in runs], indent=1))
    return int(len(runs) < len(names) or any(map(_faults, runs)))


def _options(arguments: Sequence[str] | None, available: dict[str, str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make soak SOAK_ARGS=...", description=__doc__)
    parser.add_argument("--minutes", type=float, default=60, help="total time of all attacks (default: 60)")
    parser.add_argument("--seed", type=int, help="seed of all attacks (default: random)")
    parser.add_argument("--only", nargs="+", choices=available, metavar="NAME", help="run only these; see --list")
    parser.add_argument(
        "--grace", type=float, default=GRACE, help="an attack hangs if it exceeds twice its time by this many seconds"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the results to this file")
    parser.add_argument("--list", action="store_true", help="list the attacks")
    return parser.parse_args(arguments)


def _faults(one: Run) -> int:
    return one.figures.faults.total()


def _table(runs: Sequence[Run]) -> str:
    """Format the results: a line for each attack, then its counts, its faults, and examples of them."""
    lines = ["", f"{'attack':12} {'seed':>7} {'seconds':>8} {'MB':>13} {'MB/min':>7} {'faults':>7}"]
    for one in runs:
        size, pace = "", ""
        if one.memory is not None:
            begin, end, rise = one.memory
            size, pace = f"{begin:.0f} to {end:.0f}", f"{rise:+.1f}"
        lines.append(f"{one.name:12} {one.seed:7} {one.seconds:8.0f} {size:>13} {pace:>7} {_faults(one):7}")
        lines += _wrapped("done", one.figures.counts) + _wrapped("faults", one.figures.faults)
        lines += _examples(one)
    return "\n".join(lines)


def _examples(one: Run) -> list[str]:
    examples = [f"{name}: {example}" for name, result in one.figures.examples.items() for example in result]
    return [textwrap.indent(example, " " * 4) for example in examples]


def _wrapped(title: str, counts: dict[str, int]) -> list[str]:
    text = ", ".join(f"{name} {count:,}" for name, count in counts.items())
    return textwrap.wrap(f"{title}: {text}", 110, initial_indent="    ", subsequent_indent=" " * 8)


if __name__ == "__main__":
    sys.exit(main())
