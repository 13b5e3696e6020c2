"""Ways of tuning that leave most weights of an encoder as they are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from shared.cli.errors import UserError
from shared.training.optimization import freeze, layers

if TYPE_CHECKING:
    from pathlib import Path

    from datasets import Dataset
    from transformers import PreTrainedModel, Trainer

    from shared.training.trainer import LengthGroupedTrainer

TuningMethod = Literal["full", "partial", "head", "lora", "dora", "ia3", "prompt"]


def adapt(
    model: PreTrainedModel,
    way: TuningMethod,
    *,
    rank: int = 16,
    prompt_tokens: int = 16,
    frozen_layers: int | None = None,
) -> PreTrainedModel:
    """Choose which weights of a classifier train, or add such; the head always does.

    Parameters
    ----------
    model : PreTrainedModel
        Changed in place. For adapters its head must be called ``classifier`` or ``score``.
    way : str
        "full": all weights. "partial": the upper layers. "head": the head alone. "lora": matrices
        of low rank beside every linear layer (Hu et al. 2022, "LoRA"). "dora": the same for
        directions, and lengths apart (Liu et al. 2024, "DoRA"). "ia3": factors of keys, values and
        hidden units (Liu et al. 2022, "Few-Shot Parameter-Efficient Fine-Tuning is Better and
        Cheaper than In-Context Learning"). "prompt": virtual tokens ahead of the text (Lester et
        al. 2021, "The Power of Scale for Parameter-Efficient Prompt Tuning").
    rank : int
        Of LoRA and DoRA, whose updates are scaled by 2.
    prompt_tokens : int
        Of prompt tuning.
    frozen_layers : int, optional
        Of "partial", from the bottom, with the embeddings. None: half of them.

    Raises
    ------
    UserError
        For more layers than there are, or an architecture that IA3 is not known for.
    """
    if way in ("full", "head", "partial"):
        n_layers = len(layers(model))
        frozen = n_layers // 2 if frozen_layers is None else frozen_layers
        if not 0 <= frozen <= n_layers:
            raise UserError(f"--frozen_layers {frozen}: the model has {n_layers}")
        freeze(model, {"full": "none", "head": "all"}.get(way, str(frozen)))
        return model

    from peft import IA3Config, LoraConfig, PromptTuningConfig, TaskType, get_peft_model
    from peft.utils import TRANSFORMERS_MODELS_TO_IA3_FEEDFORWARD_MODULES_MAPPING as feedforward
    from peft.utils import TRANSFORMERS_MODELS_TO_IA3_TARGET_MODULES_MAPPING as targets

    # What of a head has weights trains and is saved with the adapter; "classifier" is so anyway.
    head = [
        name
        for name, module in model.named_children()
        if name in ("layer_pooling", "token_pooling", "hidden_layers") and [*module.parameters()]
    ]
    task = {"task_type": TaskType.SEQ_CLS, "modules_to_save": head or None}
    if way == "prompt":
        encoder = model.config.get_text_config()
        sizes = {  # peft knows them of some architectures only
            "num_layers": encoder.num_hidden_layers,
            "num_attention_heads": encoder.num_attention_heads,
            "token_dim": encoder.hidden_size,
        }
        config = PromptTuningConfig(num_virtual_tokens=prompt_tokens, **sizes, **task)
    elif way == "ia3":
        name = model.config.get_text_config().model_type
        if name not in targets:
            raise UserError(f"--methods ia3: peft does not know where it goes in {name!r}")
        where = {"target_modules": targets[name], "feedforward_modules": feedforward[name]}
        config = IA3Config(**where, **task)
    else:
        size = {"r": rank, "lora_alpha": 2 * rank, "target_modules": "all-linear"}
        config = LoraConfig(use_dora=way == "dora", **size, **task)
    return get_peft_model(model, config)


def training_footprint(trainer: Trainer) -> tuple[int, int]:
    """Return how many weights train, and the bytes that a training holds besides activations.

    These are the weights, a gradient for each that trains, and what the optimiser remembers of it.
    """
    import torch

    weights = list(trainer.model.parameters())
    trained = [weight for weight in weights if weight.requires_grad]
    states = trainer.optimizer.state.values()
    remembered = [value for state in states for value in state.values() if torch.is_tensor(value)]
    held = sum(t.numel() * t.element_size() for t in (*weights, *trained, *remembered))
    return sum(weight.numel() for weight in trained), held


def activation_bytes(trainer: LengthGroupedTrainer) -> int:
    """Return the bytes that the longest batch leaves in memory for its backward pass.

    A frozen layer leaves nothing unless something below it trains.
    """
    import torch

    weights = {weight.untyped_storage().data_ptr() for weight in trainer.model.parameters()}
    kept = {}

    def keep(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    batch = trainer._prepare_inputs(next(iter(trainer.get_train_dataloader())))
    trainer.model.train()
    # The loss lives as long as the block, and with it all that it keeps: no place is used twice.
    hooks = torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor)
    with trainer.fast_attention(), trainer.accelerator.autocast(), hooks:
        loss = trainer.compute_loss(trainer.model, batch)
    del loss
    return sum(kept.values())


def save_merged(trainer: LengthGroupedTrainer, folder: Path, rows: Dataset) -> float:
    """Save encoder and adapter as one model; return how far its scores of eight rows are off.

    It is read back as any program would read it, which needs no peft. All processes take part.
    """
    import numpy as np
    from transformers import AutoModelForSequenceClassification

    rows = rows.take(8)
    before = trainer.predict(rows).predictions
    trainer.model = trainer.model.merge_and_unload()
    trainer.save_model(folder)
    trainer.accelerator.wait_for_everyone()
    merged = AutoModelForSequenceClassification.from_pretrained(folder)
    trainer.model = merged.to(trainer.args.device)
    return float(np.abs(trainer.predict(rows).predictions - before).max())
