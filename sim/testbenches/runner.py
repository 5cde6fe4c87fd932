"""Runs a cocotb testbench on an Amaranth component."""

import contextlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from amaranth.back import verilog
from cocotb_tools.check_results import get_results
from cocotb_tools.runner import get_runner

from tilewright.sim.toolchain import build_environment, check_no_blank

SIMULATORS = ("verilator", "icarus")
PARAMETERS = "TILEWRIGHT_TESTBENCH"
"""Environment variable that carries the testbench's parameters, as JSON."""

_BUILD_ARGUMENTS = {
    # cocotb makes every signal public unless told otherwise: large arrays would not build.
    "verilator": ["--no-public-flat-rw", "--public-depth", "1", "-Wno-fatal", "-O3"],
    # Yosys has combinational blocks run at time 0 by an initialised register; under SystemVerilog's
    # rules (cocotb gives -g2012) that happens before anyone listens, and outputs stay X.
    "icarus": ["-g2005"],
}


def parameters() -> dict[str, Any]:
    """Return, within a testbench, the parameters given to `simulate`."""
    values: dict[str, Any] = json.loads(os.environ[PARAMETERS])
    return values


def recorded() -> dict[str, npt.NDArray[Any]]:
    """Return, within a testbench, the arrays given to `simulate`."""
    with np.load(parameters()["arrays"]) as archive:
        return {name: archive[name] for name in archive.files}


def simulate(
    component: Any,
    *,
    module: str,
    simulator: str,
    folder: Path,
    values: Mapping[str, Any] | None = None,
    arrays: Mapping[str, npt.NDArray[Any]] | None = None,
    tests: Sequence[str] | None = None,
) -> None:
    """Convert `component` to Verilog, build a simulator and run the tests of a cocotb module.

    Parameters
    ----------
    component : wiring.Component
        Its ports are those of the module `dut`, besides `clk` and `rst`.
    module : str
        Dotted name of the cocotb module.
    simulator : str
        One of `SIMULATORS`.
    folder : Path
        Where files are written; best a temporary one.
    values : mapping, optional
        What `parameters()` returns within the testbench (JSON).
    arrays : mapping, optional
        What `recorded()` returns there.
    tests : sequence of str, optional
        Tests to run, all if not given.

    Raises
    ------
    RuntimeError
        When a test fails, or the simulation ends early.
    ValueError
        For a simulator not known.
    """
    text = verilog.convert(component, name="dut", strip_internal_attrs=True)
    simulate_verilog(
        text,
        top="dut",
        module=module,
        simulator=simulator,
        folder=folder,
        values=values,
        arrays=arrays,
        tests=tests,
    )


def simulate_verilog(
    text: str,
    *,
    top: str,
    module: str,
    simulator: str,
    folder: Path,
    values: Mapping[str, Any] | None = None,
    arrays: Mapping[str, npt.NDArray[Any]] | None = None,
    tests: Sequence[str] | None = None,
) -> None:
    """Build a simulator of the module `top` of a Verilog text and run the tests of a cocotb module.

    The other parameters, and what is raised, are those of `simulate`.
    """
    if simulator not in SIMULATORS:
        raise ValueError(f"simulator {simulator!r}: must be one of {', '.join(SIMULATORS)}")
    check_no_blank(folder)
    folder.mkdir(parents=True, exist_ok=True)
    source = folder / f"{top}.v"
    source.write_text(text, encoding="utf-8")
    values = dict(values or {})
    if arrays is not None:
        values["arrays"] = str((folder / "arrays.npz").absolute())
        np.savez(values["arrays"], **arrays)  # type: ignore[arg-type]
    with build_environment():
        runner = get_runner(simulator)
        runner.build(
            sources=[source],
            hdl_toplevel=top,
            build_dir=folder / "build",
            build_args=_BUILD_ARGUMENTS[simulator],
            timescale=("1ns", "1ps"),
            always=True,
            log_file=folder / "build.log",
        )
        results = folder / "results.xml"
        # The runner leaves by SystemExit when a test fails; the results say the same, and more.
        with contextlib.suppress(SystemExit):
            runner.test(
                hdl_toplevel=top,
                hdl_toplevel_lang="verilog",
                test_module=module,
                testcase=None if tests is None else list(tests),
                build_dir=folder / "build",
                test_dir=folder,
                results_xml=str(results),
                extra_env={
                    PARAMETERS: json.dumps(values),
                    "COCOTB_LOG_LEVEL": "WARNING",
                    "COCOTB_ANSI_OUTPUT": "0",
                },
                log_file=folder / "test.log",
            )
    count, failed = get_results(results)
    if count == 0 or failed:
        end = "\n".join((folder / "test.log").read_text(errors="replace").splitlines()[-60:])
        raise RuntimeError(f"{module} on {simulator}: {failed} of {count} tests failed\n{end}")
