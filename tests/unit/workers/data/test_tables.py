"""Images that a table lists train as the same images in a folder, and what does not fit is named."""

import io
import json

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from cbam_core.errors import DataError
from cbam_core.spec import DataSpec
from workers.data import load_dataset
from workers.data.batches import Batches, RankShard
from workers.data.datasets.base import Order
from workers.data.datasets.identity import check_same_data

COUNT = 40


def picture(number):
    pixels = np.random.default_rng(number).integers(0, 255, (12, 9 + number % 5, 3), np.uint8)
    return Image.fromarray(pixels)


def encoded(number):
    buffer = io.BytesIO()
    picture(number).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def folder(tmp_path):
    """The same images in class folders, whose order is that of the tables."""
    for number in range(COUNT):
        path = tmp_path / "folder" / ("cat" if number < COUNT // 2 else "dog") / f"{number:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        picture(number).save(path)
    return tmp_path / "folder"


def labels():
    return ["cat" if number < COUNT // 2 else "dog" for number in range(COUNT)]


def paths():
    return [f"{label}/{number:02}.png" for number, label in enumerate(labels())]


def spec_of(root, **fields):
    return DataSpec.model_validate({"dataset": "table", "root": str(root), "image_size": 8, **fields})


def load(root, **fields):
    return load_dataset(spec_of(root, **fields), (str(root if root.is_dir() else root.parent),))


def write_csv(root, **columns):
    pa.csv.write_csv(pa.table(columns), root / "t.csv")
    return root / "t.csv"


def as_csv(root):
    return write_csv(root, image=paths(), label=labels())


def as_parquet_of_paths(root):
    pq.write_table(pa.table({"image": paths(), "label": labels()}), root / "t.parquet")
    return root / "t.parquet"


def as_parquet_of_bytes(root):
    images = [encoded(number) for number in range(COUNT)]
    pq.write_table(pa.table({"image": images, "label": labels()}), root / "t.parquet", row_group_size=7)
    return root / "t.parquet"


def huggingface_table():
    images = [{"bytes": encoded(number), "path": path} for number, path in enumerate(paths())]
    table = pa.table({"image": images, "label": [int(label == "dog") for label in labels()]})
    features = {"label": {"names": ["cat", "dog"], "_type": "ClassLabel"}, "image": {"_type": "Image"}}
    return table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})}), features


def as_huggingface_parquet(root):
    inner = root / "hub" / "data"
    inner.mkdir(parents=True)
    table, _ = huggingface_table()
    pq.write_table(table.slice(0, 23), inner / "train-00000-of-00002.parquet")
    pq.write_table(table.slice(23), inner / "train-00001-of-00002.parquet")
    return root / "hub"


def write_saved(folder, table, features):
    """As `Dataset.save_to_disk` writes it."""
    folder.mkdir(parents=True)
    name = "data-00000-of-00001.arrow"
    with pa.ipc.new_stream(folder / name, table.schema) as stream:
        stream.write_table(table)
    (folder / "state.json").write_text(json.dumps({"_data_files": [{"filename": name}], "_split": "train"}))
    (folder / "dataset_info.json").write_text(json.dumps({"features": features}))


def as_saved_to_disk(root):
    write_saved(root / "saved", *huggingface_table())
    return root / "saved"


KINDS = [as_csv, as_parquet_of_paths, as_parquet_of_bytes, as_huggingface_parquet, as_saved_to_disk]


@pytest.mark.parametrize("loaders", [0, 1])
@pytest.mark.parametrize("kind", KINDS)
def test_a_table_gives_what_the_folder_gives(folder, kind, loaders):
    fields = {"image_size": 8, "workers_per_rank": loaders, "crop_pct": 0.9}
    spec = DataSpec.model_validate({"dataset": "imagefolder", "root": str(folder), **fields})
    expected, found = load_dataset(spec, (str(folder),)), load(kind(folder), **fields)
    assert found.classes == expected.classes == ("cat", "dog")
    where = "the rows of train" if kind is as_huggingface_parquet else "the whole table"
    assert found.split.replace(where, "the whole folder") == expected.split
    assert (found.mean, found.std) == (expected.mean, expected.std)
    for part in ("train", "val", "test"):
        ours, theirs = getattr(found, part), getattr(expected, part)
        everything = Order(torch.arange(len(ours)))
        assert torch.equal(ours.take(everything), theirs.take(everything)), part
        assert torch.equal(ours.labels, theirs.labels)
        assert torch.equal(ours.origin, theirs.origin)
        assert ours.paths() is None or ours.paths() == theirs.paths()


