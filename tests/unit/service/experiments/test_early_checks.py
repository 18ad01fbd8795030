"""What would fail minutes later is said at the submission, where the server can see it."""

import pytest
import timm

from cbam_core.image_folders.listing import ListingTooLong
from service.experiments import early_checks
from service.experiments.timm_names import timm_names
from tests.support.specs import spec_dict


@pytest.fixture
def opened(settings):
    """The folder opened for data, with another dataset in it."""
    (settings.data_roots[0] / "another").mkdir(parents=True)
    return settings.data_roots[0]


def touch(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def folder(root, dataset="imagefolder"):
    return spec_dict(data={"dataset": dataset, "root": str(root)})


def refusal(http, body, pointer="/data/root"):
    """What is said of a submission, of its preview alike."""
    said = set()
    for path in ("/v1/experiments", "/v1/experiments/preview"):
        answer = http.post(path, json=body)
        assert answer.status_code == 422, answer.text
        (error,) = answer.json()["errors"]
        assert error["pointer"] == pointer
        said.add(error["detail"])
    (detail,) = said
    return detail


@pytest.mark.parametrize("dataset", ["imagefolder", "cifar10"])
def test_a_root_that_is_not_there_is_refused(http, opened, dataset):
    assert "nope is not a folder" in refusal(http, folder(opened / "nope", dataset))
    (opened / "file").touch()
    assert "file is not a folder" in refusal(http, folder(opened / "file", dataset))


@pytest.mark.parametrize("place", ["absent", "empty"])
def test_what_lies_on_a_disk_that_the_server_does_not_see_is_left_to_the_workers(http, settings, place):
    """In containers, the server has at most the place where the workers' disk is mounted."""
    if place == "empty":
        settings.data_roots[0].mkdir(parents=True)
    assert http.post("/v1/experiments", json=folder(settings.data_roots[0] / "mine")).status_code == 201


@pytest.mark.parametrize(
    ("files", "words"),
    [
        (["notes.txt"], "no train folder, but 1 .txt"),
        (["dataset/train/cat/1.jpg"], "mine has one folder, dataset, which holds train: a level too many"),
        (["train/dataset/cat/1.jpg", "train/dataset/dog/1.jpg"], "one folder, dataset, which holds cat, dog: a level"),
        (["train/cat/1.jpg"], "train has one class, cat; expected two classes or more"),
        (["train/cat/.DS_Store", "train/dog/1.gif"], "train has no images in its class folders; left out: 1 .gif"),
    ],
)
def test_a_folder_that_cannot_be_trained_on_is_refused_with_what_it_holds(http, opened, files, words):
    touch(opened / "mine", *files)
    assert words in refusal(http, folder(opened / "mine"))


def test_a_clone_is_checked_as_well(http, opened):
    touch(opened / "mine", "train/cat/1.jpg", "train/dog/1.jpg")
    original = http.post("/v1/experiments", json=folder(opened / "mine"))
    assert original.status_code == 201, original.text
    overrides = {"data": {"root": str(opened / "nope")}}
    answer = http.post(f"/v1/experiments/{original.json()['id']}/clone", json=overrides)
    assert answer.status_code == 422, answer.text
    assert "nope is not a folder" in answer.text


def test_a_folder_that_takes_long_to_list_is_left_to_the_workers(http, opened, monkeypatch):
    touch(opened / "mine", "train/cat/1.jpg")
    assert "one class" in refusal(http, folder(opened / "mine"))

    def slow(*_, **__):
        raise ListingTooLong

    monkeypatch.setattr(early_checks, "layout_of", slow)
    assert http.post("/v1/experiments", json=folder(opened / "mine")).status_code == 201


@pytest.mark.parametrize(
    ("backbone", "words"),
    [
        ("timm:convnext_tinyy", "timm has no network convnext_tinyy (did you mean timm:convnext_tiny?)"),
        ("timm:convnext_tinyy.in12k", "timm has no network convnext_tinyy (did you mean"),
        ("timm:zzzzzzzz", "timm has no network zzzzzzzz"),
    ],
)
def test_a_network_that_timm_does_not_have_is_refused(http, backbone, words):
    body = spec_dict(model={"backbone": backbone, "attention": {"type": "none"}})
    assert words in refusal(http, body, "/model/backbone")


@pytest.mark.parametrize("backbone", ["timm:convnext_tiny", "timm:resnet50.a1_in1k", "timm:gluon_resnet50_v1b"])
def test_a_network_that_timm_has_is_accepted(http, backbone):
    body = spec_dict(model={"backbone": backbone, "attention": {"type": "none"}})
    assert http.post("/v1/experiments", json=body).status_code == 201


def test_the_names_are_those_that_timm_registers():
    registered = {*timm.list_models(include_tags=False), *timm.models._registry._deprecated_models}
    assert timm_names() == registered


def test_where_timm_is_not_installed_every_name_is_left_to_the_workers(http, monkeypatch):
    monkeypatch.setattr(early_checks, "timm_names", frozenset)
    body = spec_dict(model={"backbone": "timm:convnext_tinyy", "attention": {"type": "none"}})
    assert http.post("/v1/experiments", json=body).status_code == 201
