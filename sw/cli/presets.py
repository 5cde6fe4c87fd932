"""List the configurations that come along."""

import click

from tilewright.sw.cli._output import Column, emit, json_option, size


@click.command()
@json_option
def command(json_path: str | None) -> None:
    """List the configurations that come along, with what they hold on the chip.

    The array is rows × columns of processing elements; lanes are the elements a cycle of the vector
    unit; sizes are bytes of memory.

    \b
    Examples:
      tilewright presets
      tilewright presets --json presets.json
    """
    from tilewright.hw.config import PRESETS

    emit(
        title="presets",
        columns=[
            Column(key="name", header="name"),
            Column(key="array", header="array", right=True),
            Column(key="lanes", header="lanes", right=True),
            Column(key="sp_bytes", header="scratchpad", right=True, show=size),
            Column(key="acc_bytes", header="accumulators", right=True, show=size),
            Column(key="onchip_bytes", header="on chip in all", right=True, show=size),
            Column(key="axi_data_width", header="AXI bits", right=True),
        ],
        rows=[
            {
                "name": name,
                "array": f"{config.rows}×{config.columns}",
                "lanes": config.lanes,
                "sp_bytes": config.sp_bytes,
                "acc_bytes": config.acc_bytes,
                "onchip_bytes": config.onchip_bytes,
                "axi_data_width": config.axi_data_width,
                "config": config.to_dict(),
            }
            for name, config in PRESETS.items()
        ],
        json_path=json_path,
    )
