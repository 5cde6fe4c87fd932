"""All parts, and how they are run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

from tilewright import __version__
from tilewright.sw.bench import drawn, error, layers, peers, speed
from tilewright.sw.bench.markdown import section
from tilewright.sw.bench.part import Part
from tilewright.sw.bench.results import Found, Item, Results, Tell, Unavailable, commit
from tilewright.sw.errors import ResultError, UserError

PARTS: dict[str, Part] = {
    module.PART.name: module.PART for module in (layers, drawn, error, peers, speed)
}
"""By name, in the order of the document."""


@dataclass
class Bench:
    """A run of some parts.

    Attributes
    ----------
    results : Results
    quick : bool
        The short selection of items.
    skipped, failed : list of (label, reason)
        Items that cannot be measured here, and items that were and are wrong.
    """

    results: Results
    quick: bool = False
    skipped: list[tuple[str, str]] = field(default_factory=list)
    failed: list[tuple[str, str]] = field(default_factory=list)

    def items(self, names: Sequence[str]) -> list[Item]:
        """Items of parts."""
        return [item for name in names for item in PARTS[name].items(self.quick)]

    def measure(self, names: Sequence[str], tell: Tell, done: Callable[[Item, bool], None]) -> None:
        """Measure what is not known yet; one item that fails does not end the others.

        Parameters
        ----------
        names : sequence of str
            Parts.
        tell : callable
            Told what is being done.
        done : callable
            Told of each item when it is through, and whether there is a result.
        """
        for item in self.items(names):
            ok = False
            try:
                self.results.measure(item, partial(_prefixed, tell, item.label))
                ok = True
            except Unavailable as reason:
                self.skipped.append((item.label, str(reason)))
            except (ResultError, UserError, OSError) as error:
                self.failed.append((item.label, str(error)))
            done(item, ok)

    def found(self) -> Found:
        """What is known of every part, of this run or of earlier ones."""
        return {name: self.results.find(part.items(self.quick)) for name, part in PARTS.items()}

    def sections(self, names: Sequence[str]) -> dict[str, str]:
        """Markdown of each part that has results."""
        found = self.found()
        made = {}
        for name in names:
            if rows := found[name]:
                command = f"tilewright bench {name}" + " --quick" * self.quick
                commits = sorted({row.commit for row in rows})
                made[name] = section(PARTS[name].tables(found), command, commits)
        return made

    def markdown(self, names: Sequence[str]) -> str:
        """The document."""
        made = self.sections(names)
        parts = [f"## {name}: {PARTS[name].about}\n\n{text}" for name, text in made.items()]
        gaps = [f"- {label}: {reason}" for label, reason in self.skipped + self.failed]
        if gaps:
            parts.append("## Not measured\n\n" + "\n".join(gaps) + "\n")
        return "# Figures\n\n" + "\n".join(parts)

    def document(self, names: Sequence[str]) -> dict[str, Any]:
        """The same for programs."""
        found = self.found()
        return {
            "tilewright": __version__,
            "commit": commit(),
            "quick": self.quick,
            "parts": {name: [asdict(row) for row in found[name]] for name in names},
            "skipped": [{"item": label, "reason": reason} for label, reason in self.skipped],
            "failed": [{"item": label, "reason": reason} for label, reason in self.failed],
        }


def _prefixed(tell: Tell, label: str, text: str) -> None:
    tell(f"{label}: {text}")
