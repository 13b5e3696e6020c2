"""Predictions of images by a trained model, against pipelines and worked examples."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from transformers import SegformerConfig, SegformerForSemanticSegmentation, pipeline

from shared.cli.errors import UserError
from shared.images import preprocess
from shared.images.sources import fit_image, restore_boxes, restore_mask, scale_of
from shared.methods import load_image_predictor
from shared.models import ImageModelArguments, build_image_model, write_preprocessor

SCALE = ([0.5, 0.4, 0.3], [0.2, 0.3, 0.4])


@pytest.fixture
def save(tmp_path):
    """Return a function that saves a new network for a task, and returns its folder."""

    def save(task, *operations, **names):
        torch.manual_seed(0)
        sizes = ImageModelArguments(width=4, num_levels=3)
        build_image_model(sizes, task, ["a", "b", "c"], **names).save_pretrained(tmp_path)
        write_preprocessor(tmp_path, (16, 16), *SCALE, operations)
        return tmp_path

    return save


def picture(height=20, width=30, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_a_pipeline_gives_the_same_scores(save):
    folder, image = save("classify"), picture()
    (record,) = load_image_predictor(folder)([image])
    classify = pipeline("image-classification", model=str(folder), device="cpu")
    expected = {row["label"]: row["score"] for row in classify(Image.fromarray(image))}
    assert record["scores"] == pytest.approx(expected, abs=2e-3)
    assert record["label"] == max(expected, key=expected.get)
    assert record["score"] == max(record["scores"].values())


def test_operations_are_applied_as_in_the_training(save):
    image = picture()
    (expected,) = load_image_predictor(save("classify"))([preprocess(image, ["edges"])])
    (actual,) = load_image_predictor(save("classify", "edges"))([image])
    assert actual == expected


def test_files_and_arrays_of_several_batches_agree(save, tmp_path):
    predict = load_image_predictor(save("segment"))
    images = [picture(10 + i % 7, 40 - i % 9, seed=i) for i in range(40)]
    paths = [tmp_path / f"{i}.png" for i in range(40)]
    for path, image in zip(paths, images, strict=True):
        Image.fromarray(image).save(path)
    for of_file, of_array, image in zip(predict(paths), predict(images), images, strict=True):
        assert of_array["mask"].shape == image.shape[:2]
        assert np.array_equal(of_array["mask"], of_file["mask"])
        assert of_array["shares"] == of_file["shares"]
    assert predict([]) == []


def test_boxes_are_in_pixels_of_the_image_and_above_the_score(save):
    predict = load_image_predictor(save("detect"))
    predict.model.config.score_threshold = 0.3
    # Of an image of 64 x 32 in 16 x 16 pixels: three overlap, one is low, one lies outside.
    output = np.array(
        [
            [2, 2, 8, 6, 0.9, 0],
            [2, 2, 8, 6.1, 0.8, 0],
            [2, 2, 8, 6, 0.7, 1],
            [1, 1, 2, 2, 0.2, 2],
            [2, 9, 8, 12, 0.6, 2],
            [-1, 0, 20, 4, 0.5, 2],
        ]
    )
    assert predict.record(output, (32, 64))["boxes"] == [
        {"label": "a", "score": 0.9, "box": [8, 8, 32, 24]},
        {"label": "b", "score": 0.7, "box": [8, 8, 32, 24]},
        {"label": "c", "score": 0.5, "box": [0, 0, 64, 16]},
    ]


def test_a_second_input_and_a_second_output_have_names(save):
    folder = save("classify", context_names=["x", "y"], second_names=["p", "q"])
    predict, image = load_image_predictor(folder), picture()
    of_x, of_y = predict([image, image], ["x", "y"])
    assert set(of_x["scores"]) == {"a", "b", "c"}
    assert of_x["second_label"] in ("p", "q")
    assert 0.5 <= of_x["second_score"] <= 1
    assert of_x["scores"] != of_y["scores"]
    with pytest.raises(ValueError, match="give a value of it for each image"):
        predict([image])


def test_a_segmenter_of_the_hub(tmp_path):
    torch.manual_seed(0)
    config = SegformerConfig(
        num_encoder_blocks=2,
        depths=[1, 1],
        sr_ratios=[1, 1],
        hidden_sizes=[4, 8],
        patch_sizes=[3, 3],
        strides=[2, 2],
        num_attention_heads=[1, 1],
        mlp_ratios=[1, 1],
        decoder_hidden_size=4,
        num_labels=4,
    )
    SegformerForSemanticSegmentation(config).save_pretrained(tmp_path)
    write_preprocessor(tmp_path, (32, 32), *SCALE)
    (record,) = load_image_predictor(tmp_path)([picture(50, 40)])
    assert record["mask"].shape == (50, 40)
    assert set(record["shares"]) <= {f"LABEL_{i}" for i in range(4)}


def test_a_model_without_a_trained_head_is_refused(save):
    from safetensors.torch import load_file, save_file

    weights = save("classify") / "model.safetensors"
    kept = {k: v for k, v in load_file(weights).items() if not k.startswith("classifier")}
    save_file(kept, weights, metadata={"format": "pt"})
    with pytest.raises(UserError, match="lack 2 tensors of the network, first classifier"):
        load_image_predictor(weights.parent)


SIDES = st.integers(1, 60)


@given(SIDES, SIDES, st.integers(1, 4), st.integers(0, 99))
def test_a_mask_that_was_enlarged_is_restored(height, width, factor, seed):
    mask = np.random.default_rng(seed).integers(0, 5, (height, width), dtype=np.uint8)
    size = (height * factor, width * factor + 3)
    fitted = fit_image(mask, size, keep_shape=True, nearest=True)
    np.testing.assert_array_equal(restore_mask(fitted, (height, width)), mask)


@given(SIDES, SIDES, SIDES, SIDES)
def test_boxes_that_were_scaled_are_restored(height, width, new_height, new_width):
    boxes = np.array([[0, 0, width, height], [0.2, 0.1, width / 2, height / 3]])
    fitted = boxes * scale_of((height, width), (new_height, new_width))
    restored = restore_boxes(fitted, (height, width), (new_height, new_width))
    np.testing.assert_allclose(restored, np.clip(boxes, 0, [width, height] * 2), atol=1e-9)
    outside = restore_boxes(np.array([[-5, -5, 999, 999]]), (height, width), (10, 10))
    assert outside.tolist() == [[0, 0, width, height]]
