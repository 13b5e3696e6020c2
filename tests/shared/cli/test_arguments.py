import fractions
from dataclasses import dataclass, fields
from typing import Literal

import pytest
from transformers import TrainingArguments

from shared.cli.arguments import command_flags, flag, parse_arguments, result_flags
from shared.cli.errors import UserError
from shared.training import EpochTrainingArguments


@dataclass
class Arguments:
    output_dir: str = flag("out", "Folder (default: out).")
    learning_rate: float = flag(5e-4, "Peak rate, 95 % of the time (default: 5e-4).")
    train_size: int | None = flag(None, "Rows (default: all).")
    columns: list[str] = flag(["title", "body"], "Columns (default: title body).")
    pos_weight: Literal["none", "balanced"] = flag("none", "Weight (default: none).")
    bf16: bool = flag(False, "Train in bfloat16 (default: false).")
    shuffle: bool = flag(True, "Shuffle (default: true).")

    def __post_init__(self):
        if self.train_size == 13:
            raise ValueError("13 brings bad luck")


@dataclass
class RecipeArguments(Arguments, TrainingArguments):
    num_train_epochs: float = flag(7, "Passes (default: 7).")

    def __post_init__(self):
        TrainingArguments.__post_init__(self)


@dataclass
class StepArguments(TrainingArguments):
    max_steps: int = flag(2500, "Steps (default: 2500).")
    eval_strategy: str = flag("epoch", "When (default: epoch).")
    save_strategy: str = flag("epoch", "When (default: epoch).")
    logging_strategy: str = flag("epoch", "When (default: epoch).")


def parse(*argv):
    return parse_arguments(Arguments, list(argv), description="Do a thing.\n\n    and so")


@pytest.fixture
def config(tmp_path):
    """Write a YAML file, return the flag that names it."""

    def write(text):
        path = tmp_path / "config.yaml"
        path.write_text(text, encoding="utf-8")
        return f"--config={path}"

    return write


def refusal(*argv):
    with pytest.raises(UserError) as error:
        parse(*argv)
    message = str(error.value)
    assert "\n" not in message or "YAML" in message  # YAML's own place marks span lines
    return message


# --- values and their precedence -----------------------------------------------------------------


def test_without_flags_the_defaults_hold():
    assert parse() == Arguments()


def test_defaults_that_are_lists_are_not_shared():
    parse().columns.append("x")
    assert parse().columns == ["title", "body"]


def test_flags_override_the_file_wherever_it_stands(config):
    path = config("learning_rate: 1e-3\ntrain_size: 100\n")
    for argv in ([path, "--train_size", "64"], ["--train_size=64", path]):
        arguments = parse(*argv)
        assert (arguments.learning_rate, arguments.train_size) == (1e-3, 64)
        assert arguments.output_dir == "out"


@pytest.mark.parametrize("number", ["5e-5", "5.0e-5", "0.00005", "5E-5", "'5e-5'"])
def test_scientific_notation_in_a_file(config, number):
    assert parse(config(f"learning_rate: {number}")).learning_rate == 5e-5


def test_a_file_of_every_kind_of_value(config):
    arguments = parse(
        config(
            '# a comment\noutput_dir: "a folder: with signs"\ncolumns: [text]\n'
            "pos_weight: balanced\nbf16: true\nshuffle: no\ntrain_size:\n"
        )
    )
    assert arguments == Arguments(
        output_dir="a folder: with signs",
        columns=["text"],
        pos_weight="balanced",
        bf16=True,
        shuffle=False,
    )


def test_lists(config):
    assert parse("--columns", "a", "b c").columns == ["a", "b c"]
    path = config("columns:\n- a\n- 1\n")
    assert parse(path).columns == ["a", "1"]
    assert parse(path, "--columns", "d").columns == ["d"]


def test_a_list_in_the_file_does_not_swallow_a_stray_word(config):
    assert "stray" in refusal("stray", config("columns: [a]"))


def test_switches(config):
    assert parse("--bf16").bf16 is True
    assert parse("--bf16", "false").bf16 is False
    assert parse("--no_shuffle").shuffle is False
    assert parse(config("bf16: true\nshuffle: false"), "--bf16=no", "--shuffle").bf16 is False


def test_an_empty_file_changes_nothing(config):
    assert parse(config("# nothing\n")) == Arguments()


def test_a_mapping_reaches_flags_that_take_one(config):
    text = "lr_scheduler_type: cosine\nlr_scheduler_kwargs: {num_cycles: 2}"
    arguments = parse_arguments(RecipeArguments, [config(text)])
    assert arguments.lr_scheduler_kwargs == {"num_cycles": 2}


