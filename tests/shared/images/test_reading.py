"""Data sets of images, whole and damaged."""

import io
import json
import zipfile

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from shared.cli.errors import UserError
from shared.images.reading import IGNORED, load_images
from shared.images.sources import fit_image, read_image


def png(array, **options):
    file = io.BytesIO()
    Image.fromarray(np.asarray(array, np.uint8)).save(file, "PNG", **options)
    return file.getvalue()


def noise(seed, size=(8, 10)):
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)


def write(folder, files):
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else png(content))
    return folder


def refusal(args, task):
    with pytest.raises(UserError) as error:
        load_images(args, task)
    return str(error.value)


def two_classes(n=10, prefix=""):
    names = ("cat", "dog")
    return {f"{prefix}{names[i % 2]}/{i}.png": noise(i) for i in range(n)}


# --- a folder of each class ----------------------------------------------------------------------


def test_a_folder_for_each_class_is_split_evenly(tmp_path, flags):
    data = load_images(flags(write(tmp_path / "a", two_classes(20))), "classify")
    assert data.class_names == ["cat", "dog"]
    assert data.images.shape == (20, 8, 10, 3)
    rows = np.concatenate([data.parts[part] for part in ("train", "valid", "test")])
    assert sorted(rows) == list(range(20))
    for part in ("valid", "test"):
        assert np.bincount(data.targets[data.parts[part]]).tolist() == [2, 2]
    row = data.files.index("dog/7.png")
    assert np.array_equal(data.images[row], noise(7))
    assert data.targets[row] == 1


def test_a_zip_with_parts_and_files_of_other_programs(tmp_path, flags):
    files = two_classes(6, "photos/my_train/") | two_classes(4, "photos/my_test/")
    for name in list(files):
        if "my_test" in name:
            files[name] = noise(50 + len(name) + int(name[-5]))
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for name, image in files.items():
            archive.writestr(name, png(image))
        archive.writestr("__MACOSX/photos/my_train/cat/._0.png", b"nothing")
        archive.writestr("photos/readme.txt", b"text")
    data = load_images(flags(tmp_path / "a.zip", valid_size=0), "classify")
    assert {part: len(rows) for part, rows in data.parts.items()} == {
        "train": 6,
        "valid": 0,
        "test": 4,
    }


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.integers(0, 4), min_size=12, max_size=30), st.integers(0, 5))
def test_exact_duplicates_never_face_each_other(tmp_path_factory, flags, picks, seed):
    files = {f"{'ab'[i % 2]}/{i}.png": noise(pick) for i, pick in enumerate([*picks, *range(9)])}
    args = flags(write(tmp_path_factory.mktemp("d"), files), seed=seed)
    try:
        data = load_images(args, "classify")
    except UserError:
        return  # too few different images for three parts
    seen = [{data.images[row].tobytes() for row in rows} for rows in data.parts.values()]
    assert not (seen[0] & (seen[1] | seen[2]))
    assert not (seen[1] & seen[2])


def test_duplicates_of_given_test_images_are_left_out_and_counted(tmp_path, flags):
    files = two_classes(10, "train/") | {"test/cat/x.png": noise(0), "test/dog/y.png": noise(90)}
    data = load_images(flags(write(tmp_path / "a", files), valid_size=0), "classify")
    assert len(data.parts["train"]) == 9
    assert data.notes == ["1 exact duplicates of valid or test images are left out of train"]


def test_mistakes_of_class_folders(tmp_path, flags):
    good = two_classes()
    for name, files, expected in (
        ("empty", {"a.txt": b"text"}, "holds no images"),
        ("loose", good | {"x.png": noise(3)}, "x.png: lies in no folder of a class"),
        ("one", {f"cat/{i}.png": noise(i) for i in range(9)}, "only one class, cat"),
        ("text", good | {"dog/x.png": b"no image"}, "dog/x.png: not an image"),
        ("cut", good | {"dog/x.png": png(noise(3))[:60]}, "dog/x.png: unreadable image: "),
        (
            "unseen",
            two_classes(8, "train/") | {"test/cow/a.png": noise(70)},
            "the class cow is in 1 validation or test images, but in no training image",
        ),
        (
            "outside",
            two_classes(8, "train/") | two_classes(4, "test/") | {"cat/x.png": noise(9)},
            "1 images, first cat/x.png, lie outside the folders train, valid and test",
        ),
        ("untrained", two_classes(8, "test/"), "has a part for the test, but none to train on"),
    ):
        assert expected in refusal(flags(write(tmp_path / name, files)), "classify"), name
    assert "no such folder, .zip or .npz" in refusal(flags(tmp_path / "none"), "classify")
    (tmp_path / "bad.zip").write_bytes(b"PK")
    assert "bad.zip: not a readable zip" in refusal(flags(tmp_path / "bad.zip"), "classify")


