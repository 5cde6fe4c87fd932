"""Fuzz the machine: `python -m tests.fuzz --minutes 10`.

Without `--machine` machines are drawn from `--seed` on, each with `--programs` programs, until the
time is over or `--machines` are through. With `--machine` and `--program` one case runs again.
Exit code 1: something differed; the command that repeats it, shrunk, is the last line.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import Counter
from pathlib import Path

from tests.fuzz.case import Case, Mismatch, run
from tests.fuzz.scenarios import SCENARIOS, NotApplicable
from tests.fuzz.shrink import shrink
from tilewright.sw.cli._output import progress


def _arguments(words: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--minutes", type=float, default=5.0, help="how long (default: 5)")
    parser.add_argument("--seed", type=int, default=0, help="first machine (default: 0)")
    parser.add_argument("--machines", type=int, help="end after so many machines")
    parser.add_argument("--programs", type=int, default=5, help="of each machine (default: 5)")
    parser.add_argument("--log", type=Path, help="append a JSON line a case to this file")
    parser.add_argument("--machine", type=int, help="this machine only")
    parser.add_argument("--program", type=int, help="this program only")
    parser.add_argument("--set", action="append", default=[], dest="settings", help="key=value")
    parser.add_argument("--scenario", choices=list(SCENARIOS), help="instead of the drawn one")
    parser.add_argument("--commands", type=int, help="instead of the drawn number")
    parser.add_argument("--without", default="", help="commands left out, such as 1,4")
    parser.add_argument("--plain-bus", action="store_true", help="constant latency, no waiting")
    parser.add_argument("--no-shrink", action="store_true", help="report a failure as it is")
    return parser.parse_args(words)


def _case(options: argparse.Namespace, machine: int, program: int) -> Case:
    return Case(
        machine=machine,
        program=program,
        settings=tuple(options.settings),
        scenario=options.scenario,
        commands=options.commands,
        without=tuple(int(word) for word in options.without.split(",") if word),
        plain_bus=options.plain_bus,
    )


def _fails(case: Case) -> bool:
    try:
        run(case)
    except Mismatch:
        return True
    return False


def _report(case: Case, error: Mismatch, options: argparse.Namespace) -> None:
    print(f"mismatch: {error}\n  {case.command_line()}", file=sys.stderr)
    if not options.no_shrink:
        small = shrink(case, _fails)
        print(f"shrunk:\n  {small.command_line()}", file=sys.stderr)


def main(words: list[str] | None = None) -> int:
    """Run cases; 0 if none differed."""
    options = _arguments(words)
    end = time.monotonic() + 60 * options.minutes
    counts: Counter[str] = Counter()
    bad, machines = 0, 0
    with progress("text", "detail", "time") as bar:
        task = bar.add_task("fuzz", detail="", total=None)
        machine = options.seed if options.machine is None else options.machine
        while True:
            programs = (
                [options.program]
                if options.program is not None
                else range(options.programs * machine, options.programs * (machine + 1))
            )
            for program in programs:
                case = _case(options, machine, program)
                bar.update(task, detail=f"machine {machine}, {sum(counts.values())} programs")
                try:
                    counts[name := run(case)] += 1
                except NotApplicable:
                    continue
                except Mismatch as error:
                    name = "mismatch"
                    bad += 1
                    _report(case, error, options)
                if options.log:
                    with options.log.open("a", encoding="utf-8") as log:
                        log.write(
                            json.dumps({"machine": machine, "program": program, "ran": name}) + "\n"
                        )
            machines += 1
            machine += 1
            if (
                options.machine is not None
                or machines == options.machines
                or time.monotonic() > end
            ):
                break
    kinds = ", ".join(f"{count} {name}" for name, count in counts.most_common())
    print(f"{sum(counts.values())} programs on {machines} machines equal ({kinds}); {bad} differ")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
