"""The code of docs/driver.md runs as it stands, and does what the page says."""

import re
from pathlib import Path

import numpy as np

from tilewright.sim.iss_transport import IssTransport
from tilewright.sw.driver.backends import BACKENDS
from tilewright.sw.driver.transport import Transport

PAGE = Path(__file__).parents[2] / "docs" / "driver.md"


def test_every_backend_is_told_of():
    (_, table) = PAGE.read_text(encoding="utf-8").split("| backend | options |\n")
    told = re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)
    assert told == list(BACKENDS)


def test_the_session(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    session: dict = {}
    for block in re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL):
        exec(compile(block, str(PAGE), "exec"), session)
    np.testing.assert_array_equal(session["c"], np.full((3, 4), 30))
    assert session["p"].dtype == np.uint16
    x = session["x"].astype(np.int64)
    np.testing.assert_array_equal(session["s"], x @ x.swapaxes(-1, -2))
    assert [int(result[0, 0]) for result in session["results"]] == [0, 5, 10, 15, 20]
    assert (tmp_path / "product.tilewright").is_file()
    members = {name for name in vars(Transport) if not name.startswith("_")}
    members |= set(Transport.__annotations__)
    for name in members:
        assert hasattr(session["Board"], name), name
        assert name in ("name", "memory_range") or hasattr(IssTransport, name)
    session["device"].close()
