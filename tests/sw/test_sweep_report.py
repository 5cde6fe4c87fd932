"""The report of a sweep: fronts, axes, files, and the page in a browser."""

import functools
import json
import re
import shutil
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest

from tests.sw.sweep_rows import sweep_rows
from tilewright.sw.errors import UserError
from tilewright.sw.sweep.report import write_report
from tilewright.sw.sweep.report.fronts import pareto_front
from tilewright.sw.sweep.report.plots import area_of, plots_of, series_of
from tilewright.sw.sweep.report.table import columns_of
from tilewright.sw.sweep.store import from_csv

NAMES = ["cycles-area", "accuracy-cycles", "latency-area", "utilization-array"]
BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")


@pytest.mark.parametrize(
    ("points", "front"),
    [
        ([], []),
        ([(1, 1)], [0]),
        ([(1, 2), (2, 1)], [0, 1]),
        ([(2, 1), (1, 2)], [1, 0]),
        ([(1, 1), (2, 2)], [0]),
        ([(1, 2), (1, 1)], [1]),  # equal in one, worse in the other
        ([(1, 1), (2, 1)], [0]),
        ([(1, 2), (2, 1), (1, 2), (3, 1)], [0, 2, 1]),  # equal points stay together
        ([(None, 0), (1, 1), (0, None), (float("nan"), 0), (0, float("-inf"))], [1]),
    ],
)
def test_front(points, front):
    assert pareto_front(points) == front


def test_front_by_definition():
    for seed in range(30):
        points = [tuple(p) for p in np.random.default_rng(seed).integers(0, 9, (40, 2)).tolist()]
        expected = {
            index
            for index, (x, y) in enumerate(points)
            if not any(a <= x and b <= y and (a, b) != (x, y) for a, b in points)
        }
        assert set(pareto_front(points)) == expected, f"seed {seed}"


def test_area_is_the_best_that_was_measured():
    rows = sweep_rows(20)
    assert area_of(rows)[0] == "lut"
    without = [row | {"lut": None} for row in rows]
    assert area_of(without)[0] == "dsp"
    assert area_of(sweep_rows(20, synth=False))[0] == "onchip_bytes"
    assert area_of([row | {"onchip_bytes": None, "dsp": None} for row in without])[0] == "elements"
    # One synthesised point of many does not make an axis.
    assert area_of([rows[0], *without[1:]])[0] == "dsp"


def test_plots_hold_what_was_measured():
    rows = sweep_rows(60, synth=False)
    plots, missing = plots_of(rows, series_of(rows))
    assert [plot.name for plot in plots] == [name for name in NAMES if name != "latency-area"]
    assert len(missing) == 1
    assert missing[0].startswith("Latency × area is not drawn")
    done = {index for index, row in enumerate(rows) if row["status"] == "done"}
    for plot in plots:
        assert set(plot.places) == done
        assert plot.title
    assert plots[0].x.label == "on-chip memory, bytes"
    assert plots[2].x.names == ("4×4", "8×8", "16×16", "32×32")
    assert plots[2].front == []
    index = plots[0].front[-1]
    assert rows[index]["cycles"] == min(rows[index]["cycles"] for index in done)


DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture(scope="module")
def published():
    return from_csv((DOCS / "sweep" / "points.csv").read_bytes())


def test_published_points_are_in_the_order_of_their_report(published):
    page = (DOCS / "sweep" / "report.html").read_text(encoding="utf-8")
    known = {row["point"] for row in published}
    found = dict.fromkeys(one for one in re.findall(r'"([0-9a-f]{12})"', page) if one in known)
    assert list(found) == [row["point"] for row in published]


def test_published_findings_are_those_of_the_points(published):
    page = (DOCS / "sweep.md").read_text(encoding="utf-8")

    def luts(row):
        """Of the device, two of them a carry cell."""
        return row["lut"] + 2 * sum(unit["carry"] for unit in json.loads(row["units"]).values())

    half = [row for row in published if row["lanes"] * 2 == row["columns"]]
    least = [row for row in half if row["precision"] == "w8a8" and row["sp_depth"] == 1024]
    first = least[0]["cycles"] * luts(least[0])
    assert [row["rows"] for row in least] == [8, 16, 32]
    for row in least:
        cells = f"| {luts(row):,} | {row['ff']:,} | {row['dsp']:,} | {row['bram']} |"
        product = row["cycles"] * luts(row) / first
        assert f"| {row['latency_ms']:.2f} | {row['lut']:,}, " in page
        assert f"{cells} {product:.2g} |" in page
    cycles = {(row["name"], row["precision"]): row["cycles"] for row in half}
    times = {
        (row["rows"], row["sp_depth"]): row["cycles"] / cycles[row["name"], "w8a8"]
        for row in half
        if row["precision"] == "w8a16"
    }
    small = [value for (size, _), value in times.items() if size < 32]
    large = [value for (size, _), value in times.items() if size == 32]
    text = " ".join(page.split())
    assert f"{min(small):.2f} to {max(small):.2f} times the cycles on 8×8 and 16×16" in text
    assert f"{min(large):.2f} and {max(large):.2f} on 32×32" in text