@pytest.mark.parametrize("kind", [as_csv, as_parquet_of_bytes])
def test_two_ranks_with_loaders_and_a_resume_see_the_batches_of_one(folder, kind):
    whole = load(kind(folder), workers_per_rank=1)
    augment = {"random_resized_crop": True, "flip": 0.5}
    augment = DataSpec.model_validate({"dataset": "digits", "augment": augment}).augment

    def batches(rank, ranks, first, loaders):
        made = Batches(whole, RankShard(rank, ranks, 10), seed=3, augment=augment, loaders=loaders)
        stream = made.train_from(first)
        found = [tuple(each.clone() for each in next(stream)) for _ in range(4 - first)]
        stream.close()
        return found

    alone = batches(0, 1, 0, 0)
    resumed = batches(0, 1, 2, 1)
    ranks = [batches(rank, 2, 0, 1) for rank in range(2)]
    for step in range(4):
        for which in range(2):
            assert torch.equal(torch.cat([rank[step][which] for rank in ranks]), alone[step][which])
            if step >= 2:
                assert torch.equal(resumed[step - 2][which], alone[step][which])


def test_a_column_names_the_parts_and_columns_have_other_names(folder):
    splits = ["train"] * 14 + ["validation"] * 3 + ["Test"] * 3
    path = write_csv(folder, file=paths(), kind=labels(), part=splits * 2, image=["no"] * COUNT)
    found = load(path, columns={"image": "file", "label": "kind", "split": "part"})
    assert (len(found.train), len(found.val), len(found.test)) == (28, 6, 6)
    assert found.test.origin.tolist() == [17, 18, 19, 37, 38, 39]
    assert found.became["test"] == "the rows of test"


def test_saved_splits_are_the_parts(tmp_path):
    table, features = huggingface_table()
    write_saved(tmp_path / "d" / "train", table.slice(5, 30), features)
    write_saved(tmp_path / "d" / "test", table.slice(0, 5), features)
    (tmp_path / "d" / "dataset_dict.json").write_text('{"splits": ["train", "test"]}')
    found = load(tmp_path / "d")
    assert (len(found.train) + len(found.val), len(found.test)) == (30, 5)


def test_rows_of_a_group_stay_together_and_predictions_know_it(folder, tiny_spec, assign, train):
    groups = [f"patient {number // 4}" for number in range(COUNT)]
    path = write_csv(folder, image=paths(), label=labels(), patient=groups)
    val = {"fraction": 0.3, "group": "patient"}
    found = load(path, val=val)
    of_part = {part: {groups[row] for row in getattr(found, part).origin.tolist()} for part in ("train", "val", "test")}
    assert sum(map(len, of_part.values())) == len(set(groups))
    data = {"dataset": "table", "root": str(path), "val": val}
    spec = tiny_spec(data=data, train={"epochs": 1, "global_batch_size": 8})
    one = assign(spec, data_roots=(str(folder),))
    outcome, _ = train(one)
    assert outcome.outcome == "succeeded", outcome.message
    said = pq.read_table(one.folder.predictions).to_pylist()
    assert all(row["group"] == groups[row["index"]] for row in said)


def test_copies_of_an_image_stay_in_one_part(tmp_path):
    images = [encoded(number % 20) for number in range(COUNT)]
    table = pa.table({"image": images, "label": [number % 2 for number in range(COUNT)]})
    pq.write_table(table, tmp_path / "t.parquet")
    found = load(tmp_path / "t.parquet", val={"fraction": 0.4})
    parts = [{row % 20 for row in getattr(found, part).origin.tolist()} for part in ("train", "val", "test")]
    assert sum(map(len, parts)) == 20


