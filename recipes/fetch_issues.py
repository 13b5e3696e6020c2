"""Fetch all issues of a GitHub repository into a file that every recipe reads.

Why: the issues of your own repository are the data to begin with, and those that have labels are
the training set. Pull requests come with them, marked as GitHub marks them (`pull_request`); the
recipes leave them out unless they are told to keep them.

    accelerate launch recipes/fetch_issues.py --repo huggingface/datasets
    accelerate launch recipes/fetch_issues.py --repo huggingface/datasets --update
    accelerate launch recipes/fetch_issues.py --repo me/mine --comments --output mine.parquet
    accelerate launch recipes/fetch_issues.py --repo me/mine --state closed --since 2025-01-01
    accelerate launch recipes/fetch_issues.py --repo team/tool --api https://github.team.org/api/v3

Token: GITHUB_TOKEN or GH_TOKEN, else that of `gh auth login`. Without one, GitHub allows 60
requests an hour, of 100 issues each; with one, 5,000. It is in no message and no file, and is sent
to --api only. Requests are sent by httpx2, which huggingface_hub installs anyway; a client of
GitHub, such as PyGithub or githubkit, would come on top of it, and keeps no pages on disk.

Output: one row per issue, the JSON of GitHub's REST API as it is, as JSON lines (.jsonl, .jsonl.gz)
or Parquet, in the order of the numbers. With --comments, `comment_list` has the comments of each
issue and `comment_text` their texts, for --text_columns title body comment_text. The file appears
when it is complete. Beside it, OUTPUT.pages.sqlite holds the pages:

- A fetch that was stopped, in whatever way, goes on when the same command is repeated. A kill loses
  at most the page that was on its way.
- --update fetches what changed since the last fetch, and replaces these rows. It does not see which
  issues were deleted or moved away, nor which labels were renamed.
- The same command without --update asks for every page whether it has changed. Those that have not
  cost nothing of the limit. This sees everything.

Where the limit of requests is used up, the run waits, with a countdown, until there are more; if
this takes longer than --max_wait, it ends with exit code 2, to be repeated then.

Expect: one request for 100 issues and pull requests, and one for 100 comments, one after the other.
Memory does not grow with the repository.
"""

import hashlib
import re
import shlex
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from shared.cli import (
    UserError,
    atomic_write,
    check_url,
    exit_on_user_error,
    flag,
    is_main_process,
    parse_arguments,
    progress,
)
from shared.data import (
    as_text,
    is_pull_request,
    output_format,
    write_json_lines,
    write_parquet,
)
from shared.github import (
    GithubClient,
    IssueQuery,
    PageStore,
    fetch_comments,
    fetch_issues,
    find_token,
    label_names,
    parse_time,
)

SUFFIXES = (".jsonl", ".ndjson", ".parquet")


@dataclass
class FetchIssuesArguments:
    """The flags of this recipe, which uses no Trainer."""

    repo: str | None = flag(None, "Repository, as owner/name (required).")
    output: str = flag(
        "issues.jsonl.gz",
        "File to write: .jsonl (also with .gz) or .parquet (default: issues.jsonl.gz).",
    )
    state: Literal["all", "open", "closed"] = flag("all", "Which issues to fetch (default: all).")
    since: str | None = flag(
        None,
        "Only issues that changed at this time or later: 2026-01-31, or 2026-01-31T12:00:00Z "
        "(default: all).",
    )
    labels: list[str] | None = flag(None, "Only issues that have all of these (default: all).")
    comments: bool = flag(False, "Also fetch the comments (default: false).")
    update: bool = flag(
        False, "Fetch only what changed since the last fetch, and replace it (default: false)."
    )
    api: str = flag(
        "https://api.github.com",
        "Base URL of the API; of a GitHub Enterprise Server https://HOST/api/v3 (default: "
        "https://api.github.com).",
    )
    max_wait: float = flag(
        3900.0,
        "Most seconds that a request waits for limits; a longer wait ends the run (default: 3900, "
        "more than the hour after which GitHub allows new requests).",
        least=0,
    )
    timeout: float = flag(30.0, "Seconds to wait for an answer (default: 30).", above=0)
    retries: int = flag(6, "Further attempts if the server fails or is late (default: 6).", least=0)

    def __post_init__(self):
        name = r"[\w.-]*[\w-][\w.-]*"
        if self.repo is not None and not re.fullmatch(f"{name}/{name}", self.repo, re.ASCII):
            raise UserError(f"--repo {self.repo}: must be owner/name, such as huggingface/datasets")
        suffix, compressed = output_format(self.output)
        if suffix not in SUFFIXES or (suffix == ".parquet" and compressed):
            known = ", ".join(SUFFIXES)
            raise UserError(
                f"--output {self.output}: must end with {known} (all but the last also with .gz)"
            )
        if Path(self.output).is_dir():
            raise UserError(f"--output {self.output}: is a folder; choose another name")
        for label in self.labels or []:
            if not label.strip() or "," in label:
                raise UserError(f"--labels {label!r}: a label has a name, without commas")
        example = "https://github.example.org/api/v3"
        check_url(self.api, "--api", example=example, secret="GITHUB_TOKEN")
        self.api = self.api.rstrip("/")
        self.since = parse_time(self.since) if self.since else None


