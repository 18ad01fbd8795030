"""docs/evidence.md and its pictures, written anew whenever a run has been added."""

from collections.abc import Mapping
from pathlib import Path

from benchmarks.evidence.plan import Plan, PlannedRun
from benchmarks.evidence.records import Record
from benchmarks.evidence.result import result
from service.comparisons.figure import figure
from service.comparisons.report import markdown

PAGE, FOLDER = "evidence.md", "evidence"
FIGURE, ATTENTION = "images/evidence.svg", "images/evidence-attention.png"
SHOWN_IMAGE, SHOWN_BLOCKS = 500, 4  # the image of the test; chosen before any was seen
HOW = """\
# Evidence

Does attention help where it should? `cluttered_mnist` shows one digit of MNIST at a random place among fragments of
others ([data](data.md#datasets-that-come-along)); a CIFAR ResNet-20 names it, without attention and with SE, ECA and
CBAM. All is as in [the spec](../examples/comparisons/cluttered-mnist.yaml), and judged as
[every comparison](design/statistics.md). What came out stands here, whatever it is.

```bash
scripts/evidence           # trains what is missing, and writes this page; stop it whenever you like, and start it again
scripts/evidence --quick   # the same way in two minutes: one epoch of small images, two seeds, nothing kept
```

Each finished run is a file in `docs/evidence/` with its spec, its cost, and which test images were right. Commit it,
and it is never trained again. A run that is stopped resumes from its checkpoint while `.cbam/evidence` (or the folder
that `EVIDENCE_FOLDER` names) is kept. All train by the code of one commit, which `docs/evidence/commit` names, whatever
the checkout does meanwhile.
"""


def write_pages(plan: Plan, records: Mapping[str, Record], docs: Path) -> None:
    """Write the page and the figure into `docs`. Before the last run there are no numbers to choose by."""
    parts = [HOW]
    if len(records) < len(plan.runs):
        parts.append(f"So far {len(records)} of {len(plan.runs)} runs are there; the numbers come with the last.\n")
    else:
        view = result(plan, records)
        (docs / FIGURE).parent.mkdir(parents=True, exist_ok=True)
        (docs / FIGURE).write_text(figure(view) + "\n", encoding="utf-8")
        report = markdown(view, experiments=FOLDER)
        parts.append(f"![The differences from no attention: a dot for each seed, intervals, the margin]({FIGURE})\n")
        parts.append(report.partition("\n\n")[2])  # without its title
        if (docs / ATTENTION).exists():
            parts.append(
                "## What CBAM looks at\n\n"
                "One test image, and the CBAM network of the first seed: one look, no proof.\n\n"
                f"![A test image, the scores, Grad-CAM, and CBAM's gates block by block]({ATTENTION})\n"
            )
    (docs / PAGE).write_text("\n".join(parts), encoding="utf-8")


def draw_attention(run: PlannedRun, weights: Path, docs: Path) -> None:
    """Draw what the attention of a trained network does with a test image."""
    import torch

    from cbam_core.explain import attention_figure
    from workers.classifier import load_classifier
    from workers.data import load_dataset

    torch.set_num_threads(1)  # beside trainings
    classifier, _ = load_classifier(weights)
    dataset = load_dataset(run.spec.data)
    assert dataset.test is not None
    picture = dataset.test.images[SHOWN_IMAGE].float() / 255
    drawn = attention_figure(
        classifier.network,
        (picture - torch.tensor(dataset.mean).view(-1, 1, 1)) / torch.tensor(dataset.std).view(-1, 1, 1),
        class_names=dataset.classes,
        picture=picture,
        label=int(dataset.test.labels[SHOWN_IMAGE]),
        max_blocks=SHOWN_BLOCKS,
    )
    (docs / ATTENTION).parent.mkdir(parents=True, exist_ok=True)
    drawn.savefig(docs / ATTENTION, dpi=80)
