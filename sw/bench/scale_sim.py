"""Cycles of products on SCALE-Sim's systolic array; runs in the Python of the peers.

``python sw/bench/scale_sim.py`` reads one JSON object from standard input: rows, columns, dataflow
("ws" or "os"), and gemms, a list of [m, k, n]. The last line of standard output is a JSON list of
cycles. Bandwidth is SCALE-Sim's estimate of what is needed, so that nothing waits for memory.

SCALE-Sim's own time grows with the square of the cycles. In both dataflows every array width of
columns takes the same cycles, one after the other, so one is simulated and counted n / C times; the
last cycle of a product is not counted by SCALE-Sim. With `whole` true nothing is taken for granted
and all of n is simulated.
"""

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

_CONFIG = """[general]
run_name = run
[run_presets]
InterfaceBandwidth = CALC
UseRamulatorTrace = False
[architecture_presets]
ArrayHeight = {rows}
ArrayWidth = {columns}
IfmapSramSzkB = 1024
FilterSramSzkB = 1024
OfmapSramSzkB = 1024
IfmapOffset = 0
FilterOffset = 10000000
OfmapOffset = 20000000
Bandwidth = 10
Dataflow = {dataflow}
MemoryBanks = 1
ReadRequestBuffer = 32
WriteRequestBuffer = 32
[layout]
IfmapCustomLayout = False
IfmapSRAMBankBandwidth = 10
IfmapSRAMBankNum = 10
IfmapSRAMBankPort = 2
FilterCustomLayout = False
FilterSRAMBankBandwidth = 10
FilterSRAMBankNum = 10
FilterSRAMBankPort = 2
[sparsity]
SparsitySupport = false
SparseRep = ellpack_block
OptimizedMapping = false
BlockSize = 8
RandomNumberGeneratorSeed = 40
"""
_LAYOUT = "layer," + "x," * 15 + "\n" + "gemm," + "1," * 15 + "\n"


def cycles(rows: int, columns: int, dataflow: str, gemm: tuple[int, int, int]) -> int:
    """Compute cycles of one product [m, k] · [k, n]."""
    from scalesim.scale_sim import scalesim

    m, k, n = gemm
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files = {
            "config": (folder / "config.cfg", _CONFIG.format(**locals())),
            "topology": (folder / "gemm.csv", f"layer,M,N,K,\ngemm,{m},{n},{k},\n"),
            "layout": (folder / "layout.csv", _LAYOUT),
        }
        for path, text in files.values():
            path.write_text(text)
        paths: dict[str, Any] = {key: str(path) for key, (path, _) in files.items()}
        simulation = scalesim(save_disk_space=True, verbose=False, input_type_gemm=True, **paths)
        simulation.run_scale(top_path=name)
        report = simulation.runner.single_layer_sim_object_list[0].get_compute_report_items()
    return int(report[1])


def product(machine: tuple[int, int, str], gemm: tuple[int, int, int]) -> int:
    """The same from the cycles of one array width of columns."""
    m, k, n = gemm
    columns = machine[1]
    return (cycles(*machine, (m, k, columns)) + 1) * -(-n // columns) - 1


def main() -> None:
    """Answer one question."""
    asked = json.load(sys.stdin)
    machine = asked["rows"], asked["columns"], asked["dataflow"]
    gemms = [tuple(gemm) for gemm in asked["gemms"]]
    if asked.get("whole"):
        found = [cycles(*machine, gemm) for gemm in gemms]
    else:
        found = [product(machine, gemm) for gemm in gemms]
    print(json.dumps(found))


if __name__ == "__main__":
    main()
