"""Issues of a repository, from GitHub's REST API.

- `client`: one page at a time, with pauses where the server limits requests.
- `listings`: all pages of a list, and what changed since they were fetched.
- `store`: the pages on disk, so that a fetch goes on after any interruption.
- `token`: the token of the user, wherever it is.

May import: `shared.cli`.
"""

import lazy_loader

# Names are imported on first use, so that importing the package costs nothing.
__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "client": ["GithubClient"],
        "listings": ["IssueQuery", "fetch_comments", "fetch_issues", "label_names", "parse_time"],
        "store": ["PageStore"],
        "token": ["find_token"],
    },
)
