"""What a stage's key covers: every source that it can reach, and not the pages of the report."""

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch
from small_model import net

import edgekit
from edgekit.capture import capture
from edgekit.graph.file import save
from edgekit.passes import optimize
from edgekit.pipeline import code_hash as module
from edgekit.pipeline.code_hash import code_hash, digest, reached, read_units
from edgekit.pipeline.store import Store

TOY = {
    "__init__.py": "def build():\n    from toy.pipeline import stages\n",
    "pipeline/__init__.py": "",
    "pipeline/stages.py": """
        from importlib import import_module
        from typing import TYPE_CHECKING
        from toy import late
        from toy.math import add as plus
        from toy.pipeline import kept as keeping
        from toy.pipeline.data import Job
        if TYPE_CHECKING:
            from toy.page import Page

        LIMIT = 3

        def first(job: Job) -> "Page":
            def make():
                return plus(job.images) + LIMIT + keeping.halved(1)
            return make

        def second(name):
            return import_module(f"toy.forms.{name}")

        def fourth():
            from toy.plugins import f

        def third():
            from .. import page
            return late.answer()
        """,
    "pipeline/kept.py": "def halved(x):\n    return x / 2\n\ndef doubled(x):\n    return x * 2\n",
    "pipeline/data.py": """
        from typing import TYPE_CHECKING
        if TYPE_CHECKING:
            from toy.images import Images
            from toy.page import Page
        class Job:
            images: "Images"
            page: Page
        class Other:
            images: Images
        """,
    "images.py": "class Images: pass\n",
    "page.py": "PAGE = 1\n",
    "math/__init__.py": "from .inner import add\n",
    "math/inner.py": "def add(x):\n    from toy import deep\n    return deep.x\n",
    "deep.py": "import subprocess\nWORKER = 'worker.py'\nFACTS = 'facts.json'\n",
    "worker.py": "print(1)\n",
    "facts.json": "{}",
    "late.py": "TABLE = {'a': 'toy.named'}\nHIDDEN = f'.{TABLE}'\n",
    "named.py": "",
    "forms/__init__.py": "",
    "forms/a.py": "",
    "forms/b/__init__.py": "from toy import deep\n",
    "plugins/__init__.py": "import importlib as i\nf = lambda n: i.import_module(f'.{n}', 'toy.plugins')\n",
    "plugins/one.py": "",
}


@pytest.fixture
def toy(tmp_path):
    for name, text in TOY.items():
        path = tmp_path / "toy" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text))
    return tmp_path / "toy"


@pytest.fixture(scope="module")
def units():
    return read_units()


@pytest.mark.parametrize(
    ("entry", "wanted"),
    [
        (
            "first",
            {
                "toy",
                "toy.math",
                "toy.math.inner",
                "toy.deep",
                "toy.worker",
                "toy/facts.json",
                "toy.images",
                "toy.page",
                "toy.pipeline.stages:first",
                "toy.pipeline.stages:LIMIT",
                "toy.pipeline.kept:halved",
                "toy.pipeline.data:Job",
            },
        ),
        (
            "second",
            {
                "toy",
                "toy.forms",
                "toy.forms.a",
                "toy.forms.b",
                "toy.deep",
                "toy.worker",
                "toy/facts.json",
                "toy.pipeline.stages:second",
            },
        ),
        ("fourth", {"toy", "toy.plugins", "toy.plugins.one", "toy.pipeline.stages:fourth"}),
        ("third", {"toy", "toy.page", "toy.late", "toy.named", "toy.pipeline.stages:third"}),
    ],
)
def test_every_form_of_naming_a_source_is_followed(toy, entry, wanted):
    found = reached(f"toy.pipeline.stages:{entry}", read_units(toy))
    if entry == "first":
        wanted = wanted - {"toy.page"}  # a type that is only returned, in quotes
    assert found == wanted


@pytest.mark.parametrize(
    ("path", "changed"),
    [
        ("page.py", {"third"}),
        ("math/inner.py", {"first"}),
        ("facts.json", {"first", "second"}),
        ("forms/a.py", {"second"}),
        ("named.py", {"third"}),
        ("__init__.py", {"first", "second", "third"}),
        ("pipeline/kept.py", {"first"}),
    ],
)
def test_an_edit_changes_the_keys_of_those_who_reach_it(toy, path, changed):
    def keys():
        units = read_units(toy)
        return {name: digest(f"toy.pipeline.stages:{name}", units) for name in ("first", "second", "third")}

    before = keys()
    text = (toy / path).read_text()
    (toy / path).write_text(text.replace("x / 2", "x / 3") if "kept" in path else text + "\n")
    after = keys()
    assert {name for name in before if before[name] != after[name]} == changed