def test_accuracy_of_one_has_a_place():
    rows = [row | {"accuracy_mean": 1.0} for row in sweep_rows(4)]
    plots, _ = plots_of(rows, series_of(rows))
    assert all(y > 0 for _, y in plots[1].places.values())


def test_series():
    rows = sweep_rows(60)
    assert series_of(rows).names == ("w4a8", "w8a8", "w8a16")
    same = [row | {"precision": "w8a8"} for row in rows]
    assert series_of(same).names == ("4×4", "8×8", "16×16", "32×32")
    mixed = [row | {"precision": f"mixed {index % 20}"} for index, row in enumerate(rows)]
    series = series_of(mixed)
    assert len(series.names) == 8
    assert series.names[-1] == "others"
    assert max(series.of) == 7
    assert series_of(rows[:1]).names == ("points",)


def test_columns():
    rows = sweep_rows(10, synth=False)
    columns, common = columns_of(rows)
    keys = [column.key for column in columns]
    assert "lut" not in keys  # None everywhere
    assert common["sequence"] == 128  # the same everywhere
    assert "sequence" not in keys
    assert {"point", "status", "cycles", "command"} <= set(keys)
    assert not next(column for column in columns if column.key == "command").shown
    assert columns_of(rows[:1])[1] == {}


def content(page):
    """What the page holds for its script."""
    text = page.read_text(encoding="utf-8")
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)
    assert found
    return json.loads(found[1])


def test_files(tmp_path):
    pytest.importorskip("matplotlib")
    rows = sweep_rows(12)
    rows[1]["cycles"] = float("nan")
    rows[2]["reason"] = "</script><script>alert(1)</script>"
    written = write_report(rows, tmp_path / "new" / "folder", "a <b> & c")
    wanted = ["report.html"] + [f"{name}.{form}" for name in NAMES for form in ("svg", "png")]
    assert [path.name for path in written] == wanted
    assert {path.name for path in written[0].parent.iterdir()} == set(wanted)
    for path in written[1:]:
        if path.suffix == ".svg":
            assert ET.fromstring(path.read_bytes()).tag.endswith("svg")
        else:
            assert path.read_bytes().startswith(b"\x89PNG")
    page = written[0].read_text(encoding="utf-8")
    assert "a &lt;b&gt; &amp; c" in page
    assert "<script>alert" not in page
    assert page.count("<svg") == len(NAMES)
    # Nothing is fetched: the only addresses are names of XML languages.
    assert set(re.findall(r"https?://[\w./]+", page)) <= {
        "http://www.w3.org/1999/xlink",
        "http://www.w3.org/2000/svg",
    }
    data = content(written[0])
    assert data["values"]["cycles"][1] is None
    assert len(data["plots"][0]["points"]) == sum(row["status"] == "done" for row in rows) - 1

    before = [path.read_bytes() for path in written[1:]]
    write_report(rows, tmp_path / "new" / "folder", "a <b> & c")
    assert [path.read_bytes() for path in written[1:]] == before


def test_a_sweep_without_a_result_has_a_page(tmp_path):
    pytest.importorskip("matplotlib")
    rows = [row for row in sweep_rows(60) if row["status"] != "done"]
    (page,) = write_report(rows, tmp_path, "nothing fits")
    assert page.read_text(encoding="utf-8").count("is not drawn") == len(NAMES)


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"cycles": 5, "utilization": 0.0, "lut": 0, "latency_ms": 1e-9},
        {"rows": 1, "columns": 300, "precision": None, "units": "text", "versions": '{"yosys": 1}'},
        {"accuracy_mean": -1.0, "point": 7, "name": None, "more": [1, {"a": float("inf")}]},
    ],
)
def test_odd_values_are_drawn(tmp_path, change):
    """One point, or two that are equal: no axis has a range."""
    pytest.importorskip("matplotlib")
    row = sweep_rows(1)[0] | change
    rows = [row, row | {"point": "other"}] if change else [row]
    assert len(write_report(rows, tmp_path, "odd")) == 1 + 2 * len(NAMES)


def test_many_arrays_are_drawn(tmp_path):
    pytest.importorskip("matplotlib")
    rows = [row | {"columns": 3 + index} for index, row in enumerate(sweep_rows(40))]
    plots, _ = plots_of(rows, series_of(rows))
    assert len(plots[3].x.names) > 20
    assert len(write_report(rows, tmp_path, "many arrays")) == 9


