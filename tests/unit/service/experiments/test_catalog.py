"""What there is to choose from, and specs that are made of a template."""

from pathlib import Path

import pytest

from cbam_core.attention import VARIANTS
from cbam_core.backbones import BACKBONES
from cbam_core.datasets import DATASETS
from cbam_core.spec import ExperimentSpec, read_spec
from service.cluster.base import Node
from service.database.operations import Operations
from service.domain.spec_patch import apply_patch
from service.errors import InvalidField

EXAMPLES = Path(__file__).parents[4] / "examples"


def test_every_backbone_is_listed_and_its_fields_can_be_used(http):
    items = http.get("/v1/models").json()["items"]
    assert [item["name"] for item in items] == list(BACKBONES)
    choices = {"stem": "cifar", "stride_in_1x1": True, "width": 0.5}
    for item in items:
        for field, choice in choices.items():
            fields = {"name": "x", "model": {"backbone": item["name"], field: choice}, "data": {"dataset": "digits"}}
            if field in item["fields"]:
                ExperimentSpec.model_validate(fields)
            else:
                with pytest.raises(ValueError, match=field):
                    ExperimentSpec.model_validate(fields)
        assert item["paper"]["url"].startswith("https://")


def test_every_attention_is_listed_with_its_paper_and_a_schema_of_its_options(http):
    items = {item["type"]: item for item in http.get("/v1/attentions").json()["items"]}
    assert items.keys() == {"none", *VARIANTS}
    assert "kernel_size" in items["cbam"]["options"]["properties"]
    assert items["bam"]["placement"] == "stage"
    for kind, item in items.items():
        assert (item["paper"] is None) == (kind == "none")
        year = item["paper"] and str(item["paper"]["year"])
        assert year is None or year in item["title"], f"{kind}: the docstring of its options names another year"


def test_every_dataset_is_listed_with_the_folders_it_may_be_in(http, settings):
    answer = http.get("/v1/datasets").json()
    assert [item["name"] for item in answer["items"]] == list(DATASETS)
    assert answer["data_roots"] == [str(root) for root in settings.data_roots]


def test_every_example_is_a_template_that_can_be_submitted(http):
    items = {item["name"]: item for item in http.get("/v1/templates").json()["items"]}
    files = {str(path.relative_to(EXAMPLES).with_suffix("")): path for path in EXAMPLES.glob("**/*.yaml")}
    studies = {name for name in files if name.startswith(("comparisons/", "sweeps/"))}
    files = {name: path for name, path in files.items() if name not in studies}
    assert len(studies) == 3
    assert items.keys() == files.keys()
    for name, item in items.items():
        assert ExperimentSpec.model_validate(item["spec"]) == read_spec(files[name])
        assert item["description"], name
        assert http.get(f"/v1/templates/{name}").json() == item
    assert http.get("/v1/templates/nothing").status_code == 404


def test_a_template_is_submitted_with_changes(http):
    body = {"template": "digits-cbam", "overrides": {"train.epochs": 2, "model": {"attention": {"type": "se"}}}}
    answer = http.post("/v1/experiments", json=body)
    assert answer.status_code == 201, answer.text
    spec = answer.json()["spec"]
    assert (spec["train"]["epochs"], spec["model"]["attention"]) == (2, {"type": "se", "reduction": 16})
    assert spec["train"]["global_batch_size"] == 64


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"template": "nothing"}, "/template"),
        ({"template": "../digits-cbam"}, "/template"),
        ({"template": ""}, "/template"),
        ({"template": "digits-cbam", "colour": "red"}, "/colour"),
        ({"template": "digits-cbam", "overrides": {"train": {"epochs": -1}}}, "/overrides/train/epochs"),
        ({"template": "digits-cbam", "overrides": {"train.epochs.x": 1}}, "/overrides/train.epochs.x"),
        ({"template": "digits-cbam", "overrides": []}, "/overrides"),
    ],
)
def test_a_template_that_cannot_be_used_is_refused_at_its_place(http, body, pointer):
    answer = http.post("/v1/experiments", json=body)
    assert answer.status_code == 422, answer.text
    assert answer.json()["errors"][0]["pointer"] == pointer


def test_overrides_are_a_merge_patch():
    """The examples of RFC 7396, appendix A, that speak of objects."""
    for base, patch, result in (
        ({"a": "b"}, {"a": "c"}, {"a": "c"}),
        ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
        ({"a": "b"}, {"a": None}, {}),
        ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
        ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
        ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
        ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
        ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
        ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
        ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
    ):
        assert apply_patch(base, patch) == result


def test_a_dotted_path_is_the_same_as_nested_fields():
    fields = {"train": {"epochs": 1, "seed": 0}, "tags": {}}
    assert apply_patch(fields, {"train.epochs": 2}) == apply_patch(fields, {"train": {"epochs": 2}})
    assert apply_patch(fields, {"tags.a.b": "x"})["tags"] == {"a.b": "x"}, "names of tags have dots of their own"
    assert fields["train"]["epochs"] == 1
    with pytest.raises(InvalidField, match="epochs holds a value"):
        apply_patch(fields, {"train.epochs.first": 2})


def test_another_kind_takes_the_place_of_the_old_with_its_options():
    fields = {"attention": {"type": "cbam", "kernel_size": 3}}
    assert apply_patch(fields, {"attention.type": "se"})["attention"] == {"type": "se"}
    assert apply_patch(fields, {"attention": {"reduction": 8}})["attention"]["kernel_size"] == 3


def test_the_cluster_is_shown_as_the_dispatcher_last_saw_it(http, leader):
    before = http.get("/v1/cluster").json()
    assert (before["reachable"], before["nodes"]) == (False, [])
    leader.note_cluster(reachable=True, message="", nodes=[Node("a", 8, 2, 3, 1), Node("b", 4, 0, 4, 0)])
    shown = http.get("/v1/cluster").json()
    assert (shown["cpus"], shown["free_cpus"], shown["gpus"], shown["free_gpus"]) == (12, 7, 2, 1)
    assert shown["leader"] == "test"
    assert shown["experiments"]["QUEUED"] == 0
    leader.note_cluster(reachable=False, message="Ray is away", nodes=None)
    lost = http.get("/v1/cluster").json()
    assert (lost["reachable"], lost["message"], len(lost["nodes"])) == (False, "Ray is away", 2)


def test_the_dispatcher_writes_down_what_it_sees(dispatcher, store, cluster):
    dispatcher.tick()
    row = Operations(store.database).cluster()
    assert row is not None
    assert row.reachable
    assert [node["id"] for node in row.nodes] == [node.id for node in cluster.nodes]
    seen_at = row.at
    dispatcher.tick()
    assert Operations(store.database).cluster().at == seen_at, "what has not changed is not written at every tick"
