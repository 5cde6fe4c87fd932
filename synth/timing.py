"""A static estimate of the clock, unit by unit, before anything is placed.

Each unit's netlist is read once, whatever number of copies the machine has. What others see of it
is what they see of a cell: delays from the clock to its outputs, from its inputs to the clock, and
from inputs to outputs. So paths across units are exact sums, with no netlist of the whole machine.
A wire between two cells costs one hop, counted where it ends; a wire within a site costs nothing.
"""

import gzip
import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from tilewright.hw.names import TOP_NAME
from tilewright.synth.delays import CellDelays, Delays
from tilewright.synth.tools import SynthesisError
from tilewright.synth.yosys import Synthesis, unit_name

Net = int
Pin = tuple[int, str]
"""A cell's number and "port[bit]" of it."""

_CLOCK = "clk"
# Behind the name of the signal it drives, Yosys names a cell by its type and port.
_DERIVED = re.compile(
    r"_(?:LUT\d|TRELLIS_\w+?|PFUMX|L6MUX21|CCU2C|FD[RSCP]E|MUXF\d|CARRY4|INV)_.*$"
)
_BIT = re.compile(r"\[\d+\]$")
_DIGITS = re.compile(r"\d+$")


@dataclass(frozen=True)
class Point:
    """A place on a path: a signal, or a cell without one.

    Attributes
    ----------
    module : str
        Module of the unit.
    place : str
        Instances that lead to it from the top, with dots; "" is the top.
    signal : str
    """

    module: str
    place: str
    signal: str


@dataclass(frozen=True, kw_only=True)
class TimingPath:
    """The longest path between two registers, a port standing for one.

    Attributes
    ----------
    delay, logic : float
        Nanoseconds; `logic` is without the hops.
    hops : int
    points : list of Point
        From the register it starts at to the one it ends at, signals with names in between.
    """

    delay: float
    logic: float
    hops: int
    points: list[Point]


@dataclass(frozen=True)
class _Arc:
    """From a net to another, through a cell."""

    source: Net
    delay: float
    hop: bool
    cell: int
    input: str
    output: str


@dataclass(frozen=True)
class _End:
    """Where a path is over: the input of a register."""

    delay: float
    hop: bool
    cell: int
    input: str


@dataclass
class _Trace:
    points: list[Point] = field(default_factory=list)
    hops: int = 0

    def add(self, other: "_Trace") -> None:
        self.points += other.points
        self.hops += other.hops


def _pins(cell: Mapping[str, Any], direction: str) -> Iterator[tuple[str, Net]]:
    """Pins of a direction, "port[bit]", and the nets at them; constants have none."""
    for port, bits in cell["connections"].items():
        if cell["port_directions"][port] == direction:
            for index, bit in enumerate(bits):
                if isinstance(bit, int):
                    yield f"{port}[{index}]", bit


@cache
def _names(pin: str) -> tuple[str, str, str]:
    port = pin.partition("[")[0]
    return pin, port, _DIGITS.sub("", port)