def test_images_of_any_mode_and_size(tmp_path, flags):
    turned = Image.fromarray(noise(1, (8, 12)))
    exif = turned.getexif()
    exif[274] = 6  # turn by 90 degrees
    turned.save(tmp_path / "turned.png", exif=exif)
    assert read_image(tmp_path / "turned.png").shape == (12, 8, 3)
    assert read_image(tmp_path / "turned.png", upright=False).shape == (8, 12, 3)
    Image.fromarray(np.full((4, 4), 65535, np.uint16)).save(tmp_path / "deep.png")
    assert (read_image(tmp_path / "deep.png") == 255).all()
    clear = np.zeros((4, 4, 4), np.uint8)
    Image.fromarray(clear).save(tmp_path / "clear.png")
    assert (read_image(tmp_path / "clear.png") == 255).all()  # white
    stretched = fit_image(noise(2, (10, 20)), (8, 8), keep_shape=False)
    kept = fit_image(noise(2, (10, 20)), (8, 8), keep_shape=True)
    assert stretched[4:].any()
    assert kept[:4].any()
    assert not kept[4:].any()


# --- masks ---------------------------------------------------------------------------------------


def masks(n=8, values=(0, 1, 2)):
    files = {}
    for i in range(n):
        mask = np.random.default_rng(i).choice(values, (8, 10))
        files |= {f"images/{i}.jpg": png(noise(i)), f"masks/{i}.png": mask}
    return files


def test_masks_and_their_classes(tmp_path, flags):
    files = masks() | {"classes.json": json.dumps(["void", "road", "sky"]).encode()}
    data = load_images(flags(write(tmp_path / "a", files)), "segment")
    assert data.class_names == ["road", "sky"]
    original = np.random.default_rng(0).choice((0, 1, 2), (8, 10))
    assert np.array_equal(data.targets[0], np.array([IGNORED, 0, 1])[original])
    numbered = load_images(flags(write(tmp_path / "b", masks())), "segment")
    assert numbered.class_names == ["0", "1", "2"]
    args = flags(tmp_path / "b", instance_class="person", image_size=[16, 16])
    persons = load_images(args, "segment")
    assert persons.class_names == ["background", "person"]
    # 8 x 10 becomes 13 x 16; below lies nothing.
    assert (persons.targets[0][13:] == IGNORED).all()
    assert set(np.unique(persons.targets[0][:13])) == {0, 1}


def test_mistakes_of_masks(tmp_path, flags):
    good = masks()
    for name, files, expected, changed in (
        ("lonely", {**good, "images/x.png": noise(1)}, "x.png: has no mask of the same name", {}),
        (
            "size",
            good | {"masks/3.png": np.zeros((4, 10))},
            "masks/3.png: has 4 x 10 pixels, its image 8 x 10",
            {},
        ),
        ("colours", good | {"masks/3.png": noise(1)}, "masks/3.png: a mask of RGB colours", {}),
        ("names", good, "a mask has the value 2, but only 2 classes", {"class_names": ["a", "b"]}),
        (
            "ignored",
            good,
            "--ignored_classes x: must be any of 0, 1, 2",
            {"ignored_classes": ["x"]},
        ),
        ("none", {"a/1.png": noise(1)}, "holds no folder named images", {}),
        ("json", good | {"classes.json": b"{"}, "classes.json: no valid JSON", {}),
        ("one", masks(values=(0,)), "only one class, 0", {}),
    ):
        args = flags(write(tmp_path / name, files), **changed)
        assert expected in refusal(args, "segment"), name


# --- boxes ---------------------------------------------------------------------------------------


def boxes(n=8):
    entries = [
        {
            "file": f"images/{i}.png",
            "objects": [
                {"label": "cat", "box": [1, 2, 5, 6]},
                {"label": "dog", "box": [4, 4, 10.5, 8]},
                {"label": "dog", "box": [3, 3, 3, 3]},
            ],
        }
        for i in range(n)
    ]
    return {f"images/{i}.png": noise(i) for i in range(n)}, entries


def annotated(folder, images, entries):
    return write(folder, images | {"annotations.json": json.dumps(entries).encode()})