def main() -> None:
    """Fetch the pages of issues, then those of comments, and write the rows."""
    args = parse_arguments(FetchIssuesArguments, description=__doc__)
    if not is_main_process():
        return  # one process is enough
    if args.repo is None:
        raise UserError("--repo: name the repository, such as --repo huggingface/datasets")
    token, output = find_token(args.api), Path(args.output)
    path = output.with_name(f"{output.name}.pages.sqlite")
    if output.exists() and not path.exists():
        raise UserError(
            f"--output {output}: is there, but {path.name} beside it is not, so that its rows may "
            "be other ones; move it, or choose another --output"
        )
    if token is None:
        print("note: no token, so that GitHub allows few requests; set GITHUB_TOKEN", flush=True)
    query = IssueQuery(args.repo, args.state, args.since, tuple(args.labels or ()))
    names = ("api", "repo", "state", "since", "labels")
    limits = {"max_wait": args.max_wait, "timeout": args.timeout, "retries": args.retries}

    with PageStore(path, {name: getattr(args, name) for name in names}) as store:
        check_unchanged(output, store)
        try:
            with GithubClient(args.api, token, **limits) as client:
                fetch_issues(client, store, query, update=args.update)
                if args.comments:
                    fetch_comments(client, store, query, update=args.update)
        except (KeyboardInterrupt, UserError):
            if n_pages := sum(store.count("pages", name) for name in ("issues", "comments")):
                print(f"pages kept: {n_pages:,}; the same command goes on", flush=True)
            raise
        counts = count_issues(store)
        if not counts["rows"]:
            raise UserError(f"{args.repo}: no issues fit these flags, so nothing was written")
        name = repository_name(store) or args.repo
        if name.lower() != args.repo.lower():
            print(f"note: {args.repo} is now {name}")
        written = write_issues(output, store, comments=args.comments)
    print(describe(counts, args.repo, client) + ("" if written else f"\n{output} is unchanged."))
    print(next_step(counts, args.output))


def check_unchanged(output: Path, store: PageStore) -> None:
    """Refuse an output that somebody has changed: writing it again would lose the changes."""
    if output.exists() and file_hash(output) not in (store.fact("written") or []):
        raise UserError(
            f"--output {output}: was changed since it was fetched; move it, or choose another "
            "--output"
        )


def write_issues(output: Path, store: PageStore, *, comments: bool) -> bool:
    """Write the rows, unless the file has them already; return whether it was written.

    A file that stays as it is need not be prepared anew by the recipes that read it.
    """
    before, same_flags = store.fact("written") or [], store.fact("with_comments") == comments
    if output.exists() and same_flags and not store.n_changes and before[-1] == file_hash(output):
        return False
    suffix, compressed = output_format(output)

    def rows() -> Iterator[dict]:
        total = store.count("rows", "issues")
        return iter(progress(issue_rows(store, comments), f"writing {output}", total=total))

    try:
        with atomic_write(output, "wb") as file:
            if suffix == ".parquet":
                write_parquet(file, rows)
            else:
                with as_text(file, compressed) as text:
                    write_json_lines(text, rows())
            file.flush()
            # A kill may come before or after the file gets its name.
            store.keep_facts(written=[*before[-1:], file_hash(Path(file.name))])
    except OSError as error:
        raise UserError(
            f"--output {output}: cannot be written ({error.strerror or error}); all pages are "
            "kept: repeat the command when this is solved"
        ) from error
    store.keep_facts(changes=0, with_comments=comments)
    return True


def issue_rows(store: PageStore, comments: bool) -> Iterator[dict]:
    """Yield the issues by number, with their comments if these are wanted."""
    for issue in store.rows("issues"):
        if comments:
            number = issue.get("number")
            listed = [] if number is None else list(store.rows("comments", number))
            texts = [comment.get("body") or "" for comment in listed]
            issue |= {"comment_list": listed, "comment_text": "\n\n".join(filter(None, texts))}
        yield issue


def repository_name(store: PageStore) -> str:
    """Return the name in the rows, which is another one after a move; "" if they have none."""
    url = next(store.rows("issues")).get("repository_url") or ""
    return "/".join(url.split("/")[-2:])


def count_issues(store: PageStore) -> Counter:
    """Return the numbers of rows, pull requests and labelled issues, and of each label."""
    counts: Counter = Counter()
    for issue in progress(store.rows("issues"), "counting", total=store.count("rows", "issues")):
        names = label_names(issue)
        is_issue = not is_pull_request(issue)
        counts.update(rows=1, pulls=not is_issue, labelled=bool(names) and is_issue)
        counts.update(("label", name) for name in names)
    return counts


def describe(counts: Counter, repo: str, client: GithubClient) -> str:
    """Return what was fetched, and what it took."""
    n_issues, n_labels = counts["rows"] - counts["pulls"], sum(type(k) is tuple for k in counts)
    text = f"{repo}: {n_issues:,} issues ({counts['labelled']:,} of them with labels) and "
    text += f"{counts['pulls']:,} pull requests, with {n_labels:,} different labels. "
    text += f"{client.n_requests:,} requests, {client.n_unchanged:,} of them for pages that have "
    left = "" if client.remaining is None else f"; {client.remaining:,} are left"
    return f"{text}not changed{left}."


def next_step(counts: Counter, output: str) -> str:
    """Return the command that takes the file."""
    data = shlex.quote(output)
    if counts["labelled"]:
        return f"Next: accelerate launch recipes/naive_bayes.py --data {data} --min_label_count 10"
    return (
        f"Next: accelerate launch recipes/zero_shot.py --data {data} --candidate_labels bug "
        "feature question"
    )


def file_hash(path: Path) -> str:
    """Return the SHA-256 of a file."""
    with path.open("rb") as file:
        digest = hashlib.sha256()
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


if __name__ == "__main__":
    with exit_on_user_error():
        main()