@pytest.mark.parametrize(
    ("file", "flags", "steps"),
    [
        ("", ["--num_train_epochs=2"], -1),  # wins over the default
        ("num_train_epochs: 2", [], -1),
        ("max_steps: 9", ["--num_train_epochs=2"], -1),  # and over the file
        ("num_train_epochs: 2", ["--max_steps=9"], 9),
        ("num_train_epochs: 2\nmax_steps: 9", [], 9),  # both are the user's: as documented
        ("", ["--num_train_epochs=2", "--max_steps=9"], 9),
        ("", [], 2500),
        ("max_steps: 9", [], 9),
    ],
)
def test_what_a_user_sets_is_not_silenced_by_a_default(file, flags, steps, config):
    assert parse_arguments(StepArguments, [config(file or "{}"), *flags]).max_steps == steps


def test_steps_that_a_user_sets_are_steps():
    for name in ("eval", "save", "logging"):
        args = parse_arguments(StepArguments, [f"--{name}_steps=7"])
        assert getattr(args, f"{name}_strategy") == "steps"
        args = parse_arguments(StepArguments, [f"--{name}_steps=7", f"--{name}_strategy=no"])
        assert getattr(args, f"{name}_strategy") == "no"


# --- refusals ------------------------------------------------------------------------------------


def test_an_unknown_flag_and_the_one_that_was_meant():
    assert refusal("--lerning_rate", "1").startswith("unknown flag --lerning_rate; did you mean ")
    assert refusal("--lerning_rate=1").endswith("did you mean --learning_rate?")
    assert refusal("--zzz", "1") == "unknown flag --zzz; --help lists the flags"


def test_a_flag_is_not_guessed_from_its_beginning():
    assert "unknown flag --learning" in refusal("--learning", "1")


def test_an_unknown_key_and_the_one_that_was_meant(config):
    path = config("lerning_rate: 1")
    assert (
        refusal(path)
        == f"--config {path[9:]}: unknown flag 'lerning_rate'; did you mean learning_rate?"
    )
    assert "unknown flag 7" in refusal(config("7: x"))


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--train_size", "many"], ["--train_size", "many"]),
        (["--train_size", "1.5"], ["--train_size", "1.5"]),
        (["--learning_rate", "fast"], ["--learning_rate", "fast"]),
        (["--pos_weight", "heavy"], ["--pos_weight", "heavy", "none", "balanced"]),
        (["--bf16", "perhaps"], ["--bf16", "perhaps"]),
        (["--train_size"], ["--train_size", "expected one argument"]),
        (["--config"], ["--config", "expected one argument"]),
        (["stray"], ["stray"]),
        (["\u2013train_size", "1"], ["\u2013train_size"]),  # a dash as word processors set it
        (["--train_size", "13"], ["these flags do not fit together", "bad luck"]),
    ],
)
def test_a_wrong_value_names_flag_and_value(argv, words):
    message = refusal(*argv)
    for word in words:
        assert word in message


def test_the_words_yes_and_no_stay_words_where_words_are_wanted(config):
    args = parse_arguments(
        RecipeArguments,
        [
            config(
                "save_strategy: no\nshuffle: no\nbf16: false\nlogging_strategy: 'no'\n"
                "columns: [yes, no]\nresume_from_checkpoint: true\n"
                "accelerator_config: {even_batches: false}\n"
            )
        ],
    )
    assert args.columns == ["yes", "no"]
    assert args.resume_from_checkpoint == "true"
    assert args.accelerator_config.even_batches is False
    assert args.save_strategy == "no"
    assert args.logging_strategy == "no"
    assert not args.shuffle
    assert not args.bf16


def test_a_wrong_value_in_a_file_names_the_file(config):
    path = config("train_size: many")
    message = refusal(path)
    assert message.startswith(f"--config {path[9:]}: ")
    assert "--train_size" in message
    assert "many" in message


@pytest.mark.parametrize("text", ["learning_rate: [1", "a: b: c", "\tlearning_rate: 1"])
def test_a_file_that_is_not_yaml(config, text):
    assert "not valid YAML" in refusal(config(text))


def test_a_file_that_is_not_text(tmp_path):
    (tmp_path / "x.yaml").write_bytes(b"\xff\xfe\x00")
    assert "not valid YAML" in refusal("--config", str(tmp_path / "x.yaml"))


def test_values_are_those_of_a_command_line(config):
    args = parse(config("train_size: 010\ncolumns: [007, 1.10, null, yes, 0x1F]"))
    assert args.train_size == 10
    assert args.columns == ["007", "1.10", "null", "yes", "0x1F"]


@pytest.mark.parametrize("text", ["just words", "- a\n- b\n", "7"])
def test_a_file_without_keys(config, text):
    assert "expected 'flag: value' lines" in refusal(config(text))


def test_a_file_that_is_not_there(tmp_path):
    path = str(tmp_path / "none.yaml")
    assert refusal("--config", path) == f"--config {path}: No such file or directory"
    assert "Is a directory" in refusal("--config", str(tmp_path))


# --- help ----------------------------------------------------------------------------------------


