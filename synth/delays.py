"""Delays of the cells of a device family, for an estimate before anything is placed.

ECP5: Project Trellis' timing database, `ECP5/timing/speed_N/cells.json`, which nextpnr uses and its
wheel carries; a test compares each figure with it. 7 series: Project X-Ray's database for Artix-7,
as Yosys' `techlibs/xilinx/cells_sim.v` quotes it in its `specify` blocks (it has no delays of RAM
in LUTs: a LUT6's stands for them). The delay of a hop is no figure of a database: it is chosen, see
docs/synthesis.md.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

Parameters = Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class CellDelays:
    """Delays of a cell in nanoseconds; a pin is "port[bit]", "port", or what numbered ports share.

    Parameters
    ----------
    launch : dict
        Output → from the clock.
    capture : dict
        Input → before the clock.
    arcs : dict
        Output → input → through the cell.
    dedicated : frozenset of str
        Inputs whose wire is the site's own where a cell of the site drives them.
    """

    launch: Mapping[str, float] = field(default_factory=dict)
    capture: Mapping[str, float] = field(default_factory=dict)
    arcs: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    dedicated: frozenset[str] = frozenset()


@dataclass(frozen=True, kw_only=True)
class Delays:
    """Delays of a family at a speed grade.

    Parameters
    ----------
    title : str
    hop : float
        Nanoseconds of a wire between two cells.
    register : float
        From the clock to the output of a flip-flop.
    packed : frozenset of str
        Types of cells that drive the `dedicated` inputs of others in their site.
    model : callable
        Type and parameters of a cell → its delays; None for a type that is not known.
    """

    title: str
    hop: float
    register: float
    packed: frozenset[str]
    model: Callable[[str, Parameters], CellDelays | None]


def _even(inputs: str, delay: float) -> dict[str, float]:
    return dict.fromkeys(inputs.split(), delay)


def _text(parameters: Parameters, name: str, default: str) -> str:
    # Yosys writes a blank behind strings that look like numbers.
    return parameters.get(name, default).strip()


# ECP5: picoseconds at speed grades 6, 7 and 8.

ECP5_SPEEDS = (6, 7, 8)

_ECP5: dict[str, tuple[int, int, int]] = {
    "lut": (236, 208, 180),
    "lut_mux": (401, 354, 306),  # LUT4 and PFUMX together
    "mux_select": (256, 225, 193),
    "mux2": (242, 211, 180),
    "mux2_select": (252, 221, 190),
    "carry_sum": (236, 208, 180),
    "carry_across": (714, 607, 500),  # from the first bit's operands to the second's sum
    "carry_start": (447, 401, 355),
    "carry_end0": (443, 385, 328),
    "carry_end1": (474, 412, 349),
    "carry": (71, 63, 56),
    "ff": (525, 460, 395),
    "ff_reset": (424, 356, 287),
    "lutram_read": (236, 208, 180),
    "lutram": (929, 823, 717),
    "lutram_write": (392, 329, 266),
    "ram_a": (5609, 4854, 4099),
    "ram_b": (5830, 5046, 4263),
    "ram_register_a": (973, 856, 738),
    "ram_register_b": (956, 837, 718),
    "ram_address_a": (251, 226, 202),
    "ram_address_b": (205, 189, 174),
    "ram_data_a": (218, 198, 179),
    "ram_data_b": (134, 132, 129),
    "ram_enable_a": (211, 184, 158),
    "ram_enable_b": (340, 298, 256),
    "ram_write_a": (139, 134, 129),
    "ram_write_b": (0, 0, 0),
    "ram_select_a": (20, 24, 27),
    "ram_select_b": (0, 0, 0),
    "ram_register_enable_a": (226, 207, 188),
    "ram_register_enable_b": (253, 225, 196),
    "ram_reset_a": (579, 511, 444),
    "ram_reset_b": (585, 518, 449),
    "mult": (3927, 3497, 3066),
    "mult_from_inputs": (3864, 3455, 3045),
    "mult_to_output": (3486, 3061, 2635),
    "mult_from_pipeline": (1334, 1223, 1113),
    "mult_to_pipeline": (2625, 2305, 1985),
    "mult_output": (735, 656, 578),
    "mult_input": (84, 63, 42),
    "mult_enable": (252, 231, 210),
    "mult_reset": (95, 105, 116),
}

_ECP5_HOP = (1.15, 1.0, 0.85)
"""Nanoseconds at those speed grades: a whole core's estimate is then what it was routed at."""


