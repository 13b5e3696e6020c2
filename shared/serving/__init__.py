"""Serving: a tagger behind HTTP.

- `batches`: the texts of requests that arrive together, tagged together
- `app`: the HTTP interface, and the server that runs it

May import: `shared.taggers` and the rooms below it.
"""

import lazy_loader

# Names are imported on first use, so that importing the package costs nothing.
__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "app": ["Limits", "bind", "make_app", "run_server"],
        "batches": ["BatchedTagger"],
    },
)
