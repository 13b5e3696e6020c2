"""What a model folder may hold: safetensors only, and a config whose values make sense."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from shared.cli.errors import UserError

# Upper ends of the sizes in a config, far above any published encoder. Without them a typing error
# allocates all memory, or builds layers for hours. Each size has several names.
_MOST = {
    **dict.fromkeys(("num_hidden_layers", "num_layers", "n_layers", "n_layer"), 1_000),
    **dict.fromkeys(("num_attention_heads", "num_heads", "n_heads", "n_head"), 10_000),
    **dict.fromkeys(("hidden_size", "embedding_size", "n_embd", "d_model", "dim"), 1_000_000),
    **dict.fromkeys(("intermediate_size", "hidden_dim", "d_ff", "ffn_dim"), 10_000_000),
    **{"vocab_size": 10_000_000, "num_labels": 1_000_000},
}


def check_weight_files(folder: str) -> None:
    """Check that the index of sharded weights, if there is one, names safetensors files only.

    transformers follows such an index to a pickle, which can run code when it is loaded, even where
    it is told to read safetensors.

    Parameters
    ----------
    folder : str
        What `shared.models.sources.resolve_model` returned: a folder, or a hub id.

    Raises
    ------
    UserError
        If the index or ``config.json`` names another file, or one outside of the folder, or is
        damaged.
    """
    from transformers.utils import cached_file

    names = list(Path(folder).glob("*.index.json"))
    if not Path(folder).is_dir():  # a hub id
        path = cached_file(
            folder, "model.safetensors.index.json", _raise_exceptions_for_missing_entries=False
        )
        names = [Path(path)] if path else []
    for index in names:
        try:
            shards = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
            if not shards:
                raise ValueError
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            raise UserError(f"{index}: no index of weights; remove it or restore it") from None
        for shard in sorted(map(str, shards)):
            if not shard.endswith(".safetensors") or Path(shard).name != shard:
                raise UserError(
                    f"{index}: names {shard}; only safetensors files beside it are read, never "
                    "pickles, which can run code"
                )


def check_config(config: dict[str, Any], folder: str) -> None:
    """Check the sizes and the labels in a config, before transformers builds anything from it.

    Parameters
    ----------
    config : dict
        The content of ``config.json``. That of an encoder within it (``text_config``) is checked,
        too.
    folder : str
        Named in errors.

    Raises
    ------
    UserError
        For a size that is not a whole number above 0 or beyond any known model, for labels that are
        not numbered 0, 1, 2, ..., and for names that are blank or occur twice.
    """
    place = f"{folder}/config.json"
    encoder = config.get("text_config")
    for part in (config, encoder if isinstance(encoder, dict) else {}):
        for name in part.keys() & _MOST.keys():
            number = part[name]
            if number is None or isinstance(number, list):  # a list has a value for each layer
                continue
            if isinstance(number, bool) or not isinstance(number, int):
                raise UserError(f"{place}: {name} {number!r} is no whole number")
            if not 0 < number <= _MOST[name]:
                raise UserError(f"{place}: {name} {number} is not between 1 and {_MOST[name]:,}")
    names = config.get("id2label")
    if names is None:
        return
    if (
        not isinstance(names, dict)
        or {str(i) for i in names} != {str(i) for i in range(len(names))}
        or not all(isinstance(name, str) for name in names.values())
    ):
        raise UserError(f"{place}: id2label must give each label a name, by its number: 0, 1, ...")
    # Scores are returned by name: two labels of one name would be one.
    if len({*names.values()}) < len(names) or not all(map(str.strip, names.values())):
        raise UserError(f"{place}: id2label has a name twice or a blank one; change the name")
