"""Sweeps that run: resumed, over a cluster, in RTL, and what ends them."""

import contextlib
import gc
import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.sw.small_bert import CONFIG, JSON, tensors, write
from tests.sw.small_tokenizer import VOCABULARY, write_tokenizer
from tilewright.hw.config import Config
from tilewright.hw.manifest import manifest_hash
from tilewright.sw.cache import cache_dir
from tilewright.sw.cli import call
from tilewright.sw.cli.sweep import _synthesize
from tilewright.sw.errors import UserError
from tilewright.sw.models.text import sentences
from tilewright.sw.models.tokenize import Tokenizer
from tilewright.sw.quantize.evaluation import evaluate, evaluation_ids
from tilewright.sw.sweep import measure
from tilewright.sw.sweep.executors import executor
from tilewright.sw.sweep.point import COLUMNS, Measurement, Point
from tilewright.sw.sweep.run import sweep
from tilewright.sw.sweep.space import Space
from tilewright.sw.sweep.store import NAME, Store, from_csv
from tilewright.synth.nextpnr import DeviceTooSmallError
from tilewright.synth.targets import Resources
from tilewright.synth.tools import SynthesisError

ROOT = Path(__file__).parents[2]
POSITIONS = 128  # of the evaluation texts
AXES: dict[str, list[Any]] = {
    "array": [4, 8],
    "lanes": [1, "C/2", "C"],
    "precision": ["w8a8", "w8a16"],
}
SPACE = Space({**AXES, "sp_depth": [1024, 2048], "sequence": [5, 16]})
LIST = [f"--{key}={','.join(map(str, values))}" for key, values in AXES.items()]
LIST += ["--set=sp_depth=1024,2048", "--seq=5,16"]


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    """A cache of its own, in which only the texts are there already."""
    sentences()
    folder = tmp_path_factory.mktemp("cache")
    (folder / "models").symlink_to(cache_dir() / "models")
    before = os.environ.get("TILEWRIGHT_CACHE")
    os.environ["TILEWRIGHT_CACHE"] = str(folder)
    yield folder
    if before is None:
        del os.environ["TILEWRIGHT_CACHE"]
    else:
        os.environ["TILEWRIGHT_CACHE"] = before


def small(folder, positions=POSITIONS, seed=31):
    """A model of the small vocabulary."""
    weights = tensors(seed, replace(CONFIG, positions=positions))
    name = "embeddings.word_embeddings.weight"
    weights[name] = weights[name][: len(VOCABULARY)]
    sizes = {"vocab_size": len(VOCABULARY), "max_position_embeddings": positions}
    return str(write_tokenizer(write(folder, weights, {**JSON, **sizes})))


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return small(tmp_path_factory.mktemp("models") / "small")


def run(model, folder, space=SPACE, **options):
    return sweep(space, model, folder=folder, **{"texts": 2, "effort": 1, "jobs": 2, **options})


@pytest.fixture(scope="module")
def table(model, tmp_path_factory):
    """The sweep that the others are compared with."""
    return run(model, tmp_path_factory.mktemp("sweep"))


def figures(rows):
    """Rows without what may differ from one run to the next."""
    return [{k: v for k, v in row.items() if k not in ("seconds", "command")} for row in rows]


def test_every_point_is_measured(table, model):
    assert len(table) == 48
    assert all(tuple(row) == tuple(COLUMNS) for row in table)
    assert {row["status"] for row in table} == {"done"}
    for row in table:
        assert row["cycles"] > 0
        assert 0 < row["utilization"] <= 1
        assert row["dram_bytes"] > 0
        assert row["seconds"] > 0
    # A precision has one accuracy, and no other precision the same.
    worth = {(row["precision"], row["accuracy_mean"], row["accuracy_worst"]) for row in table}
    assert len(worth) == len({mean for _, mean, _ in worth}) == 2
    row = table[0]
    config = Point.of({key: row[key] for key in ("rows", "columns", "lanes", "sp_depth")}).config
    assert row["manifest_hash"] == f"{manifest_hash(config):016x}"


