"""The demonstration's sentences, and every layer's program on the simulator against fp32."""

import re
import shlex
import time
from concurrent.futures import CancelledError
from dataclasses import replace
from pathlib import Path
from threading import Event

import pytest

import tilewright.sw.cli
from tests.sw.test_pipeline import model_folder
from tilewright.hw.config import preset_config
from tilewright.sw.demo import LEAST_MEAN, LEAST_WORST, MOST_SENTENCES, Demo
from tilewright.sw.driver.device import Device
from tilewright.sw.errors import UserError
from tilewright.sw.models.fetch import resolve_model
from tilewright.sw.quantize.calibrate import calibration_texts


@pytest.fixture(scope="module")
def demo():
    return Demo(resolve_model("minilm"), layer=0, config=preset_config("default"), sequence=128)


def test_sentences_are_real_different_and_unseen(demo):
    texts = demo.texts(8)
    assert len(set(texts)) == 8
    seen = calibration_texts()
    assert not any(text in used or used in text for text in texts for used in seen)
    lengths = {sample.length for sample in demo.samples(texts)}
    assert len(lengths) >= 6
    assert max(lengths) == 128


def test_every_layer_on_the_simulator(demo):
    rows = list(demo.simulate_layers(demo.texts(8)))
    assert [row["layer"] for row in rows] == list(range(6))
    for row in rows:
        assert row["mean"] >= LEAST_MEAN, row
        assert row["worst"] >= LEAST_WORST, row


def test_layer_out_of_range():
    with pytest.raises(UserError, match="layer 6: must be 0 to 5"):
        Demo(resolve_model("minilm"), layer=6, config=preset_config("tiny"), sequence=8)


class _Wrong:
    """A machine that gives the simulator's results, but for the second text it is handed."""

    def __init__(self, monkeypatch) -> None:
        self.open, self.patch, self._runs = Device, monkeypatch.setattr, 0

    def __call__(self, backend, config, **options):
        device = self.open("iss", config)
        if backend == "verilator":
            run = device.run

            def wrong(*arguments, **values):
                out = run(*arguments, **values)
                self._runs += 1
                if self._runs == 2:
                    out.regions[next(iter(out.regions))][0] ^= 1
                return replace(out, result=replace(out.result, cycles=1))

            self.patch(device, "run", wrong)
        return device


def test_a_mismatch_is_run_again_as_it_was(tmp_path, monkeypatch, capsys):
    folder = model_folder(tmp_path / "my model")
    monkeypatch.setattr("tilewright.sw.demo.Device", _Wrong(monkeypatch))
    monkeypatch.setattr("tilewright.sw.demo.simulator_library", lambda *a, **k: None)
    texts = ["a dog", "the cat's mat", "a cat"]
    given = [str(folder), "--preset", "tiny", "--set", "queue_depth=3", "--set", "lanes=1"]
    given += ["--seq", "12", "--jobs", "1", "--layer", "1"]
    assert (
        tilewright.sw.cli.call(["demo", *given, *(w for text in texts for w in ("--text", text))])
        == 1
    )
    (line,) = re.findall("again with a waveform: (tilewright demo .*)", capsys.readouterr().err)
    from tilewright.sw.cli.demo import command

    asked = command.make_context("demo", shlex.split(line)[2:]).params
    wanted = command.make_context("demo", given).params
    changed = {"texts": ("the cat's mat",), "trace": Path("layer.fst"), "jobs": 2}
    assert asked == wanted | changed


def test_an_interrupt_gives_up_what_runs(tmp_path, monkeypatch):
    demo = Demo(model_folder(tmp_path), layer=0, config=preset_config("tiny"), sequence=12)
    samples = demo.samples(["a dog", "a cat", "the cat's mat"])
    opened, running, ends = Device, Event(), []

    def simulates(*_, progress, **__):
        running.set()
        try:
            for cycles in range(300):
                progress(cycles)
                time.sleep(0.01)
            ends.append("the end of the simulation")
        except CancelledError:
            ends.append("given up")
            raise

    def interrupted(*_, **__):
        assert running.wait(10)
        raise KeyboardInterrupt

    def open_device(backend, config, **options):
        device = opened("iss", config)
        monkeypatch.setattr(device, "run", simulates if backend == "verilator" else interrupted)
        return device

    monkeypatch.setattr("tilewright.sw.demo.Device", open_device)
    with pytest.raises(KeyboardInterrupt):
        list(demo.run(samples, workers=1))
    # One was under way, the others did not start.
    assert ends == ["given up"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--text", "a dog", "--text", ""], "text 2: the text is empty"),
        (["--text", "\u200b"], "text 1: the text has no token"),
        (["--trace", "x.fst", "--trace-from", "-5"], "--trace-from"),
        (["--trace", "x.fst", "--trace-cycles", "-1"], "--trace-cycles"),
        (["--trace-from", "5"], "give --trace"),
        (["--trace-cycles", "5"], "give --trace"),
        (["--trace", "/nowhere/x.fst"], "there is no folder /nowhere"),
        (["--texts", "100000"], "--texts 100000: the collection has 256"),
    ],
)
def test_refusals_before_the_work(arguments, message, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(
        "tilewright.sw.demo.Demo.__init__", lambda *a, **k: pytest.fail("work began")
    )
    folder = model_folder(tmp_path)
    assert tilewright.sw.cli.call(["demo", str(folder), "--preset", "tiny", *arguments]) == 2
    assert message in capsys.readouterr().err.splitlines()[-1]


def test_a_model_s_name_is_no_markup(capsys):
    assert tilewright.sw.cli.call(["demo", "[/x]"]) == 2
    assert "'[/x]' is neither a known model" in capsys.readouterr().err


def test_most_sentences():
    assert len(set(Demo.texts(MOST_SENTENCES))) == MOST_SENTENCES
