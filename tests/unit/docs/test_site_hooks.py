"""What docs/hooks makes of pages and docstrings when the site is built."""

import importlib.util
import json
import re
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from cbam_core.spec import ExperimentSpec

ROOT = Path(__file__).parents[3]


def hook(name: str) -> ModuleType:
    """A module of docs/hooks, which is no package: MkDocs loads its files one by one."""
    spec = importlib.util.spec_from_file_location(f"docs_hook_{name}", ROOT / "docs" / "hooks" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("markdown", "expected"),
    [
        ("[`service/api/app.py`](../service/api/app.py)", "`service/api/app.py`"),
        ("[`ExperimentSpec`](../cbam_core/spec.py), frozen", "`ExperimentSpec` (`cbam_core/spec.py`), frozen"),
        ("[the specs](../examples/paper)", "the specs (`examples/paper`)"),
        ("[CLI](cli.md), [a note](design/log.md#new)", "[CLI](cli.md), [a note](design/log.md#new)"),
        ("```console stack\n$ cbam up\n```", "```console\n$ cbam up\n```"),
        ("```text\n[x](../service/api/app.py)\n```", "```text\n[x](../service/api/app.py)\n```"),
    ],
)
def test_what_only_github_renders_is_replaced(markdown: str, expected: str):
    assert hook("github").for_the_site(markdown, "quickstart.md") == expected


def test_a_page_in_a_folder_leaves_docs_two_levels_up():
    replace = hook("github").for_the_site
    assert replace("[`scripts/docs`](../../scripts/docs)", "design/log.md") == "`scripts/docs`"
    assert replace("[REST](../rest.md)", "design/log.md") == "[REST](../rest.md)"


def test_the_spec_page_has_every_field_with_type_default_and_meaning():
    sections = re.split(r"^#+ .*\{#(\w+)\}$", hook("generated").spec_reference(), flags=re.MULTILINE)[1:]
    tables = dict(zip(sections[::2], sections[1::2], strict=True))
    schema = ExperimentSpec.model_json_schema()
    parts: Mapping[str, Any] = {"ExperimentSpec": schema, **schema["$defs"]}
    assert set(tables) == {name.lower() for name in parts}
    for name, part in parts.items():
        rows = [line.strip("|").split(" | ") for line in tables[name.lower()].splitlines() if line.startswith("| `")]
        assert [row[0].strip(" `") for row in rows] == list(part["properties"])
        assert all(len(row) == 4 and all(cell.strip() for cell in row) for row in rows), name


@pytest.mark.parametrize(
    "row",
    [
        "| `epochs` | integer, ≥ 1, ≤ 100,000 | `90` | passes over the training set |",
        "| `pretrained` | boolean | `false` | start from",
        "| `min` | integer, ≥ 1, ≤ 4,096 | required | fewest workers",
        '| `precision` | `fp32`, `bf16`, `fp16` | `"fp32"` | ',
        "| `betas` | list of 2: number, ≥ 0, < 1 | `[0.9, 0.999]` | ",
        "| `clip_norm` | number, > 0 or null | `null` | ",
        "| `ema` | [EMASpec](#emaspec) or null | `null` | ",
        "| `train` | [TrainSpec](#trainspec) | all defaults | ",
        "timm:&lt;name>",
    ],
)
def test_a_row_of_the_spec_page(row: str):
    assert row in hook("generated").spec_reference()


def test_the_page_of_operations_has_all_of_them():
    described = json.loads((ROOT / "docs" / "openapi.json").read_text(encoding="utf-8"))["paths"]
    expected = {(method.upper(), path) for path, methods in described.items() for method in methods}
    page = hook("generated").operations()
    assert set(re.findall(r"^\| `([A-Z]+) ([^`]+)` \| .+ \|$", page, re.MULTILINE)) == expected


def test_a_generated_part_takes_the_place_of_its_comment():
    page = hook("generated").on_page_markdown("before\n<!-- generated: operations -->\nafter")
    assert page.startswith("before\n## ")
    assert page.endswith("\nafter")


@pytest.mark.parametrize(
    ("docstring", "expected"),
    [
        ("One line.\n\nchannels  C of the map\nr         of the MLP,\n          at least 1\n\nRaises.",
         "One line.\n\n- `channels`: C of the map\n- `r`: of the MLP,\n  at least 1\n\nRaises."),
        ("Mc = W1 F   (equation 3)\nMs = f(F)   (equation 4)", "Mc = W1 F   (equation 3)  \nMs = f(F)   (equation 4)"),
        ("1 / e* of <name>, `x * y`", "1 / e\\* of \\<name>, `x * y`"),
        ("Text that\nflows.", "Text that\nflows."),
    ],
)  # fmt: skip
def test_a_docstring_becomes_markdown(docstring: str, expected: str):
    pytest.importorskip("griffe", reason="the dependency group docs is not installed")
    assert hook("docstrings").as_markdown(docstring) == expected