def test_boxes_of_both_forms(tmp_path, flags):
    images, entries = boxes()
    data = load_images(flags(annotated(tmp_path / "a", images, entries)), "detect")
    assert data.class_names == ["cat", "dog"]
    # Half a pixel outside is rounding; a box without area is left out.
    assert data.targets[0].tolist() == [[1, 2, 5, 6, 0], [4, 4, 10, 8, 1]]
    assert data.notes == ["8 boxes without area are left out"]
    coco = {
        "images": [{"id": i, "file_name": f"images/{i}.png"} for i in range(8)],
        "categories": [{"id": 3, "name": "cat"}],
        "annotations": [{"image_id": i, "category_id": 3, "bbox": [1, 2, 4, 4]} for i in range(7)],
    }
    data = load_images(flags(annotated(tmp_path / "b", images, coco), image_size=[16]), "detect")
    np.testing.assert_allclose(data.targets[0], [[1.6, 3.2, 8, 9.6, 0]])
    assert data.targets[7].shape == (0, 5)


def test_mistakes_of_boxes(tmp_path, flags):
    images, entries = boxes()

    def changed(**values):
        return [*entries[:3], entries[3] | values, *entries[4:]]

    outside = {"objects": [{"label": "cat", "box": [1, 2, 15, 6]}]}
    for name, content, expected in (
        (
            "outside",
            changed(**outside),
            "images/3.png: box 1 (cat, [1.0, 2.0, 15.0, 6.0]) lies outside the image of 10 x 8",
        ),
        ("three", changed(objects=[{"label": "a", "box": [1, 2, 3]}]), "entry 4: box [1, 2, 3]"),
        ("nan", changed(objects=[{"label": "a", "box": [1, 2, 3, None]}]), "entry 4: "),
        ("label", changed(objects=[{"box": [1, 2, 3, 4]}]), "entry 4: no 'label'"),
        ("missing", changed(file="images/x.png"), "names images/x.png, which does not exist"),
        ("form", {"a": 1}, "neither a list of images nor COCO's object"),
        ("empty", [e | {"objects": []} for e in entries], "holds no box"),
        (
            "corners",
            changed(objects=[{"label": "cat", "box": [5, 2, 1, 6]}]),
            "images/3.png: box 1 (cat, [5.0, 2.0, 1.0, 6.0]) ends before it begins; boxes are x1, "
            "y1, x2, y2",
        ),
        ("twice", [*entries, entries[3]], "names images/3.png twice; put all of its boxes into"),
        ("number", [1, 2], "entry 1: must be an object with file and objects"),
        ("text", changed(objects="cat"), "entry 4: 'cat' is no object with label and box"),
        ("coco", {"images": 3, "annotations": [], "categories": []}, "images: must be a list"),
    ):
        args = flags(annotated(tmp_path / name, images, content))
        assert expected in refusal(args, "detect"), name
    clipped = load_images(flags(tmp_path / "outside", boxes_outside="clip"), "detect")
    assert clipped.targets[3].tolist() == [[1, 2, 10, 6, 0]]
    write(tmp_path / "form", {"annotations.json": b"["})
    assert "annotations.json: no valid JSON" in refusal(flags(tmp_path / "form"), "detect")


# --- arrays --------------------------------------------------------------------------------------


def test_arrays_with_parts_names_and_a_second_input(tmp_path, flags):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (40, 6, 6), dtype=np.uint8)
    labels, groups = np.arange(40) % 4, np.arange(40) % 2
    names = np.array(["a", "b", "c", "d"])
    path = tmp_path / "a.npz"
    np.savez(path, images=images, kind=labels, kind_names=names, group=groups)
    args = flags(path, label_array="kind", second_input="group", second_output="group")
    data = load_images(args, "classify")
    assert data.class_names == ["a", "b", "c", "d"]
    assert data.context_names == ["0", "1"]
    assert data.second_names == ["0", "1"]
    assert np.array_equal(data.images[3][..., 2], images[3])
    floats = tmp_path / "b.npz"
    np.savez(
        floats, x_train=images / 255, y_train=labels, x_test=images[:4] / 300, y_test=labels[:4]
    )
    data = load_images(flags(floats), "classify")
    assert len(data.parts["test"]) == 4
    assert np.abs(data.images[5][..., 0].astype(int) - images[5]).max() <= 1


