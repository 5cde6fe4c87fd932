"""Programs on the backends: cycles, counters, and equality in every bit where RTL runs."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from tilewright.hw.config import Config
from tilewright.sim.native.simulator import BusOptions
from tilewright.sw.bench.results import Item, Tell, Unavailable
from tilewright.sw.bench.sizes import LayerSize
from tilewright.sw.compiler import compile_layer, compile_model
from tilewright.sw.compiler.operations.matmul import compile_matmul
from tilewright.sw.driver import Device, Outputs
from tilewright.sw.driver.backends import BACKENDS
from tilewright.sw.errors import ResultError
from tilewright.sw.models.fetch import resolve_model
from tilewright.sw.profiling.work import Workload
from tilewright.sw.program.traffic import traffic
from tilewright.sw.quantize.formats import QEmbedding, QLayer, QModel
from tilewright.sw.quantize.quantize import quantize_folder
from tilewright.sw.quantize.seeded import make_input, make_layer

RTL, MODEL, ISS = "verilator", "model", "iss"

_SOFTWARE = ("sw/compiler", "sw/program", "sw/quantize", "sw/bench/runs.py", "sw/bench/sizes.py")
SOURCES = {
    RTL: ("hw", "sim/native", "sim/golden", "sim/iss", "sim/verilog.py", *_SOFTWARE),
    MODEL: ("hw", "sim/cycles", *_SOFTWARE),
}
"""What a backend's cycles depend on."""

LATENCY = 30
"""Cycles of the memory from an accepted address to the first beat, unless a run says otherwise."""

SEED = 7
"""Of weights and inputs; cycles hardly depend on them."""


@functools.cache
def _minilm() -> QModel:
    return quantize_folder(resolve_model("minilm"))[1]


def _layers(size: LayerSize, count: int) -> tuple[QLayer, ...]:
    """MiniLM's own layers, seeded ones of any other size."""
    if size.name == "MiniLM":
        return _minilm().layers[:count]
    return tuple(
        make_layer(SEED + i, size.hidden, size.heads, size.head_dim, size.ffn) for i in range(count)
    )


def layer_work(size: LayerSize, config: Config, sequence: int) -> Workload:
    """One layer, every row of the sequence valid."""
    return Workload(
        title=f"{size.name} layer",
        executable=compile_layer(_layers(size, 1)[0], config, sequence),
        inputs={"x": make_input(SEED, sequence, size.hidden)},
        scalars={"length": sequence},
    )


def model_work(size: LayerSize, config: Config, sequence: int, layers: int) -> Workload:
    """The embedding's LayerNorm and several layers in one program."""
    members = _layers(size, layers)
    # The host looks the embeddings up; of them only the norm and the number of positions matter.
    table = np.zeros((sequence, size.hidden), dtype=np.int16)
    embedding = QEmbedding(word=table, position=table, type=table, fraction=13, ln=members[0].ln1)
    return Workload(
        title=size.name,
        executable=compile_model(QModel(embedding=embedding, layers=members), config, sequence),
        inputs={"z": make_input(SEED, sequence, size.hidden)},
        scalars={"length": sequence},
    )


def matmul_work(config: Config, m: int, k: int, n: int) -> Workload:
    """``[m, k] · [k, n]`` of s8."""
    rng = np.random.default_rng(SEED)
    return Workload(
        title=f"{m}×{k}×{n}",
        executable=compile_matmul(config, m, k, n, a="s8", b="s8"),
        inputs={
            "a": rng.integers(-128, 128, (m, k)).astype(np.int8),
            "b": rng.integers(-128, 128, (k, n)).astype(np.int8),
        },
        scalars={},
    )


def _options(backend: str, config: Config, latency: int, tell: Tell) -> dict[str, Any]:
    """What a backend is opened with."""
    if backend == RTL:
        bus = BusOptions(
            latency=latency,
            outstanding=config.axi_outstanding,
            max_burst=config.axi_max_burst,
        )
        return {"progress": tell, "bus": bus}
    return {} if latency == LATENCY or backend == ISS else {"latency": latency}


def simulate(
    backend: str, work: Workload, tell: Tell, latency: int = LATENCY
) -> tuple[Outputs, dict[int, np.ndarray], float]:
    """Outputs, all that was written, and CPU seconds of the run."""
    config = work.executable.config
    with Device(backend, config, **_options(backend, config, latency, tell)) as device:
        with device.load(work.executable) as loaded:
            begun = time.process_time()
            outputs = loaded.run(
                work.inputs,
                work.scalars,
                progress=lambda cycles: tell(f"{cycles:,} cycles"),
            )
            seconds = time.process_time() - begun
            inner = {
                region: loaded.read_region(region)
                for region in work.executable.regions_of("internal")
            }
    return outputs, {**outputs.regions, **inner}, seconds


def run(work: Workload, backend: str, tell: Tell, latency: int = LATENCY) -> dict[str, Any]:
    """Run a program and give its figures; on RTL all it wrote is compared with the simulator's.

    Raises
    ------
    ResultError
        If RTL differs from the simulator, or its counters do not add up.
    """
    outputs, written, seconds = simulate(backend, work, tell, latency)
    result = outputs.result
    for unit, reasons in result.counters.items():
        if sum(reasons.values()) != result.cycles:
            raise ResultError(f"{unit}: its counters do not add up to {result.cycles:,} cycles")
    if backend == RTL:
        tell("the same on the simulator")
        _, expected, _ = simulate(ISS, work, tell)
        for region, content in expected.items():
            if not np.array_equal(written[region], content):
                raise ResultError(f"RTL differs from the simulator in region {region}")
    executable = work.executable
    reads, writes = traffic(executable)
    return {
        "cycles": result.cycles,
        "utilization": executable.utilization(result.cycles),
        "macs": executable.metadata["macs"],
        "counters": result.counters,
        "commands": result.commands,
        "read_bytes": reads,
        "write_bytes": writes,
        "onchip_bytes": executable.config.onchip_bytes,
        "cpu_seconds": round(seconds, 3),
    }


def item(
    part: str,
    make: Callable[[], Workload],
    backend: str,
    *,
    config: Config,
    label: str,
    latency: int = LATENCY,
    **spec: Any,
) -> Item:
    """An item that runs a program on a backend.

    Parameters
    ----------
    part : str
    make : callable
        Makes the program; not called before it is measured.
    backend : str
    config : Config
    label : str
    latency : int
        Cycles of the memory.
    **spec
        What the program is.
    """

    def measure(tell: Tell) -> dict[str, Any]:
        if backend not in BACKENDS:
            raise Unavailable(f"there is no backend {backend!r}")
        tell("compiling")
        return run(make(), backend, tell, latency)

    return Item(
        part=part,
        spec={**spec, "config": config.to_dict(), "latency": latency, "backend": backend},
        sources=SOURCES[backend],
        measure=measure,
        label=f"{label}, {config.rows}×{config.columns}, {backend}",
    )
