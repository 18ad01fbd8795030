"""A table is looked at when it is submitted, and counted for a preview."""

import pytest

from tests.support.specs import spec_dict


@pytest.fixture
def opened(settings):
    settings.data_roots[0].mkdir(parents=True)
    return settings.data_roots[0]


def write(root, rows, header="image,label,split"):
    path = root / "t.csv"
    path.write_text("\n".join([header, *rows]))
    for row in rows:
        (root / row.partition(",")[0]).touch()
    return path


def body(root, **fields):
    return spec_dict(data={"dataset": "table", "root": str(root), **fields})


def rows(count=40):
    return [
        f"{number}.png,{'cat' if number % 2 else 'dog'},{'train' if number < 30 else 'test'}" for number in range(count)
    ]


def refusal(http, sent):
    """What is said of a submission, of its preview alike."""
    said = set()
    for path in ("/v1/experiments", "/v1/experiments/preview"):
        answer = http.post(path, json=sent)
        assert answer.status_code == 422, answer.text
        (error,) = answer.json()["errors"]
        assert error["pointer"] == "/data/root"
        said.add(error["detail"])
    (detail,) = said
    return detail


def test_a_preview_counts_classes_and_parts(http, opened):
    path = write(opened, rows())
    whole = http.post("/v1/experiments/preview", json=body(path)).json()
    assert (whole["classes"], whole["train_images"], whole["val_images"], whole["test_images"]) == (2, 29, 3, 8)
    named = http.post("/v1/experiments/preview", json=body(path, columns={"split": "split"})).json()
    assert (named["train_images"], named["val_images"], named["test_images"]) == (27, 3, 10)
    assert "10 test (the rows of test)" in named["split"]
    assert http.post("/v1/experiments", json=body(path)).status_code == 201


def test_what_is_not_there_is_refused(http, opened):
    (opened / "another").touch()
    assert "neither a table nor a folder" in refusal(http, body(opened / "no.csv"))
    assert "holds no table" in refusal(http, body(opened))
    path = write(opened, rows())
    (opened / "7.png").unlink()
    assert "7.png, which row 8 names, is not there" in refusal(http, body(path))
    assert "no column kind, but image, label, split" in refusal(http, body(path, columns={"label": "kind"}))
    assert "no column patient" in refusal(http, body(path, val={"group": "patient"}))
    assert "rows have no label" in refusal(http, body(write(opened, [*rows(), "x.png,,train"])))


@pytest.mark.parametrize("outside", ["/etc/hostname", "../secret.png"])
def test_nothing_out_of_the_data_roots_is_looked_at(http, opened, outside):
    (opened.parent / "secret.png").touch()
    path = opened / "t.csv"
    path.write_text("\n".join(["image,label,split", f"{outside},cat,train", f"{outside},dog,train"]))
    assert "leads out of the folders" in refusal(http, body(path))
    link = opened / "link.csv"
    link.symlink_to("/etc/hostname")
    assert "not below one of the data roots" in refusal(http, body(link))


def test_columns_belong_to_tables_and_a_table_has_a_place(http):
    sent = spec_dict()
    sent["data"]["columns"] = {"image": "file"}
    assert http.post("/v1/experiments", json=sent).status_code == 422
    assert http.post("/v1/experiments", json=spec_dict(data={"dataset": "table"})).status_code == 422


def test_a_table_that_is_not_seen_is_left_to_the_workers(http, settings):
    answer = http.post("/v1/experiments/preview", json=body(settings.data_roots[0] / "t.csv"))
    assert answer.status_code == 200, answer.text
    assert "folder_not_counted" in {warning["code"] for warning in answer.json()["warnings"]}
