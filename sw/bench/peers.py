"""Peers on the same work: SCALE-Sim's systolic arrays, ONNX Runtime on one core.

They live in a Python environment of their own, since SCALE-Sim needs an older NumPy:
`scripts/setup bench` makes ``.venv-bench``, and ``TILEWRIGHT_PEERS`` names another Python.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import tilewright
from tilewright.hw.config import preset_config
from tilewright.sw.bench import layers
from tilewright.sw.bench.markdown import Table
from tilewright.sw.bench.part import Part, array, number, onchip, pick, share
from tilewright.sw.bench.results import Found, Item, Tell, Unavailable
from tilewright.sw.bench.runs import MODEL, RTL, item, model_work
from tilewright.sw.bench.sizes import MINILM
from tilewright.sw.errors import ResultError
from tilewright.sw.models.fetch import resolve_model
from tilewright.sw.sources import ROOT

NAME = "peers"
DATAFLOWS = {"ws": "weight-stationary", "os": "output-stationary"}
SEQUENCE = 128
"""Of whole MiniLM."""
LAYERS = 6


def python() -> Path:
    """The Python of the peers.

    Raises
    ------
    Unavailable
        If there is none.
    """
    path = Path(os.environ.get("TILEWRIGHT_PEERS", ROOT / ".venv-bench" / "bin" / "python"))
    if not path.is_file():
        raise Unavailable(f"no Python of the peers ({path.name}); type: scripts/setup bench")
    return path


def ask(words: Sequence[str | Path], question: object = None) -> Any:
    """Run a script of a peer; what its last line says.

    Raises
    ------
    Unavailable
        If there is no such Python.
    ResultError
        If the script fails.
    """
    run = subprocess.run(
        [python(), *words],
        input=json.dumps(question),
        capture_output=True,
        text=True,
        cwd=ROOT,
        # The peers' Python has no Tilewright of its own.
        env={**os.environ, "PYTHONPATH": os.fspath(Path(tilewright.__file__).parents[1])},
        check=False,
    )
    if run.returncode:
        last = (run.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise ResultError(f"{words[-1]}: {last}")
    return json.loads(run.stdout.strip().splitlines()[-1])


def _scale_sim(case: layers.Case, dataflow: str, tell: Tell) -> dict[str, Any]:
    config = preset_config(case.preset)
    machine = {"rows": config.rows, "columns": config.columns, "dataflow": dataflow}
    each, total = {}, 0
    for gemm in case.size.gemms(case.sequence):
        tell(f"{gemm.name}, {gemm.m} × {gemm.k} × {gemm.n}")
        (cycles,) = ask(["sw/bench/scale_sim.py"], {**machine, "gemms": [(gemm.m, gemm.k, gemm.n)]})
        each[gemm.name] = cycles
        total += gemm.count * cycles
    return {"cycles": total, "each": each}


def _scale_sim_item(case: layers.Case, dataflow: str) -> Item:
    config = preset_config(case.preset)
    return Item(
        part=NAME,
        spec={
            "peer": "SCALE-Sim",
            **case.spec(0),
            "rows": config.rows,
            "columns": config.columns,
            "dataflow": dataflow,
        },
        sources=("sw/bench/scale_sim.py", "sw/bench/sizes.py"),
        measure=partial(_scale_sim, case, dataflow),
        label=f"SCALE-Sim {dataflow}, {case.size.name} S {case.sequence}, "
        f"{config.rows}×{config.columns}",
    )


def _onnx_runtime(tell: Tell) -> dict[str, Any]:
    python()
    folder = resolve_model("minilm")
    tell("building the graph, quantizing, running")
    found: dict[str, Any] = ask(["-m", "tilewright.sw.bench.onnx_runtime", folder, str(SEQUENCE)])
    return {**found, "processor": processor()}


def processor() -> str:
    """Name of the processor, as Linux knows it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return "unknown processor"
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else "unknown processor"


def _whole() -> Item:
    config = preset_config("default")
    return item(
        NAME,
        partial(model_work, MINILM, config, SEQUENCE, LAYERS),
        RTL,
        config=config,
        label=f"MiniLM, {LAYERS} layers, S {SEQUENCE}",
        layer=MINILM.name,
        sequence=SEQUENCE,
        layers=LAYERS,
    )


