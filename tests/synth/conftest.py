"""Machines synthesised once, whichever tests and workers ask for them."""

import functools

import pytest

from tilewright.hw.config import preset_config
from tilewright.sw.cache import build_once
from tilewright.synth import yosys
from tilewright.synth.targets import target

YOSYS_TIMEOUT = 3000.0


@pytest.fixture(scope="session")
def synthesized(tmp_path_factory):
    """Synthesise a preset for a target; workers share the units."""
    folder = tmp_path_factory.getbasetemp()
    shared = (folder.parent if folder.name.startswith("popen-") else folder) / "synthesised"

    @functools.cache
    def run(preset, name):
        return yosys.synthesize(
            preset_config(preset),
            target(name),
            tmp_path_factory.mktemp(f"{preset}-{name}"),
            keep=lambda key, build: build_once(shared / key, build),
            timeout=YOSYS_TIMEOUT,
        )

    return run
