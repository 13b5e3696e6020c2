"""Serving: a tagger behind HTTP, for programs and for people.

- `batches`: the texts of requests that arrive together, tagged together
- `app`: the HTTP interface, and the server that runs it
- `page`: the web page of a tagger
- `markup`: the parts of the page that are HTML
- `uploads`: limits of a file that somebody has uploaded
- `examples`: texts of a data set to try on the page

May import: `shared.taggers` and the rooms below it.
"""

import lazy_loader

# Names are imported on first use, so that importing the package costs nothing.
__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "app": ["Limits", "bind", "make_app", "run_server"],
        "batches": ["BatchedTagger"],
        "examples": ["short_examples"],
        "page": ["FileState", "PageActions", "PageLimits", "describe_tagger", "make_page"],
        "uploads": ["check_unpacked_size"],
    },
)
