"""What a run's commands did and when, whatever ran them."""

from dataclasses import dataclass

from tilewright.hw.commands import Unit


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """One command on its unit, in cycles of the run (the first that CYCLES counts is 0).

    A unit takes its next command before it is through with one, so spans of a unit overlap; what
    it works on (`bar`) does not. Spans come in program order, without BEGIN and END, which no unit
    runs.

    Attributes
    ----------
    index : int
        Of the command in its program; BEGIN is 0.
    unit : Unit
    start, end : int
        The cycle in which the unit takes it from its dispatcher, and the one behind the cycle in
        which it is retired, its tokens posted.
    busy : int
        Cycles of work: those the unit's counter `busy` counts, of a ROW command `row`. Over a
        unit's spans they add up to its counters.
    first_busy, last_busy : int
        First and last of them; both are `start` where there is none.
    """

    index: int
    unit: Unit
    start: int
    end: int
    busy: int
    first_busy: int
    last_busy: int

    @property
    def bar(self) -> tuple[int, int]:
        """Cycles [a, b) of work, stalls within included; empty where there is none."""
        return self.first_busy, self.last_busy + 1 if self.busy else self.first_busy