def test_too_few_images_to_divide(tmp_path, flags):
    np.savez(tmp_path / "few.npz", images=np.zeros((9, 4, 4), np.uint8), labels=np.arange(9) % 2)
    line = refusal(flags(tmp_path / "few.npz"), "classify")
    assert "few.npz: 9 images, 1 of them different, cannot be divided into train" in line
    line = refusal(flags("sample", valid_size=0.5, test_size=0.6), "classify")
    assert "lower --valid_size and --test_size" in line


def test_mistakes_of_arrays(tmp_path, flags):
    images, labels = np.zeros((6, 4, 4), np.uint8), np.arange(6) % 2
    for name, arrays, expected in (
        ("name", {"pictures": images, "labels": labels}, "--image_array images: "),
        ("shape", {"images": images[0], "labels": labels}, "images of shape (4, 4)"),
        ("rows", {"images": images, "labels": labels[:4]}, "must be 6 whole numbers from 0"),
        ("nan", {"images": images * np.nan, "labels": labels}, "is not finite"),
        ("y", {"x_train": images}, "has x_train, but no y_train"),
    ):
        path = tmp_path / f"{name}.npz"
        np.savez(path, **arrays)
        assert expected in refusal(flags(path), "classify"), name
    np.savez_compressed(tmp_path / "good.npz", images=images + labels[:, None, None], labels=labels)
    good = (tmp_path / "good.npz").read_bytes()
    for content in (b"", b"PK", good[: len(good) // 2], good[:150] + bytes(50) + good[200:]):
        (tmp_path / "bad.npz").write_bytes(content)
        assert "bad.npz: not a readable .npz" in refusal(flags(tmp_path / "bad.npz"), "classify")
    assert "a .npz is read with --task classify" in refusal(flags(tmp_path / "bad.npz"), "detect")


@pytest.mark.parametrize("task", ["classify", "segment", "detect"])
def test_the_sample_is_the_same_each_time_and_fits_its_targets(task, flags):
    data = load_images(flags("sample"), task)
    again = load_images(flags("sample"), task)
    assert np.array_equal(data.fingerprints(), again.fingerprints())
    assert min(data.label_counts().values()) > 50
    if task == "detect":
        assert all(((b[:, :4] >= 0) & (b[:, :4] <= 48)).all() for b in data.targets)


# --- without classes, to generate images ---------------------------------------------------------


def test_images_without_classes_can_be_generated(tmp_path, flags):
    write(tmp_path / "flat", {f"{i}.png": noise(i) for i in range(10)})
    data = load_images(flags(tmp_path / "flat"), "generate")
    assert data.class_names == ["image"]
    assert sum(map(len, data.parts.values())) == 10
    write(
        tmp_path / "parts", {f"{'test' if i < 3 else 'train'}/{i}.png": noise(i) for i in range(9)}
    )
    data = load_images(flags(tmp_path / "parts", valid_size=0), "generate")
    assert [len(data.parts[part]) for part in ("train", "valid", "test")] == [6, 0, 3]
    write(tmp_path / "classes", two_classes())
    assert load_images(flags(tmp_path / "classes"), "generate").class_names == ["cat", "dog"]


def test_arrays_without_classes_can_be_generated(tmp_path, flags):
    images = np.array([noise(i) for i in range(10)])
    np.savez(tmp_path / "one.npz", images=images)
    assert len(load_images(flags(tmp_path / "one.npz"), "generate").images) == 10
    np.savez(tmp_path / "two.npz", x_train=images[:7], x_test=images[7:])
    data = load_images(flags(tmp_path / "two.npz", valid_size=0), "generate")
    assert len(data.parts["test"]) == 3
    assert "has x_train, but no y_train" in refusal(flags(tmp_path / "two.npz"), "classify")
    np.savez(tmp_path / "part.npz", x_train=images[:7], y_train=np.arange(7) % 2, x_test=images[7:])
    error = refusal(flags(tmp_path / "part.npz"), "generate")
    assert error.endswith("part.npz: has x_test, but no y_test")


def test_images_to_generate_need_one_size(tmp_path, flags):
    write(tmp_path, {"a.png": noise(1, (8, 8)), "b.png": noise(2, (9, 8)), "c.png": noise(3)})
    line = refusal(flags(tmp_path), "generate")
    assert "a.png has 8 x 8 pixels, b.png 9 x 8; set --image_size" in line
    files = load_images(flags(tmp_path, image_size=[12], valid_size=0), "generate")
    assert files.images.shape == (3, 12, 12, 3)
