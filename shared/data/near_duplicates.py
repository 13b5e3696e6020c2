"""Near duplicates: groups of texts that share most of their five-word shingles.

Copies of a text with small edits (a re-posted issue, a template with a few words filled in) leak
answers when one of them is trained on and another is tested on. A splitter that is given the
groups found here keeps each group on one side.

Sources: A. Broder, "On the resemblance and containment of documents", 1997 (shingles, MinHash);
J. Leskovec, A. Rajaraman, J. Ullman, "Mining of Massive Datasets", chapter 3 (banding).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from numba import njit

from shared.cli.launch import progress

SHINGLE_WORDS = 5
BANDS = 25
# Share of the pairs exactly at the threshold that no band brings together; less above it.
MISSED_AT_THRESHOLD = 1e-4
# In a bucket each text is compared with the first one and with this many before it, so that a
# bucket of n texts costs n comparisons, not n squared.
NEIGHBOURS = 8


def near_duplicate_groups(
    texts: Sequence[str] | pa.Array | pa.ChunkedArray,
    *,
    threshold: float = 0.8,
    random_state: int = 0,
) -> np.ndarray:
    """Give near duplicates the same group.

    Two texts are near duplicates if the Jaccard similarity of their sets of five-word shingles is
    at least `threshold`; groups are the connected components. Candidates come from MinHash
    signatures in 25 bands and are then compared exactly, so that no pair below the threshold is
    joined, while one at the threshold is missed with a probability below 0.0001 (the buckets of
    very frequent boilerplate may miss a few more). Texts of fewer than five words are duplicates
    only if their words are the same.

    A word is a run of letters, digits and underscores, without regard to the case of ASCII
    letters; each character from U+3040 to U+FFFF (scripts that leave out spaces) is a word.

    Parameters
    ----------
    texts : n texts; an Arrow array (no nulls) is read in place, without copying.
    threshold : Jaccard similarity, above 0, at most 1.
    random_state : seeds the hash functions; same seed, same groups.

    Returns
    -------
    int64 array of shape (n,): group of each text, numbered from 0 in order of first appearance.
    """
    if not 0 < threshold <= 1:
        raise ValueError(f"threshold={threshold} must be above 0 and at most 1")
    chunks = _buffers(texts)
    n = sum(len(offsets) - 1 for _, offsets in chunks)
    rows_per_band = _rows_per_band(threshold)
    rng = np.random.default_rng(random_state)
    # Multiply-shift hashing, h(x) = (a x + b) >> 32 in 64 bits (Dietzfelbinger 1996).
    multiplier, increment = rng.integers(2**64, size=(2, BANDS * rows_per_band), dtype=np.uint64)

    sequences = np.empty(n, np.uint64)
    lengths = np.empty(n, np.int64)
    bands = np.empty((BANDS, n), np.uint32)
    done = 0
    for data, offsets in progress(chunks, "hashing texts", unit="chunks"):
        part = slice(done, done := done + len(offsets) - 1)
        _hash_texts(
            data, offsets, multiplier, increment,
            sequences[part], lengths[part], bands[:, part],
        )  # fmt: skip

    # Texts with the same words are one text from here on.
    _, first, same = np.unique(sequences, return_index=True, return_inverse=True)
    distinct = first[lengths[first] >= SHINGLE_WORDS]
    buckets = [_buckets(bands, band, distinct) for band in range(BANDS)]
    del bands
    compared = np.zeros(n, np.bool_)
    for order, _ in buckets:
        compared[order] = True
    shingles, bounds = _shingle_sets(chunks, compared, lengths)

    parent = np.arange(n)
    for order, starts in progress(buckets, "comparing texts", unit="bands"):
        _link(order, starts, shingles, bounds, threshold, parent)
    roots = _roots(parent)[first[same]]
    _, appearance, groups = np.unique(roots, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(appearance))[groups]


def _rows_per_band(threshold: float) -> int:
    """The most hashes per band with which `MISSED_AT_THRESHOLD` holds: fewest false candidates."""
    if threshold == 1:
        return SHINGLE_WORDS
    alike = 1 - MISSED_AT_THRESHOLD ** (1 / BANDS)  # needed of the hashes of one band
    return max(1, int(math.log(alike) / math.log(threshold)))


def _buffers(texts) -> list[tuple[np.ndarray, np.ndarray]]:
    """Per chunk, the UTF-8 bytes and the int64 offsets (length + 1) of the texts in them."""
    if not isinstance(texts, (pa.Array, pa.ChunkedArray)):
        texts = pa.array(texts, pa.large_string())
    chunks = texts.chunks if isinstance(texts, pa.ChunkedArray) else [texts]
    buffers = []
    for chunk in chunks:
        width = np.int64 if pa.types.is_large_string(chunk.type) else np.int32
        _, offsets, data = chunk.buffers()
        offsets = np.frombuffer(offsets, width)[chunk.offset : chunk.offset + len(chunk) + 1]
        data = np.frombuffer(data or b"", np.uint8)
        buffers.append((data, offsets.astype(np.int64)))
    return buffers


def _buckets(bands: np.ndarray, band: int, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows whose signatures agree in a band: rows sorted by bucket, and where each bucket starts.

    Within a bucket rows are sorted by the next band, which puts the more similar side by side.
    Buckets of one row are left out.
    """
    key = bands[band, rows].astype(np.uint64) << np.uint64(32) | bands[(band + 1) % BANDS, rows]
    order = np.argsort(key, kind="stable")
    bucket = key[order] >> np.uint64(32)
    new = np.r_[True, bucket[1:] != bucket[:-1], True] if len(bucket) else np.ones(1, np.bool_)
    shared = ~(new[:-1] & new[1:])
    return rows[order[shared]], np.r_[np.flatnonzero(new[:-1][shared]), shared.sum()]


