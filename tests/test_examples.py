"""Every example runs, checks itself, and says what it should."""

import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"
SAYS = {
    "matmul": "equal to the golden function: every element",
    "attention_head": "equal to the golden functions",
    "layer": "equal to the integer reference: every element",
    "sentences": "every element of every hidden state",
    "custom_config": "product equal to golden",
}


def run(name: str, backend: str) -> str:
    done = subprocess.run(
        [sys.executable, EXAMPLES / f"{name}.py", "--backend", backend],
        cwd=EXAMPLES.parent,
        capture_output=True,
        text=True,
        timeout=1800,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_example_is_known() -> None:
    assert {path.stem for path in EXAMPLES.glob("*.py")} == set(SAYS)
    listed = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    assert all(f"{name}.py" in listed for name in SAYS)


@pytest.mark.parametrize("name", SAYS)
def test_on_the_simulator(name: str) -> None:
    assert SAYS[name] in run(name, "iss")


@pytest.mark.slow
@pytest.mark.parametrize("name", SAYS)
def test_in_rtl(name: str) -> None:
    assert SAYS[name] in run(name, "verilator")