def items(quick: bool) -> list[Item]:
    """SCALE-Sim on each layer of the part `layers`, ONNX Runtime on MiniLM and MiniLM in RTL."""
    cases = layers.QUICK[-1:] if quick else layers.CASES
    found = [_scale_sim_item(case, dataflow) for case in cases for dataflow in DATAFLOWS]
    runtime = Item(
        part=NAME,
        spec={"peer": "ONNX Runtime", "layer": MINILM.name, "sequence": SEQUENCE},
        sources=("sw/bench/onnx_runtime.py", "sw/models"),
        measure=_onnx_runtime,
        label=f"ONNX Runtime, MiniLM S {SEQUENCE}",
    )
    return [*found, runtime, _whole()]


def _arrays(found: Found) -> Table:
    rows = []
    for case in layers.CASES:
        config = preset_config(case.preset).to_dict()
        machine = {"rows": config["rows"], "columns": config["columns"]}
        line = [case.size.name, str(case.sequence), array(config), onchip(config)]
        counts = [case.cycles(found[layers.NAME], backend) for backend in (RTL, MODEL)]
        for dataflow in DATAFLOWS:
            row = pick(found[NAME], peer="SCALE-Sim", dataflow=dataflow, **machine, **case.spec(0))
            counts.append(None if row is None else row.result["cycles"])
        if any(counts[2:]):
            for cycles in counts:
                used = share(case.ideal / cycles) if cycles else "–"
                line.append(f"{number(cycles)} ({used})" if cycles else "–")
            rows.append(line)
    return Table(
        title="Against SCALE-Sim",
        header=(
            "layer",
            "S",
            "array",
            "on chip",
            "this, RTL",
            "this, cycle model",
            *(f"SCALE-Sim, {name}" for name in DATAFLOWS.values()),
        ),
        rows=rows,
        notes=[
            "Cycles, and the share of them that is the layer's own. SCALE-Sim counts the products "
            "alone, with all the memory bandwidth they ask for (one array width of columns is "
            "simulated and counted N / C times); RTL computes the whole layer, softmax, GELU, "
            "LayerNorm and every transfer included. On-chip bytes are this machine's."
        ],
    )


def _processors(found: Found) -> list[Table]:
    row = pick(found[NAME], peer="ONNX Runtime")
    if row is None:
        return []
    run = pick(found[NAME], layers=LAYERS)
    cycles = None if run is None else run.result["cycles"]
    memory = onchip(preset_config("default").to_dict())
    lines = []
    for name in ("fp32", "int8"):
        seconds = row.result[name]["cpu"]
        clock = "–" if cycles is None else f"{cycles / seconds / 1e6:,.0f} MHz"
        lines.append(
            [name, f"{seconds * 1e3:.1f} ms", f"{row.result[name]['wall'] * 1e3:.1f} ms", clock]
        )
    notes = [
        f"ONNX Runtime {row.result['onnxruntime']}, one thread pinned to one core of "
        f"{row.result['processor']}, all graph optimisations, medians; int8 is dynamic, a scale a "
        f"channel (cosine {row.result['cosine_int8']:.4f} to fp32 on one text).",
    ]
    if cycles is not None:
        notes.append(
            f"`default`, {memory} on chip, takes {cycles:,} cycles for the same in RTL (W8A8, the "
            "look-up of the embeddings aside); the last column is the clock at which that takes as "
            "long as the core's CPU time."
        )
    header = "precision", "CPU time", "wall time", "clock of `default` to match it"
    return [
        Table(
            title=f"Whole MiniLM, sequence {SEQUENCE}, against ONNX Runtime on one core",
            header=header,
            rows=lines,
            notes=notes,
        )
    ]


def tables(found: Found) -> list[Table]:
    """SCALE-Sim beside RTL, ONNX Runtime with the clock that matches it."""
    return [_arrays(found), *_processors(found)]


PART = Part(
    name=NAME, about="SCALE-Sim and ONNX Runtime on the same work", items=items, tables=tables
)