class UnitTiming:
    """Delays of a unit, and of those it places.

    Parameters
    ----------
    module : str
    netlist : dict
        The module as Yosys writes it.
    delays : Delays
    below : dict
        Timing of the units that it places, by module.

    Raises
    ------
    SynthesisError
        If a cell has no delays, or a path without a register comes back to itself.
    """

    def __init__(
        self,
        module: str,
        netlist: Mapping[str, Any],
        delays: Delays,
        below: "Mapping[str, UnitTiming]",
    ) -> None:
        self.module, self.delays, self.below = module, delays, below
        self._cells: list[tuple[str, str]] = []
        self._driven: list[Net | None] = []
        self._launch: dict[Net, tuple[float, Pin]] = {}
        self._arcs: dict[Net, list[_Arc]] = {}
        self._ends: dict[Net, list[_End]] = {}
        self._known: dict[Any, CellDelays] = {}
        self._ports: dict[str, dict[str, Net]] = {"input": {}, "output": {}}
        for name, port in netlist["ports"].items():
            for index, bit in enumerate(port["bits"]):
                if isinstance(bit, int) and name != _CLOCK:
                    self._ports[port["direction"]][f"{name}[{index}]"] = bit
        self._read(netlist["cells"])
        self._signals = _signals(netlist["netnames"])
        self._order = self._sorted()
        self._forward()
        self._backward()

    # The graph of nets.

    def _read(self, cells: Mapping[str, Mapping[str, Any]]) -> None:
        pins = {
            name: (list(_pins(cell, "input")), list(_pins(cell, "output")))
            for name, cell in cells.items()
            if cell["type"] != "$scopeinfo"  # a note on the hierarchy, not a cell
        }
        kinds = {net: cells[name]["type"] for name, (_, out) in pins.items() for _, net in out}
        loads = Counter(net for into, _ in pins.values() for _, net in into)
        loads.update(self._ports["output"].values())
        for name, (into, out) in pins.items():
            cell = cells[name]
            number = len(self._cells)
            self._cells.append((name, cell["type"]))
            self._driven.append(out[0][1] if out else None)
            model = self._model(cell)
            inputs: list[tuple[str, Net, bool]] = []
            for pin, net in into:
                near = any(key in model.dedicated for key in _names(pin)) and loads[net] == 1
                beside = kinds.get(net) in {*self.delays.packed, cell["type"]}
                hop = cell["type"] not in self.below and not (near and beside)
                inputs.append((pin, net, hop))
                delay = _find(model.capture, pin)
                if delay is not None:
                    end = _End(delay + hop * self.delays.hop, hop, number, pin)
                    self._ends.setdefault(net, []).append(end)
            for pin, net in out:
                delay = _find(model.launch, pin)
                if delay is not None:
                    self._launch[net] = delay, (number, pin)
                through = _find(model.arcs, pin)
                if through:
                    self._arcs[net] = [
                        _Arc(source, delay + hop * self.delays.hop, hop, number, key, pin)
                        for key, source, hop in inputs
                        if (delay := _find(through, key)) is not None
                    ]

    def _model(self, cell: Mapping[str, Any]) -> CellDelays:
        kind = cell["type"]
        if kind in self.below:
            return self.below[kind].outside
        key = kind, *(item for item in cell["parameters"].items() if "REG" in item[0])
        if key not in self._known:
            model = self.delays.model(kind, cell["parameters"])
            if model is None:
                raise SynthesisError(f"{self.module}: no delays of a {kind}")
            self._known[key] = model
        return self._known[key]

    def _sorted(self) -> dict[Net, int]:
        """Nets behind logic, each behind those it depends on, and its place in the order."""
        users: dict[Net, list[Net]] = {}
        waits: dict[Net, int] = {}
        for net, arcs in self._arcs.items():
            sources = [arc.source for arc in arcs if arc.source in self._arcs]
            waits[net] = len(sources)
            for source in sources:
                users.setdefault(source, []).append(net)
        ready = [net for net, count in waits.items() if not count]
        for net in ready:
            for user in users.get(net, ()):
                waits[user] -= 1
                if not waits[user]:
                    ready.append(user)
        if len(ready) < len(waits):
            looped = sorted({self._name(net) for net, count in waits.items() if count} - {""})
            raise SynthesisError(
                f"{self.module}: a loop without a register: {', '.join(looped[:4])}"
            )
        return {net: place for place, net in enumerate(ready)}

    def _forward(self) -> None:
        """Latest arrival at each net from a register, and the arc it comes by."""
        self._arrival = {net: delay for net, (delay, _) in self._launch.items()}
        self._from: dict[Net, _Arc] = {}
        for net in self._order:
            for arc in self._arcs[net]:
                at = self._arrival.get(arc.source)
                if at is not None and at + arc.delay > self._arrival.get(net, -1.0):
                    self._arrival[net] = at + arc.delay
                    self._from[net] = arc

    def _backward(self) -> None:
        """Longest way from each net to a register, and where it begins: an arc or the end."""
        self._left: dict[Net, float] = {}
        self._to: dict[Net, tuple[Net, _Arc] | _End] = {}
        for net, ends in self._ends.items():
            end = max(ends, key=lambda end: end.delay)
            self._left[net], self._to[net] = end.delay, end
        for net in reversed(self._order):
            left = self._left.get(net)
            if left is None:
                continue
            for arc in self._arcs[net]:
                if left + arc.delay > self._left.get(arc.source, -1.0):
                    self._left[arc.source] = left + arc.delay
                    self._to[arc.source] = net, arc

    def _through(self, output: Net) -> dict[Net, tuple[float, Net, _Arc | None]]:
        """Longest way to a net from each one that leads to it, and its first step."""
        found: dict[Net, tuple[float, Net, _Arc | None]] = {output: (0.0, output, None)}
        waiting = {output} & self._fed
        # Later nets first: each is final when its turn comes.
        while waiting:
            net = max(waiting, key=lambda net: self._order.get(net, -1))
            waiting.discard(net)
            left = found[net][0]
            for arc in self._arcs.get(net, ()):
                source = arc.source
                if source in self._fed and left + arc.delay > found.get(source, (-1.0,))[0]:
                    found[source] = left + arc.delay, net, arc
                    waiting.add(source)
        return found

    @cached_property
    def _fed(self) -> set[Net]:
        """Nets that an input reaches without a register."""
        fed = set(self._ports["input"].values())
        for net in self._order:
            if any(arc.source in fed for arc in self._arcs[net]):
                fed.add(net)
        return fed

    # What is seen of it.

    @cached_property
    def outside(self) -> CellDelays:
        """The unit as a cell of the unit that places it."""
        inputs, outputs = self._ports["input"], self._ports["output"]
        arcs: dict[str, dict[str, float]] = {}
        for pin, net in outputs.items():
            if net in self._fed:
                found = self._through(net)
                arcs[pin] = {name: found[bit][0] for name, bit in inputs.items() if bit in found}
        return CellDelays(
            launch={
                pin: self._arrival[net] for pin, net in outputs.items() if net in self._arrival
            },
            capture={pin: self._left[net] for pin, net in inputs.items() if net in self._left},
            arcs=arcs,
        )

    def figures(self) -> dict[str, float]:
        """Nanoseconds of the longest paths; 0 where there is none.

        "inside" from register to register, "input" from an input, at time 0, to a register,
        "output" from a register to an output, "through" from an input to an output. A wire to the
        unit costs its hop here, one from it where it ends.
        """
        outside = self.outside
        return {
            "inside": max(self._totals().values(), default=0.0),
            "input": max(outside.capture.values(), default=0.0),
            "output": max(outside.launch.values(), default=0.0),
            "through": max(
                (d for arcs in outside.arcs.values() for d in arcs.values()), default=0.0
            ),
        }

    def _totals(self) -> dict[Net, float]:
        """Of each net between two registers the longest path that ends from it."""
        return {
            net: self._arrival[net] + max(end.delay for end in ends)
            for net, ends in self._ends.items()
            if net in self._arrival
        }

    def paths(self, most: int, place: str = "") -> list[TimingPath]:
        """The longest paths from register to register of its own, others than a longer one's.

        Paths that begin at one signal and end in one unit count as one.
        """
        found: dict[tuple[str, str, str], TimingPath] = {}
        totals = self._totals()
        for net in sorted(totals, key=lambda net: (-totals[net], net)):
            if len(found) == most:
                break
            end = max(self._ends[net], key=lambda end: end.delay)
            trace = self._into(net, place)
            trace.add(self._ending(end, place))
            first, last = trace.points[0], trace.points[-1]
            key = first.place, _BIT.sub("", first.signal), last.place
            if key not in found:
                found[key] = self._path(totals[net], trace)
        return list(found.values())

    def port_paths(self) -> list[TimingPath]:
        """The longest path from an input and the longest to an output, registers beside them.

        An input comes from a flip-flop; an output ends in one, a hop away.
        """
        found = []
        outside = self.outside
        hop, register = self.delays.hop, self.delays.register
        if outside.capture:
            pin = max(outside.capture, key=lambda pin: outside.capture[pin])
            trace = _Trace([Point(self.module, "", pin)])
            trace.add(self._out_of(self._ports["input"][pin], ""))
            found.append(self._path(outside.capture[pin] + register, trace))
        if outside.launch:
            pin = max(outside.launch, key=lambda pin: outside.launch[pin])
            trace = self._into(self._ports["output"][pin], "")
            trace.add(_Trace([Point(self.module, "", pin)], 1))
            found.append(self._path(outside.launch[pin] + hop, trace))
        ways = [(d, i, o) for o, arcs in outside.arcs.items() for i, d in arcs.items()]
        if ways:
            delay, begin, end = max(ways)
            trace = _Trace([Point(self.module, "", begin)])
            trace.add(self._across(begin, end, ""))
            trace.add(_Trace([Point(self.module, "", end)], 1))
            found.append(self._path(delay + register + hop, trace))
        return found

    def _path(self, delay: float, trace: _Trace) -> TimingPath:
        points = [p for i, p in enumerate(trace.points) if not i or p != trace.points[i - 1]]
        logic = delay - trace.hops * self.delays.hop
        return TimingPath(delay=delay, logic=logic, hops=trace.hops, points=points)

    # Paths, net by net; `place` is that of the unit's copy.

    def _name(self, net: Net) -> str:
        return self._signals.get(net, "")

    def _points(self, net: Net, place: str) -> list[Point]:
        name = self._name(net)
        return [Point(self.module, place, name)] if name else []

    def _cell_point(self, cell: int, place: str) -> Point:
        name = _DERIVED.sub("", self._cells[cell][0]).lstrip("\\")
        if name.startswith("$") and (net := self._driven[cell]) is not None:
            # Yosys made that name up.
            name = self._name(net) or name
        return Point(self.module, place, name)

    def _below(self, cell: int, place: str) -> "tuple[UnitTiming | None, str]":
        name, kind = self._cells[cell]
        return self.below.get(kind), f"{place}.{name}".lstrip(".")

    def _step(self, net: Net, arc: _Arc, place: str) -> _Trace:
        """Through the cell of an arc to a net."""
        unit, inner = self._below(arc.cell, place)
        trace = _Trace([], arc.hop)
        if unit is not None:
            trace.add(unit._across(arc.input, arc.output, inner))
        trace.points += self._points(net, place)
        return trace

    def _into(self, net: Net, place: str) -> _Trace:
        """From a register to a net."""
        arcs = []
        while net in self._from:
            arcs.append((net, self._from[net]))
            net = self._from[net].source
        cell, pin = self._launch[net][1]
        unit, inner = self._below(cell, place)
        if unit is not None:
            trace = unit._into(unit._ports["output"][pin], inner)
        else:
            trace = _Trace(self._points(net, place) or [self._cell_point(cell, place)])
        for reached, arc in reversed(arcs):
            trace.add(self._step(reached, arc, place))
        return trace

    def _out_of(self, net: Net, place: str) -> _Trace:
        """From a net to a register."""
        trace = _Trace()
        while not isinstance(step := self._to[net], _End):
            net, arc = step
            trace.add(self._step(net, arc, place))
        trace.add(self._ending(step, place))
        return trace

    def _ending(self, end: _End, place: str) -> _Trace:
        unit, inner = self._below(end.cell, place)
        if unit is not None:
            return unit._out_of(unit._ports["input"][end.input], inner)
        return _Trace([self._cell_point(end.cell, place)], end.hop)

    def _across(self, begin: str, end: str, place: str) -> _Trace:
        """From an input to an output."""
        net, output = self._ports["input"][begin], self._ports["output"][end]
        found = self._through(output)
        trace = _Trace()
        while net != output:
            _, following, arc = found[net]
            assert arc is not None
            net = following
            trace.add(self._step(net, arc, place))
        return trace


