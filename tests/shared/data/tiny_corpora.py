"""Files of a few rows, and the labels that are read from them."""

import gzip


def write(path, content):
    content = content.encode()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


def names(corpus):
    """Label names of each row, None for unlabelled ones."""
    ids = corpus.dataset["labels"]
    return [row and [corpus.label_names[i] for i in row] for row in ids]
