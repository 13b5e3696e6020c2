"""Serving: a tagger behind HTTP, for programs and for people, and a page to label texts.

- `batches`: the texts of requests that arrive together, tagged together
- `http`: errors as JSON, limits of requests, the socket and the server
- `app`: the HTTP interface of a tagger
- `page`: the web page of a tagger
- `markup`: the parts of the page that are HTML
- `annotation_app`: the page on which a person labels texts, and the HTTP interface behind it
- `annotation_queue`, `annotation_log`: its texts in their order; its clicks on disk
- `annotation_background`: beside it, an estimate of the F1, and the next batch of texts
- `uploads`: limits of a file that somebody has uploaded
- `examples`: texts of a data set to try on the page

May import: `shared.taggers` and the rooms below it.
"""

import lazy_loader

# Names are imported on first use, so that importing the package costs nothing.
__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "annotation_app": ["Task", "make_annotation_app"],
        "annotation_background": ["Background"],
        "annotation_log": ["AnnotationLog"],
        "annotation_queue": ["Queue"],
        "app": ["Limits", "make_app"],
        "batches": ["BatchedTagger"],
        "examples": ["short_examples"],
        "http": ["address_of", "bind", "run_server"],
        "page": ["FileState", "PageActions", "PageLimits", "describe_tagger", "make_page"],
        "uploads": ["check_unpacked_size"],
    },
)
