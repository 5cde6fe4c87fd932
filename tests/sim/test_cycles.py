"""The cycle model against RTL, and by itself."""

from dataclasses import replace

import numpy as np
import pytest

from tilewright.hw.commands import Opcode, Unit
from tilewright.hw.config import Config, preset_config
from tilewright.hw.encoding import Command, Token
from tilewright.sim.cycles import Memory, predict
from tilewright.sim.cycles.clock import Clock, Event
from tilewright.sim.cycles.timeline import counts
from tilewright.sim.native.simulator import BusOptions
from tilewright.sw.compiler import compile_layer
from tilewright.sw.compiler.operations.matmul import compile_matmul
from tilewright.sw.compiler.operations.softmax import compile_softmax, factor
from tilewright.sw.driver.device import Device
from tilewright.sw.program import Executable, Program
from tilewright.sw.quantize.seeded import PRECISIONS, make_input, make_layer

TOLERANCE = 0.02


def layer(
    config: Config,
    sequence: int,
    *,
    seed: int = 1,
    hidden: int = 96,
    heads: int = 3,
    head_dim: int = 32,
    ffn: int = 200,
) -> tuple[Executable, dict]:
    """A seeded layer's program and its inputs."""
    quantized = make_layer(seed, hidden, heads, head_dim, ffn)
    executable = compile_layer(quantized, config, sequence, effort=1)
    return executable, {"x": make_input(seed, sequence, hidden)}


def measured(executable: Executable, inputs: dict, *, latency: int = 30):
    """A run of the RTL: its result."""
    config = executable.config
    bus = BusOptions(
        latency=latency, outstanding=config.axi_outstanding, max_burst=config.axi_max_burst
    )
    scalars = dict.fromkeys(executable.scalars, executable.metadata.get("sequence", 0))
    with Device("verilator", config, bus=bus, spans=True) as device:
        return device.run(executable, inputs, **scalars).result


@pytest.mark.parametrize(
    ("name", "sequence", "latency"), [("tiny", 19, 30), ("tiny", 1, 90), ("small", 33, 30)]
)
def test_layer_on_rtl(name: str, sequence: int, latency: int) -> None:
    executable, inputs = layer(preset_config(name), sequence)
    result = measured(executable, inputs, latency=latency)
    model = predict(executable.program, executable.config, memory=Memory(latency=latency))
    assert model.cycles == pytest.approx(result.cycles, rel=TOLERANCE)
    for unit, reasons in model.counters.items():
        assert sum(reasons.values()) == model.cycles, unit
        # Work is exact; what the rest of the time is called is not.
        assert reasons["busy"] == result.counters[unit]["busy"], unit
    spans = {span.index: span for span in result.spans}
    assert [span.index for span in model.spans] == sorted(spans)
    for span in model.spans:
        assert abs(span.end - spans[span.index].end) <= TOLERANCE * result.cycles + 40
        if span.unit in (Unit.MATMUL, Unit.LOAD, Unit.STORE):
            assert span.busy == spans[span.index].busy


@pytest.mark.parametrize("precision", PRECISIONS)
def test_precisions_on_rtl(precision: str) -> None:
    config = preset_config("tiny")
    executable = compile_layer(
        make_layer(5, 48, 3, 16, 72, PRECISIONS[precision]), config, 19, effort=1
    )
    result = measured(executable, {"x": make_input(6, 19, 48)})
    model = predict(executable.program, config)
    assert model.cycles == pytest.approx(result.cycles, rel=TOLERANCE)


def test_operations_on_rtl() -> None:
    config = preset_config("tiny")
    rng = np.random.default_rng(3)
    product = compile_matmul(config, 33, 70, 21, a="s8", b="s8")
    result = measured(
        product,
        {
            "a": rng.integers(-128, 128, (33, 70)).astype(np.int8),
            "b": rng.integers(-128, 128, (70, 21)).astype(np.int8),
        },
    )
    assert predict(product.program, config).cycles == pytest.approx(result.cycles, rel=TOLERANCE)
    mult, shift = factor(2.0**-10)
    softmax = compile_softmax(config, 30, 50, mult=mult, shift=shift)
    x = rng.integers(-8000, 8000, (30, 50)).astype(np.int16)
    with Device("verilator", config) as device:
        cycles = device.run(softmax, {"x": x}, length=50).result.cycles
    assert predict(softmax.program, config).cycles == pytest.approx(cycles, rel=TOLERANCE)


