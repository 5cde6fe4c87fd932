"""Sweeps: spaces, points, the store, searches, and what is said of bad input."""

import datetime
import sqlite3

import numpy as np
import pytest

from tilewright.hw.config import Config, preset_config
from tilewright.sw.errors import UserError
from tilewright.sw.sweep.point import (
    COLUMNS,
    INFEASIBLE,
    Measurement,
    Point,
    from_spec,
    resolve_lanes,
    time_of,
)
from tilewright.sw.sweep.search import batches
from tilewright.sw.sweep.space import KEYS, Space, distinct, split_precisions
from tilewright.sw.sweep.store import NAME, Store, export, from_csv

# ---- spaces ----


def points(space):
    return distinct(space.point(choice) for choice in space.grid())


def test_a_grid():
    space = Space({"array": [8, 16], "lanes": ["C/4", "C/2", 4], "precision": ["w8a8", "w4a8"]})
    assert len(space) == 12
    found = points(space)
    # C/2 of 8 and C/4 of 16 are 4 lanes.
    assert len(found) == 8
    assert {(p.values["rows"], p.values["columns"]) for p in found} == {(8, 8), (16, 16)}
    assert {p.values["lanes"] for p in found if p.values["rows"] == 16} == {4, 8}


def test_the_memory_varies_slowest():
    space = Space({"array": [4, 8], "mem_bandwidth": [0.5, 1]})
    assert [p.mem_bandwidth for p in points(space)] == [0.5, 0.5, 1, 1]


def test_rows_and_columns_apart():
    (point,) = points(Space({"rows": "8", "columns": 16, "lanes": "C", "sp_depth": "0x400"}))
    assert point.config.rows == 8
    assert point.config.lanes == point.config.columns == 16
    assert point.config.sp_depth == 1024


def test_the_base_holds_where_nothing_is_said():
    (point,) = points(Space({"row_engines": 2}, preset_config("tiny")))
    tiny = preset_config("tiny").to_dict()
    assert point.config.to_dict() == {**tiny, "row_engines": 2, "name": point.name}


def test_lanes_follow_the_columns():
    for key in ("array", "columns"):
        found = points(Space({key: [4, 8, 32]}))
        assert [p.config.lanes for p in found] == [2, 4, 16]
    tiny = preset_config("tiny")
    (point,) = points(Space({"sp_depth": [64]}, tiny))
    assert point.values["lanes"] == tiny.lanes
    assert [p.values["lanes"] for p in points(Space({"array": [16], "lanes": [4]}))] == [4]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("w8a8,w8a16, w4a8", ["w8a8", "w8a16", "w4a8"]),
        ("w8a8,attention=16,w4a8", ["w8a8,attention=16", "w4a8"]),
        ("w8a8,2.qkv=w8a16,ffn2=w8a16", ["w8a8,2.qkv=w8a16,ffn2=w8a16"]),
        ("", []),
    ],
)
def test_lists_of_precisions(text, found):
    assert split_precisions(text) == found


def test_a_file(tmp_path):
    path = tmp_path / "space.toml"
    path.write_text(
        'preset = "small"\narray = [4, 8]\nlanes = "C/2"\n'
        'precision = ["w8a8", "w8a8,attention=16"]\nfunctions = [["gelu", "tanh"]]\n'
    )
    space = Space.from_toml(path)
    assert len(space) == 4
    found = points(space)
    assert {p.values["lanes"] for p in found} == {2, 4}
    assert {p.values["axi_data_width"] for p in found} == {64}
    assert {p.values["functions"] for p in found} == {("gelu", "tanh")}
    tiny = preset_config("tiny")
    other = Space.from_toml(path, tiny)
    assert {p.values["axi_data_width"] for p in points(other)} == {tiny.axi_data_width}
    wide = space.with_axes({"rows": [8], "columns": [16]})
    assert {p.values["columns"] for p in points(wide)} == {16}


