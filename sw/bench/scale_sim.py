"""Cycles of products on SCALE-Sim's systolic array; runs in the Python of the peers.

``python sw/bench/scale_sim.py`` reads one JSON object from standard input: rows, columns, dataflow
("ws" or "os"), and gemms, a list of [m, k, n]. The last line of standard output is a JSON list of
cycles. Bandwidth is SCALE-Sim's estimate of what is needed, so that nothing waits for memory.
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


def main() -> None:
    """Answer one question."""
    asked = json.load(sys.stdin)
    machine = asked["rows"], asked["columns"], asked["dataflow"]
    found = [cycles(*machine, tuple(gemm)) for gemm in asked["gemms"]]
    print(json.dumps(found))


if __name__ == "__main__":
    main()
