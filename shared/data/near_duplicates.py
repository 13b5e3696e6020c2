"""Near duplicates: groups of texts that share most of their five-word shingles, or all but a word.

A shingle is a run of five consecutive words. Copies of a text with small edits (an issue posted
twice, a template with a few words filled in) make a test too easy when one copy is in the training
set and another in the test set. A splitter that gets the groups found here puts all texts of a
group into the same set.

One changed word changes five shingles. This is little for a long text, but most of a short one, so
that short texts are compared by their beginnings and endings as well.

The steps, all on the UTF-8 bytes of an Arrow column:

1. Hash the words of each text, its shingles, and from these a MinHash signature in bands.
2. In each band, put the texts with the same hash into one bucket. These are the candidates.
3. Compare the shingle sets of the candidates exactly, and join the similar ones in a union-find
   forest.
4. Cut each short text in every way that leaves out one place, and join the texts of which the same
   is left. The trees of the forest are the groups.

Sources: A. Broder, "On the resemblance and containment of documents", 1997 (shingles, MinHash);
J. Leskovec, A. Rajaraman, J. Ullman, "Mining of Massive Datasets", chapter 3 (banding);
T. Bocek, E. Hunt, B. Stiller, "Fast Similarity Search in Large Dictionaries", 2007 (keys of what is
left after deletions).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from shared.cli.launch import progress
from shared.data._near_duplicate_kernels import (
    MAX_TERMS,
    SHINGLE_WORDS,
    collect_shingles,
    cut,
    hash_texts,
    link,
    link_equal,
    mark_shared,
    may_change_in_nfc,
)

BANDS = 25
# Probability that a pair whose similarity equals the threshold shares no bucket in any band. The
# probability is lower for pairs above the threshold.
MISSED_AT_THRESHOLD = 1e-4

# The lengths of a mean and of a long word in terms, by the way of writing.
MEAN_WORD = (1, 1.6, 4)
LONG_WORD = (1, 3, 8)
# At most so many terms, or a long word, may differ in one place.
MAX_EDIT = 3
# Number of keys of edited texts in memory at a time: 100 MB with their rows and their order.
MAX_KEYS = 2**22

# The UTF-8 bytes of a chunk of n texts (uint8), and where each text starts and the last one ends
# (int64, shape (n + 1,)).
Chunk: TypeAlias = tuple[np.ndarray, np.ndarray]


# --- groups --------------------------------------------------------------------------------------


def near_duplicate_groups(
    texts: Sequence[str] | pa.Array | pa.ChunkedArray,
    *,
    threshold: float = 0.8,
    random_state: int = 0,
) -> np.ndarray:
    """Return a group number for each text; near duplicates have the same one.

    Two texts are near duplicates if the Jaccard similarity of their sets of five-word shingles is
    at least `threshold`, or if they differ in one place only. The groups are the connected
    components of this relation.

    Shingles: candidate pairs come from MinHash signatures in 25 bands and are then compared
    exactly. So no pair below the threshold is joined. A pair at the threshold is missed with a
    probability below 0.0001; in large buckets, which texts with the same very frequent boilerplate
    form, a few more pairs may be missed.

    One place: texts of at most 112 words that are the same before and after a place, which at the
    default threshold holds at most a ninth of the words of each text and at most three. So a word
    may be replaced, inserted or left out if the longer text has nine or more; in texts of eight or
    fewer, another word makes another text. In Chinese and Japanese a place of three characters is
    allowed from 15 characters on; in Thai, Lao, Khmer and Burmese one of eight from 36 on. No such
    pair is missed, and no other one is joined, but for collisions of 64-bit hashes. With another
    threshold t the share is (1 - t) / (1 + t): of texts of n words in which r words are replaced,
    the Jaccard similarity of the words, each at its place, is (n - r) / (n + r).

    A word of a shingle is a run of letters, digits and underscores. ASCII letters count as equal in
    upper and lower case. Each character of the scripts without spaces between words (Chinese,
    Japanese, Thai, Lao, Khmer, Burmese and others) is a word, and so is each syllable of Korean and
    each emoji. A word of a place is what stands between two spaces, as far as it has letters or
    digits, such as "don't", or a character of a script without spaces. Texts with the same words,
    whatever signs are between them, are always near duplicates. Texts are compared in Unicode's
    form NFC.

    Parameters
    ----------
    texts : sequence of str, or Arrow string array
        n texts. An Arrow array must have no nulls. It is read in place; only chunks that are not
        in Unicode's form NFC are copied.
    threshold : float, default=0.8
        Jaccard similarity, above 0, at most 1. At 1, texts of one group have the same shingles.
    random_state : int, default=0
        Seed of the hash functions; the same seed gives the same groups.

    Returns
    -------
    ndarray of int64, shape (n,)
        Group of each text, numbered from 0 in order of first appearance.

    Raises
    ------
    ValueError
        If `threshold` is out of range.
    """
    if not 0 < threshold <= 1:
        raise ValueError(f"threshold={threshold} must be above 0 and at most 1")
    chunks = _utf8_chunks(texts)
    n = sum(len(offsets) - 1 for _, offsets in chunks)
    rows_per_band = _rows_per_band(threshold)
    rng = np.random.default_rng(random_state)
    # Multiply-shift hashing, h(x) = (a x + b) >> 32 in 64 bits (Dietzfelbinger 1996).
    multiplier, increment = rng.integers(2**64, size=(2, BANDS * rows_per_band), dtype=np.uint64)

    sequences = np.empty(n, np.uint64)  # hash of all words of a text, in order
    lengths = np.empty(n, np.int64)  # number of words
    bands = np.empty((BANDS, n), np.uint32)
    longest_edit = _longest_edit(threshold)
    half_lengths = _half_lengths(longest_edit)
    halves = np.empty((2, 2, n), np.uint32)
    term_sequences = np.empty(n, np.uint64)  # hash of all terms of a text, in order
    start = 0
    for data, offsets in progress(chunks, "hashing texts", unit="chunks"):
        stop = start + len(offsets) - 1
        hash_texts(
            data, offsets, multiplier, increment, half_lengths,
            sequences[start:stop], lengths[start:stop], bands[:, start:stop],
            term_sequences[start:stop], halves[:, :, start:stop],
        )  # fmt: skip
        start = stop

    # Of texts with the same words, only the first one is compared. `copy_of` gives the position in
    # `first_rows` for every text.
    _, first_rows, copy_of = np.unique(sequences, return_index=True, return_inverse=True)
    # Texts without any shingle have no signature, so they join no bucket.
    candidates = first_rows[lengths[first_rows] >= SHINGLE_WORDS]
    buckets = [_buckets(bands, band, candidates) for band in range(BANDS)]
    del bands  # 100 bytes per text that are not needed while the shingle sets are in memory

    in_bucket = np.zeros(n, np.bool_)
    for rows, _ in buckets:
        in_bucket[rows] = True
    shingles, bounds = _shingle_sets(chunks, in_bucket, lengths)

    parent = first_rows[copy_of]
    for rows, starts in progress(buckets, "comparing texts", unit="bands"):
        link(rows, starts, shingles, bounds, threshold, parent)

    del buckets, shingles, bounds
    _link_edited(chunks, longest_edit, half_lengths, halves, term_sequences, parent)

    roots = _roots(parent)
    # `np.unique` numbers the groups by their root. The two argsorts turn the first row of each
    # group into its rank, which is the number of the group in order of appearance.
    _, appearance, groups = np.unique(roots, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(appearance))[groups]


def repeats(texts: pa.ChunkedArray, others: pa.ChunkedArray) -> np.ndarray:
    """Return which texts have a near duplicate among other texts: bool, shape (texts,)."""
    import pyarrow as pa

    # All are grouped together: a text is repeated if its group has a member of the others.
    groups = near_duplicate_groups(pa.chunked_array([*texts.chunks, *others.chunks]))
    of_texts, of_others = np.split(groups, [len(texts)])
    return np.isin(of_texts, of_others)


def _longest_edit(threshold: float) -> np.ndarray:
    """Return how many terms two texts may differ by in one place.

    Returns
    -------
    ndarray of int64, shape (3, MAX_TERMS + 1)
        By the way of writing and the number of terms of the longer text. 0: no edit is allowed.
    """
    terms = np.arange(MAX_TERMS + 1)
    # If r of n words are replaced, the others are (n - r) / (n + r) of all the words of both texts.
    # This reaches the threshold up to r = share * n.
    share = (1 - threshold) / (1 + threshold)
    edits = np.zeros((len(MEAN_WORD), len(terms)), np.int64)
    for script, (mean, long) in enumerate(zip(MEAN_WORD, LONG_WORD, strict=True)):
        edits[script] = np.minimum(share * terms + 1e-9, MAX_EDIT)
        one_word = share * terms / mean + 1e-9 >= 1
        edits[script, one_word] = np.maximum(edits, np.minimum(long, terms - 1))[script, one_word]
    return edits


def _half_lengths(longest_edit: np.ndarray) -> np.ndarray:
    """Return how many terms texts have in common at their start or their end if they are edited.

    Before and after the edit, the two texts have at least the terms that the longer one keeps. So
    they have half of these in common at the start or at the end. Texts of different lengths have to
    agree on this number: lengths are put on levels, which are so far apart that the shorter text
    is on the level of the longer one or on the next below. So each text takes the numbers of two
    levels, and each pair has one of them in common.

    Parameters
    ----------
    longest_edit : from `_longest_edit`

    Returns
    -------
    ndarray of int64, shape (3, MAX_TERMS + 1, 2)
        By the way of writing and the number of terms; the second number is the smaller one. 0: no
        edit is allowed.
    """
    terms = np.arange(MAX_TERMS + 1)
    half_lengths = np.zeros((*longest_edit.shape, 2), np.int64)
    for script, edits in enumerate(longest_edit):
        if not edits.any():
            continue
        kept = terms - edits
        least_kept = np.minimum.accumulate(kept[::-1])[::-1]  # by a text of so many terms or more
        starts = [1]  # of the levels, in terms
        while starts[-1] <= MAX_TERMS:
            starts.append(math.ceil(starts[-1] / np.min(kept[1:] / terms[1:]) - 1e-9))
        level = np.searchsorted(starts, terms, side="right") - 1
        for i in range(2):
            start = np.take(starts, np.maximum(level - i, 0))
            half_lengths[script, :, i] = (least_kept[start] + 1) // 2
        longer = np.argmax(edits > 0)  # the shortest text that may be the longer one of a pair
        half_lengths[script, : kept[longer]] = 0
    return half_lengths


def _rows_per_band(threshold: float) -> int:
    """Return the largest number of hashes per band that keeps to `MISSED_AT_THRESHOLD`.

    More hashes per band give fewer candidates below the threshold.
    """
    if threshold == 1:
        # Equal sets agree in every hash, so that any number does; log(1) would divide by zero.
        return SHINGLE_WORDS
    # A band of r hashes agrees with probability threshold^r, so that all bands differ with
    # probability (1 - threshold^r)^BANDS. Solve this for r.
    band_agrees = 1 - MISSED_AT_THRESHOLD ** (1 / BANDS)
    return max(1, int(math.log(band_agrees) / math.log(threshold)))


def _utf8_chunks(texts: Sequence[str] | pa.Array | pa.ChunkedArray) -> list[Chunk]:
    """Return the bytes, in Unicode's form NFC, and the offsets of the texts in each chunk.

    Bytes are copied only where the form changes something.
    """
    if not isinstance(texts, (pa.Array, pa.ChunkedArray)):
        texts = pa.array(texts, pa.large_string())
    arrays = texts.chunks if isinstance(texts, pa.ChunkedArray) else [texts]
    chunks = []
    for array in arrays:
        data, offsets = _buffers(array)
        if may_change_in_nfc(data[offsets[0] : offsets[-1]]):
            normalized = pc.utf8_normalize(array, "NFC")
            if not normalized.equals(array):
                data, offsets = _buffers(normalized)
        chunks.append((data, offsets))
    return chunks


def _buffers(array: pa.Array) -> Chunk:
    width = np.int64 if pa.types.is_large_string(array.type) else np.int32
    _, offset_buffer, data_buffer = array.buffers()  # the first one marks nulls
    # A slice shares the buffers of the whole array; its own texts begin at `array.offset`.
    offsets = np.frombuffer(offset_buffer or bytes(8), width)
    offsets = offsets[array.offset : array.offset + len(array) + 1]
    return np.frombuffer(data_buffer or b"", np.uint8), offsets.astype(np.int64)


def _buckets(bands: np.ndarray, band: int, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the buckets of one band: rows with the same hash, in buckets of two rows or more.

    Parameters
    ----------
    bands : ndarray of uint32, shape (bands, n)
    band : int
    rows : ndarray of int, shape (rows,)
        The texts to put into buckets.

    Returns
    -------
    rows : ndarray of int
        The rows of all buckets, one bucket after the other.
    starts : ndarray of int, shape (buckets + 1,)
        Where each bucket starts in `rows`, and the end of the last one.
    """
    # The upper 32 bits sort the rows by bucket. The lower ones sort within a bucket by the hash of
    # the next band: this puts similar texts side by side, where `NEIGHBOURS` reaches them.
    key = bands[band, rows].astype(np.uint64) << np.uint64(32) | bands[(band + 1) % BANDS, rows]
    order = np.argsort(key, kind="stable")
    bucket = key[order] >> np.uint64(32)
    # One entry more than rows, so that entry i + 1 tells whether the bucket ends at row i.
    begins = np.r_[True, bucket[1:] != bucket[:-1], True] if len(bucket) else np.ones(1, np.bool_)
    has_company = ~(begins[:-1] & begins[1:])
    starts = np.r_[np.flatnonzero(begins[:-1][has_company]), has_company.sum()]
    return rows[order[has_company]], starts