@pytest.mark.parametrize(
    ("axes", "said"),
    [
        ({"arrays": [8]}, "no 'arrays'"),
        ({"name": ["a"]}, "no 'name'"),
        ({"array": []}, "array: must not be an empty list"),
        ({"array": ["x"]}, "array = 'x'"),
        ({"array": [1.5]}, "array = 1.5"),
        ({"array": [8], "rows": [8]}, "give one or the other"),
        ({"lanes": ["D/2"]}, "lanes 'D/2'"),
        ({"lanes": ["C/0"]}, "lanes 'C/0'"),
        ({"mem_bandwidth": ["2"]}, "must be 1e-06 to 1"),
        ({"mem_bandwidth": [1e-300]}, "must be 1e-06 to 1"),
        ({"sp_depth": ["1024", "9" * 20]}, "at most 32 bits"),
        ({"lanes": [10**20]}, "at most 32 bits"),
        ({"rows": datetime.date(1979, 5, 27)}, "must be an integer"),
        ({"rows": {"8": 1}}, "must be an integer"),
        ({"functions": [[1]]}, "a list of names"),
        ({"functions": [1]}, "a list of names"),
        ({"mem_latency": [0]}, "1 or more"),
        ({"sequence": [True]}, "must be an integer"),
        ({key: range(1, 2**11) for key in KEYS[-6:]}, "fewer than 2\\^63"),
    ],
)
def test_what_is_no_space(axes, said):
    with pytest.raises(UserError, match=said):
        Space(axes)


@pytest.mark.parametrize(
    "text",
    [
        "array = [",
        "arrays = [8]",
        'preset = "no"\narray = 8',
        "preset = [1]\narray = 8",
        "rows = 1979-05-27",
        "functions = [[1]]",
    ],
)
def test_what_is_no_file(text, tmp_path):
    path = tmp_path / "space.toml"
    path.write_text(text)
    with pytest.raises(UserError, match=r"space\.toml: "):
        Space.from_toml(path)


def test_a_sample():
    space = Space({"array": [4, 8, 16], "sequence": range(1, 11)})
    drawn = list(space.sample(12, 3))
    assert drawn == list(space.sample(12, 3)) != list(space.sample(12, 4))
    assert len({tuple(one.items()) for one in drawn}) == 12
    assert len(list(space.sample(99, 3))) == 30


# ---- points ----


def test_ids_are_stable():
    """Stores know points by them, so that they may not change from one version to the next."""
    point = Point.of({"rows": 8, "columns": 8, "lanes": 4}, precision="w8a16")
    assert point.id(Measurement()) == "f4054e9279b6"
    ids = {
        point.id(Measurement(texts=41)),
        Point.of(Config(name="other", rows=8, columns=8, lanes=4).to_dict()).id(Measurement()),
        Point.of({"rows": 8, "columns": 8}).id(Measurement()),
        Point.of({"rows": 8, "columns": 8, "register_errors": 1}).id(Measurement()),
        point.id(Measurement()),
    }
    assert len(ids) == 5


def test_a_point_comes_back_from_its_spec():
    machine = {"rows": 8, "columns": 4, "lanes": 2, "functions": ["gelu", "tanh"], "sp_depth": 64}
    point, work = (
        Point.of(machine, mem_bandwidth=0.5, sequence=7),
        Measurement(synth="ecp5", clock=60.0),
    )
    assert from_spec(point.spec(work)) == (point, work)
    for option in ("--bandwidth 0.5", "functions=gelu+tanh", "--clock 60", "--seq 7", "--synth"):
        assert option in point.command(work, "here")


@pytest.mark.parametrize("functions", [(), ("gelu",), ("gelu", "tanh")])
def test_a_point_comes_back_from_its_command(functions):
    """Exact to the last bit of its numbers."""
    machine = {"rows": 8, "columns": 4, "lanes": 2, "functions": functions, "sp_depth": 64}
    point = Point.of(machine, mem_bandwidth=1 / 3, sequence=7, precision="w8a8,attention=16")
    work = Measurement(clock=100 / 3)
    model, *words = point.command(work, "here").split()[2:]
    assert model == work.model
    options = dict(zip(words[::2], words[1::2], strict=True))
    assert float(options["--clock"]) == work.clock
    settings = (b.split("=") for a, b in zip(words[::2], words[1::2], strict=True) if a == "--set")
    axes = {key: [value] for key, value in settings}
    axes |= {key: [options[f"--{key}"]] for key in ("rows", "columns", "lanes", "precision")}
    axes |= {"sequence": [options["--seq"]], "mem_latency": [options["--latency"]]}
    assert points(Space({**axes, "mem_bandwidth": [options["--bandwidth"]]})) == [point]