def help_text(capsys, *argv):
    with pytest.raises(SystemExit) as exit:
        parse_arguments(RecipeArguments, list(argv), description="Do a thing.\n\n    and so")
    assert exit.value.code == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("word", ["-h", "--help"])
def test_help_shows_the_flags_of_the_recipe_only(capsys, word):
    text = help_text(capsys, word)
    assert "Do a thing.\n\n    and so\n" in text
    assert "95 % of the time (default: 5e-4)." in text
    own = {f"--{name}" for name in ("config", "num_train_epochs", *Arguments.__annotations__)}
    shown = {line.split()[0].rstrip(",") for line in text.splitlines() if line[:4] == "  --"}
    assert shown >= own
    assert not shown & ({f"--{field.name}" for field in fields(TrainingArguments)} - own)
    assert "--help_all" in text


def test_help_all_shows_every_flag(capsys):
    text = help_text(capsys, "--help_all", "--output_dir", "x")
    for field in fields(RecipeArguments):
        assert not field.init or f"--{field.name}" in text


def test_command_flags_are_the_way_back():
    assert command_flags(parse(), Arguments) == []
    words = ["--columns", "a", "b c", "--learning_rate", "1e-3", "--shuffle", "false"]
    words += ["--train_size", "7", "--output_dir=--odd"]
    arguments = parse(*words)
    assert parse(*command_flags(arguments, Arguments)) == arguments
    further = RecipeArguments(output_dir="elsewhere", seed=3)
    assert command_flags(further, Arguments) == ["--output_dir=elsewhere"]


def test_flags_that_results_do_not_depend_on_are_left_out():
    @dataclass
    class Some:
        data: str = flag("a", "data")
        output_dir: str = flag("b", "folder")

    assert result_flags(Some("x", "y"), Some) == ["--data=x"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("columns: &a [*a]", "aliases (*name) are not supported"),
        ("a: &a [x]\ncolumns: *a", "line 2: aliases"),
        ("columns: " + "[" * 5000 + "]" * 5000, "nested too deeply"),
        ("output_dir: [out]", "output_dir: expected one value, not a list"),
        ("columns: [[a], b]", "columns: expected a list of plain values"),
        ("train_size: {a: 1}", "--train_size"),
        ("train_size: 2020-13-45", "not valid YAML"),
        ("train_size: " + "9" * 5000, ""),
        ("[a, b]: 1", "not valid YAML"),
        ("1: 2", "unknown flag 1"),
        ("- a", "expected 'flag: value' lines"),
        ("just words", "expected 'flag: value' lines"),
        ("train_size: 3\noutput_dir: x\ntrain_size: 4", "line 3: 'train_size' is there a second"),
        ("train_size: 1:30", "--train_size"),
        ("output_dir: !!python/object/apply:os.getcwd []", "not valid YAML"),
        ("\x00", "not valid YAML"),
    ],
    ids=range(16),
)
def test_yaml_of_a_wrong_form_is_a_users_mistake(text, expected, config):
    with pytest.raises(UserError) as error:
        parse(config(text))
    assert str(error.value).startswith("--config ")
    assert expected in str(error.value)


def test_what_a_library_raises_is_about_the_flags_and_a_fault_of_a_recipe_is_not():
    def arguments_that(action):
        @dataclass
        class Odd:
            output_dir: str = flag("out", "Folder.")

            def __post_init__(self):
                action()

        return Odd

    def library_fails():
        fractions.Fraction(1, 0)

    def recipe_fails():
        raise AttributeError("no such thing")

    with pytest.raises(UserError, match=r"^these flags do not fit together: "):
        parse_arguments(arguments_that(library_fails), [])
    with pytest.raises(AttributeError, match="no such thing"):
        parse_arguments(arguments_that(recipe_fails), [])


def test_several_trackers_in_a_config_are_refused(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("report_to: [none, tensorboard]\n")
    with pytest.raises(UserError, match="report_to: expected one value, or a list of one"):
        parse_arguments(EpochTrainingArguments, ["--config", str(path)])


def test_defaults_follow_the_evaluation_that_a_user_wants(tmp_path):
    def parsed(*words):
        args = parse_arguments(EpochTrainingArguments, ["--output_dir", str(tmp_path), *words])
        return args.save_strategy, args.save_steps, args.load_best_model_at_end

    assert parsed() == ("epoch", 500, True)
    assert parsed("--eval_strategy", "no") == ("epoch", 500, False)
    assert parsed("--eval_strategy", "steps", "--eval_steps", "7") == ("steps", 7, True)
    flags = ("--eval_strategy", "steps", "--eval_steps", "7", "--save_steps", "14")
    assert parsed(*flags) == ("steps", 14, True)
    with pytest.raises(UserError, match="these flags do not fit together"):
        parsed("--eval_strategy", "no", "--load_best_model_at_end", "true")