def test_a_finished_sweep_measures_nothing(model, table, tmp_path):
    assert figures(run(model, tmp_path)) == figures(table)
    told = []
    again = run(model, tmp_path, tell=lambda *what: told.append(what))
    assert not told
    assert figures(again) == figures(table)
    assert from_csv((tmp_path / "points.csv").read_bytes()) == again


def test_another_memory_needs_no_other_program(model, cache, tmp_path):
    before = len(list((cache / "programs").iterdir()))
    space = Space({"array": [8], "lanes": [4], "sequence": [16], "mem_bandwidth": [0.25, 1]})
    slow, quick = run(model, tmp_path, space)
    assert slow["cycles"] > quick["cycles"]
    assert slow["dram_bytes"] == quick["dram_bytes"]
    assert len(list((cache / "programs").iterdir())) == before


def test_another_model_in_the_same_folder_is_measured(cache, tmp_path):
    where = small(tmp_path / "model")
    space = Space({"array": [4], "lanes": [2], "sequence": [5]})
    (row,) = run(where, tmp_path / "out", space)
    small(tmp_path / "model", seed=32)
    (other,) = run(where, tmp_path / "out", space)
    assert other["point"] == row["point"]
    assert other["accuracy_mean"] != row["accuracy_mean"]
    small(tmp_path / "again", seed=32)
    assert other["versions"] == measure.versions(str(tmp_path / "again"))


def test_versions_are_of_all_sources():
    """Of all that is imported where figures are made, but what only stores or tells."""
    program = """
import sys
import tilewright.synth.nextpnr, tilewright.synth.yosys
import tilewright.sw.sweep.measure
from tilewright.sw.driver.device import Device
import tilewright.sw.driver.simulators
print(*(module.__file__ for name, module in sorted(sys.modules.items())
        if name.startswith("tilewright.") and module.__file__))
"""
    found = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    tools = (f"sw/{name}.py" for name in ("cache", "errors", "files", "sources"))
    others = (
        "sim/toolchain/",
        "sim/trace.py",
        "sim/errors.py",
        "sw/arguments.py",
        "sw/sweep/point.py",
        "src/tilewright/_extras.py",
        *tools,
    )
    for file in found.stdout.split():
        name = Path(file).resolve().relative_to(ROOT).as_posix()
        hashed = any(name == of or name.startswith(f"{of}/") for of in measure._ALL)
        assert hashed or name.startswith(others) or name.endswith("__init__.py"), name


def command(model, folder, *more):
    words = ["sweep", model, *LIST, "--texts", "2", "--effort", "1", "--jobs", "2"]
    return [sys.executable, "-m", "tilewright", *words, "-o", str(folder), *more]


def stored(folder):
    """Rows by point, of a store that another process may be writing."""
    path = folder / NAME
    if not path.is_file():
        return {}
    base = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    try:
        found = base.execute(f"SELECT {', '.join(COLUMNS)} FROM points").fetchall()
    except sqlite3.OperationalError:
        return {}
    finally:
        base.close()
    return {row[0]: dict(zip(COLUMNS, row, strict=True)) for row in found}


