"""The fault of an engine that moves data."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value
from amaranth.lib import data

from tilewright.hw.commands import Fault
from tilewright.hw.config import Config
from tilewright.hw.dma.bursts import BurstGenerator
from tilewright.hw.dma.records import FaultRecord
from tilewright.hw.lanes import log2


def fault_record(
    m: Module,
    config: Config,
    bursts: BurstGenerator,
    *,
    slverr: Fault,
    decerr: Fault,
    error: Value,
    resp: Value,
    burst: data.View,
    settled: Value,
    enable: Value | None = None,
) -> data.View:
    """Keep an engine's first fault: an error response, or a run outside its window.

    Parameters
    ----------
    m : Module
    config : Config
    bursts : BurstGenerator
        Tells of the run outside.
    slverr, decerr : Fault
        Codes of the error responses.
    error : u1
        A response with an error is taken in this cycle.
    resp : u2
        That response.
    burst : view with `beat` and `index`
        The burst it belongs to.
    settled : u1
        All bursts issued had their responses: those of the runs in front of the one outside may
        still bring a fault that comes first.
    enable : u1, optional
        Look at all; always if not given.

    Returns
    -------
    view of FaultRecord
        `valid` from the cycle after the fault on.
    """
    fault = Signal(FaultRecord(config), name="fault_record")
    with m.If(~fault.valid if enable is None else ~fault.valid & enable):
        with m.If(error):
            m.d.sync += [
                fault.valid.eq(1),
                fault.code.eq(Mux(resp[0], decerr, slverr)),
                fault.index.eq(burst.index),
                fault.address.eq(Cat(Const(0, log2(config.axi_bytes)), burst.beat)),
            ]
        with m.Elif(bursts.outside & settled):
            m.d.sync += [
                fault.valid.eq(1),
                fault.code.eq(Fault.WINDOW),
                fault.index.eq(bursts.outside_index),
                fault.address.eq(bursts.outside_address),
            ]
    return fault
