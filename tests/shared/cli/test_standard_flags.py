"""What no recipe can work with is refused before anything else happens."""

import multiprocessing
from dataclasses import dataclass

import pytest
import torch
from transformers import TrainingArguments

from shared.cli import standard_flags
from shared.cli.arguments import flag, parse_arguments
from shared.cli.errors import UserError
from shared.cli.standard_flags import STANDARD_RANGES, Range


@dataclass
class Arguments(TrainingArguments):
    share: float = flag(0.1, "A share.", above=0, most=1)
    sizes: list[int] = flag([1], "Sizes.", least=1)
    anything: float = flag(0.0, "A number.")


def parse(*argv):
    return parse_arguments(Arguments, ["--use_cpu", *map(str, argv)])


def refusal(*argv):
    with pytest.raises(UserError) as error:
        parse(*argv)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("name", STANDARD_RANGES)
@pytest.mark.parametrize("value", ["nan", "inf", "-2", "nonsense", ""])
def test_every_standard_number_has_a_range(name, value):
    assert name in refusal(f"--{name}={value}")


@pytest.mark.parametrize(
    "name", [n for n, r in STANDARD_RANGES.items() if (r.most, r.below) != (None, None)]
)
def test_a_range_with_an_upper_end_ends_there(name):
    assert name in refusal(f"--{name}=1e30")


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (("--share", 0), "--share 0.0: must be above 0, at most 1"),
        (("--share", "nan"), "--share nan: must be above 0, at most 1"),
        (("--sizes", 3, 0), "--sizes 0: must be 1 or more"),
        (("--sizes", 2**40), f"--sizes {2**40}: must be at most 2147483647"),
        (("--sizes", 10**400), f"--sizes {10**400}: must be at most 2147483647"),
        (("--anything", "inf"), "--anything inf: must be a finite number"),
        (("--seed", 2**32), f"--seed {2**32}: must be 0 or more, below 4294967296"),
        (("--adam_beta1", -1), "--adam_beta1 -1.0: must be 0 or more, below 1"),
    ],
)
def test_the_message_says_what_is_allowed(flags, expected):
    assert refusal(*flags) == expected


def test_columns_are_not_removed_where_they_stay_by_default():
    @dataclass
    class AllColumns(TrainingArguments):
        remove_unused_columns: bool = flag(False, "Must stay false.")

    with pytest.raises(UserError, match="--remove_unused_columns: the collator reads all columns"):
        parse_arguments(AllColumns, ["--use_cpu", "--remove_unused_columns", "true"])
    assert parse("--remove_unused_columns", "true").remove_unused_columns


def test_values_within_their_ranges_are_taken():
    args = parse("--share", 1, "--sizes", 1, 2, "--seed", 2**32 - 1, "--max_steps", -1)
    assert (args.share, args.sizes, args.seed) == (1, [1, 2], 2**32 - 1)
    assert 0.5 in Range(above=0, below=1)
    assert 1 not in Range(above=0, below=1)


_CHECKPOINTING = ["--gradient_checkpointing", "--gradient_checkpointing_kwargs"]


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (["--max_steps=0"], "--max_steps 0: must be 1 or more, or -1"),
        (["--label_names", "zzz"], "--label_names: must be labels"),
        (["--length_column_name", "zzz"], "--length_column_name: must be length"),
        (["--prediction_loss_only"], "--prediction_loss_only: must be false"),
        (["--batch_eval_metrics"], "--batch_eval_metrics: must be false"),
        (["--eval_do_concat_batches=false"], "--eval_do_concat_batches: must be true"),
        (["--include_num_input_tokens_seen=zzz"], "zzz"),
        (["--fp16"], "--fp16: needs a GPU"),
        (['--accelerator_config={"split_batches": true}'], "split_batches does not fit"),
        (["--report_to=zzz"], "--report_to zzz: must be none, all, or any of "),
        (["--dataloader_persistent_workers"], "needs --dataloader_num_workers"),
        (["--dataloader_multiprocessing_context=spawn"], "needs --dataloader_num_workers"),
        (["--optim=adafactor", "--optim_args=zzz"], "--optim adafactor or --optim_args: "),
        (["--optim=zzz"], "zzz"),
        (["--lr_scheduler_kwargs=5"], "--lr_scheduler_kwargs 5: must be a JSON object"),
        (['--lr_scheduler_kwargs={"zzz": 5}'], "--lr_scheduler_type linear with "),
        (["--lr_scheduler_type=zzz"], "zzz"),
        ([*_CHECKPOINTING, '{"zzz": 1}'], "--gradient_checkpointing_kwargs {'zzz': 1}: "),
        ([*_CHECKPOINTING, '{"use_reentrant": false, "determinism_check": "zzz"}'], "zzz'}: "),
        (["--fsdp=full_shard"], "--fsdp: needs several processes"),
        (["--deepspeed=zzz.json"], "--deepspeed: pip install deepspeed"),
        (["--torch_compile_backend=zzz"], "--torch_compile_backend zzz: must be one of "),
        (["--torch_compile_mode=zzz"], "--torch_compile_mode zzz: must be one of "),
        (["--use_liger_kernel"], "--use_liger_kernel: pip install liger-kernel"),
        (["--log_level=zzz"], "zzz"),
        (["--hub_strategy=zzz"], "zzz"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_what_ends_a_training_is_refused_before_it(flags, expected):
    if "--use_liger_kernel" in flags and standard_flags.importlib.util.find_spec("liger_kernel"):
        pytest.skip("the package is installed")
    assert expected in refusal(*flags)


def test_a_tracker_that_is_not_installed_is_refused(monkeypatch):
    from transformers.integrations import integration_utils

    for name, available in (("wandb", "wandb"), ("comet_ml", "comet"), ("azure_ml", "azureml")):
        monkeypatch.setattr(integration_utils, f"is_{available}_available", lambda: False)
        assert f"--report_to {name}: the package of this tracker" in refusal("--report_to", name)


def test_a_compiler_that_is_missing_is_refused(monkeypatch):
    from torch._inductor import cpp_builder

    def missing(*_):
        raise RuntimeError("no compiler")

    monkeypatch.setattr(cpp_builder, "get_cpp_compiler", missing)
    assert "no C++ compiler found" in refusal("--torch_compile")


def test_what_fits_is_taken():
    method = multiprocessing.get_all_start_methods()[0]
    args = parse(
        *("--report_to", "none", "--label_names", "labels", "--lr_scheduler_type", "cosine"),
        *('--lr_scheduler_kwargs={"num_cycles": 0.5}', "--optim", "adafactor"),
        *("--dataloader_num_workers", 1, "--dataloader_multiprocessing_context", method),
        *(*_CHECKPOINTING, '{"use_reentrant": false}'),
    )
    assert args.lr_scheduler_kwargs == {"num_cycles": 0.5}
    assert torch.is_grad_enabled()