def _find(table: Mapping[str, Any], pin: str) -> Any:
    for key in _names(pin):
        if key in table:
            return table[key]
    return None


def _signals(netnames: Mapping[str, Mapping[str, Any]]) -> dict[Net, str]:
    """The name of each net that has one in the Verilog: the shortest, with its bit."""
    found: dict[Net, str] = {}
    for name in sorted(netnames, key=lambda name: (-len(name), name)):
        plain = name.lstrip("\\")
        if netnames[name].get("hide_name") or plain.startswith("$") or _DERIVED.search(plain):
            continue
        bits = netnames[name]["bits"]
        for index, bit in enumerate(bits):
            if isinstance(bit, int):
                found[bit] = plain if len(bits) == 1 else f"{plain}[{index}]"
    return found


@dataclass(frozen=True, kw_only=True)
class Timing:
    """The estimate of a machine.

    Attributes
    ----------
    delays : Delays
    units : dict
        Timing of each unit by its module; the top last.
    """

    delays: Delays
    units: dict[str, UnitTiming]

    @cached_property
    def period(self) -> float:
        """Nanoseconds of the longest path of all, ports included."""
        return self.paths(1)[0].delay

    @property
    def fmax(self) -> float:
        """MHz."""
        return 1000 / self.period

    def paths(self, most: int) -> list[TimingPath]:
        """The longest paths of the machine; of a unit with several copies, those of one."""
        found = self.units[TOP_NAME].port_paths()
        for module, unit in self.units.items():
            found += unit.paths(most, "" if module == TOP_NAME else unit_name(module))
        return sorted(found, key=lambda path: -path.delay)[:most]


def read_netlist(path: Path) -> dict[str, Any]:
    """The one module of a unit's netlist, packed."""
    with gzip.open(path, "rt", encoding="utf-8") as file:
        (module,) = json.load(file)["modules"].values()
    return dict(module)


def estimate(
    synthesis: Synthesis, delays: Delays, tell: Callable[[str], None] | None = None
) -> Timing:
    """Estimate the timing of a machine from its units' netlists.

    Parameters
    ----------
    synthesis : Synthesis
    delays : Delays
        Of its target.
    tell : callable, optional
        Told the name of each unit before it is read.

    Raises
    ------
    SynthesisError
        If a cell has no delays, or logic comes back to itself.
    """
    units: dict[str, UnitTiming] = {}
    # Each one behind those it places.
    for unit in reversed(synthesis.units):
        if tell is not None:
            tell(unit.unit)
        placed = {
            one.module: units[one.module] for one in synthesis.units if one.parent == unit.module
        }
        netlist = read_netlist(synthesis.netlists[unit.module])
        units[unit.module] = UnitTiming(unit.module, netlist, delays, placed)
    return Timing(delays=delays, units=units)