def _shingle_sets(
    chunks: list[Chunk], wanted: np.ndarray, lengths: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the shingle sets of the wanted texts.

    Parameters
    ----------
    chunks : list of Chunk
        The n texts.
    wanted : ndarray of bool, shape (n,)
    lengths : ndarray of int64, shape (n,)
        Number of words of each text.

    Returns
    -------
    shingles : ndarray of uint32
        The sorted shingle hashes of row i are at ``bounds[i]:bounds[i + 1]``.
    bounds : ndarray of int64, shape (n + 1,)
    """
    # Entry i + 1 is the size of set i, so that the cumulative sum begins with 0.
    sizes = np.zeros(len(wanted) + 1, np.int64)
    sets = [np.empty(0, np.uint32)]
    start = 0
    for data, offsets in chunks:
        part = slice(start, start + len(offsets) - 1)
        sets.append(collect_shingles(data, offsets, wanted[part], lengths[part], sizes[1:][part]))
        start = part.stop
    return np.concatenate(sets), np.cumsum(sizes)


def _link_edited(
    chunks: list[Chunk],
    longest_edit: np.ndarray,
    half_lengths: np.ndarray,
    halves: np.ndarray,
    term_sequences: np.ndarray,
    parent: np.ndarray,
) -> None:
    """Join the texts that differ in one place only.

    Two such texts are the same once the place is cut out of both. So each text gets a key for every
    way to cut it, and texts with a key in common are joined. The number of keys grows with the
    number of texts, and no pair is missed. Only texts that have their start or end in common with a
    text of another group are cut.

    Parameters
    ----------
    chunks : list of Chunk
        The n texts.
    longest_edit, half_lengths : from the functions of these names
    halves : ndarray of uint32, shape (2, 2, n)
        Two hashes of the start, and two of the end of each text; 0 where no edit is allowed.
    term_sequences : ndarray of uint64, shape (n,)
        A hash of all terms of each text. Of texts with the same terms, one is cut.
    parent : ndarray of int64, shape (n,)
        Union-find forest; it is changed.
    """
    in_common = np.zeros((2, len(parent)), np.bool_)
    short = np.flatnonzero(halves[0, 0])
    short = short[np.unique(term_sequences[short], return_index=True)[1]]
    for half, marked in zip(halves, in_common, strict=True):
        keys = half[:, short].ravel()
        order = np.argsort(keys)
        mark_shared(keys[order], np.tile(short, 2)[order], parent, marked)

    def write_keys(passes: int, number: int, keys: np.ndarray, rows: np.ndarray) -> int:
        """Write the keys whose remainder is `number`, as far as they fit; return how many."""
        start = size = 0
        for data, offsets in chunks:
            stop = start + len(offsets) - 1
            size = cut(
                data, offsets, in_common[:, start:stop], longest_edit, half_lengths,
                np.uint64(passes), np.uint64(number), start, keys, rows, size,
            )  # fmt: skip
            start = stop
        return size

    none = np.empty(0, np.uint64), np.empty(0, np.int64)
    size = write_keys(1, 0, *none)
    passes = size // MAX_KEYS + 1
    for number in progress(range(passes), "comparing short texts", unit="passes"):
        if passes > 1:
            size = write_keys(passes, number, *none)
        keys, rows = np.empty(size, np.uint64), np.empty(size, np.int64)
        write_keys(passes, number, keys, rows)
        order = np.argsort(keys)
        link_equal(keys[order], rows[order], parent)


def _roots(parent: np.ndarray) -> np.ndarray:
    """Return the root of each row: follow all parents at once until nothing changes."""
    while not np.array_equal(parent, grandparent := parent[parent]):
        parent = grandparent
    return parent
