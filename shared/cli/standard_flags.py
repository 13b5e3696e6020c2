"""Checks of the flags before anything else happens: ranges of numbers, and what else can be wrong.

A recipe declares the ranges of its own flags where it declares the flags (`shared.cli.flag`). The
flags of `transformers.TrainingArguments`, which the recipes inherit, are checked here, once for all
recipes: transformers checks few of them, and most of these only when a training has started.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import math
from typing import TYPE_CHECKING, Any

from shared.cli.errors import UserError, first_line

if TYPE_CHECKING:
    from transformers import TrainingArguments

# --- ranges of numbers ---------------------------------------------------------------------------

_LARGEST_INTEGER = 2**31 - 1  # what the libraries below can count to


@dataclasses.dataclass(frozen=True)
class Range:
    """Allowed values of a number, or of each number in a list. NaN and infinity are never allowed.

    An integer without an upper end may be up to 2**31 - 1.

    Attributes
    ----------
    least, most : the ends, if they are allowed themselves.
    above, below : the ends, if they are not.
    """

    least: float | None = None
    most: float | None = None
    above: float | None = None
    below: float | None = None

    def __contains__(self, value: float) -> bool:
        return (
            (isinstance(value, int) or math.isfinite(value))  # an integer can be too long for it
            and (self.least is None or value >= self.least)
            and (self.above is None or value > self.above)
            and (self.most is None or value <= self.most)
            and (self.below is None or value < self.below)
        )

    def __str__(self) -> str:
        """Return what follows "must be" in an error message."""
        low = high = ""
        if self.least is not None:
            low = f"{self.least} or more"
        elif self.above is not None:
            low = f"above {self.above}"
        if self.most is not None:
            high = f"at most {self.most}"
        elif self.below is not None:
            high = f"below {self.below}"
        return ", ".join(filter(None, (low, high))) or "a finite number"


_ANY = Range()
_COUNT = Range(least=1)
_NOT_NEGATIVE = Range(least=0)
_POSITIVE = Range(above=0)
_SEED = Range(least=0, below=2**32)

# Of `transformers.TrainingArguments`, and of --seed in the recipes that do not inherit them.
STANDARD_RANGES = {
    "adam_beta1": Range(least=0, below=1),
    "adam_beta2": Range(least=0, below=1),
    "adam_epsilon": _NOT_NEGATIVE,
    "data_seed": _SEED,
    "dataloader_num_workers": Range(least=0, most=1024),
    "dataloader_prefetch_factor": Range(least=1, most=10_000),
    "ddp_bucket_cap_mb": _COUNT,
    "ddp_timeout": _COUNT,
    "eval_accumulation_steps": _COUNT,
    "eval_delay": _NOT_NEGATIVE,
    "eval_steps": _POSITIVE,
    "gradient_accumulation_steps": Range(least=1, most=100_000),
    "label_smoothing_factor": Range(least=0, below=1),
    "learning_rate": _POSITIVE,
    "logging_steps": _POSITIVE,
    "max_grad_norm": _NOT_NEGATIVE,
    "max_steps": Range(least=-1),
    "neftune_noise_alpha": _NOT_NEGATIVE,
    "num_train_epochs": Range(above=0, most=1_000_000),
    "per_device_eval_batch_size": _COUNT,
    "per_device_train_batch_size": _COUNT,
    "save_steps": _POSITIVE,
    "save_total_limit": _COUNT,
    "seed": _SEED,
    "torch_empty_cache_steps": _COUNT,
    "warmup_steps": _NOT_NEGATIVE,
    "weight_decay": _NOT_NEGATIVE,
}


def check_ranges(fields: tuple[dataclasses.Field, ...], values: dict[str, Any]) -> None:
    """Check the numbers among the values of flags.

    Parameters
    ----------
    fields : fields of an arguments dataclass
        The range of a flag is in its metadata, else in `STANDARD_RANGES`, else any finite number.
    values : dict
        Name of the flag -> value. What is no number, or no list of numbers, is not checked.

    Raises
    ------
    UserError
        For the first number out of its range.
    """
    for field in fields:
        allowed = field.metadata.get("range") or STANDARD_RANGES.get(field.name, _ANY)
        value = values.get(field.name)
        for number in value if isinstance(value, list) else [value]:
            if isinstance(number, bool) or not isinstance(number, (int, float)):
                continue
            if number not in allowed:
                raise UserError(f"--{field.name} {number}: must be {allowed}")
            no_end = allowed.most is None and allowed.below is None
            if isinstance(number, int) and no_end and number > _LARGEST_INTEGER:
                raise UserError(f"--{field.name} {number}: must be at most {_LARGEST_INTEGER}")


# --- flags of TrainingArguments ------------------------------------------------------------------

# Flags that would break the recipes with any other value than this one.
_FIXED = {
    "dataloader_drop_last": (False, "every row counts, in training and in evaluation"),
    "batch_eval_metrics": (False, "metrics need all rows at once"),
    "eval_do_concat_batches": (True, "metrics need all rows at once"),
    "prediction_loss_only": (False, "metrics need the predictions"),
    "length_column_name": ("length", "the recipes name this column themselves"),
}
_DICTIONARIES = ("lr_scheduler_kwargs", "gradient_checkpointing_kwargs", "liger_kernel_config")


def check_standard_flags(args: TrainingArguments) -> None:
    """Check what `transformers.TrainingArguments` does not check, before the data is prepared.

    Raises
    ------
    UserError
        For flags that would end a training, or its evaluation, with an error.
    """
    for name, (value, reason) in _FIXED.items():
        if getattr(args, name) != value:
            raise UserError(f"--{name}: must be {str(value).lower()}; {reason}")
    # Where it is false by default, the batches need columns that the model does not name.
    if args.remove_unused_columns and not type(args).remove_unused_columns:
        raise UserError("--remove_unused_columns: the collator reads all columns; leave it false")
    for name in _DICTIONARIES:
        if not isinstance(getattr(args, name), (dict, type(None))):
            raise UserError(f"--{name} {getattr(args, name)}: must be a JSON object")
    if args.max_steps == 0:
        raise UserError("--max_steps 0: must be 1 or more, or -1 to use --num_train_epochs")
    if args.metric_for_best_model == "":
        raise UserError("--metric_for_best_model: name a metric")
    if args.label_names not in (None, ["labels"]):
        raise UserError("--label_names: must be labels, the name in every batch of the recipes")
    if args.fp16 and args.device.type == "cpu":
        raise UserError("--fp16: needs a GPU; --bf16 works on CPUs, too")
    if "underflow_overflow" in args.debug:  # it cannot read tensors of booleans
        raise UserError("--debug underflow_overflow: does not fit the recipes; remove it")
    if args.accelerator_config.split_batches:
        raise UserError("--accelerator_config: split_batches does not fit the recipes; remove it")
    _check_data_loader(args)
    _check_distribution(args)
    _check_trackers(args.report_to)
    _check_optimizer(args)
    if args.torch_compile:
        _check_compiler(args)
    if args.gradient_checkpointing:
        _check_gradient_checkpointing(args.gradient_checkpointing_kwargs or {})
    if args.use_liger_kernel:
        require_package("liger_kernel", "--use_liger_kernel")


def _check_data_loader(args: TrainingArguments) -> None:
    for name in ("dataloader_persistent_workers", "dataloader_multiprocessing_context"):
        if getattr(args, name) and not args.dataloader_num_workers:
            raise UserError(f"--{name}: needs --dataloader_num_workers")


def _check_distribution(args: TrainingArguments) -> None:
    if (args.fsdp or args.fsdp_config) and args.fsdp_plugin_args and args.world_size == 1:
        raise UserError(
            "--fsdp: needs several processes; remove it, or start them: accelerate launch "
            "--config_file recipes/configs/accelerate/fsdp.yaml recipes/NAME.py"
        )


def _check_trackers(names: list[str]) -> None:
    """Check that trackers exist and are installed."""
    from transformers.integrations import integration_utils

    known = integration_utils.INTEGRATION_TO_CALLBACK
    for name in names:
        if name not in known:
            raise UserError(f"--report_to {name}: must be none, all, or any of {', '.join(known)}")
        # The function is_wandb_available for wandb, is_comet_available for comet_ml.
        for stem in (name, name.removesuffix("_ml"), name.replace("_", "")):
            available = getattr(integration_utils, f"is_{stem}_available", None)
            if available is not None and not available():
                raise UserError(
                    f"--report_to {name}: the package of this tracker is not installed (pip "
                    f"install {name.replace('_', '-')}); install it or remove the flag"
                )


def _check_optimizer(args: TrainingArguments) -> None:
    """Build the optimizer and the schedule of the learning rate for one small weight."""
    import torch
    from transformers import Trainer, get_scheduler

    weight = torch.nn.Parameter(torch.zeros(2, 2))
    try:
        cls, options = Trainer.get_optimizer_cls_and_kwargs(args)
        # Others, which are not part of torch, want a whole model.
        if cls.__module__.startswith("torch.optim"):
            cls([weight], **options)
    except Exception as error:
        name = f"--optim {args.optim.value}" + (" or --optim_args" if args.optim_args else "")
        raise UserError(f"{name}: {first_line(error)}") from error
    try:
        optimizer = torch.optim.SGD([weight], lr=args.learning_rate)
        schedule = get_scheduler(args.lr_scheduler_type, optimizer, 1, 3, args.lr_scheduler_kwargs)
        if isinstance(schedule, torch.optim.lr_scheduler.LambdaLR):
            optimizer.step()
            schedule.step()
    except Exception as error:
        raise UserError(
            f"--lr_scheduler_type {args.lr_scheduler_type.value} with --lr_scheduler_kwargs "
            f"{args.lr_scheduler_kwargs or '{}'}: {first_line(error)}"
        ) from error


def _check_compiler(args: TrainingArguments) -> None:
    import torch

    backends = torch._dynamo.list_backends(None)
    if args.torch_compile_backend not in backends:
        raise UserError(
            f"--torch_compile_backend {args.torch_compile_backend}: must be one of "
            f"{', '.join(backends)}"
        )
    if args.torch_compile_backend != "inductor":
        return
    from torch._inductor import cpp_builder, list_mode_options

    modes = list_mode_options()
    if args.torch_compile_mode not in (None, *modes):
        raise UserError(
            f"--torch_compile_mode {args.torch_compile_mode}: must be one of {', '.join(modes)}"
        )
    try:
        cpp_builder.get_cpp_compiler()
    except Exception:
        raise UserError(
            "--torch_compile: no C++ compiler found; install one (Debian, Ubuntu: apt install g++) "
            "or remove the flag"
        ) from None


def _check_gradient_checkpointing(settings: dict[str, Any]) -> None:
    """Compute the gradient of one number in the way that a training would."""
    import torch
    from torch.utils.checkpoint import checkpoint

    # The Trainer reads two settings itself and passes the others on, or this default.
    passed_on = {k: v for k, v in settings.items() if k not in ("every_n_layers", "offload")}
    passed_on = passed_on or {"use_reentrant": False}
    try:
        checkpoint(torch.square, torch.ones(1, requires_grad=True), **passed_on).backward()
    except Exception as error:
        raise UserError(
            f"--gradient_checkpointing_kwargs {settings}: {first_line(error)}"
        ) from error


def require_package(package: str, flag: str) -> None:
    """Check that a package is installed that a flag needs.

    Raises
    ------
    UserError
        If it is not.
    """
    if importlib.util.find_spec(package) is None:
        raise UserError(f"{flag}: pip install {package.replace('_', '-')}, or remove the flag")
