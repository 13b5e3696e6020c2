"""What any command-line program needs. This room knows no data and no models.

- `arguments`: flags, a YAML file of defaults, ``--help``
- `errors`: mistakes of the user as one line, exit codes
- `files`: files that are written as a whole, output folders
- `jobs`: many commands, several at a time
- `launch`: processes and devices of a launch, what it prints
- `launcher`: the command ``accelerate launch`` of this project
- `standard_flags`: ranges of numbers, checks of the flags of `transformers.TrainingArguments`
- `web`: addresses, keys and pauses of web services
- `yaml_files`: YAML files that a user writes

May import: nothing else of `shared`.
"""

import lazy_loader

# Names are imported on first use, so that importing the package costs nothing.
__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "arguments": ["command_flags", "flag", "parse_arguments", "result_flags"],
        "errors": ["UserError", "exit_on_user_error"],
        "files": [
            "atomic_write",
            "expand_path",
            "folder_fingerprint",
            "kept_record",
            "make_output_dir",
            "temporary_folder",
            "write_csv",
            "write_json",
        ],
        "jobs": [
            "STOPPED",
            "Job",
            "completed_jobs",
            "jobs_and_threads",
            "run_jobs",
            "script_flags",
        ],
        "launch": [
            "choose_precision",
            "countdown",
            "has_fast_bf16",
            "is_main_process",
            "machine",
            "print_once",
            "progress",
            "progress_bar",
            "quiet_libraries",
            "runs_on_cpu",
            "start_recipe",
        ],
        "web": ["check_url", "read_key"],
    },
)
