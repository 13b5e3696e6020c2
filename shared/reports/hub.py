"""Publish the tagger of a run on the Hugging Face hub: ``--push_to_hub``.

The Trainer would send its pickled arguments and a card without content, at each checkpoint. Here
one commit at the end of the run sends the tagger, its card, its metrics and its plots, and the
report without the texts of the data. Files that hold texts stay on this machine.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from shared.cli.errors import UserError, first_line
from shared.cli.launch import is_main_process
from shared.reports.page import PAGE, without_texts
from shared.taggers.folder import MANIFEST, is_tagger, read_tagger, transformers_files

CARD = "README.md"
_RESULTS = ("metrics.json", "per_label.csv", "plots/*.png")


def push_to_hub(output_dir: Path, args: Any) -> None:
    """Upload the files of a run in one commit, if ``--push_to_hub`` is set.

    All processes of a launch may call this; the first one uploads. `start_recipe` has created the
    repository.

    Parameters
    ----------
    output_dir : Path
        The folder of the tagger, or of another model that a recipe has trained.
    args : TrainingArguments
        ``push_to_hub`` and the ``hub_*`` flags.

    Raises
    ------
    UserError
        If the upload fails. The folder stays as it is.
    """
    if not (args.push_to_hub and is_main_process()):
        return
    from huggingface_hub import CommitOperationAdd, HfApi
    from huggingface_hub.errors import HTTPError  # that of its HTTP library

    repository = args.hub_model_id
    operations = [
        CommitOperationAdd(name, str(output_dir / name)) for name in published_files(output_dir)
    ]
    card = _card_for_readers((output_dir / CARD).read_text("utf-8"), output_dir, repository)
    operations.append(CommitOperationAdd(CARD, card.encode()))
    if (page := output_dir / PAGE).is_file():
        public = without_texts(page.read_text("utf-8"))
        operations.append(CommitOperationAdd(PAGE, public.encode()))
    try:
        commit = HfApi(token=args.hub_token).create_commit(
            repository, operations, commit_message="Add the tagger", revision=args.hub_revision
        )
    except (HTTPError, OSError) as error:
        included = " ".join(f"--include '{name}'" for name in [CARD, *published_files(output_dir)])
        raise UserError(
            f"--push_to_hub: {repository}: {first_line(error)}; the tagger is in {output_dir}; to "
            f"upload it later: hf upload {repository} {output_dir} {included}"
        ) from error
    print(f"\nUploaded {len(operations)} files: {commit.commit_url}", flush=True)


def published_files(folder: Path) -> list[str]:
    """Return the names of the files that are uploaded beside the card, relative to the folder."""
    files = _tagger_files(folder) if is_tagger(folder) else transformers_files(folder)
    results = (path for pattern in _RESULTS for path in folder.glob(pattern))
    return sorted({*files, *(path.relative_to(folder).as_posix() for path in results)})


def _tagger_files(folder: Path, prefix: str = "") -> Iterator[str]:
    """Yield the files of a tagger, and of its members if it is a mean of several."""
    yield f"{prefix}{MANIFEST}"
    for name in read_tagger(folder).files:
        if Path(name).name == MANIFEST:
            yield from _tagger_files((folder / name).parent, f"{prefix}{Path(name).parent}/")
        else:
            yield f"{prefix}{name}"


def _card_for_readers(card: str, output_dir: Path, repository: str) -> str:
    """Return a card whose examples load the model from the hub, not from a folder of its author."""
    return (
        card.replace(
            "from shared.taggers import load_tagger",
            "from huggingface_hub import snapshot_download\nfrom shared.taggers import load_tagger",
        )
        .replace(f'load_tagger("{output_dir}")', f'load_tagger(snapshot_download("{repository}"))')
        .replace(f'"{output_dir}"', f'"{repository}"')
        .replace(f'"{output_dir}/', f'snapshot_download("{repository}") + "/')
    )
