"""Networks for images: shapes, what boxes mean, saving and loading."""

from types import SimpleNamespace

import pytest
import torch
from transformers import (
    AutoModelForImageClassification,
    AutoModelForObjectDetection,
    AutoModelForSemanticSegmentation,
    ResNetConfig,
    ResNetForImageClassification,
)

from shared.cli.errors import UserError
from shared.models.image_networks import BLOCKS, DISTANCE_SCALE, boxes_of_cells, find_boxes
from shared.models.images import (
    build_image_model,
    check_sizes,
    read_preprocessor,
    write_preprocessor,
)

SIZES = {
    "model": None,
    "block": "residual",
    "width": 4,
    "num_levels": 3,
    "blocks_per_level": 1,
    "stem_stride": 1,
    "cell_size": 4,
    "dropout": 0.0,
}
AUTOS = {
    "classify": AutoModelForImageClassification,
    "segment": AutoModelForSemanticSegmentation,
    "detect": AutoModelForObjectDetection,
}


def sizes(**changed):
    return SimpleNamespace(**SIZES | changed)


def build(task, **changed):
    torch.manual_seed(0)
    return build_image_model(sizes(**changed), task, ["a", "b", "c"]).eval()


@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("stride", [1, 2, 4])
def test_outputs_have_the_size_of_the_task(block, stride):
    pixels = torch.randn(2, 3, 37, 50)  # no multiple of anything
    settings = {"block": block, "stem_stride": stride}
    assert build("classify", **settings)(pixels).logits.shape == (2, 3)
    assert build("segment", **settings)(pixels).logits.shape == (2, 3, 37, 50)
    pixels = torch.randn(2, 3, 32, 48)
    assert build("detect", **settings)(pixels).logits.shape == (2, 7, 8, 12)


@pytest.mark.parametrize("task", ["classify", "segment", "detect"])
def test_a_saved_network_loads_with_the_same_outputs(task, tmp_path):
    model, pixels = build(task), torch.randn(1, 3, 16, 24)
    model.save_pretrained(tmp_path)
    assert (tmp_path / "image_networks.py").is_file()
    loaded = AUTOS[task].from_pretrained(tmp_path).eval()
    assert torch.equal(loaded(pixels).logits, model(pixels).logits)
    assert loaded.config.id2label == {0: "a", 1: "b", 2: "c"}
    again = build_image_model(sizes(model=str(tmp_path)), task, ["a", "b", "c"]).eval()
    assert torch.equal(again(pixels).logits, model(pixels).logits)
    # With other classes, the trunk stays and the head is new.
    other = build_image_model(sizes(model=str(tmp_path)), task, ["a", "b"])
    assert other.config.num_labels == 2
    assert torch.equal(other.trunk.stem[0].weight, model.trunk.stem[0].weight)


def test_a_new_detector_says_that_few_cells_are_centres():
    logits = build("detect").train()(torch.randn(4, 3, 64, 64)).logits
    shares = logits[:, :3].sigmoid()
    assert 0.08 < shares.min() < shares.max() < 0.12  # PEAK_SHARE is .1
    torch.testing.assert_close(logits[:, 3:], torch.full_like(logits[:, 3:], 0.5), atol=0.1, rtol=0)


def test_a_second_input_and_output():
    args = {"context_names": list("vwxyz"), "second_names": ["p", "q"]}
    model = build_image_model(sizes(), "classify", ["a", "b", "c"], **args).eval()
    pixels = torch.randn(2, 3, 16, 16)
    first = model(pixels, context=torch.tensor([0, 1])).logits
    second = model(pixels, context=torch.tensor([4, 1])).logits
    assert first.shape == (2, 5)
    assert not torch.equal(first[0], second[0])
    assert torch.equal(first[1], second[1])
    with pytest.raises(ValueError, match="pass context"):
        model(pixels)


def test_the_boxes_of_cells_and_peaks():
    distances = torch.zeros(1, 4, 4, 6)
    # softplus(x) = 1 for this x: each side is at DISTANCE_SCALE cells.
    distances += torch.expm1(torch.tensor(1.0)).log()
    boxes = boxes_of_cells(distances, 4)
    reach = DISTANCE_SCALE * 4
    expected = [18 - reach, 10 - reach, 18 + reach, 10 + reach]
    assert boxes[0, :, 2, 4].tolist() == pytest.approx(expected)
    logits = torch.cat([torch.full((1, 2, 4, 6), -9.0), distances], dim=1)
    logits[0, 1, 2, 4] = 2.0
    logits[0, 1, 2, 3] = 1.0  # beside a peak
    logits[0, 0, 0, 0] = 0.5
    found = find_boxes(logits, 4, most=3)[0]
    assert found[0].tolist() == pytest.approx([*expected, torch.tensor(2.0).sigmoid().item(), 1])
    assert found[1, 4:].tolist() == pytest.approx([torch.tensor(0.5).sigmoid().item(), 0])
    assert found[2, 4] < 0.01


def test_sizes_that_do_not_fit_are_named():
    with pytest.raises(UserError, match="--cell_size 3: must be the pixels of a level, 2, 4, 8"):
        check_sizes(sizes(cell_size=3, stem_stride=2), "detect")
    with pytest.raises(UserError, match="--stem_stride 3"):
        check_sizes(sizes(stem_stride=3), "segment")
    check_sizes(sizes(cell_size=3), "classify")


@pytest.fixture
def hub_model(tmp_path):
    """A folder with a tiny network of the hub's kind."""
    torch.manual_seed(0)
    config = ResNetConfig(
        embedding_size=4, hidden_sizes=[4, 8], depths=[1, 1], layer_type="basic", num_labels=5
    )
    ResNetForImageClassification(config).save_pretrained(tmp_path / "hub")
    write_preprocessor(tmp_path / "hub", (32, 24), [0.5, 0.4, 0.3], [0.2, 0.2, 0.2])
    return tmp_path / "hub"


def test_a_network_of_the_hub_gets_a_new_head(hub_model):
    model = build_image_model(sizes(model=str(hub_model)), "classify", ["a", "b", "c"])
    assert model(torch.randn(2, 3, 32, 32)).logits.shape == (2, 3)
    assert read_preprocessor(str(hub_model)) == {
        "image_mean": [0.5, 0.4, 0.3],
        "image_std": [0.2, 0.2, 0.2],
        "size": [32, 24],
    }
    for task, expected in (
        ("detect", "detect trains the networks of this recipe only, not resnet"),
        ("segment", "cannot load it to segment"),
    ):
        with pytest.raises(UserError, match=expected):
            build_image_model(sizes(model=str(hub_model)), task, ["a", "b"])
    weights = hub_model / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:200])
    with pytest.raises(UserError, match="cannot load it to classify"):
        build_image_model(sizes(model=str(hub_model)), "classify", ["a", "b"])