@pytest.mark.parametrize(
    ("name", "sequence", "rtl", "model"), [("tiny", 8, 21555, 21495), ("small", 16, 12283, 12279)]
)
def test_cycles_are_held(name: str, sequence: int, rtl: int, model: int) -> None:
    """Two small programs to the cycle: a change of schedule, hardware or model shows here."""
    executable, inputs = layer(preset_config(name), sequence, seed=2, hidden=64, heads=2, ffn=128)
    found = measured(executable, inputs).cycles, predict(executable.program, executable.config)
    assert (found[0], found[1].cycles) == (rtl, model)


def test_backend() -> None:
    """The same interface as any machine: values, cycles, counters and spans."""
    config = preset_config("small")
    executable, inputs = layer(config, 21)
    runs = {}
    for name, options in (
        ("iss", {}),
        ("model", {}),
        ("timing", {"values": False}),
        ("slow", {"latency": 200, "bandwidth": 0.25}),
    ):
        backend = "iss" if name == "iss" else "model"
        with Device(backend, config, spans=True, **options) as device:
            runs[name] = device.run(executable, inputs, length=17)
    assert np.array_equal(runs["model"]["y"], runs["iss"]["y"])
    cycles = runs["model"].result.cycles
    assert cycles == predict(executable.program, config).cycles
    assert runs["timing"].result.cycles == cycles
    assert not runs["timing"]["y"].any()
    assert runs["slow"].result.cycles > 1.5 * cycles
    assert len(runs["model"].result.spans) == len(executable.program.body)
    for reasons in runs["model"].result.counters.values():
        assert sum(reasons.values()) == cycles


def test_bandwidth_binds() -> None:
    """Half the bandwidth doubles what is bound by memory and leaves the rest alone."""
    executable, _ = layer(preset_config("default"), 1)
    load = sum(
        span.busy
        for span in predict(executable.program, executable.config).spans
        if span.unit == Unit.LOAD
    )
    half = predict(executable.program, executable.config, memory=Memory(bandwidth=0.5))
    assert half.cycles > 2 * load
    executable, _ = layer(preset_config("tiny"), 32)
    whole = predict(executable.program, executable.config).cycles
    half = predict(executable.program, executable.config, memory=Memory(bandwidth=0.5))
    assert half.cycles < 1.2 * whole


def test_large_arrays_take_seconds() -> None:
    """64×64 is predicted though nobody would simulate it here; the array bounds it."""
    config = preset_config("huge")
    executable, _ = layer(config, 128, hidden=512, heads=8, head_dim=64, ffn=2048)
    model = predict(executable.program, config)
    assert executable.utilization(model.cycles) > 0.6
    narrow = replace(config, name="narrow", axi_data_width=64)
    executable, _ = layer(narrow, 128, hidden=512, heads=8, head_dim=64, ffn=2048)
    model = predict(executable.program, narrow)
    assert model.counters["load"]["busy"] > 0.8 * model.cycles


@pytest.mark.parametrize("memory", [{"latency": 0}, {"bandwidth": 0.0}, {"bandwidth": 1.5}])
def test_memory_is_checked(memory: dict) -> None:
    with pytest.raises(ValueError, match=r"latency|bandwidth"):
        Memory(**memory)


def test_a_program_that_hangs() -> None:
    config = preset_config("tiny")
    program = Program(config)
    move = {"region": 2, "length": 64, "runs": 1, "planes": 1, "sp_chunk": 1}
    program.append(Command(Opcode.LOAD, move, waits=[Token(3)]))
    with pytest.raises(ValueError, match="command 1 never ends"):
        predict(program, config)


def test_clock() -> None:
    clock, event, log = Clock(), Event(), []

    def waiter():
        yield event
        log.append(("woken", clock.now))
        yield 3  # past: at once
        log.append(("again", clock.now))

    def firer():
        yield 7
        log.append(("fires", clock.now))
        clock.fire(event)

    clock.start(waiter())
    clock.start(firer())
    clock.run()
    assert log == [("fires", 7), ("woken", 7), ("again", 7)]


def test_counts() -> None:
    found = counts({"busy": [(5, 8), (6, 10)], "token": [(0, 6), (9, 12), (90, 200)]}, 100)
    assert found == {"busy": 5, "token": 5 + 2 + 10, "idle": 100 - 22}
