"""A weights file goes whole into a network, or is refused by the names of what does not fit."""

import pytest
import timm
import torch
from safetensors.torch import save_file

from cbam_core.data_roots import DataRoots
from cbam_core.errors import DataError, StateDictMismatch, WeightsUnavailable
from cbam_core.initial_weights.fitting import fit_file, normalisation_of
from cbam_core.initial_weights.reading import read_weights
from cbam_core.networks import build_network, convert_state_dict
from cbam_core.normalisation import Normalisation
from cbam_core.spec import ModelSpec

IMAGENET = Normalisation((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def model_of(backbone="cifar_resnet20", **fields):
    return ModelSpec.model_validate({"backbone": backbone, "weights": "/w", **fields})


def fit(path, network, model, **known):
    file = read_weights(path, DataRoots.of([path.parent]))
    return fit_file(network, file, model.weights, model=model, **known)


def same(network, state):
    return all(torch.equal(value, state[name]) for name, value in network.state_dict().items())


@pytest.mark.parametrize("suffix", ["safetensors", "pth"])
def test_every_weight_is_loaded(tmp_path, suffix):
    model = model_of(attention="cbam")
    there = build_network(model, 10, seed=1).state_dict()
    path = tmp_path / f"w.{suffix}"
    save_file(there, path) if suffix == "safetensors" else torch.save(there, path)
    network = build_network(model, 10, seed=2)
    report = fit(path, network, model)
    assert same(network, there)
    assert (report.loaded, report.missing, report.unexpected, report.layout) == (len(there), (), (), "ours")
    assert f"{len(there)} loaded, 0 missing, 0 unexpected" in report.words


def test_the_authors_checkpoint_is_unwrapped_and_converted(tmp_path):
    model = model_of("resnet18", attention="cbam")
    ours = build_network(model, 10, seed=1).state_dict()
    theirs = convert_state_dict(ours, source="ours", target="authors", prefix="module.")
    path = tmp_path / "RESNET18_CBAM.pth"
    checkpoint = {
        "epoch": 90,
        "arch": "resnet",
        "state_dict": theirs,
        "best_prec1": torch.tensor(70.7),
        "optimizer": {},
    }
    torch.save(checkpoint, path, _use_new_zipfile_serialization=False)  # as torch 0.4 wrote it
    network = build_network(model, 10, seed=2)
    assert fit(path, network, model).layout == "authors"
    assert same(network, ours)


def test_a_timm_network_with_its_own_cbam_is_converted(tmp_path):
    theirs = timm.create_model("resnet18", num_classes=10, block_args={"attn_layer": "cbam"}).state_dict()
    path = tmp_path / "timm.safetensors"
    save_file(theirs, path)
    model = model_of("resnet18", attention={"type": "cbam", "mlp_bias": False})
    network = build_network(model, 10, seed=2)
    report = fit(path, network, model)
    assert report.layout == "timm"
    assert same(network, convert_state_dict(theirs, source="timm", target="ours"))


def test_a_file_of_timms_goes_into_timms_network_with_new_attention(tmp_path):
    theirs = timm.create_model("regnetx_002", num_classes=10).state_dict()
    path = tmp_path / "timm.pth"
    torch.save({"state_dict": {f"_orig_mod.{name}": value for name, value in theirs.items()}}, path)
    model = model_of("timm:regnetx_002", attention="cbam", weights={"source": "/w", "attention": "drop"})
    network = build_network(model, 10, seed=2)
    report = fit(path, network, model)
    assert report.loaded == len(theirs)
    assert len(report.missing) == len(network.state_dict()) - len(theirs)
    assert all(torch.equal(network.state_dict()[name], value) for name, value in theirs.items())


def test_attention_of_the_network_that_the_file_lacks_is_refused_by_name(tmp_path):
    path = tmp_path / "plain.pth"
    torch.save(build_network(model_of(), 10).state_dict(), path)
    model = model_of(attention="cbam")
    network = build_network(model, 10, seed=2)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    with pytest.raises(StateDictMismatch, match=r"weights missing: layer1\.0\.attention.*attention: drop"):
        fit(path, network, model)
    assert same(network, before), "nothing is loaded in part"


def test_attention_of_the_file_that_the_network_lacks_is_refused_or_left_out(tmp_path):
    path = tmp_path / "cbam.pth"
    torch.save(build_network(model_of(attention="cbam"), 10).state_dict(), path)
    plain = model_of()
    with pytest.raises(StateDictMismatch, match=r"weights unexpected: layer1\.0\.attention.*attention: drop"):
        fit(path, build_network(plain, 10), plain)
    without = model_of(weights={"source": "/w", "attention": "drop"})
    report = fit(path, build_network(without, 10), without)
    assert report.unexpected
    assert not report.missing


def test_another_head_is_refused_or_left_out(tmp_path):
    path = tmp_path / "ten.pth"
    there = build_network(model_of(), 10, seed=1).state_dict()
    torch.save(there, path)
    model = model_of()
    with pytest.raises(StateDictMismatch, match=r"fc\.weight \(10×64, and 7×64 in this network\).*head: drop"):
        fit(path, build_network(model, 7), model)
    model = model_of(weights={"source": "/w", "head": "drop"})
    network = build_network(model, 7, seed=2)
    fresh = network.fc.weight.clone()
    report = fit(path, network, model)
    assert report.missing == report.unexpected == ("fc.weight", "fc.bias")
    assert torch.equal(network.fc.weight, fresh)
    assert torch.equal(network.conv1.weight, there["conv1.weight"])


def test_a_head_for_other_classes_of_the_same_number_is_refused(tmp_path):
    model = model_of()
    path = tmp_path / "w.safetensors"
    save_file(build_network(model, 2).state_dict(), path, {"classes": '["cat", "dog"]'})
    with pytest.raises(StateDictMismatch, match=r"cat, dog.*head: drop"):
        fit(path, build_network(model, 2), model, classes=("dog", "cat"))
    assert fit(path, build_network(model, 2), model, classes=("cat", "dog")).loaded


def test_attention_that_stands_elsewhere_is_refused(tmp_path):
    model = model_of("timm:resnet10t", attention="se")
    path = tmp_path / "w.safetensors"
    save_file(build_network(model, 2).state_dict(), path, {"semantics": "1"})
    with pytest.raises(StateDictMismatch, match="semantics 1"):
        fit(path, build_network(model, 2), model, semantics=2)


def test_a_model_that_was_another_is_told(tmp_path):
    before = model_of(attention={"type": "cbam", "order": "spatial_channel"})
    path = tmp_path / "w.safetensors"
    spec = '{"model": ' + before.model_dump_json() + "}"
    save_file(build_network(before, 2).state_dict(), path, {"spec": spec})
    report = fit(path, build_network(model_of(attention="cbam"), 2), model_of(attention="cbam"))
    assert report.differs == ("attention",)
    assert "another attention" in report.words


@pytest.mark.parametrize("change", ["missing", "unexpected", "not finite"])
def test_one_weight_that_is_wrong_is_named(tmp_path, change):
    model = model_of()
    state = build_network(model, 10).state_dict()
    if change == "missing":
        del state["layer2.0.conv1.weight"]
    elif change == "unexpected":
        state["layer2.0.conv9.weight"] = torch.zeros(1)
    else:
        state["layer2.0.conv1.weight"][0] = float("nan")
    torch.save(state, tmp_path / "w.pth")
    with pytest.raises(StateDictMismatch, match=rf"1 weights {change}: layer2\.0\.conv"):
        fit(tmp_path / "w.pth", build_network(model, 10), model)


def test_the_same_is_said_without_memory(tmp_path):
    model = model_of("resnet18", attention="cbam")
    theirs = convert_state_dict(build_network(model, 3).state_dict(), source="ours", target="authors")
    torch.save(theirs, tmp_path / "w.pth")
    with torch.device("meta"):
        network = build_network(model, 3)
    assert fit(tmp_path / "w.pth", network, model).loaded == len(theirs)
    with torch.device("meta"):
        network = build_network(model, 4)
    with pytest.raises(StateDictMismatch, match="head: drop"):
        fit(tmp_path / "w.pth", network, model)


class Harmful:
    """What runs a program where it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def test_nothing_of_a_file_is_run(tmp_path):
    torch.save({"state_dict": Harmful(tmp_path / "run")}, tmp_path / "w.pth")
    with pytest.raises(WeightsUnavailable, match="tensors and plain values alone"):
        read_weights(tmp_path / "w.pth", DataRoots.of([tmp_path]))
    assert not (tmp_path / "run").exists()


def test_what_is_no_weights_file_is_refused(tmp_path):
    roots = DataRoots.of([tmp_path])
    for name, content in {"list": [1], "words": {"state_dict": {"a": "b"}}, "empty": {"state_dict": {}}}.items():
        torch.save(content, tmp_path / name)
        with pytest.raises(StateDictMismatch, match="state_dict alone"):
            read_weights(tmp_path / name, roots)
    (tmp_path / "text").write_text("no weights")
    (tmp_path / "cut").write_bytes((100).to_bytes(8, "little") + b"{" + b" " * 200)
    for name in ("text", "cut", "absent"):
        with pytest.raises(WeightsUnavailable):
            read_weights(tmp_path / name, roots)


def test_other_bytes_and_other_folders_are_refused(tmp_path):
    path = tmp_path / "w.safetensors"
    save_file({"a": torch.zeros(1)}, path)
    with pytest.raises(WeightsUnavailable, match="not those that were asked for"):
        read_weights(path, DataRoots.of([tmp_path]), sha256="0" * 64)
    (tmp_path / "open").mkdir()
    (tmp_path / "open" / "link").symlink_to(path)
    with pytest.raises(DataError, match="leads out"):
        read_weights(tmp_path / "open" / "link", DataRoots.of([tmp_path / "open"]))


def test_images_are_normalised_as_the_file_says_or_as_imagenet(tmp_path):
    plain, ours = tmp_path / "plain.safetensors", tmp_path / "ours.safetensors"
    save_file({"a": torch.zeros(1)}, plain)
    save_file({"a": torch.zeros(1)}, ours, {"mean": "[0.1]", "std": "[0.2]"})
    roots = DataRoots.of([tmp_path])
    options = model_of().weights
    assert normalisation_of(read_weights(plain, roots), options, 3) == IMAGENET
    assert normalisation_of(read_weights(ours, roots), options, 1) == Normalisation((0.1,), (0.2,))
    for chosen, expected in (("imagenet", IMAGENET), ("dataset", None)):
        options = model_of(weights={"source": "/w", "normalisation": chosen}).weights
        assert normalisation_of(read_weights(ours, roots), options, 3) == expected