def test_quantize_reaches_what_computes_and_no_page(units):
    found = reached("edgekit.pipeline.pipeline:_quantized", units)
    assert found >= {
        "edgekit.quantize.ptq",
        "edgekit.graph.ir",
        "edgekit.graph.ops",
        "edgekit.data.imagefolder",
        "edgekit.data.preprocessing",
        "edgekit.pipeline.calibration:calibration_rows",
    }
    rooms = {name.split(":")[0].split(".")[1] for name in found if "." in name}
    assert not rooms & {"report", "farm", "cli", "device", "history", "bundle"}


def test_a_lowering_reaches_every_format_and_its_workers(units):
    found = reached("edgekit.pipeline.pipeline:_lowered", units)
    assert found >= {
        "edgekit.lower.tflite.convolution",
        "edgekit.lower.onnx.lowering",
        "edgekit.lower.openvino.lowering",
        "edgekit.lower.savedmodel.worker",
    }


def test_every_edge_leads_to_a_unit(units):
    assert {edge for _, edges in units.values() for edge in edges} <= set(units)


def test_a_function_from_elsewhere_stands_on_the_whole_package(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_known", {})
    module._known_digest.cache_clear()
    store = Store(tmp_path)
    everything = code_hash(test_every_edge_leads_to_a_unit, store)
    assert everything == digest(None, module._known)
    assert everything != code_hash(code_hash, store)
    assert len(list((tmp_path / "sources").iterdir())) == 1
    module._known_digest.cache_clear()


TRACED = """
import json, sys, threading
from pathlib import Path
import edgekit
from edgekit.pipeline.session import Session
from edgekit.pipeline import code_hash
import small_model, torch

root = str(Path(edgekit.__file__).parent)
ran, kept = {}, Session._kept

def keep(self, name, key, label, write, make):
    seen = ran.setdefault((name, make.__module__ + ":" + make.__qualname__.split(".")[0]), set())
    def tell(frame, event, argument):
        if (path := frame.f_code.co_filename).startswith(root):
            seen.add((path, frame.f_code.co_qualname.split(".")[0]))
    def traced(*arguments):
        threading.settrace(tell)
        sys.settrace(tell)
        try:
            return write(*arguments)
        finally:
            sys.settrace(None)
            threading.settrace(None)
    return kept(self, name, key, label, traced, make)

Session._kept = keep
images = torch.randn(8, 3, 32, 32)
edgekit.build(small_model.net(), targets=sys.argv[2:], calibration=images, evaluation=(images, None),
              out=sys.argv[1], quantize={"profile": "fast"}, device={"profile": "off"})
rows = [[name, entry, *place] for (name, entry), seen in ran.items() for place in sorted(seen)]
print(json.dumps(rows))
"""


def _child(script, *arguments, cache):
    done = subprocess.run(
        [sys.executable, "-c", script, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parent,
        env={**os.environ, "EDGEKIT_CACHE": str(cache), "PYTHONPATH": str(Path(edgekit.__file__).parents[1])},
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_whatever_a_stage_executes_is_in_its_key(units, tmp_path):
    """Every function of this package that runs while a stage makes its files."""
    rows = _child(TRACED, tmp_path / "out", "tflite-int8", "onnx-int8", "openvino-int8", cache=tmp_path)
    assert {name for name, *_ in rows} >= {"reference", "quantize", "lower", "fidelity", "drift", "agreement"}
    missed = []
    for name, entry, path, function in rows:
        place = Path(path).relative_to(Path(edgekit.__file__).parents[1]).with_suffix("")
        source = ".".join(place.parts[:-1] if place.name == "__init__" else place.parts)
        if source in ("edgekit.pipeline.session", "edgekit.pipeline.records"):  # the progress line, the file
            continue
        unit = f"{source}:{function}" if source.startswith("edgekit.pipeline.") else source
        if unit not in reached(entry, units):
            missed.append((name, unit))
    assert missed == []


LOADED = """
import json, sys, torch
from edgekit.data.source import Source
from edgekit.graph.file import load, save
from edgekit.quantize import QuantizeSettings, quantize
images = torch.randn(8, 3, 32, 32)
save(quantize(load(sys.argv[1]), images, QuantizeSettings(profile="fast")).graph, sys.argv[1])
print(json.dumps([name for name in sys.modules if name.split(".")[0] == "edgekit"]))
"""


def test_whatever_quantizing_loads_is_in_its_key(units, tmp_path):
    graph = capture(net(), torch.zeros(1, 3, 32, 32), "net")
    optimize(graph)
    save(graph, tmp_path / "graph.safetensors")
    loaded = _child(LOADED, tmp_path / "graph.safetensors", cache=tmp_path)
    assert "edgekit.quantize.ptq" in loaded
    assert set(loaded) <= reached("edgekit.pipeline.pipeline:_quantized", units)