def _ecp5_multiplier(p: Parameters, ns: Mapping[str, float]) -> CellDelays:
    def has(*names: str) -> bool:
        return all(_text(p, f"REG_{name}_CLK", "NONE") != "NONE" for name in names)

    control = {"CE": ns["mult_enable"], "RST": ns["mult_reset"]}
    if has("PIPELINE") and not has("OUTPUT"):
        launch, capture = ns["mult_from_pipeline"], ns["mult_to_pipeline"]
    elif has("OUTPUT"):
        launch, capture = ns["mult_output"], ns["mult_to_output"]
    elif has("INPUTA", "INPUTB"):
        launch, capture = ns["mult_from_inputs"], ns["mult_input"]
    else:
        return CellDelays(arcs={"P": _even("A B", ns["mult"])})
    if has("INPUTA", "INPUTB"):
        capture = ns["mult_input"]
    return CellDelays(launch={"P": launch}, capture=_even("A B", capture) | control)


def _ecp5_ram(p: Parameters, ns: Mapping[str, float]) -> CellDelays:
    launch, capture = {}, {}
    for port in "AB":
        end = port.lower()
        registered = _text(p, f"REGMODE_{port}", "NOREG") == "OUTREG"
        launch[f"DO{port}"] = ns[f"ram_register_{end}" if registered else f"ram_{end}"]
        for pin, name in (
            ("AD", "address"),
            ("DI", "data"),
            ("CE", "enable"),
            ("WE", "write"),
            ("CS", "select"),
            ("OCE", "register_enable"),
            ("RST", "reset"),
        ):
            capture[f"{pin}{port}"] = ns[f"ram_{name}_{end}"]
    return CellDelays(launch=launch, capture=capture)


def _ecp5_two_port_ram(p: Parameters, ns: Mapping[str, float]) -> CellDelays:
    """A write port on the cell's port A, a read port on B."""
    registered = _text(p, "REGMODE", "NOREG") == "OUTREG"
    return CellDelays(
        launch={"DO": ns["ram_register_b" if registered else "ram_b"]},
        capture={
            "ADW": ns["ram_address_a"],
            "DI": ns["ram_data_a"],
            "CEW": ns["ram_enable_a"],
            "BE": ns["ram_address_a"],
            "CSW": ns["ram_select_a"],
            "ADR": ns["ram_address_b"],
            "CER": ns["ram_enable_b"],
            "CSR": ns["ram_select_b"],
            "OCER": ns["ram_register_enable_b"],
            "RST": ns["ram_reset_b"],
        },
    )


def _ecp5_model(kind: str, p: Parameters, ns: Mapping[str, float]) -> CellDelays | None:
    match kind:
        case "LUT4":
            return CellDelays(arcs={"Z": _even("A B C D", ns["lut"])})
        case "PFUMX":
            through = _even("ALUT BLUT", ns["lut_mux"] - ns["lut"])
            return CellDelays(
                arcs={"Z": through | {"C0": ns["mux_select"]}},
                dedicated=frozenset({"ALUT", "BLUT"}),
            )
        case "L6MUX21":
            through = _even("D0 D1", ns["mux2"])
            return CellDelays(
                arcs={"Z": through | {"SD": ns["mux2_select"]}},
                dedicated=frozenset({"D0", "D1"}),
            )
        case "CCU2C":
            first, second = "A0 B0 C0 D0", "A1 B1 C1 D1"
            return CellDelays(
                arcs={
                    "S0": _even(first, ns["carry_sum"]) | {"CIN": ns["carry_end0"]},
                    "S1": _even(first, ns["carry_across"])
                    | _even(second, ns["carry_sum"])
                    | {"CIN": ns["carry_end1"]},
                    "COUT": _even(f"{first} {second}", ns["carry_start"]) | {"CIN": ns["carry"]},
                },
                dedicated=frozenset({"CIN"}),
            )
        case "TRELLIS_FF":
            return CellDelays(
                launch={"Q": ns["ff"]},
                capture={"DI": 0, "M": 0, "CE": 0, "LSR": ns["ff_reset"]},
                dedicated=frozenset({"DI"}),
            )
        case "TRELLIS_DPR16X4":
            return CellDelays(
                launch={"DO": ns["lutram"]},
                capture={"DI": 0, "WAD": 0, "WRE": ns["lutram_write"]},
                arcs={"DO": {"RAD": ns["lutram_read"]}},
            )
        case "MULT18X18D":
            return _ecp5_multiplier(p, ns)
        case "DP16KD":
            return _ecp5_ram(p, ns)
        case "PDPW16KD":
            return _ecp5_two_port_ram(p, ns)
    return None


