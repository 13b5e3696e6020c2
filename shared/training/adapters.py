"""Tuning methods that train only some weights of a classifier, or a few added ones."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from shared.cli.errors import UserError
from shared.training.optimization import freeze, layers

if TYPE_CHECKING:
    from pathlib import Path

    import torch
    from datasets import Dataset
    from peft import PeftConfig
    from transformers import PreTrainedModel, Trainer

    from shared.training.trainer import LengthGroupedTrainer

TuningMethod = Literal["full", "partial", "head", "lora", "dora", "ia3", "prompt"]


def adapt(
    model: PreTrainedModel,
    method: TuningMethod,
    *,
    rank: int = 16,
    prompt_tokens: int = 16,
    frozen_layers: int | None = None,
) -> PreTrainedModel:
    """Set which weights of a classifier train, or add an adapter; the head always trains.

    Parameters
    ----------
    model : PreTrainedModel
        Changed in place. For adapters its head must be called ``classifier`` or ``score``.
    method : str
        "full": all weights. "partial": the upper layers and the head. "head": the head alone.
        "lora": add low-rank matrices to every linear layer (Hu et al. 2022, "LoRA"). "dora": LoRA
        for the direction of the weights, while their magnitude trains separately (Liu et al. 2024,
        "DoRA"). "ia3": factors of keys, values and hidden units (Liu et al. 2022, "Few-Shot
        Parameter-Efficient Fine-Tuning is Better and Cheaper than In-Context Learning"). "prompt":
        virtual tokens before the text (Lester et al. 2021, "The Power of Scale for
        Parameter-Efficient Prompt Tuning").
    rank : int
        Rank of LoRA and DoRA. Their updates are scaled by 2.
    prompt_tokens : int
        Number of virtual tokens of prompt tuning.
    frozen_layers : int, optional
        Number of layers that "partial" freezes, from the bottom, together with the embeddings.
        None: half of the layers.

    Raises
    ------
    UserError
        If `frozen_layers` is more than the model has, or if peft does not support IA3 for the
        architecture.
    """
    if method in ("full", "head", "partial"):
        n_layers = len(layers(model))
        n_frozen = n_layers // 2 if frozen_layers is None else frozen_layers
        if not 0 <= n_frozen <= n_layers:
            raise UserError(
                f"--frozen_layers {n_frozen}: the model has {n_layers} layers; give 0 to {n_layers}"
            )
        freeze(model, {"full": "none", "head": "all"}.get(method, str(n_frozen)))
        return model

    from peft import IA3Config, LoraConfig, PromptTuningConfig, TaskType
    from peft.utils import TRANSFORMERS_MODELS_TO_IA3_FEEDFORWARD_MODULES_MAPPING as feedforward
    from peft.utils import TRANSFORMERS_MODELS_TO_IA3_TARGET_MODULES_MAPPING as targets

    # peft trains and saves a module called "classifier" or "score" without being told. The other
    # parts of a head must be listed, but only those with weights.
    head_modules = [
        name
        for name, module in model.named_children()
        if name in ("layer_pooling", "token_pooling", "hidden_layers") and [*module.parameters()]
    ]
    task = {"task_type": TaskType.SEQ_CLS, "modules_to_save": head_modules or None}
    if method == "prompt":
        encoder = model.config.get_text_config()
        sizes = {  # peft reads them from the config of some architectures only
            "num_layers": encoder.num_hidden_layers,
            "num_attention_heads": encoder.num_attention_heads,
            # Narrower than the layers in some architectures, such as ALBERT and ELECTRA.
            "token_dim": model.get_input_embeddings().weight.shape[1],
        }
        config = PromptTuningConfig(num_virtual_tokens=prompt_tokens, **sizes, **task)
    elif method == "ia3":
        architecture = model.config.get_text_config().model_type
        if architecture not in targets:
            raise UserError(
                f"--methods ia3: peft does not support IA3 for {architecture!r} models; choose "
                "another method"
            )
        modules = {
            "target_modules": targets[architecture],
            "feedforward_modules": feedforward[architecture],
        }
        config = IA3Config(**modules, **task)
    else:
        # LoRA scales its updates by lora_alpha / r, here 2 for every rank.
        size = {"r": rank, "lora_alpha": 2 * rank, "target_modules": "all-linear"}
        config = LoraConfig(use_dora=method == "dora", **size, **task)
    return add_adapter(model, config)


def add_adapter(model: PreTrainedModel, config: PeftConfig) -> PreTrainedModel:
    """Return a model with an adapter of peft.

    Raises
    ------
    UserError
        If peft finds no layer to adapt, as in models with convolutions in the place of linear
        layers.
    """
    from peft import get_peft_model

    try:
        return get_peft_model(model, config)
    except ValueError as error:
        architecture = model.config.get_text_config().model_type
        raise UserError(
            f"peft finds no layers to adapt in {architecture!r} models; name another model, or "
            "tune all weights"
        ) from error


def training_footprint(trainer: Trainer) -> tuple[int, int]:
    """Return the number of weights that train, and the bytes a training needs for its state.

    The state is all weights, one gradient for each weight that trains, and the optimiser's values
    for it. Activations are not included; see `activation_bytes`.
    """
    import torch

    weights = list(trainer.model.parameters())
    trained = [weight for weight in weights if weight.requires_grad]
    states = trainer.optimizer.state.values()
    moments = [value for state in states for value in state.values() if torch.is_tensor(value)]
    # `trained` is in the sum a second time for the gradients, which have the size of the weights.
    n_bytes = sum(t.numel() * t.element_size() for t in (*weights, *trained, *moments))
    return sum(weight.numel() for weight in trained), n_bytes


def activation_bytes(trainer: LengthGroupedTrainer) -> int:
    """Return the bytes that the longest batch keeps in memory for its backward pass.

    A frozen layer keeps nothing, unless a layer below it trains.
    """
    import torch

    # Autograd also saves references to weights; `training_footprint` already counts those.
    weights = {weight.untyped_storage().data_ptr() for weight in trainer.model.parameters()}
    kept: dict[int, int] = {}  # address of a storage: its bytes; views share a storage

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    # The first batch of an epoch is the longest.
    batch = trainer._prepare_inputs(next(iter(trainer.get_train_dataloader())))
    trainer.model.train()
    # `loss` keeps the graph alive until the end of the block, and with it every saved tensor. If
    # one were freed early, another tensor could get its address and be missing from the sum.
    hooks = torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor)
    with trainer.fast_attention(), trainer.accelerator.autocast(), hooks:
        loss = trainer.compute_loss(trainer.model, batch)
    del loss
    return sum(kept.values())


def save_merged(trainer: LengthGroupedTrainer, folder: Path, rows: Dataset) -> float:
    """Merge the adapter into the model and save it; return how much its scores change.

    The saved model is loaded again without peft, as any other program would load it. All processes
    must call this function.

    Returns
    -------
    float
        Largest absolute difference between the scores before and after, over the first eight rows.
    """
    import numpy as np
    from transformers import AutoModelForSequenceClassification

    rows = rows.take(8)
    before = trainer.predict(rows).predictions
    trainer.model = trainer.model.merge_and_unload()
    trainer.save_model(folder)
    trainer.accelerator.wait_for_everyone()  # only one process writes the files
    merged = AutoModelForSequenceClassification.from_pretrained(folder)
    trainer.model = merged.to(trainer.args.device)
    return float(np.abs(trainer.predict(rows).predictions - before).max())