def test_an_illegal_machine_is_a_point():
    point = Point.of({"rows": 8, "columns": 8, "lanes": 64})
    with pytest.raises(ValueError, match="lanes = 64"):
        _ = point.config
    assert "l64" in point.name


def test_lanes():
    assert [resolve_lanes(text, 16) for text in ("C", "c/4", "3", 8, "C/3")] == [16, 4, 3, 8, 5]


@pytest.mark.parametrize("clock", [0.0, -1.0, 1e-320, 1e308, float("inf"), float("nan")])
def test_what_is_no_clock(clock):
    with pytest.raises(UserError, match="1e-06 to 1e"):
        Measurement(clock=clock)


def test_times():
    row = Point.of({}).row(Measurement(), "here", cycles=60_000)
    assert time_of(row, Measurement()) == {}
    assert time_of(row, Measurement(clock=60.0)) == {"latency_ms": 1.0, "inferences_per_s": 1000.0}
    assert time_of({**row, "fmax_mhz": 30.0}, Measurement(clock=60.0))["latency_ms"] == 2


# ---- the store ----


def rows_of(count):
    rng = np.random.default_rng(1)
    for index in range(count):
        point = Point.of({"lanes": 2 ** (index % 4), "sp_depth": 64 << index // 4})
        figures = {"cycles": int(rng.integers(2**40)), "accuracy_mean": float(rng.random())}
        yield (
            point,
            point.row(
                Measurement(), "a, 'b'", status="done", seed=3, versions='{"a": "b,c"}', **figures
            ),
        )


def test_tables_come_back(tmp_path):
    import pyarrow.parquet

    rows = [row for _, row in rows_of(9)]
    csv, parquet = export(rows, tmp_path)
    assert from_csv(csv.read_bytes()) == rows
    assert pyarrow.parquet.read_table(parquet).to_pylist() == rows
    assert {path.name for path in tmp_path.iterdir()} == {"points.csv", "points.parquet"}


def test_rows_are_kept_and_replaced(tmp_path):
    made = list(rows_of(6))
    with Store(tmp_path) as store:
        for point, row in made:
            store.put(row, point.spec(Measurement()))
        point, row = made[2]
        store.put({**row, "cycles": 5}, point.spec(Measurement()))
    with Store(tmp_path) as store:
        found = store.rows()
        assert from_spec(store.spec(point.id(Measurement()))) == (point, Measurement())
        with pytest.raises(UserError, match="has none of this name"):
            store.spec("no")
    assert len(found) == 6
    assert found[row["point"]] == {**row, "cycles": 5}
    assert all(tuple(one) == tuple(COLUMNS) for one in found.values())


def test_the_largest_numbers_are_kept(tmp_path):
    (point,) = points(Space({"sp_depth": [2**32 - 1], "lanes": ["4294967295"]}))
    row = point.row(Measurement(), "here", status="infeasible", seed=2**32 - 1)
    with Store(tmp_path) as store:
        store.put(row, point.spec(Measurement()))
        assert list(store.rows().values()) == [row]


def test_one_sweep_a_folder(tmp_path):
    with Store(tmp_path), pytest.raises(UserError, match="another sweep is running"):
        Store(tmp_path)
    Store(tmp_path).close()


def test_what_is_no_store(tmp_path):
    path = tmp_path / NAME
    path.write_bytes(b"not a data base, " * 400)
    with pytest.raises(UserError, match="no store of a sweep"):
        Store(tmp_path)
    path.unlink()
    with sqlite3.connect(path) as base:
        base.execute("CREATE TABLE points (a, b)")
    base.close()
    with pytest.raises(UserError, match="its columns are others"):
        Store(tmp_path)


@pytest.mark.parametrize(
    "change", ["cycles = 'abc'", "cycles = 1.5", "accuracy_mean = x'00'", "status = x'00'"]
)
def test_a_cell_of_another_type_is_told(change, tmp_path):
    ((point, row),) = rows_of(1)
    with Store(tmp_path) as store:
        store.put(row, point.spec(Measurement()))
        store._base.execute(f"UPDATE points SET {change}")
        with pytest.raises(UserError, match=rf"no store of a sweep: {change.split()[0]} of"):
            store.rows()


def test_a_changed_point_is_told(tmp_path):
    ((point, row),) = rows_of(1)
    name = point.id(Measurement())
    with Store(tmp_path) as store:
        store.put(row, point.spec(Measurement()))
        (text,) = store._base.execute("SELECT spec FROM points").fetchone()
        rng = np.random.default_rng(5)
        for _ in range(50):
            at = int(rng.integers(len(text)))
            for other in (text[:at], text[:at] + "7" + text[at + 1 :], None, "", "[]", b"\0"):
                store._base.execute("UPDATE points SET spec = ?", [other])
                if other != text:
                    with pytest.raises(UserError, match=f"what {name} is was changed"):
                        store.spec(name)


def test_a_damaged_store_is_told_and_left_alone(tmp_path):
    with Store(tmp_path) as store:
        for point, row in rows_of(60):
            store.put(row, point.spec(Measurement()))
    path = tmp_path / NAME
    data = bytearray(path.read_bytes())
    data[5000:9000] = bytes(4000)
    path.write_bytes(data)
    with pytest.raises(UserError, match="no store of a sweep"):
        Store(tmp_path)
    assert path.read_bytes() == data


def test_a_full_disk_loses_nothing(tmp_path):
    made = list(rows_of(200))
    with Store(tmp_path) as store:
        store._base.execute("PRAGMA max_page_count = 12")
        kept = []

        def fill():
            for point, row in made:
                store.put(row, point.spec(Measurement()))
                kept.append(row)

        with pytest.raises(UserError, match="full"):
            fill()
    with Store(tmp_path) as store:
        assert list(store.rows().values()) == kept
    assert kept


def test_a_folder_that_cannot_be(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OSError):
        Store(tmp_path / "file" / "sweep")


# ---- searches ----


def played(space, **options):
    """Points a search asks for, told cycles and accuracy of a made-up machine."""
    source = batches(space, "optuna", objectives=["cycles", "accuracy_mean"], **options)
    found, rows = [], None
    try:
        choices = next(source)
        while True:
            rows = []
            for choice in choices:
                found.append(tuple(choice.items()))
                cycles = 1000 // choice["array"] * (2 if choice["precision"] == "w8a16" else 1)
                accuracy = 0.9998 if choice["precision"] == "w8a16" else 0.998
                legal = choice["lanes"] != "64" or choice["array"] >= 64
                status = "done" if legal else INFEASIBLE
                rows.append({"status": status, "cycles": cycles, "accuracy_mean": accuracy})
            choices = source.send(rows)
    except StopIteration:
        return found


SPACE = Space(
    {
        "array": [4, 8, 16, 32, 64, 128],
        "lanes": [1, 2, 4, 64],
        "precision": ["w8a8", "w8a16"],
        "sp_depth": [256, 512, 1024, 2048],
    }
)


LARGE = Space({"sp_depth": range(1, 1025), "sequence": range(1, 1025)})


def test_a_guided_search():
    found = played(SPACE, count=40, seed=1)
    assert len(found) == len(set(found)) == 40
    assert found == played(SPACE, count=40, seed=1)
    # It looks where the front is: the largest arrays more often than one time in six.
    assert sum(dict(one)["array"] == 128 for one in found) > 40 / 6


def test_a_guided_search_of_a_small_space_ends():
    small = Space({"array": [8, 16], "precision": ["w8a8", "w8a16"], "lanes": ["2"]})
    assert len(played(small, count=30, seed=1)) == 4


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"search": "bayes"}, "search 'bayes'"),
        ({"search": "random", "count": 0}, "points = 0"),
        ({"search": "grid", "count": 5}, "random and optuna"),
        (
            {"search": "grid", "space": LARGE},
            "1,048,576 combinations: a grid must have at most 1,000,000",
        ),
        ({"search": "grid", "objectives": ["cycles"]}, "search grid has none"),
        ({"search": "random", "objectives": ["cycles"]}, "search random has none"),
    ],
)
def test_what_is_no_search(options, said):
    with pytest.raises(UserError, match=said):
        batches(**{"space": SPACE, "count": None, "seed": 0, **options})


@pytest.mark.parametrize("objectives", [[], ["speed"]])
def test_what_is_no_objective(objectives):
    with pytest.raises(UserError, match="objective"):
        next(batches(SPACE, "optuna", 5, 0, objectives))