def ecp5_delays(speed: int = 6) -> Delays:
    """Delays of an ECP5 at a speed grade, 6 … 8."""
    index = ECP5_SPEEDS.index(speed)
    ns = {name: values[index] / 1000 for name, values in _ECP5.items()}
    return Delays(
        title=f"ECP5, speed grade {speed}",
        hop=_ECP5_HOP[index],
        register=ns["ff"],
        packed=frozenset({"LUT4", "PFUMX", "L6MUX21", "CCU2C"}),
        model=lambda kind, parameters: _ecp5_model(kind, parameters, ns),
    )


# 7 series: picoseconds at speed grade -1.

_XC7_HOP = 0.8
"""Nanoseconds; no placement of a core was there to compare with."""
_XC7_REGISTER = 303

_XC7_LUT = (127, 238, 407, 472, 631, 642)
"""From the last input of a LUT to the first: Yosys gives the latest signal the quickest."""

_XC7_CARRY: dict[str, dict[str, int]] = {
    "O[0]": {"CYINIT": 482, "S[0]": 223, "CI": 222},
    "O[1]": {"CYINIT": 598, "DI[0]": 407, "S[0]": 400, "S[1]": 205, "CI": 334},
    "O[2]": {
        "CYINIT": 584,
        "DI[0]": 556,
        "DI[1]": 537,
        "S[0]": 523,
        "S[1]": 558,
        "S[2]": 226,
        "CI": 239,
    },
    "O[3]": {
        "CYINIT": 642,
        "DI[0]": 615,
        "DI[1]": 596,
        "DI[2]": 438,
        "S[0]": 582,
        "S[1]": 618,
        "S[2]": 330,
        "S[3]": 227,
        "CI": 313,
    },
    "CO[0]": {"CYINIT": 536, "DI[0]": 379, "S[0]": 340, "CI": 271},
    "CO[1]": {"CYINIT": 494, "DI[0]": 465, "DI[1]": 445, "S[0]": 433, "S[1]": 469, "CI": 157},
    "CO[2]": {
        "CYINIT": 592,
        "DI[0]": 540,
        "DI[1]": 520,
        "DI[2]": 356,
        "S[0]": 512,
        "S[1]": 548,
        "S[2]": 292,
        "CI": 228,
    },
    "CO[3]": {
        "CYINIT": 580,
        "DI[0]": 526,
        "DI[1]": 507,
        "DI[2]": 398,
        "DI[3]": 385,
        "S[0]": 508,
        "S[1]": 528,
        "S[2]": 378,
        "S[3]": 380,
        "CI": 114,
    },
}


def _ns(picoseconds: Mapping[str, int]) -> dict[str, float]:
    return {pin: value / 1000 for pin, value in picoseconds.items()}


def _number(parameters: Parameters, name: str) -> int:
    """A parameter as Yosys writes numbers, in bits; 0 without."""
    text = _text(parameters, name, "0")
    return int(text, 2) if text and not text.strip("01") else 0


def _xc7_dsp(p: Parameters) -> CellDelays:
    """DSP48E1 as a multiplier, with or without the adder behind it."""
    a, b, c, m, out = (_number(p, f"{name}REG") for name in "ABCMP")
    if _text(p, "USE_MULT", "MULTIPLY") == "NONE":
        raw = {"A": 1523, "B": 1509, "C": 1325, "PCIN": 1107}
        before = {"A": 1441, "B": 1428, "C": 1244, "PCIN": 1025}
    else:
        raw = {"A": 2823, "B": 2690, "C": 1325, "PCIN": 1107}
        before = {"A": 2739, "B": 2608, "C": 1244, "PCIN": 1025}
        if m:
            before |= {"A": 1416, "B": 1285}
    inner = {"A": a, "B": b, "C": c}
    capture = {name: before[name] for name in raw if out}
    if m:
        capture |= {name: before[name] for name in "AB"}
    own = {"A": 254, "B": 324, "C": 168}
    capture |= {name: own[name] for name, registers in inner.items() if registers}
    launch = 0
    if out:
        launch = 329
    elif m or c:
        launch = 1687
    elif a or b:
        launch = 2952
    arcs = {} if out else {name: raw[name] for name in raw if name not in capture}
    return CellDelays(
        launch=_ns({"P": launch, "PCOUT": launch + 148}) if launch else {},
        capture=_ns(capture),
        arcs={"P": _ns(arcs), "PCOUT": _ns({pin: value + 148 for pin, value in arcs.items()})},
        dedicated=frozenset({"PCIN"}),
    )


