"""Which files of a folder of classes are images, where links lead, and what is said of the rest."""

import os
import time

import pytest

from cbam_core.data_roots import ANYWHERE, DataRoots
from cbam_core.errors import DataError
from cbam_core.image_folders.counts import count_images
from cbam_core.image_folders.listing import ClassFolders, ListingTooLong


def touch(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


@pytest.fixture
def train(tmp_path):
    """Two classes, of two images and of one."""
    touch(tmp_path / "mine" / "train", "cat/1.jpg", "cat/2.PNG", "dog/1.webp")
    return tmp_path / "mine" / "train"


def listed(folder, roots=ANYWHERE):
    """The images as paths below the folder, and what was left out."""
    folders = ClassFolders(folder, roots)
    paths = [path for name in folders.names for path in folders.images(name)]
    return [str(path.relative_to(folder)) for path in paths], dict(folders.left_out)


IMAGES = ["cat/1.jpg", "cat/2.PNG", "dog/1.webp"]


@pytest.mark.parametrize(
    "name",
    [
        ".ipynb_checkpoints/0-checkpoint.png",
        "cat/.ipynb_checkpoints/1-checkpoint.jpg",
        "cat/._1.jpg",
        "cat/.DS_Store",
        ".git/objects/1.png",
        "@eaDir/1.jpg",
        "cat/@eaDir/SYNOPHOTO_THUMB_M.jpg",
        "__MACOSX/cat/1.jpg",
        "dog/__MACOSX/1.jpg",
        "Thumbs.db",
        "cat/thumbs.db",
        "cat/THUMBS.DB/1.jpg",
        "desktop.ini",
        "dog/Desktop.ini",
        "#recycle/1.jpg",
        "@Recycle/1.jpg",
        "$RECYCLE.BIN/1.jpg",
        "System Volume Information/1.jpg",
        "lost+found/1.jpg",
    ],
)
def test_what_machines_leave_behind_is_nothing(train, name):
    touch(train, name)
    assert listed(train) == (IMAGES, {})


def test_a_link_by_such_a_name_is_not_followed(train, tmp_path):
    (train / ".trash").symlink_to("/etc")
    (train / "cat" / ".old").symlink_to(tmp_path / "nowhere")
    roots = DataRoots.of([tmp_path])
    assert listed(train, roots) == (IMAGES, {})
    assert roots.first_link_out(train.parent, "imagefolder") is None


def test_what_is_left_out_is_counted_by_its_kind(train):
    touch(train, "cat/a.gif", "cat/deep/b.GIF", "dog/c.heic", "dog/README", "notes.txt", "loose.jpg", "dog/d.jpg.bak")
    images, left_out = listed(train)
    assert images == IMAGES
    assert left_out == {
        ".gif": 2, ".heic": 1, "without an extension": 1, ".txt": 1, ".jpg in no class folder": 1, ".bak": 1
    }  # fmt: skip
    folders = ClassFolders(train, ANYWHERE)
    folders.images("cat")
    assert folders.summary() == "2 .gif, 1 .jpg in no class folder, 1 .txt"


def test_a_kind_that_would_move_the_cursor_is_shown_escaped(train):
    touch(train, "cat/a.\x1b[2j", "cat/b.\udcff")
    folders = ClassFolders(train, ANYWHERE)
    folders.images("cat")
    assert folders.summary() == "1 .\\u001b[2j, 1 .\\udcff"


@pytest.mark.parametrize("suffix", [".jfif", ".jpe", ".JPEG", ".pgm", ".pbm", ".pnm", ".ppm", ".bmp", ".tif", ".TIFF"])
def test_stills_by_any_of_their_names_are_read(train, suffix):
    touch(train, f"cat/3{suffix}")
    assert listed(train) == ([*IMAGES[:2], f"cat/3{suffix}", IMAGES[2]], {})


LINKS = {
    "a class": ("bird", ["bird/in/b.png", "bird/a.jpg"]),
    "a folder in a class": ("cat/more", ["cat/more/a.jpg", "cat/more/in/b.png"]),
    "a folder deep in a class": ("cat/deep/more", ["cat/deep/more/a.jpg", "cat/deep/more/in/b.png"]),
}


@pytest.mark.parametrize("kind", LINKS)
def test_a_link_to_a_folder_is_followed_wherever_it_stands(train, tmp_path, kind):
    link, expected = LINKS[kind]
    touch(tmp_path / "elsewhere", "a.jpg", "in/b.png")
    (train / link).parent.mkdir(exist_ok=True)
    (train / link).symlink_to(tmp_path / "elsewhere")
    images, left_out = listed(train, DataRoots.of([tmp_path]))
    assert sorted(images) == sorted(IMAGES + expected)
    assert left_out == {}


def test_a_link_to_an_image_is_followed(train, tmp_path):
    touch(tmp_path / "elsewhere", "a.jpg")
    (train / "cat" / "link.jpg").symlink_to(tmp_path / "elsewhere" / "a.jpg")
    assert listed(train, DataRoots.of([tmp_path]))[0] == [*IMAGES[:2], "cat/link.jpg", IMAGES[2]]


@pytest.mark.parametrize("link", ["bird", "cat/more", "cat/deep/more", "cat/3.jpg", "cat/notes.txt", "notes.txt"])
def test_a_link_that_leads_out_is_refused_wherever_it_stands(train, tmp_path, link):
    touch(tmp_path / "private", "secret.jpg")
    (train / link).parent.mkdir(exist_ok=True)
    (train / link).symlink_to(tmp_path / "private" / ("secret.jpg" if "." in link else ""))
    with pytest.raises(DataError, match=rf"train/{link} is a link that leads out of the folders") as raised:
        listed(train, DataRoots.of([train.parent]))
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize("link", ["bird", "cat/more", "cat/3.jpg"])
@pytest.mark.parametrize("target", ["nowhere", "itself"])
def test_a_link_that_leads_nowhere_is_named(train, tmp_path, link, target):
    (train / link).symlink_to(train / link if target == "itself" else tmp_path / "nowhere")
    with pytest.raises(DataError, match=rf"train/{link} is a link that leads nowhere \((No such|Too many)"):
        listed(train)


@pytest.mark.parametrize(
    ("link", "target"),
    [
        ("cat/round", "cat"),
        ("cat/deep/round", "cat"),
        ("cat/deep/round", "cat/deep"),
        ("cat/round", "."),
        ("cat/round", ".."),
        ("cat/round", "../.."),
        ("cat/round", "dog"),
        ("dog/round", "cat/deep"),
        ("bird", "cat"),
        ("bird", "."),
        ("bird", "cat/deep"),
    ],
)
def test_a_folder_that_a_link_reaches_again_is_refused(train, link, target):
    """Circles among them: all end."""
    touch(train, "cat/deep/3.jpg")
    (train / link).symlink_to((train / target).resolve())
    with pytest.raises(
        DataError, match="are the same folder, by a link: its images would count twice; delete the link"
    ):
        listed(train)


def test_links_that_fan_out_are_refused_at_the_second_way(train):
    """Twenty floors with two links each are a million ways down."""
    floors = [train.parent / f"floor{number}" for number in range(20)]
    for floor, below in zip(floors, [*floors[1:], train / "dog"], strict=True):
        floor.mkdir()
        for name in ("left", "right"):
            (floor / name).symlink_to(below)
    (train / "cat" / "more").symlink_to(floors[0])
    started = time.monotonic()
    with pytest.raises(DataError, match="are the same folder"):
        listed(train)
    assert time.monotonic() - started < 10


def test_images_come_in_an_order_that_no_disk_decides(train):
    """The names of folders are compared whole: `a/2` stands before `a-b/1`, though `-` is before `/`."""
    touch(train, "cat/a-b/1.jpg", "cat/a/2.jpg", "cat/B/3.jpg")
    assert [path.relative_to(train / "cat").as_posix() for path in ClassFolders(train, ANYWHERE).images("cat")] == [
        "1.jpg", "2.PNG", "B/3.jpg", "a/2.jpg", "a-b/1.jpg"
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("files", "words"),
    [
        (["dataset/cat/1.jpg", "dataset/dog/1.jpg"], "one folder, dataset, which holds cat, dog: a level too many"),
        (["dataset/cat/1.jpg"], "one folder, dataset, which holds cat: a level too many; expected two classes or more"),
        (["cat/1.jpg", "cat/2.jpg"], r"has one class, cat; expected two classes or more, as train/<class>/<image>"),
        (["cat/1.jpg", "cat/close/2.jpg"], "has one class, cat"),
        (["1.jpg", "2.jpg", "labels.csv"], r"holds 2 \.jpg in no class folder, 1 \.csv and no class folders; expected"),
        ([".hidden/1.jpg"], "holds nothing and no class folders"),
    ],
)
def test_fewer_than_two_classes_are_refused_with_what_is_there(tmp_path, files, words):
    touch(tmp_path / "train", *files)
    with pytest.raises(DataError, match=f"train (has )?{words}"):
        ClassFolders(tmp_path / "train", ANYWHERE).check_names()


def test_a_class_whose_name_is_no_text_is_refused(train):
    os.mkdir(os.fsencode(train) + b"/\xff")
    with pytest.raises(DataError, match=r"a class whose name is not UTF-8: \\udcff; rename it"):
        ClassFolders(train, ANYWHERE).check_names()


def test_a_folder_that_cannot_be_listed_is_named(train):
    folders = ClassFolders(train, ANYWHERE)
    (train / "dog").rename(train / "gone")
    with pytest.raises(DataError, match=r"cannot list .*train/dog: .*No such file"):
        folders.images("dog")


def test_classes_and_images_are_counted(train):
    touch(train.parent, "val/cat/1.jpg", "train/cat/a.gif")
    counts = count_images(train.parent, ANYWHERE, seconds=60)
    assert (counts.classes, counts.images, counts.left_out) == (2, {"train": 3, "test": 1}, "1 .gif")
    assert counts.layout.became["test"] == "the folder val"
    whole = count_images(train.parent, ANYWHERE, seconds=60, val="folder")
    assert (whole.images, whole.layout.became["val"]) == ({"train": 3, "val": 1}, "the folder val")


def test_counting_ends_in_time(train, monkeypatch):
    """The classes are known first; without them there is nothing to say."""
    with pytest.raises(ListingTooLong):
        count_images(train.parent, ANYWHERE, seconds=-1)
    times = iter([0.0, 0.5, 1.5])
    monkeypatch.setattr("time.monotonic", lambda: next(times))
    counts = count_images(train.parent, ANYWHERE, seconds=1)
    assert (counts.classes, counts.images) == (2, None)


@pytest.mark.parametrize(
    ("files", "words"),
    [
        (["mine/dataset/train/cat/1.jpg"], "mine has one folder, dataset, which holds train: a level too many"),
        (["mine/val/cat/1.jpg"], "mine has no train folder, but the folder val; expected train/<class>"),
        (["mine/1.jpg"], r"mine has no train folder, but 1 \.jpg in no class folder; expected"),
        (["else"], "mine has no train folder, but nothing"),
    ],
)
def test_a_root_without_a_train_folder_says_what_it_holds(tmp_path, files, words):
    touch(tmp_path, *files)
    (tmp_path / "mine").mkdir(exist_ok=True)
    with pytest.raises(DataError, match=words):
        count_images(tmp_path / "mine", ANYWHERE, seconds=60)
