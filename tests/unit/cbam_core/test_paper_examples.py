"""The specs of the paper, and the page that counts them."""

import re
from pathlib import Path

import pytest
import torch

from cbam_core.explain import describe
from cbam_core.networks import build_network
from cbam_core.spec import read_spec

ROOT = Path(__file__).parents[3]
SPECS = sorted((ROOT / "examples" / "paper").glob("*.yaml"))
PAGE = (ROOT / "docs" / "paper.md").read_text(encoding="utf-8")
ROWS = [[cell.strip() for cell in line.split("|")[1:-1]] for line in PAGE.splitlines() if line.startswith("| `")]


@pytest.mark.parametrize("path", SPECS, ids=lambda path: path.stem)
def test_every_example_is_a_spec_with_the_papers_recipe(path):
    spec = read_spec(path)
    assert spec.name == path.stem
    assert (spec.train.epochs, spec.train.global_batch_size) == (90, 256)
    assert (spec.train.schedule.step_epochs, spec.train.schedule.gamma) == (30, 0.1)
    assert (spec.data.dataset, spec.data.image_size) == ("imagefolder", 224)


def test_the_page_names_every_example_and_nothing_else():
    assert sorted(row[0].strip("`") for row in ROWS) == [path.stem for path in SPECS]


@pytest.mark.parametrize("row", [row for row in ROWS if len(row) == 5], ids=lambda row: row[0].strip("`"))
def test_the_page_counts_what_is_there(row):
    model = read_spec(ROOT / "examples" / "paper" / f"{row[0].strip('`')}.yaml").model
    for strided, cell in ((False, row[2]), (True, row[3])):
        if not cell:
            continue
        with torch.device("meta"):
            network = build_network(model.model_copy(update={"stride_in_1x1": strided}), 1000)
        described = describe(network, (3, 224, 224))
        assert f"{described.parameters:,}" == row[1]
        assert f"{described.macs / 1e9:.3f}" == cell


def test_published_errors_are_the_same_in_page_and_specs():
    for row in ROWS:
        text = (ROOT / "examples" / "paper" / f"{row[0].strip('`')}.yaml").read_text(encoding="utf-8")
        published = re.search(r"Published top-1.*: ([\d./ ]+)\.\n", text)
        assert (published[1] if published else "") == row[-1]