def _xc7_ram(p: Parameters) -> CellDelays:
    launch: dict[str, int] = {}
    for port, outputs in (("A", ("DOADO", "DOPADOP")), ("B", ("DOBDO", "DOPBDOP"))):
        launch |= dict.fromkeys(outputs, 882 if _number(p, f"DO{port}_REG") else 2454)
    capture = {
        **dict.fromkeys(("ADDRARDADDR", "ADDRBWRADDR"), 566),
        **dict.fromkeys(("WEA", "WEBWE"), 532),
        # Yosys has none of the enables; the output registers' stand for them.
        **dict.fromkeys(("REGCEAREGCE", "REGCEB", "ENARDEN", "ENBWREN"), 360),
        **dict.fromkeys(("RSTREGARSTREG", "RSTREGB", "RSTRAMARSTRAM", "RSTRAMB"), 342),
        **dict.fromkeys(("DIADI", "DIBDI", "DIPADIP", "DIPBDIP"), 737),
    }
    return CellDelays(launch=_ns(launch), capture=_ns(capture))


def _xc7_model(kind: str, p: Parameters) -> CellDelays | None:
    if kind.startswith("LUT") and kind[3:].isdecimal():
        size = int(kind[3:])
        inputs = {f"I{size - 1 - place}": _XC7_LUT[place] for place in range(size)}
        return CellDelays(arcs={"O": _ns(inputs)})
    match kind:
        case "INV":
            return CellDelays(arcs={"O": _ns({"I": 127})})
        case "MUXF7":
            return CellDelays(
                arcs={"O": _ns({"I0": 217, "I1": 223, "S": 296})},
                dedicated=frozenset({"I0", "I1"}),
            )
        case "MUXF8":
            return CellDelays(
                arcs={"O": _ns({"I0": 104, "I1": 94, "S": 273})},
                dedicated=frozenset({"I0", "I1"}),
            )
        case "CARRY4":
            return CellDelays(
                arcs={output: _ns(inputs) for output, inputs in _XC7_CARRY.items()},
                dedicated=frozenset({"CI", "S"}),
            )
        case "FDRE" | "FDSE" | "FDCE" | "FDPE":
            return CellDelays(
                launch=_ns({"Q": _XC7_REGISTER}),
                capture=_ns({"D": 0, "CE": 109, "R": 404, "S": 404, "CLR": 404, "PRE": 404}),
                dedicated=frozenset({"D"}),
            )
        case "DSP48E1":
            return _xc7_dsp(p)
        case "RAMB18E1" | "RAMB36E1":
            return _xc7_ram(p)
    if kind.startswith(("RAM", "SRL")):
        return _xc7_lutram()
    return None


def _xc7_lutram() -> CellDelays:
    read = dict.fromkeys(("A", "DPRA", "ADDR", "ADDRA", "ADDRB", "ADDRC", "ADDRD"), 642)
    outputs = ("DO", "DOA", "DOB", "DOC", "DOD", "DPO", "SPO", "O", "Q")
    written = ("D", "DI", "DIA", "DIB", "DIC", "DID", "WE", "CE")
    return CellDelays(
        launch=dict.fromkeys((*outputs, "Q31"), (_XC7_REGISTER + 642) / 1000),
        capture=dict.fromkeys(written, 0.109),
        arcs={output: _ns(read) for output in outputs},
    )


def xc7_delays() -> Delays:
    """Delays of an Artix-7 at speed grade -1."""
    return Delays(
        title="Artix-7, speed grade -1",
        hop=_XC7_HOP,
        register=_XC7_REGISTER / 1000,
        packed=frozenset({f"LUT{size}" for size in range(1, 7)} | {"MUXF7", "MUXF8", "CARRY4"}),
        model=_xc7_model,
    )


def delays(target: str, speed: int = 6) -> Delays:
    """Delays of a target; a speed grade is ECP5's."""
    return ecp5_delays(speed) if target == "ecp5" else xc7_delays()