def below(session):
    """Processes of a session that are alive."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it has just ended
            # The name, in parentheses, may hold blanks and parentheses.
            state, _, _, of = stat.read_text(errors="replace").rpartition(")")[2].split()[:4]
            if int(of) == session and state != "Z":
                found.append(stat.parent.name)
    return found


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_sweep_that_was_broken_off_goes_on(number, model, table, cache, tmp_path):
    break_off(number, model, table, cache, tmp_path)


@pytest.mark.slow
def test_a_sweep_of_minilm_that_was_broken_off_goes_on(cache, tmp_path):
    table = run("minilm", tmp_path / "whole")
    assert len(table) == 48
    assert {row["status"] for row in table} == {"done"}
    break_off(signal.SIGINT, "minilm", table, cache, tmp_path)


def break_off(number, model, table, cache, tmp_path):
    """End a sweep by a signal when it has some points; the next one adds the rest of the table."""
    # Nothing compiled yet, so that it takes its time.
    own = tmp_path / "cache"
    own.mkdir()
    (own / "models").symlink_to(cache / "models")
    (own / "quantized").symlink_to(cache / "quantized")
    folder = tmp_path / "out"
    process = subprocess.Popen(
        command(model, folder),
        env={**os.environ, "TILEWRIGHT_CACHE": str(own)},
        cwd=ROOT,
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 600
    while len(stored(folder)) < 3 and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(number)
    _, said = process.communicate(timeout=60)
    kept = stored(folder)
    assert 3 <= len(kept) < len(table)
    if number == signal.SIGINT:
        assert process.returncode == 130
        assert "interrupted" in said
        assert "Traceback" not in said
        assert len(from_csv((folder / "points.csv").read_bytes())) == len(kept)
    deadline = time.monotonic() + 20
    while below(process.pid) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not below(process.pid)

    rows = run(model, folder)
    assert figures(rows) == figures(table)
    assert {point: row for point, row in stored(folder).items() if point in kept} == kept
    assert len(stored(folder)) == len(table)


def test_tables_have_what_the_store_has(model, tmp_path, monkeypatch):
    space = Space({"array": [4, 8], "lanes": ["C/4", "C/2"], "sequence": [16]})
    put = Store.put

    def interrupted(store, row, spec):
        put(store, row, spec)
        if len(store.rows()) == 3:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Store, "put", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run(model, tmp_path, space)
    tables = (tmp_path / "points.csv").read_bytes()
    kept = {row["point"]: row for row in from_csv(tables)}
    assert kept == stored(tmp_path)
    assert len(kept) == 3
    # One point measured again is in the store, and leaves the tables alone.
    (again,) = run(model, tmp_path, space, only=list(kept)[1])
    assert figures([again]) == figures([kept[again["point"]]])
    assert (tmp_path / "points.csv").read_bytes() == tables
    rows = run(model, tmp_path, space)
    assert from_csv((tmp_path / "points.csv").read_bytes()) == rows


def test_the_same_over_a_cluster(model, table, tmp_path):
    from distributed import LocalCluster

    with LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None
    ) as cluster:
        rows = run(model, tmp_path, scheduler=cluster.scheduler_address)
    assert figures(rows) == figures(table)


def start(*words, **more):
    return subprocess.Popen([sys.executable, "-m", *words], cwd=ROOT, text=True, **more)


@contextlib.contextmanager
def scheduler(folder, **more):
    """A scheduler with workers, in processes of their own, and its address."""
    file = folder / "scheduler.json"
    more = {"stderr": subprocess.DEVNULL, **more}
    words = ["--no-dashboard", "--scheduler-file", str(file)]
    process = start("dask", "scheduler", "--port", "0", *words, **more)
    worker = start("dask", "worker", "--nworkers", "2", "--nthreads", "1", *words, **more)
    try:
        deadline = time.monotonic() + 60
        address = None
        while address is None and time.monotonic() < deadline:
            # Dask writes it in place: it may be there in part.
            with contextlib.suppress(OSError, ValueError):
                address = json.loads(file.read_text())["address"]
            time.sleep(0.1)
        yield process, address
    finally:
        worker.terminate()
        process.kill()
        worker.wait(30)
        process.wait(30)


def test_a_scheduler_that_dies_is_one_line(model, cache, tmp_path):
    own = tmp_path / "cache"
    own.mkdir()
    (own / "models").symlink_to(cache / "models")
    environment = {**os.environ, "TILEWRIGHT_CACHE": str(own)}
    folder = tmp_path / "out"
    with scheduler(tmp_path, env=environment) as (known, address):
        words = [*command(model, folder)[2:], "--scheduler", address]
        process = start(*words, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        deadline = time.monotonic() + 60
        while not stored(folder) and time.monotonic() < deadline:
            time.sleep(0.02)
        known.kill()
        _, said = process.communicate(timeout=60)
    assert process.returncode == 2
    (line,) = said.strip().splitlines()
    assert "finished points" in line
    assert stored(folder)


def test_points_that_cannot_be_are_rows(model, table, tmp_path):
    # Groups of 4-bit weights are 32 long, and the model's hidden size is 48.
    space = Space({"array": [8], "lanes": [4, 16], "precision": ["w8a8", "w4a8"], "sequence": [16]})
    rows = run(model, tmp_path, space, texts=2)
    wide = [row for row in rows if row["lanes"] == 16]
    assert {row["status"] for row in wide} == {"infeasible"}
    assert {row["reason"] for row in wide} == {"lanes = 16: must be a power of two from 1 to 8"}
    good, narrow = [row for row in rows if row["lanes"] == 4]
    assert good["status"] == "done"
    assert good["point"] in {row["point"] for row in table}
    assert narrow["status"] == "infeasible"
    assert "4-bit weights" in narrow["reason"]
    assert narrow["cycles"] is None
    # Both are known now.
    told = []
    run(model, tmp_path, space, texts=2, tell=lambda *what: told.append(what))
    assert not told


def test_work_that_fits_nowhere(model, tmp_path):
    space = Space({"array": [8], "precision": ["w4a8"]})
    with pytest.raises(UserError, match="no point of the space is feasible"):
        run(model, tmp_path, space, texts=0)
    assert [row["status"] for row in stored(tmp_path).values()] == ["infeasible"]


def test_sequences_that_the_model_has_not(model, tmp_path):
    space = Space({"array": [4], "sequence": [5, POSITIONS + 1]})
    short, long = run(model, tmp_path, space, texts=0)
    assert short["status"] == "done"
    assert long["status"] == "infeasible"
    assert long["reason"] == f"sequence = 129: must be 1 to {POSITIONS}, the model's positions"


def test_what_is_not_simulated_is_said(model, tmp_path, capsys):
    words = ["--array=4", "--seq=5", "--bandwidth=0.5", "--rtl=1", "--texts=0", "--jobs=1"]
    assert call(["sweep", model, *words, "-o", str(tmp_path)]) == 0
    assert "0 of 1 point in RTL" in capsys.readouterr().out


def test_a_large_space_is_not_walked_through(model, tmp_path):
    many = range(1, 1025)
    space = Space({"lanes": [3], "sp_depth": many, "sequence": many, "mem_latency": many})
    with pytest.raises(UserError, match="no point of the space is feasible; the first one: lanes"):
        run(model, tmp_path, space, search="random", count=3)
    assert len(stored(tmp_path)) == 3


def broken(config, folder):
    if config.lanes == 1:
        raise RuntimeError("no luck")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "calls").open("a").write("x")
    return {"lut": 10 * config.rows, "units": "{}", "fmax_mhz": 50.0}


def broken_synthesis(target, pnr):
    return broken


def test_synthesis_is_done_once_a_machine(model, tmp_path):
    rows = run(model, tmp_path, synth="ecp5", synthesis=broken_synthesis)
    for row in rows:
        if row["lanes"] == 1:
            assert row["status"] == "failed"
            assert row["reason"] == "RuntimeError: no luck"
            assert row["cycles"] > 0
        else:
            assert row["lut"] == 10 * row["rows"]
            assert row["latency_ms"] == pytest.approx(row["cycles"] / 50e3)
    # One file a machine, with one call in it, although each has several points.
    calls = [path.read_text() for path in tmp_path.rglob("calls")]
    assert calls == ["x"] * len({row["name"] for row in rows if row["lanes"] > 1})
    # What failed is tried again, the rest is not.
    told = []
    options = {"synth": "ecp5", "synthesis": broken_synthesis}
    run(model, tmp_path, **options, tell=lambda *what: told.append(what[2]))
    assert sum(text.endswith("failed") for text in told) == sum(r["lanes"] == 1 for r in rows)
    assert not any(text.endswith("done") for text in told)


def cells_without_fmax(config, folder):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "calls").open("a").write("x")
    large = config.rows == 8
    status, reason = ("infeasible", "too large") if large else ("failed", "no luck")
    return {"lut": config.rows, "units": "{}", "status": status, "reason": reason}


def without_fmax(target, pnr):
    return cells_without_fmax


def test_cells_are_kept_without_fmax(model, tmp_path):
    space = Space({"array": [4, 8], "lanes": [2], "sequence": [5]})
    options = {"synth": "ecp5", "pnr": True, "synthesis": without_fmax}
    for calls in (1, 2):
        failed, large = run(model, tmp_path, space, **options)
        assert (failed["status"], failed["reason"]) == ("failed", "no luck")
        assert (large["status"], large["reason"]) == ("infeasible", "too large")
        for row in (failed, large):
            assert row["lut"] == row["rows"]
            assert row["cycles"] > 0
        # Only what failed is tried again.
        made = {path.parent.name: path.read_text() for path in tmp_path.rglob("calls")}
        assert made == {failed["name"]: calls * "x", large["name"]: "x"}


@pytest.mark.parametrize(
    ("error", "status"), [(DeviceTooSmallError, "infeasible"), (SynthesisError, "failed")]
)
def test_what_cannot_be_placed(error, status, tmp_path, monkeypatch):
    def given(config, target, folder, **options):
        netlist = folder / "netlist.json"
        netlist.touch()
        assert options["timeout"] == 60
        return SimpleNamespace(netlist=netlist, units=[], resources=Resources(lut=7))

    def placed(made, *, timeout):
        assert timeout == 60
        raise error("why")

    monkeypatch.setattr("tilewright.synth.yosys.synthesize", given)
    monkeypatch.setattr("tilewright.synth.nextpnr.place_and_route", placed)
    found = _synthesize("ecp5", True, 60, Config(), tmp_path)
    assert (found["lut"], found["status"], found["reason"]) == (7, status, "why")
    assert not (tmp_path / "netlist.json").exists()


def synthesized(config, folder):
    folder.mkdir(parents=True, exist_ok=True)
    return {"lut": config.rows, "units": "{}"}


def simulated(point, work):
    return {"rtl_cycles": 1000}


def test_all_of_a_row_is_measured_again(model, tmp_path, monkeypatch):
    monkeypatch.setattr(measure, "rtl", simulated)
    asked = []

    def synthesis(target, pnr):
        asked.append((target, pnr))
        return synthesized

    options = {"texts": 0, "synth": "ecp5", "pnr": True, "clock": 60.0, "rtl": 1, "seed": 3}
    space = Space({"array": [4], "lanes": [2], "sequence": [5]})
    (row,) = run(model, tmp_path, space, synthesis=synthesis, **options)
    assert (row["lut"], row["rtl_cycles"]) == (4, 1000)
    # By its name alone: the store knows the rest.
    name = {"folder": tmp_path, "only": row["point"], "jobs": 1}
    (again,) = sweep(Space({}), model, synthesis=synthesis, **name)
    assert figures([again]) == figures([row]) == figures(stored(tmp_path).values())
    assert asked == [("ecp5", True)] * 2
    with pytest.raises(UserError, match="nothing was given that synthesizes"):
        sweep(Space({}), model, **name)
    assert figures(stored(tmp_path).values()) == figures([row])


def test_accuracy_is_that_of_compare(cache, tmp_path):
    """Texts are cut by the tokenizer, which keeps the token that ends them."""
    where = small(tmp_path / "short", positions=8)
    found = measure.accuracy(Measurement(model=where, texts=2), "w8a8")
    loaded, quantized = measure.model_of(where), measure.quantized_of(where, "w8a8")
    ids = evaluation_ids(Tokenizer(loaded.folder), 2, 8)
    want = evaluate(loaded.bert, quantized, ids).summary
    assert found == {"accuracy_mean": want.mean, "accuracy_worst": want.worst}


def test_accuracy_is_known_by_all_that_gives_it(model, cache, monkeypatch):
    loaded, quantized = measure.model_of(model), measure.quantized_of(model, "w8a8")
    monkeypatch.setattr(measure, "quantized_of", lambda where, precision: quantized)
    before = set((cache / measure.ACCURACY).glob("*.jsonl"))

    def added():
        measure.accuracy(Measurement(model=model, texts=1), "w8a8")
        return len(set((cache / measure.ACCURACY).glob("*.jsonl")) - before)

    once = added()
    assert added() == once
    # Another fp32 model that has the same integers.
    table = loaded.bert.embedding.word
    other = replace(loaded.bert, embedding=replace(loaded.bert.embedding, word=table * 1.0001))
    with monkeypatch.context() as patched:
        patched.setattr(measure, "model_of", lambda where: replace(loaded, bert=other))
        assert added() == once + 1
    # Other sources of what computes the model in fp32.
    hashed = measure.source_hash
    monkeypatch.setattr(measure, "source_hash", lambda of: hashed(of) + str("sw/models" in of))
    assert added() == once + 2


@pytest.mark.slow
def test_some_points_in_rtl(model, tmp_path):
    space = Space({"array": [4], "lanes": [2], "sequence": [5, 16]})
    rows = run(model, tmp_path, space, rtl=1, texts=0)
    (row,) = [row for row in rows if row["rtl_cycles"] is not None]
    assert row["rtl_error"] == pytest.approx(row["cycles"] / row["rtl_cycles"] - 1)
    assert abs(row["rtl_error"]) < 0.05
    assert figures(run(model, tmp_path, space, rtl=1, texts=0)) == figures(rows)


def test_a_guided_search(model, tmp_path):
    options = {"search": "optuna", "count": 6, "seed": 2}
    rows = run(model, tmp_path, **options)
    assert len(rows) == 6
    assert figures(run(model, tmp_path, **options)) == figures(rows)


def test_one_point_again_needs_no_other_model(model, tmp_path, monkeypatch):
    (row,) = run(model, tmp_path, Space({"array": [4], "lanes": [2], "sequence": [5]}))

    def load(where):
        assert where == model
        return loaded(where)

    loaded = measure.model_of
    monkeypatch.setattr(measure, "model_of", load)
    # A precision of another model, too, which has more layers.
    space = Space({"precision": ["w8a8,9.qkv=w8a16"]})
    (again,) = sweep(space, "no-such-model", folder=tmp_path, only=row["point"], jobs=1)
    assert figures([again]) == figures([row])


def test_one_point_again(model, table, tmp_path, capsys):
    row = table[3]
    words = row["command"].split()[1:]
    assert call([*words[:-1], str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    assert f"point {row['point']}" in shown
    assert f"{row['cycles']:,}" in shown
    assert figures(stored(tmp_path).values()) == figures([row])
    # From the store alone, too.
    assert call(["sweep", "--point", row["point"], "-o", str(tmp_path)]) == 0
    assert call(["sweep", model, "--point", "no", "-o", str(tmp_path)]) == 2
    assert "point 'no'" in capsys.readouterr().err


def test_the_command(model, table, tmp_path, capsys):
    assert call([*command(model, tmp_path)[3:], "--json", str(tmp_path / "rows.json")]) == 0
    out, err = capsys.readouterr()
    assert "48 points" in out
    assert "48 done" in out
    assert "Traceback" not in err
    assert (tmp_path / "rows.json").is_file()


def test_the_command_without_matplotlib(model, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    words = ["--array=8", "--lanes=4", "--seq=16", "--texts=0", "--effort=1", "--jobs=1"]
    file = tmp_path / "rows.json"
    assert call(["sweep", model, *words, "-o", str(tmp_path), "--json", str(file)]) == 0
    out = capsys.readouterr().out
    assert "1 point" in out
    assert "a report needs matplotlib" in out
    assert len(json.loads(file.read_text())["rows"]) == 1
    assert not (tmp_path / "report.html").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--array", "8", "--lanes", "16,32"], "no point of the space is legal"),
        (["--set", "sp_depth=1024,99999999999999999999"], "at most 32 bits"),
        (["--clock", "inf"], "clock = inf"),
        (["--clock", "nan"], "clock = nan"),
        (["--seed", "-1", "--search", "random"], "seed = -1"),
        (["--set", "lane=4"], "no 'lane'"),
        (["--set", "lanes"], "KEY=LIST"),
        (["--lanes", "2", "--set", "lanes=4"], "lanes is given twice"),
        (["--set", "sp_depth=64", "--set", "sp_depth=128"], "sp_depth is given twice"),
        (["--objective", "nope"], "objective nope"),
        (["--array", ","], "empty list"),
        (["--precision", "w7a7"], "w7a7"),
        (["--layer", "9"], "layer 9"),
        (["--texts", "-1"], "0 or more"),
        (["--texts", "100000"], "texts = 100000"),
        (["--space", "/no/such.toml"], "/no/such.toml"),
        (["--synth", "asic"], "--synth"),
        (["--pnr"], "--pnr"),
        (["--search", "luck"], "luck"),
        (["--scheduler", "tcp://127.0.0.1:9"], "no answer"),
        (["--scheduler", "nonsense://x"], "nonsense"),
        (["--scheduler", "xyz"], "missing port"),
        (["--scheduler", "tls://127.0.0.1:9"], "TLS"),
        (["-o", "/proc/no"], "/proc/no"),
    ],
)
def test_bad_input_is_one_line(arguments, said, model, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("tilewright.sw.sweep.executors.ANSWER", 1)
    assert call(["sweep", model, "-o", str(tmp_path), *arguments]) == 2
    err = capsys.readouterr().err.strip()
    assert said in err.splitlines()[-1]
    assert "Traceback" not in err


def test_no_scheduler_leaves_nothing_behind(monkeypatch):
    monkeypatch.setattr("tilewright.sw.sweep.executors.ANSWER", 1)
    with pytest.raises(UserError, match="missing port"), executor(None, "xyz"):
        pass
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"tcp://127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(UserError, match="no answer in 1 s"), executor(None, address):
            pass
    # A client that is closed when it is deleted would wait, and complain.
    gc.collect()


def test_a_scheduler_that_falls_silent(tmp_path, monkeypatch):
    with (
        scheduler(tmp_path) as (process, address),
        executor(None, address) as (pool, alive),
    ):
        assert pool.submit(int, "7").result(30) == 7
        alive()
        monkeypatch.setattr("tilewright.sw.sweep.executors.ANSWER", 1)
        process.send_signal(signal.SIGSTOP)
        time.sleep(1.1)
        with pytest.raises(UserError, match="no answer in 1 s; finished points stay"):
            alive()
        # Or a client that is deleted waits.
        process.send_signal(signal.SIGCONT)


def test_what_is_no_scheduler():
    answer = b"HTTP/1.1 400 Bad Request\r\n\r\n"
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve():
            with server.accept()[0] as connection:
                connection.sendall(answer)

        threading.Thread(target=serve, daemon=True).start()
        address = f"tcp://127.0.0.1:{server.getsockname()[1]}"
        with pytest.raises(UserError, match="something else is there"), executor(None, address):
            pass


def test_a_corrupt_store_is_one_line(model, tmp_path, capsys):
    (tmp_path / NAME).write_bytes(b"nonsense" * 999)
    assert call(command(model, tmp_path)[3:]) == 2
    assert "no store of a sweep" in capsys.readouterr().err
    assert (tmp_path / NAME).read_bytes() == b"nonsense" * 999
