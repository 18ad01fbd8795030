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
    ],
)
def test_the_metric_and_the_summary_stand_in(tmp_path, metrics, summary, wanted):
    of = Unobserved(study_of(comparison_spec()), 1, "e1", summary, metrics)
    assert ComparisonPlanner().read(of.study, of, ExperimentFolder(tmp_path, "e1")) == wanted
