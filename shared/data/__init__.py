"""Files and rows: from a source of rows to labelled texts, and to the rows of each split.

May import: `shared.cli`, `shared.splitters`.
"""

import lazy_loader

# Names are imported on first use, so that importing the package costs nothing.
__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "arguments": ["DEFAULT_TEXT_COLUMNS", "DataArguments", "SplitArguments"],
        "corpus": ["Corpus", "cache_folder", "load_corpus", "load_data", "load_held_out"],
        "near_duplicates": ["near_duplicate_groups"],
        "preparation": ["find_text_columns", "join_text"],
        "readers": ["expand_path", "open_source"],
        "splits": ["Split", "load_and_split", "split_corpus"],
    },
)