def test_refusals(tmp_path):
    pytest.importorskip("matplotlib")
    with pytest.raises(UserError, match="at least one point"):
        write_report([], tmp_path, "none")
    with pytest.raises(UserError, match="'p0000' names more than one"):
        write_report(sweep_rows(1) * 2, tmp_path, "two")
    assert not list(tmp_path.iterdir())


# ---- in a browser ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    """Headless Chromium."""
    webdriver = pytest.importorskip("selenium.webdriver")
    if BROWSER is None or DRIVER is None:
        pytest.skip("chromium or chromedriver is missing (apt: chromium-driver)")
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = BROWSER
    for word in (
        "headless=new", "no-sandbox", "disable-gpu", "disable-quic", "no-first-run",
        "disable-background-networking", "disable-component-update", "disable-sync",
        # Small shared memory, as containers have it, is not enough for a large page.
        "disable-dev-shm-usage", "window-size=1400,1000",
        f"user-data-dir={tmp_path_factory.mktemp('browser')}",
    ):  # fmt: skip
        options.add_argument(f"--{word}")
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    yield driver
    driver.quit()


class Page:
    """What a person sees and does."""

    def __init__(self, driver, path):
        self.driver = driver
        driver.get(path.as_uri())

    def all(self, selector):
        return self.driver.find_elements("css selector", selector)

    def one(self, selector):
        return self.driver.find_element("css selector", selector)

    def column(self, key):
        """The texts of a column, as shown."""
        script = """
            const header = document.querySelector(`#points th[data-key=${arguments[0]}]`);
            return [...document.querySelectorAll("#points tbody tr")].map(
                (row) => row.cells[header.cellIndex].textContent);
        """
        return self.driver.execute_script(script, key)

    def click(self, selector):
        # In the middle, where neither bar covers it.
        where = self.one(selector)
        self.driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", where)
        where.click()

    def sort(self, key):
        self.click(f"#points th[data-key={key}] button")

    def filter(self, text):
        self.click("#clear")
        self.one("#filter").send_keys(text)

    def selected(self):
        """The point that is selected in the table."""
        return [
            row.get_attribute("data-point") for row in self.all("#points tr[aria-selected=true]")
        ]

    def front(self, plot):
        """Where the line of a plot has its corners."""
        line = self.one(f"#{plot} .front").get_attribute("d")
        return [(float(x), float(y)) for x, y in re.findall(r"[MH]([\d.]+)[V,]([\d.]+)", line)]


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """The page of so many rows, written once."""
    pytest.importorskip("matplotlib")

    @functools.cache
    def report(count):
        folder = tmp_path_factory.mktemp(f"report{count}")
        return write_report(sweep_rows(count), folder, "MiniLM")[0]

    return report


@pytest.fixture
def opened(browser, report):
    """Opens the page of so many rows; the browser must have nothing to complain of."""
    yield lambda count: Page(browser, report(count))
    assert browser.get_log("browser") == []


def numbers(texts):
    return [float(text.replace(",", "").rstrip(" %")) for text in texts if text]


def test_page_sorts(opened):
    page = opened(60)
    assert len(page.column("point")) == 60
    page.sort("cycles")
    assert page.one("#points th[data-key=cycles]").get_attribute("aria-sort") == "ascending"
    cycles = page.column("cycles")
    measured = numbers(cycles)
    assert measured == sorted(measured)
    assert "" not in cycles[: len(measured)]  # what was not measured is last
    page.sort("cycles")
    cycles = page.column("cycles")
    assert numbers(cycles) == measured[::-1]
    assert "" not in cycles[: len(measured)]
    page.sort("precision")
    assert page.column("precision") == sorted(
        page.column("precision"), key=["w4a8", "w8a8", "w8a16"].index
    )
    page.sort("accuracy_mean")
    assert set(page.column("accuracy_mean")) == {"0.99310", "0.99870", "0.99980", ""}


@pytest.mark.parametrize(
    ("text", "keeps"),
    [
        ("precision:w8a8", lambda row: row["precision"] == "w8a8"),
        ("rows:4", lambda row: row["rows"] == 4),
        ("sequence:128 lanes:>=8", lambda row: row["lanes"] >= 8),
        ("cycles:<1e7 rows:16", lambda row: row["rows"] == 16 and (row["cycles"] or 1e9) < 1e7),
        ("status:infeasible", lambda row: row["status"] == "infeasible"),
        ("CompileError", lambda row: row["status"] == "failed"),
        ("no-such-text", lambda row: False),
    ],
)
def test_page_filters(opened, text, keeps):
    rows = sweep_rows(60)
    page = opened(60)
    page.filter(text)
    kept = [row["point"] for row in rows if keeps(row)]
    assert page.column("point") == kept
    assert page.one("#count").text == f"{len(kept)} of 60 points"
    done = {row["point"] for row in rows if keeps(row) and row["status"] == "done"}
    drawn = {m.get_attribute("data-point") for m in page.all("#cycles-area .mark:not(.out)")}
    assert drawn == done
    page.click("#clear")
    assert len(page.column("point")) == 60


