"""Vivado: an IP-XACT component (IEEE 1685-2009) with the vendor's extensions."""

from xml.etree import ElementTree as ET

from tilewright.hw.packages.description import CLOCK, INTERRUPT, MASTER, SLAVE, Core, Port
from tilewright.hw.registers import ADDRESS_WIDTH, REGISTERS

_NAMESPACES = {
    "xmlns:xilinx": "http://www.xilinx.com",
    "xmlns:spirit": "http://www.spiritconsortium.org/XMLSchema/SPIRIT/1685-2009",
    "xmlns:xsi": "http://www.w3.org/2001/XMLSchema-instance",
}
# Families of 28 nm and later; the catalog hides an IP whose list lacks the project's family.
_FAMILIES = (
    *("spartan7", "artix7", "kintex7", "virtex7", "zynq"),
    *("kintexu", "virtexu", "artixuplus", "kintexuplus", "virtexuplus", "virtexuplusHBM"),
    *("zynquplus", "versal"),
)
_ACCESS = {"ro": "read-only", "rw": "read-write", "w1": "write-only"}
_SYNTHESIS = "xilinx_anylanguagesynthesis"
_SIMULATION = "xilinx_anylanguagebehavioralsimulation"
_GUI = "xilinx_xpgui"


def _node(tag: str, *content: ET.Element | str, **attributes: str) -> ET.Element:
    """An element with a text or children; tag and attributes are in `spirit` or as given."""
    prefix, colon, _ = tag.partition(":")
    space = prefix if colon else "spirit"
    element = ET.Element(
        tag if colon else f"spirit:{tag}", {f"{space}:{k}": v for k, v in attributes.items()}
    )
    for part in content:
        if isinstance(part, str):
            element.text = part
        else:
            element.append(part)
    return element


def _number(tag: str, value: int) -> ET.Element:
    return _node(tag, str(value), format="long")


def _interface(
    name: str,
    bus: tuple[str, str],
    role: ET.Element,
    ports: dict[str, str],
    parameters: dict[str, object],
) -> ET.Element:
    """A bus interface of type `bus` (library, name): logical to physical ports, parameters."""
    library, kind = bus

    def vlnv(tag: str, name: str) -> ET.Element:
        return _node(tag, vendor="xilinx.com", library=library, name=name, version="1.0")

    maps = [
        _node(
            "portMap",
            _node("logicalPort", _node("name", logical)),
            _node("physicalPort", _node("name", physical)),
        )
        for logical, physical in ports.items()
    ]
    values = [
        _node(
            "parameter",
            _node("name", key),
            _node("value", str(value), id=f"BUSIFPARAM_VALUE.{name.upper()}.{key}"),
        )
        for key, value in parameters.items()
    ]
    return _node(
        "busInterface",
        _node("name", name),
        vlnv("busType", kind),
        vlnv("abstractionType", f"{kind}_rtl"),
        role,
        _node("portMaps", *maps),
        _node("parameters", *values),
    )


def _interfaces(core: Core) -> ET.Element:
    config = core.config

    def logical(bus: str) -> dict[str, str]:
        return {port.signal.upper(): port.name for port in core.bus(bus)}

    return _node(
        "busInterfaces",
        _interface(
            MASTER,
            ("interface", "aximm"),
            _node("master", _node("addressSpaceRef", addressSpaceRef=MASTER)),
            logical(MASTER),
            {
                "PROTOCOL": "AXI4",
                "SUPPORTS_NARROW_BURST": 0,
                "MAX_BURST_LENGTH": config.axi_max_burst,
                "NUM_READ_OUTSTANDING": config.axi_outstanding,
                "NUM_WRITE_OUTSTANDING": config.axi_outstanding,
            },
        ),
        _interface(
            SLAVE,
            ("interface", "aximm"),
            _node("slave", _node("memoryMapRef", memoryMapRef=SLAVE)),
            logical(SLAVE),
            {"PROTOCOL": "AXI4LITE"},
        ),
        _interface(
            CLOCK,
            ("signal", "clock"),
            _node("slave"),
            {"CLK": CLOCK},
            {"ASSOCIATED_BUSIF": f"{MASTER}:{SLAVE}", "ASSOCIATED_RESET": core.reset_port},
        ),
        _interface(
            core.reset_port,
            ("signal", "reset"),
            _node("slave"),
            {"RST": core.reset_port},
            {"POLARITY": "ACTIVE_LOW" if core.reset_is_low else "ACTIVE_HIGH"},
        ),
        _interface(
            INTERRUPT,
            ("signal", "interrupt"),
            _node("master"),
            {"INTERRUPT": INTERRUPT},
            {"SENSITIVITY": "LEVEL_HIGH"},
        ),
    )


def _address_spaces(core: Core) -> ET.Element:
    config = core.config
    return _node(
        "addressSpaces",
        _node(
            "addressSpace",
            _node("name", MASTER),
            _number("range", 1 << config.axi_addr_width),
            _number("width", config.axi_data_width),
        ),
    )


