"""What is read of a run that left no predictions: its metric, and what it said of its data."""

import pytest

from service.comparisons.planner import ComparisonPlanner
from service.studies.rows import Reading, Unobserved
from tests.support.studies.compared import comparison_spec, study_of
from workers.protocol.storage import ExperimentFolder


@pytest.mark.parametrize(
    ("metrics", "summary", "wanted"),
    [
        ({"test/top1": 309 / 360}, {"test_images": 360, "classes": 10}, Reading(309, 360, 10)),
        ({"test/top1": 309 / 360}, {"test_images": 360}, Reading(309, 360, None)),
        ({"test/top1": 309 / 360}, {}, Reading()),
        ({"val/top1": 0.5}, {"test_images": 360, "classes": 10}, Reading()),
        ({"test/top1": 0.5}, {"test_images": 360, "classes": 0}, Reading(180, 360, None)),
        ({"test/top1": 0.5}, {"test_images": "many"}, Reading()),
        ({"test/top1": 0.5}, {"test_images": 2**40}, Reading()),
        ({"test/top1": 1e300}, {"test_images": 360}, Reading()),
        ({"test/top1": -2.0}, {"test_images": 360}, Reading()),
        ({"test/top1": "x"}, {"test_images": 360}, Reading()),
    ],
)
def test_the_metric_and_the_summary_stand_in(tmp_path, metrics, summary, wanted):
    of = Unobserved(study_of(comparison_spec()), 1, "e1", is_pruned=False, summary=summary, metrics=metrics)
    folder = ExperimentFolder(tmp_path, "e1")
    folder.path.mkdir(parents=True)
    assert ComparisonPlanner().read(of.study, of, folder) == wanted