def test_page_explains_a_wrong_filter(opened):
    page = opened(20)
    page.filter("speed:1")
    assert page.one("#count").text == "no column “speed”"
    assert len(page.column("point")) == 20
    page.filter("cycles:<fast")
    assert page.one("#count").text == "“fast” is not a number"


def test_page_has_the_fronts(opened):
    rows = sweep_rows(60)
    page = opened(60)
    for text, chosen in (("", rows), ("precision:w8a16", None)):
        page.filter(text)
        # Others are there as points without a result: what the page draws is the same.
        chosen = chosen or [
            row if row["precision"] == "w8a16" else row | {"status": "failed"} for row in rows
        ]
        plots, _ = plots_of(chosen, series_of(rows))
        for plot in plots[:3]:
            places = {}
            for mark in page.all(f"#{plot.name} .mark"):
                x, y = re.findall(r"[\d.]+", mark.get_attribute("transform"))
                places[mark.get_attribute("data-point")] = (float(x), float(y))
            assert page.front(plot.name) == [places[rows[index]["point"]] for index in plot.front]


def test_page_selects(opened):
    rows = sweep_rows(60)
    page = opened(60)
    assert not page.one("#detail").is_displayed()
    seen: list[list[str]] = []
    plots, _ = plots_of(rows, series_of(rows))
    best = rows[plots[0].front[-1]]
    mark = f"#cycles-area .mark[data-point={best['point']}]"
    page.click(mark)
    while page.selected() != [best["point"]]:  # others lie on it: one after the other
        seen.append(page.selected())
        assert seen.count(seen[-1]) == 1, "not all points can be selected"
        page.click(mark)
    assert page.one("#command").text == best["command"]
    assert f"{best['cycles']:,}" in page.one("#detail-figures").text
    for plot in NAMES:  # the same point in each
        assert page.one(f"#{plot} .chosen").get_attribute("visibility") == "visible"
    page.click("#copy")
    wait(page.driver, lambda: page.one("#copy").text in ("Copied", "Selected"))
    page.click("#detail summary")
    assert best["manifest_hash"] in page.one("#detail-all").text

    page.click("#points tr[data-point=p0001]")
    assert page.selected() == ["p0001"]
    assert page.one("#command").text == rows[1]["command"]
    page.click("#close")
    assert page.selected() == []
    assert not page.one("#detail").is_displayed()

    # One without a result: its reason, as it stands.
    failed = next(row for row in rows if row["status"] == "failed")
    page.click(f"#failures tr[data-point={failed['point']}]")
    assert failed["reason"] in page.one("#detail-figures").text
    assert page.one("#command").text == failed["command"]
    assert page.one("#cycles-area .chosen").get_attribute("visibility") == "hidden"


def wait(driver, condition):
    from selenium.webdriver.support.wait import WebDriverWait

    WebDriverWait(driver, 10).until(lambda _: condition())


def test_page_by_keyboard(opened):
    from selenium.webdriver.common.keys import Keys

    page = opened(20)

    def press(key):
        page.driver.switch_to.active_element.send_keys(key)

    page.one("#points tr[data-point=p0000]").send_keys(Keys.ENTER)
    assert page.selected() == ["p0000"]
    press(Keys.ARROW_DOWN)
    press(Keys.ARROW_DOWN)
    assert page.selected() == ["p0002"]
    press(Keys.ARROW_UP)
    assert page.selected() == ["p0001"]
    press(Keys.ESCAPE)
    assert page.selected() == []
    page.one("#points th[data-key=cycles] button").send_keys(Keys.ENTER)
    assert page.one("#points th[data-key=cycles]").get_attribute("aria-sort") == "ascending"
    page.one("#cycles-area svg").send_keys(Keys.ARROW_LEFT)
    (last,) = page.selected()
    page.one("#cycles-area svg").send_keys(Keys.ARROW_LEFT)
    assert page.selected() != [last]


def test_page_of_few_and_of_many(opened):
    page = opened(3)
    assert page.one("#count").text == "3 points"
    assert not page.one("#failures").is_displayed()
    page = opened(5000)
    assert page.one("#count").text == "5,000 points"
    assert len(page.column("point")) == 500
    page.sort("cycles")
    first = page.column("cycles")[0]
    page.click("#more")
    assert len(page.column("point")) == 5000
    assert page.column("cycles")[0] == first
    page.filter("rows:16 precision:w4a8")
    assert set(page.column("rows")) == {"16"}