def _memory_maps() -> ET.Element:
    registers = [
        _node(
            "register",
            _node("name", register.name),
            _node("description", register.doc),
            _node("addressOffset", f"0x{register.address:03X}"),
            _number("size", 32),
            _node("access", _ACCESS[register.access]),
        )
        for register in REGISTERS.values()
    ]
    block = _node(
        "addressBlock",
        _node("name", "registers"),
        _number("baseAddress", 0),
        _number("range", 1 << ADDRESS_WIDTH),
        _number("width", 32),
        _node("usage", "register"),
        *registers,
    )
    return _node("memoryMaps", _node("memoryMap", _node("name", SLAVE), block))


def _port(port: Port) -> ET.Element:
    wire = _node("wire", _node("direction", "in" if port.is_input else "out"))
    if port.width > 1:
        wire.append(_node("vector", _number("left", port.width - 1), _number("right", 0)))
    views = [_node("viewNameRef", view) for view in (_SYNTHESIS, _SIMULATION)]
    wire.append(_node("wireTypeDefs", _node("wireTypeDef", _node("typeName", "wire"), *views)))
    return _node("port", _node("name", port.name), wire)


def _model(core: Core) -> ET.Element:
    def view(name: str, title: str, environment: str, *language: ET.Element) -> ET.Element:
        return _node(
            "view",
            _node("name", name),
            _node("displayName", title),
            _node("envIdentifier", f"{environment}"),
            *language,
            _node("fileSetRef", _node("localName", f"{name}_view_fileset")),
        )

    def verilog(name: str, title: str) -> ET.Element:
        environment = f"verilogSource:vivado.xilinx.com:{title.lower()}"
        language = (_node("language", "Verilog"), _node("modelName", core.top))
        return view(name, title, environment, *language)

    return _node(
        "model",
        _node(
            "views",
            verilog(_SYNTHESIS, "Synthesis"),
            verilog(_SIMULATION, "Simulation"),
            view(_GUI, "UI Layout", ":vivado.xilinx.com:xgui.ui"),
        ),
        _node("ports", *(_port(port) for port in core.ports)),
    )


def _gui_file(core: Core) -> str:
    return f"{core.top}_xgui.tcl"


def _file_sets(core: Core) -> ET.Element:
    def file_set(view: str, file: str, *types: ET.Element) -> ET.Element:
        return _node(
            "fileSet",
            _node("name", f"{view}_view_fileset"),
            _node("file", _node("name", file), *types),
        )

    verilog = _node("fileType", "verilogSource")
    gui = (_node("fileType", "tclSource"), _node("userFileType", "XGUI_VERSION_2"))
    return _node(
        "fileSets",
        file_set(_SYNTHESIS, core.verilog, verilog),
        file_set(_SIMULATION, core.verilog, verilog),
        file_set(_GUI, _gui_file(core), *gui),
    )


def _vendor_extensions(core: Core, revision: str) -> ET.Element:
    families = [_node("xilinx:family", family, lifeCycle="Beta") for family in _FAMILIES]
    return _node(
        "vendorExtensions",
        _node(
            "xilinx:coreExtensions",
            _node("xilinx:supportedFamilies", *families),
            _node("xilinx:taxonomies", _node("xilinx:taxonomy", "/UserIP")),
            _node("xilinx:displayName", core.top),
            _node("xilinx:definitionSource", "package_project"),
            _node("xilinx:coreRevision", revision),
        ),
    )


def files(core: Core) -> dict[str, str]:
    """Return `component.xml`, which makes the folder an IP of the catalog, and the Tcl of the IP's
    dialog, which has no parameters.

    The IP's version is major.minor of the generator's, its revision the patch.
    """
    major, minor, patch = core.version.split(".")
    version = f"{major}.{minor}"
    component = _node(
        "component",
        _node("vendor", "tilewright"),
        _node("library", "ip"),
        _node("name", core.top),
        _node("version", version),
        _interfaces(core),
        _address_spaces(core),
        _memory_maps(),
        _model(core),
        _file_sets(core),
        _node("description", f"{core.title}, a transformer accelerator"),
        _node(
            "parameters",
            _node(
                "parameter",
                _node("name", "Component_Name"),
                _node(
                    "value",
                    f"{core.top}_v{major}_{minor}",
                    resolve="user",
                    id="PARAM_VALUE.Component_Name",
                    order="1",
                ),
            ),
        ),
        _vendor_extensions(core, patch),
    )
    component.attrib.update(_NAMESPACES)
    ET.indent(component)
    return {
        "component.xml": '<?xml version="1.0" encoding="UTF-8"?>\n'
        f"<!-- {core.title}: generated by tilewright generate. -->\n"
        f"{ET.tostring(component, encoding='unicode')}\n",
        _gui_file(core): f"# {core.title}: generated by tilewright generate.\n"
        "proc init_gui { IPINST } {\n"
        '  ipgui::add_param $IPINST -name "Component_Name"\n'
        "}\n",
    }
