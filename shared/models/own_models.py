"""Load networks whose classes are those of this project."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from shared.cli.errors import UserError, first_line
from shared.models.checks import check_config, check_weight_files
from shared.models.sources import resolve_model

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def load_own_model(
    name: str, model_class: type[PreTrainedModel], noun: str, recipe: str, flag: str = "model"
) -> Any:
    """Load a network that a recipe has saved, in evaluation mode.

    Parameters
    ----------
    name : str
        A folder, or a hub id.
    model_class : type
    noun : str
        What the network is, for messages.
    recipe : str
        The recipe that trains one.
    flag : str, default "model"
        The flag that names it.

    Raises
    ------
    UserError
        If it is another model, or its config or weights are missing or damaged.
    """
    from transformers import PreTrainedConfig

    folder = resolve_model(name, flag=flag)
    config, _ = PreTrainedConfig.get_config_dict(folder)
    model_type = config.get("model_type")
    if model_type != model_class.config_class.model_type:
        raise UserError(
            f"--{flag} {name}: a model of the type {model_type}, no {noun}; train one with "
            f"recipes/{recipe}.py"
        )
    check_config(config, folder)
    check_weight_files(folder)
    try:
        model, info = model_class.from_pretrained(
            folder, use_safetensors=True, output_loading_info=True
        )
    except Exception as error:  # whatever damaged files cause
        raise UserError(f"--{flag} {name}: cannot load the model: {first_line(error)}") from error
    if info["missing_keys"]:
        raise UserError(
            f"--{flag} {name}: the weights lack {min(info['missing_keys'])}; they are incomplete"
        )
    return model.eval()
