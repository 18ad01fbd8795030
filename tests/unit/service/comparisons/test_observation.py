"""What a row keeps of a run's predictions, and what is read back from it."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from service.comparisons.observation import Observation, read_observation
from tests.support.predictions import CLASSES, IMAGES, write_predictions


def test_the_part_that_is_compared_is_read(tmp_path):
    path = tmp_path / "predictions.parquet"
    write_predictions(path, correct=7)
    found = read_observation(path, "test/top1")
    assert found.right.tolist() == [True] * 7 + [False] * (IMAGES - 7)
    assert (found.classes, found.groups) == (CLASSES, None)
    assert read_observation(path, "val/top1").correct == 0
    assert read_observation(path, "test/top1", best=True).correct == 7, "the best weights were the final ones"


def test_images_of_one_group_have_one_number_and_those_of_none_stand_alone(tmp_path):
    path = tmp_path / "predictions.parquet"
    write_predictions(path, correct=7)
    groups = ["a", "a", "b", None, None, *["c"] * (2 * IMAGES - 5)]
    pq.write_table(pq.read_table(path).append_column("group", pa.array(groups)), path)
    assert read_observation(path, "test/top1").groups.tolist() == [0, 0, 1, 2, 3, *[4] * (IMAGES - 5)]


def test_it_is_the_same_after_the_database(tmp_path):
    right = np.random.default_rng(0).random(1001) < 0.7
    groups = np.arange(1001, dtype=np.int32) // 3
    stored = Observation(right, groups, 10, "digest").to_json()
    again = Observation.from_json(stored)
    assert (again.right == right).all()
    assert (again.groups == groups).all()
    assert (again.classes, again.digest, again.correct) == (10, "digest", int(right.sum()))
    alone = Observation(right, None, 10, "digest").to_json()
    assert len(alone["right"]) < 300, "an eighth of a byte for each image, and their base64"


def test_other_images_have_another_digest(tmp_path):
    digests = set()
    for images in (IMAGES, IMAGES + 10):
        path = tmp_path / f"{images}.parquet"
        write_predictions(path, correct=7, images=images)
        digests.add(read_observation(path, "test/top1").digest)
    assert len(digests) == 2