def _shingle_sets(chunks, wanted: np.ndarray, lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sorted shingle hashes of the wanted texts in one array; row i is at bounds[i]:bounds[i+1]."""
    sizes = np.zeros(len(wanted) + 1, np.int64)
    sets = [np.empty(0, np.uint32)]
    done = 0
    for data, offsets in chunks:
        part = slice(done, done := done + len(offsets) - 1)
        sets.append(_collect_shingles(data, offsets, wanted[part], lengths[part], sizes[1:][part]))
    return np.concatenate(sets), np.cumsum(sizes)


def _roots(parent: np.ndarray) -> np.ndarray:
    while not np.array_equal(parent, up := parent[parent]):
        parent = up
    return parent


@njit(cache=True)
def _mix(x):
    """Finaliser of SplitMix64 (Steele, Lea, Flood 2014): every input bit reaches every output."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


@njit(cache=True)
def _hash_words(data, i, end, words):
    """Write the hash (FNV-1a) of each word in data[i:end] to `words` and return their number."""
    basis, prime = np.uint64(0xCBF29CE484222325), np.uint64(0x100000001B3)
    word, inside, n = basis, False, 0
    while i < end:
        byte = data[i]
        width, part_of_word, whole_word = 1, True, False
        if byte < 0x80:
            if 65 <= byte <= 90:  # A to Z
                byte |= 32
            part_of_word = 97 <= byte <= 122 or 48 <= byte <= 57 or byte == 95
        elif byte == 0xC2:  # U+0080 to U+00BF: no-break space, signs
            width, part_of_word = 2, False
        elif (byte == 0xE2 and data[i + 1] <= 0x81) or (byte == 0xE3 and data[i + 1] == 0x80):
            width, part_of_word = 3, False  # U+2000 to U+207F, U+3000 to U+303F: punctuation
        elif 0xE3 <= byte <= 0xEF:  # U+3040 to U+FFFF
            width, whole_word = 3, True
        if inside and (whole_word or not part_of_word):
            words[n] = word
            word, inside, n = basis, False, n + 1
        if part_of_word:
            word = (word ^ np.uint64(byte)) * prime
            inside = True
        if whole_word:
            for j in range(i + 1, i + width):
                word = (word ^ np.uint64(data[j])) * prime
            words[n] = word
            word, inside, n = basis, False, n + 1
        i += width
    if inside:
        words[n] = word
        n += 1
    return n


@njit(cache=True)
def _hash_shingles(words, n, shingles):
    """Write a 32-bit hash of each run of five words to `shingles` and return their number."""
    for i in range(n - SHINGLE_WORDS + 1):
        x = words[i]
        for j in range(i + 1, i + SHINGLE_WORDS):
            x = _mix(x) + words[j]
        shingles[i] = _mix(x) >> np.uint64(32)
    return max(n - SHINGLE_WORDS + 1, 0)


@njit(cache=True)
def _buffer_size(offsets):
    """The most words a text can have: every other byte ends one."""
    return np.max(offsets[1:] - offsets[:-1]) // 2 + 1 if len(offsets) > 1 else 0


@njit(cache=True)
def _hash_texts(data, offsets, multiplier, increment, sequences, lengths, bands):
    """Per text: a hash of its words in order, their number, a hash of each band's MinHashes."""
    words = np.empty(_buffer_size(offsets), np.uint64)
    shingles = np.empty(len(words), np.uint32)
    signature = np.empty(len(multiplier), np.uint32)
    rows_per_band = len(multiplier) // len(bands)
    for row in range(len(offsets) - 1):
        n = _hash_words(data, offsets[row], offsets[row + 1], words)
        sequence = np.uint64(n)
        for i in range(n):
            sequence = _mix(sequence) + words[i]
        sequences[row], lengths[row] = _mix(sequence), n
        signature[:] = 0xFFFFFFFF
        for i in range(_hash_shingles(words, n, shingles)):
            x = np.uint64(shingles[i])
            for k in range(len(signature)):
                h = np.uint32((multiplier[k] * x + increment[k]) >> np.uint64(32))
                signature[k] = min(signature[k], h)
        for band in range(len(bands)):
            x = np.uint64(band)
            for k in range(band * rows_per_band, (band + 1) * rows_per_band):
                x = _mix(x) + np.uint64(signature[k])
            bands[band, row] = _mix(x) >> np.uint64(32)


@njit(cache=True)
def _collect_shingles(data, offsets, wanted, lengths, sizes):
    """The sorted set of shingle hashes of each wanted text, one after another; fills `sizes`."""
    words = np.empty(_buffer_size(offsets), np.uint64)
    shingles = np.empty(len(words), np.uint32)
    found = np.empty(np.sum(lengths[wanted]), np.uint32)
    end = 0
    for row in np.flatnonzero(wanted):
        n = _hash_words(data, offsets[row], offsets[row + 1], words)
        n = _hash_shingles(words, n, shingles)
        ordered = np.sort(shingles[:n])
        for i in range(n):
            if i == 0 or ordered[i] != ordered[i - 1]:
                found[end + sizes[row]] = ordered[i]
                sizes[row] += 1
        end += sizes[row]
    return found[:end].copy()


@njit(cache=True)
def _similar(a, b, threshold):
    """Whether two sorted sets reach a Jaccard similarity; stops as soon as they cannot."""
    needed = threshold / (1 + threshold) * (len(a) + len(b)) - 1e-6
    i, j, both = 0, 0, 0
    while i < len(a) and j < len(b):
        if both + min(len(a) - i, len(b) - j) < needed:
            return False
        if a[i] == b[j]:
            i, j, both = i + 1, j + 1, both + 1
        elif a[i] < b[j]:
            i += 1
        else:
            j += 1
    return both / (len(a) + len(b) - both) >= threshold


@njit(cache=True)
def _find(parent, row):
    while parent[row] != row:
        parent[row] = parent[parent[row]]
        row = parent[row]
    return row


@njit(cache=True)
def _link(order, starts, shingles, bounds, threshold, parent):
    """Join, in `parent` (a union-find forest), the near duplicates within each bucket."""
    for bucket in range(len(starts) - 1):
        start, end = starts[bucket], starts[bucket + 1]
        for i in range(start + 1, end):
            a = order[i]
            for back in range(min(i - start, NEIGHBOURS + 1)):
                b = order[i - back] if back else order[start]
                root_a, root_b = _find(parent, a), _find(parent, b)
                if root_a != root_b and _similar(
                    shingles[bounds[a] : bounds[a + 1]],
                    shingles[bounds[b] : bounds[b + 1]],
                    threshold,
                ):
                    parent[max(root_a, root_b)] = min(root_a, root_b)
