"""What tags the files of a folder: this process, or the workers of a Ray cluster."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Generator, Sequence
from contextlib import closing
from time import perf_counter
from typing import Any

from shared.cli.errors import UserError, first_line
from shared.cli.files import ROOT, expand_path
from shared.cli.launch import print_once, progress
from shared.reports.input_parts import Part, check_apart, find_files, split_files
from shared.reports.tagged_folder import Folders, PartTagger, TaggedFolder, load_part_tagger
from shared.taggers.explanations import load_explainer
from shared.taggers.folder import tagger_fingerprint
from shared.taggers.loading import load_taggers, note_unknown_tokens
from shared.taggers.means import mean_tagger

_RETRIES = 5  # how often a worker that dies is started again
# Paragraphs that Ray prints, whatever the level of its log; a line of this module says the same.
_NOTICES_OF_A_DEATH = r"^A worker died or was killed|^Task .*retries remaining"
_STORE_BYTES = 128 << 20  # of Ray's store of objects; its minimum is 75 MB
_SAMPLED_PARTS, _SAMPLED_TEXTS = 5, 200  # of each part, to look for unknown tokens
_TEXT_FILE_FLAGS = ("column_names", "delimiter", "quoting", "encoding")
Results = Generator[dict[str, int], None, None]
_FLAGS_OF_WORKERS = (
    *("threshold", "target_precision", "abstain", "encoder", "top_scores", "bf16", "use_cpu"),
    *("per_device_eval_batch_size", "explain", "explain_data", "text_columns", "label_column"),
    *_TEXT_FILE_FLAGS,
)


def tag_folder(args: Any, flags_of_a_run: Sequence[str], default_tagger: str) -> None:
    """Tag the files of a folder part by part, and print a summary.

    Parameters
    ----------
    args : shared.taggers.arguments.TaggerArguments
        With the flags of ``recipes/tag.py``.
    flags_of_a_run : sequence of str
        A run that was stopped goes on only if these have the same values.
    default_tagger : str
        As in `load_taggers`.

    Raises
    ------
    UserError
        For several processes, for a flag of CSV files, and as the functions that this calls.
    """
    if args.world_size > 1:
        raise UserError("a folder takes one process; for several workers add --engine ray")
    if args.explain_data is None:  # which may be such a file
        for name in _TEXT_FILE_FLAGS:
            if getattr(args, name) not in (None, "auto"):
                raise UserError(
                    f"--{name}: is for CSV and TSV files, which --data {args.data} does not have"
                )
    files, inputs = find_files(args.data)
    check_apart(args.data, args.output)
    label_column = args.label_column if args.only_unlabelled else None
    parts, columns, label_column = split_files(
        files, inputs, args.block_size, args.text_columns, label_column
    )
    # All is loaded before the output is touched, also for workers, which load it once more: after a
    # mistake, the corrected command finds the folder as it was.
    taggers = load_taggers(args, default_tagger)
    tagger = mean_tagger(taggers, names=args.model)
    run: dict[str, Any] = {"taggers": [tagger_fingerprint(name) for name in args.model]}
    run |= {f"--{name}": getattr(args, name) for name in flags_of_a_run}
    explainer = None
    if args.explain:
        explainer, run["explain_data"] = load_explainer(tagger, args)
        for note in explainer.notes:
            print_once(f"note: {note}")
    output = TaggedFolder(args.output, run, inputs, parts, resume=args.resume)
    missing = output.missing
    folders = Folders(files, output.target, output.path, columns, label_column)
    part_tagger = PartTagger(folders, tagger, explainer, args.top_scores)
    # The texts of some parts all over the folder: its files may differ.
    sampled = missing[:: max(len(missing) // _SAMPLED_PARTS, 1)][:_SAMPLED_PARTS]
    texts = [text for part in sampled for text in part_tagger.texts(part)[:_SAMPLED_TEXTS]]
    note_unknown_tokens(dict(zip(args.model, taggers, strict=True)), texts)
    output.start()

    started, n_rows, n_texts = perf_counter(), 0, 0
    if missing:
        if args.engine == "ray":
            results = tag_on_ray(folders, missing, args)
        else:
            results = tag_here(part_tagger, missing)
        # Closing it ends the cluster, also after Ctrl-C.
        with closing(results):
            shown = progress(results, f"tagging {args.data}", unit="files", total=len(missing))
            for result in shown:
                n_rows, n_texts = n_rows + result["rows"], n_texts + result["texts"]
    output.finish()
    seconds = perf_counter() - started
    kept = f" ({len(parts) - len(missing):,} were there)" if len(parts) > len(missing) else ""
    blank = f" ({n_rows - n_texts:,} without text)" if n_rows > n_texts else ""
    print(
        f"{n_rows:,} rows{blank} of {len(inputs):,} files tagged in {args.output}, "
        f"{len(parts):,} files{kept}: {n_texts / seconds:,.0f} texts per second"
    )


def tag_here(tagger: PartTagger, parts: Sequence[Part]) -> Results:
    """Tag parts in this process; yield what `PartTagger` returns for each."""
    yield from map(tagger, parts)


# --- Ray -----------------------------------------------------------------------------------------


class RayWorker:
    """A worker of a Ray cluster: loads the taggers once, and tags one part after another.

    Parameters
    ----------
    folders : Folders
    flags : dict
        Of the recipe; see `load_part_tagger`.
    """

    def __init__(self, folders: Folders, flags: dict[str, Any]):
        self.folders, self.flags = folders, flags
        self._tagger: PartTagger | None = None

    def tag(self, part: Part) -> dict[str, int] | str:
        """Return what `PartTagger` returns; of a mistake of the user, its message.

        The first result of a worker that was started again has ``restarted`` beside its numbers.
        """
        try:
            if self._tagger is not None:
                return self._tagger(part)
            self._tagger = self._load()
            return self._tagger(part) | {"restarted": int(_is_restarted())}
        except UserError as error:
            return str(error)

    def _load(self) -> PartTagger:
        from shared.taggers.arguments import TaggerArguments

        known = {name: v for name, v in self.flags.items() if hasattr(TaggerArguments, name)}
        args = TaggerArguments(**known)
        for name, value in self.flags.items():
            setattr(args, name, value)
        return load_part_tagger(self.folders, args)


def tag_on_ray(folders: Folders, parts: Sequence[Part], args: Any) -> Results:
    """Tag parts by the workers of a Ray cluster; yield what `PartTagger` returns for each.

    The cluster is that of the environment variable ``RAY_ADDRESS``, else one of this machine alone.
    A worker has one CPU, or one GPU if the cluster has any. One that dies is started again, with
    the part that it was at.

    Parameters
    ----------
    folders, parts
    args : as in `load_part_tagger`
        With ``workers``, their number at most. The folders of taggers must be there on each
        machine, and so must this package.

    Raises
    ------
    UserError
        If Ray is not installed or cannot start, if a worker dies again and again, or for a mistake
        that a worker finds.
    """
    ray = import_ray()
    from ray.exceptions import RayActorError
    from ray.util import ActorPool

    starts = not ray.is_initialized()
    if starts:
        _start_ray(ray)
    try:
        resources = ray.cluster_resources()
        on_gpu = resources.get("GPU", 0) >= 1 and not args.use_cpu
        # A worker beyond these would wait for a place, and its part with it.
        places = int(resources.get("GPU" if on_gpu else "CPU", 1))
        n_workers = min(args.workers or places, places, len(parts))
        flags = worker_flags(args)
        worker = ray.remote(RayWorker).options(
            num_cpus=1,
            num_gpus=1 if on_gpu else 0,
            max_restarts=_RETRIES,
            max_task_retries=_RETRIES,
            runtime_env={"env_vars": _environment()},
        )
        pool: Any = ActorPool([worker.remote(folders, flags) for _ in range(n_workers)])
        for result in pool.map_unordered(lambda actor, part: actor.tag.remote(part), parts):
            if isinstance(result, str):
                raise UserError(result)
            if result.pop("restarted", 0):
                print_once("note: a worker died; it was started again, with the part it was at")
            yield result
    except RayActorError as error:
        raise UserError(
            f"--engine ray: a worker died {_RETRIES + 1} times, probably for lack of memory; what "
            "is tagged is kept: run the command again with fewer --workers"
        ) from error
    finally:
        if starts:
            ray.shutdown()


def import_ray() -> Any:
    """Return the module of Ray, which sends nothing anywhere and says little.

    Raises
    ------
    UserError
        If it is not installed.
    """
    # Both are read on import.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", _NOTICES_OF_A_DEATH)
    try:
        import ray
    except ImportError as error:
        raise UserError('--engine ray: needs Ray; pip install -e ".[ray]"') from error
    return ray


def _is_restarted() -> bool:
    """Return whether this is a worker of Ray that was started again."""
    ray = sys.modules.get("ray")  # which a worker has imported
    if ray is None or not ray.is_initialized():
        return False
    return ray.get_runtime_context().was_current_actor_reconstructed


def worker_flags(args: Any) -> dict[str, Any]:
    """Return the flags of workers, with absolute paths: a worker may run in another folder.

    Parameters
    ----------
    args : as in `load_part_tagger`
    """
    flags = {name: getattr(args, name) for name in _FLAGS_OF_WORKERS}
    flags["model"] = [_absolute(name) for name in args.model]
    for name in ("encoder", "explain_data"):
        flags[name] = flags[name] and _absolute(flags[name])
    return flags


def _start_ray(ray: Any) -> None:
    """Connect to a cluster, or start one of this machine; nothing of it is sent anywhere."""
    # Nothing large passes through the store of objects: workers read and write files.
    options = {} if "RAY_ADDRESS" in os.environ else {"object_store_memory": _STORE_BYTES}
    try:
        ray.init(
            include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR, **options
        )
    except Exception as error:  # what it raises depends on the place where it fails
        raise UserError(
            f"--engine ray: Ray cannot start ({first_line(error)}); it needs 1 GB of memory, "
            "shared memory (/dev/shm) and sockets, or the address of a cluster in RAY_ADDRESS"
        ) from error


def _environment() -> dict[str, str]:
    """Return the environment of a worker, which has one core and is no process of this launch."""
    paths = filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])
    single = {"OMP_NUM_THREADS": "1", "RANK": "0", "WORLD_SIZE": "1"}
    return single | {"PYTHONPATH": os.pathsep.join(paths)}


def _absolute(name: str) -> str:
    """Return the absolute path of a file or folder. A hub id, or "sample", stays."""
    return os.path.abspath(expand_path(name)) if expand_path(name).exists() else name
