"""Prompts are read once, and what follows them from the cache, whatever the padding."""

import pytest
import torch
from tiny_models import DECODERS, config_of
from transformers import AutoModelForCausalLM

from shared.cli.errors import UserError
from shared.models.causal_scoring import PromptReader, check_cache, common_beginning

# One of each way to know positions: learned, rotary, by the mask alone.
TYPES = ("gpt2", "llama", "bloom")


def next_logits(model, ids):
    return model(torch.tensor([ids])).logits[0, -1]


@pytest.mark.parametrize("name", TYPES)
@pytest.mark.parametrize("side", ["left", "right"])
@torch.no_grad()
def test_logits_are_those_of_each_prompt_alone(name, side):
    assert name in DECODERS
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config_of(name, 40, initializer_range=0.5)).eval()
    rows, beginning, word = [[5, 6, 7, 8], [9], [10, 11]], [4, 12, 13], [14, 15, 16]
    ids = torch.ones(3, 5, dtype=torch.long)  # the padding token
    mask = torch.zeros_like(ids)
    for i, row in enumerate(rows):
        places = slice(5 - len(row), 5) if side == "left" else slice(len(row))
        ids[i, places], mask[i, places] = torch.tensor(row), 1
    prompts = PromptReader(model, beginning).read(ids, mask)
    for _ in range(2):  # the first word leaves nothing in the cache
        followed = prompts.follow(word, 2)
        for i, row in enumerate(rows):
            whole = [*beginning, *row]
            assert prompts.logits[i] == pytest.approx(next_logits(model, whole), abs=1e-4)
            for j, n in ((0, 2), (1, 3)):
                expected = next_logits(model, whole + word[:n])
                assert followed[i, j] == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize(("name", "fits"), [("gpt2", True), ("mpt", False), ("openai-gpt", False)])
def test_a_model_that_cannot_go_on_from_a_cache_is_refused(name, fits):
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config_of(name, 40)).eval()
    for parameter in model.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, 0, 0.1)
    if fits:
        check_cache(model, "folder")
    else:
        with pytest.raises(UserError, match=f"folder: {name} models cannot go on from a prompt"):
            check_cache(model, "folder")


def test_common_beginning():
    assert common_beginning([[1, 2, 3], [1, 2, 4], [1, 2]]) == [1, 2]
    assert common_beginning([[1, 2]]) == [1, 2]
    assert common_beginning([[], [1]]) == []
