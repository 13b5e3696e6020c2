"""A generator and its discriminator, as networks."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModel

from shared.models.gan_networks import GanConfig, GanModel


@settings(max_examples=15)
@given(
    height=st.integers(8, 40),
    width=st.integers(8, 40),
    channels=st.sampled_from([1, 3]),
    architecture=st.sampled_from(["gan", "dcgan"]),
    upsampling=st.sampled_from(["transposed", "resize"]),
)
def test_images_have_the_size_that_is_asked_for(height, width, channels, architecture, upsampling):
    config = GanConfig(
        architecture=architecture,
        height=height,
        width=width,
        channels=channels,
        upsampling=upsampling,
        latent_size=3,
        base_width=2,
        hidden_size=4,
    )
    model = GanModel(config)
    images = model(model.draw_latents(2))
    assert images.shape == (2, channels, height, width)
    assert images.abs().max() <= 1
    assert model.discriminator(images).shape == (2,)
    assert model.sample(2).shape == (2, height, width, 3)


@pytest.fixture
def model():
    torch.manual_seed(0)
    return GanModel(GanConfig(base_width=4, latent_size=5, has_average=True))


def test_a_saved_model_generates_the_same_images(model, tmp_path):
    model.save_pretrained(tmp_path)
    assert (tmp_path / "gan_networks.py").is_file()
    again = AutoModel.from_pretrained(tmp_path)
    assert torch.equal(again.sample(5, seed=3), model.sample(5, seed=3))
    assert not torch.equal(again.sample(5, seed=4), model.sample(5, seed=3))


def test_sampling_changes_neither_weights_nor_mode(model):
    model.train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    assert model.sample(300).dtype == torch.uint8
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_the_average_follows_the_generator(model):
    first = model.average.first[0].weight.clone()
    with torch.no_grad():
        model.generator.first[0].weight.add_(1)
    model.update_average(0.75)
    assert torch.allclose(model.average.first[0].weight, first + 0.25)
    assert not any(weight.requires_grad for weight in model.average.parameters())


def test_first_weights_are_those_of_the_source(model):
    for network in (model.generator.steps[0][0][0], model.discriminator[0]):
        assert float(network.weight.detach().std()) == pytest.approx(0.02, rel=0.2)