@pytest.mark.parametrize("kind", [as_csv, as_parquet_of_bytes])
def test_other_images_or_classes_are_other_data(folder, kind):
    before = load(kind(folder)).identity
    check_same_data(before, load(kind(folder)).identity)
    if kind is as_csv:
        (folder / "cat" / "00.png").rename(folder / "cat" / "99.png")
        write_csv(folder, image=["cat/99.png", *paths()[1:]], label=labels())
    else:
        images = [encoded(number + 1) for number in range(COUNT)]
        pq.write_table(pa.table({"image": images, "label": labels()}), folder / "t.parquet")
    with pytest.raises(DataError, match="some have other names"):
        check_same_data(before, load(folder / ("t.csv" if kind is as_csv else "t.parquet")).identity)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"label": None}, r"has no column label, but image"),
        ({"label": ["cat"] * COUNT}, r"has 1 class \(cat\)"),
        ({"label": [*labels()[1:], ""]}, r"1 rows have no label, the first is row 40"),
        ({"image": [*paths()[:-1], ""]}, r"1 rows have no image, the first is row 40"),
        ({"image": [*paths()[:-1], "dog/no.png"]}, r"1 of 40 images of the table are not there: .*no\.png \(row 40\)"),
        ({"image": [*paths()[:-1], "/etc/hostname"]}, r"leads out of the folders"),
        ({"split": ["train"] * 39 + ["holdout"]}, r"'holdout' is no part"),
        ({"split": ["train"] * 20 + ["test"] * 20}, r"no rows to train on of 1 classes: dog"),
        ({"split": ["test"] * 40}, r"no row of the table is to train on"),
    ],
)
def test_what_does_not_fit_is_named(folder, change, words):
    columns = {"image": paths(), "label": labels()} | change
    path = write_csv(folder, **{name: values for name, values in columns.items() if values is not None})
    fields = {"columns": {"split": "split"}} if "split" in change else {}
    with pytest.raises(DataError, match=words):
        load(path, **fields)


def test_an_image_in_the_table_that_cannot_be_read_is_named_by_its_row(tmp_path):
    images = [encoded(number) for number in range(COUNT - 1)] + [b"no image"]
    pq.write_table(pa.table({"image": images, "label": labels()}), tmp_path / "t.parquet")
    with pytest.raises(DataError, match="the image of row 40"):
        load(tmp_path / "t.parquet")


def test_odd_files_and_columns_are_refused(tmp_path):
    (tmp_path / "t.txt").write_text("x")
    with pytest.raises(DataError, match=r"is no table; expected a \.csv"):
        load(tmp_path / "t.txt")
    (tmp_path / "t.parquet").write_text("no parquet")
    with pytest.raises(DataError, match=r"cannot read .*t\.parquet"):
        load(tmp_path / "t.parquet")
    for column, words in ((1.5, "holds double, and neither"), (True, "holds bool, and neither")):
        pq.write_table(pa.table({"image": [column] * 4, "label": [0, 1, 0, 1]}), tmp_path / "t.parquet")
        with pytest.raises(DataError, match=words):
            load(tmp_path / "t.parquet")
    pq.write_table(pa.table({"image": ["a"] * 2, "label": [0.5, 1.5]}), tmp_path / "t.parquet")
    with pytest.raises(DataError, match="neither text nor whole numbers"):
        load(tmp_path / "t.parquet")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="holds no table"):
        load(tmp_path / "empty")


def test_labels_of_huggingface_that_are_none_are_refused(tmp_path):
    table, _ = huggingface_table()
    unlabelled = table.set_column(1, "label", pa.array([-1] * COUNT)).replace_schema_metadata(table.schema.metadata)
    pq.write_table(unlabelled, tmp_path / "t.parquet")
    with pytest.raises(DataError, match="none of its 2 classes, as -1 in row 1"):
        load(tmp_path / "t.parquet")


def test_columns_are_of_a_table():
    with pytest.raises(ValueError, match="has no columns"):
        DataSpec.model_validate({"dataset": "digits", "columns": {}})
