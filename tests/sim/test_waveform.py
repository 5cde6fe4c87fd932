"""Waveforms read back, and timing diagrams of them."""

from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from tilewright.sim import toolchain
from tilewright.sim.native import diagram
from tilewright.sim.native.diagram import Box, Clock, Group
from tilewright.sim.native.simulator import NativeSimulator
from tilewright.sw.driver.simulators import simulator_library

STUB = (Path(__file__).parent / "stub.v").read_text(encoding="utf-8")


@pytest.mark.skipif(not toolchain.fst_works(), reason="lz4 and zlib are missing")
def test_signals(tmp_path):
    from tilewright.sim.native.waveform import Waveform

    path = tmp_path / "stub.fst"
    with NativeSimulator(simulator_library(STUB, trace=True)) as simulator:
        simulator.trace(path)
        begin = simulator.cycle
        simulator.run(40)
    wave = Waveform(path)
    assert wave.cycles == range(begin, begin + 40)
    assert not wave["rst"].any()
    assert wave["rst"].dtype == bool
    part = wave.cut(10, 15)
    assert part.cycles == range(begin + 10, begin + 15)
    assert len(part["m_axi_araddr"]) == 5
    with pytest.raises(KeyError, match="no signal TOP"):
        wave["no_such"]


def draw(boxes, cycles=range(6), **more):
    lanes = {"clk": Clock(), "a < b": boxes}
    options = {"cycles": cycles, "width": 10, "ruler": 5, **more}
    return diagram.draw("title", [Group("group", lanes)], **options).svg


def rectangles(svg):
    """Place and width of each box, in cycles, and the texts in boxes."""
    root = ElementTree.fromstring(svg)
    name = "{http://www.w3.org/2000/svg}"
    found = root.findall(f"./{name}g/{name}rect")
    origin = 168
    places = [((float(r.attrib["x"]) - origin) / 10, float(r.attrib["width"]) / 10) for r in found]
    return places, [t.text for t in root.findall(f"./{name}g[@font-size]/{name}text")]


def test_boxes_of_cycles():
    active = np.array([0, 1, 1, 0, 1, 1], dtype=bool)
    assert rectangles(draw([Box(active)])) == ([(1, 2), (4, 2)], [])
    assert rectangles(draw([Box(active)], range(2, 5))) == ([(0, 1), (2, 1)], [])
    assert rectangles(draw([Box(active, split=True)]))[0] == [(1, 1), (2, 1), (4, 1), (5, 1)]
    assert rectangles(draw([Box(~active, pale=True), Box(active, strong=True)]))[0] == [
        *((0, 1), (3, 1)),
        *((1, 2), (4, 2)),
    ]


def test_texts_of_boxes():
    active = np.array([0, 1, 1, 1, 1, 1], dtype=bool)
    values = np.array([9, 1, 1, 2, 2, 3])
    assert rectangles(draw([Box(active, values)])) == ([(1, 2), (3, 2), (5, 1)], ["1", "2", "3"])
    assert rectangles(draw([Box(active, "too long for its box")]))[1] == []


def test_names_are_escaped_and_diagrams_repeat():
    svg = draw([Box(np.zeros(6, dtype=bool))])
    assert "a &lt; b" in svg
    assert svg == draw([Box(np.zeros(6, dtype=bool))])
