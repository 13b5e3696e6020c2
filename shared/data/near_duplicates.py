"""Near duplicates: groups of texts that share most of their five-word shingles.

A shingle is a run of five consecutive words. Copies of a text with small edits (an issue posted
twice, a template with a few words filled in) make a test too easy when one copy is in the training
set and another in the test set. A splitter that gets the groups found here puts all texts of a
group into the same set.

The steps, all on the UTF-8 bytes of an Arrow column:

1. Hash the words of each text, its shingles, and from these a MinHash signature in bands.
2. In each band, put the texts with the same hash into one bucket. These are the candidates.
3. Compare the shingle sets of the candidates exactly, and join the similar ones in a union-find
   forest. Its trees are the groups.

Sources: A. Broder, "On the resemblance and containment of documents", 1997 (shingles, MinHash);
J. Leskovec, A. Rajaraman, J. Ullman, "Mining of Massive Datasets", chapter 3 (banding).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numba import njit

from shared.cli.launch import progress

SHINGLE_WORDS = 5
BANDS = 25
# Probability that a pair whose similarity equals the threshold shares no bucket in any band. The
# probability is lower for pairs above the threshold.
MISSED_AT_THRESHOLD = 1e-4
# In a bucket, each text is compared with the first one and with up to this many texts before it. So
# the number of comparisons grows with the size n of the bucket, not with n squared.
NEIGHBOURS = 8

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
    at least `threshold`. The groups are the connected components of this relation. Candidate pairs
    come from MinHash signatures in 25 bands and are then compared exactly. So no pair below the
    threshold is joined. A pair at the threshold is missed with a probability below 0.0001; in
    large buckets, which texts with the same very frequent boilerplate form, a few more pairs may be
    missed. Texts of fewer than five words are duplicates only if their words are the same.

    A word is a run of letters, digits and underscores. ASCII letters count as equal in upper and
    lower case. Each character of the scripts without spaces between words (Chinese, Japanese, Thai,
    Lao, Khmer, Burmese and others) is a word, and so is each syllable of Korean and each emoji.
    Texts are compared in Unicode's form NFC.

    Parameters
    ----------
    texts : sequence of str, or Arrow string array
        n texts. An Arrow array must have no nulls. It is read in place; only chunks that are not
        in Unicode's form NFC are copied.
    threshold : float, default=0.8
        Jaccard similarity, above 0, at most 1.
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
    start = 0
    for data, offsets in progress(chunks, "hashing texts", unit="chunks"):
        stop = start + len(offsets) - 1
        _hash_texts(
            data, offsets, multiplier, increment,
            sequences[start:stop], lengths[start:stop], bands[:, start:stop],
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

    parent = np.arange(n)
    for rows, starts in progress(buckets, "comparing texts", unit="bands"):
        _link(rows, starts, shingles, bounds, threshold, parent)

    roots = _roots(parent)[first_rows[copy_of]]
    # `np.unique` numbers the groups by their root. The two argsorts turn the first row of each
    # group into its rank, which is the number of the group in order of appearance.
    _, appearance, groups = np.unique(roots, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(appearance))[groups]


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
        if _may_change_in_nfc(data[offsets[0] : offsets[-1]]):
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
        sets.append(_collect_shingles(data, offsets, wanted[part], lengths[part], sizes[1:][part]))
        start = part.stop
    return np.concatenate(sets), np.cumsum(sizes)


def _roots(parent: np.ndarray) -> np.ndarray:
    """Return the root of each row: follow all parents at once until nothing changes."""
    while not np.array_equal(parent, grandparent := parent[parent]):
        parent = grandparent
    return parent


# --- kernels: words and hashes -------------------------------------------------------------------


@njit(cache=True)
def _mix(x):
    """Finaliser of SplitMix64 (Steele, Lea, Flood 2014): every input bit reaches every output."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


@njit(cache=True)
def _may_change_in_nfc(data):
    """Return whether UTF-8 bytes have a character that Unicode's form NFC may change or join.

    Nearly all texts in the Latin, Greek, Cyrillic, Chinese, Japanese and Korean scripts are told
    apart from the rest here, many times as fast as they are normalised.
    """
    for i in range(len(data)):
        byte = data[i]
        if byte < 0xCC:  # ASCII, further bytes of a character, Latin letters
            continue
        after = data[i + 1]
        if (
            byte <= 0xCD  # combining marks
            or (byte == 0xCE and after == 0x87)
            or 0xD2 <= byte <= 0xE1  # most other alphabets; jamo of Korean
            or (byte == 0xE2 and after >= 0x83)  # signs
            or (byte == 0xE3 and after == 0x80 and data[i + 2] >= 0xAA)  # marks of Chinese
            or (byte == 0xE3 and after == 0x82 and 0x99 <= data[i + 2] <= 0x9A)  # and of Japanese
            or (byte == 0xEA and 0x98 <= after < 0xB0)  # alphabets before the syllables of Korean
            or (byte == 0xEF and 0xA4 <= after <= 0xB8)  # compatibility forms
            or (byte >= 0xF0 and after != 0x9F)  # beyond U+FFFF, but for emoji
        ):
            return True
    return False


@njit(cache=True)
def _is_word(code):
    """Return whether a character from U+0800 up is a word by itself."""
    if code < 0x3040:  # Thai, Lao; Burmese; Khmer; Tai Le, New Tai Lue; Tai Tham
        return (
            0x0E00 <= code <= 0x0EFF
            or 0x1000 <= code <= 0x109F
            or 0x1780 <= code <= 0x17FF
            or 0x1950 <= code <= 0x19FF
            or 0x1A20 <= code <= 0x1AAF
        )
    return (
        code <= 0xFFFF  # Chinese, Japanese, Korean, Yi, further Burmese and Tai letters
        or 0x16FE0 <= code <= 0x18DFF  # Tangut, Khitan
        or 0x1AFF0 <= code <= 0x1B2FF  # further Japanese letters, Nushu
        or 0x1F000 <= code <= 0x1FAFF  # emoji
        or 0x20000 <= code <= 0x3FFFF  # further Chinese characters
    )


@njit(cache=True)
def _hash_words(data, i, end, words):
    """Write the hash (FNV-1a) of each word in data[i:end] to `words` and return their number."""
    basis, prime = np.uint64(0xCBF29CE484222325), np.uint64(0x100000001B3)
    word, in_word, n = basis, False, 0
    while i < end:
        byte = data[i]
        # UTF-8 writes characters above U+007F as a lead byte and one to three bytes from 0x80 to
        # 0xBF. Most of these characters are letters: their bytes are hashed one at a time without
        # decoding. The lead byte, and sometimes the byte after it, tells apart the exceptions:
        # separators, and characters that are a word each. These are read whole, in `width` bytes.
        width, part_of_word, whole_word = 1, True, False
        if byte < 0x80:
            if 65 <= byte <= 90:  # A to Z
                byte |= 32  # lower case
            part_of_word = 97 <= byte <= 122 or 48 <= byte <= 57 or byte == 95  # a-z, 0-9, _
        elif byte == 0xC2:  # U+0080 to U+00BF: no-break space, signs
            width, part_of_word = 2, False
        elif (byte == 0xE2 and data[i + 1] <= 0x81) or (byte == 0xE3 and data[i + 1] == 0x80):
            width, part_of_word = 3, False  # U+2000 to U+207F, U+3000 to U+303F: punctuation
        elif 0xE0 <= byte <= 0xEF:
            code = (byte & 0x0F) << 12 | (data[i + 1] & 0x3F) << 6 | data[i + 2] & 0x3F
            if _is_word(code):
                width, whole_word = 3, True
        elif byte >= 0xF0:
            code = (byte & 0x07) << 18 | (data[i + 1] & 0x3F) << 12
            code |= (data[i + 2] & 0x3F) << 6 | data[i + 3] & 0x3F
            if _is_word(code):
                width, whole_word = 4, True

        if in_word and (whole_word or not part_of_word):  # the word before this character ends
            words[n] = word
            word, in_word, n = basis, False, n + 1
        if part_of_word:
            word = (word ^ np.uint64(byte)) * prime
            in_word = True
        if whole_word:  # its first byte has just been hashed
            for j in range(i + 1, i + width):
                word = (word ^ np.uint64(data[j])) * prime
            words[n] = word
            word, in_word, n = basis, False, n + 1
        i += width
    if in_word:
        words[n] = word
        n += 1
    return n


@njit(cache=True)
def _hash_shingles(words, n, shingles):
    """Write a 32-bit hash of each run of five words to `shingles` and return their number."""
    for i in range(n - SHINGLE_WORDS + 1):
        x = words[i]
        for j in range(i + 1, i + SHINGLE_WORDS):
            x = _mix(x) + words[j]  # mixing before each addition makes the order of words count
        shingles[i] = _mix(x) >> np.uint64(32)
    return max(n - SHINGLE_WORDS + 1, 0)


@njit(cache=True)
def _buffer_size(offsets):
    """Return the largest number of words that a text of the chunk can have.

    A word needs one byte for itself and one for the separator after it, except at the end.
    """
    return np.max(offsets[1:] - offsets[:-1]) // 2 + 1 if len(offsets) > 1 else 0


@njit(cache=True)
def _hash_texts(data, offsets, multiplier, increment, sequences, lengths, bands):
    """Hash the n texts of a chunk and write the results to the last three arrays.

    Parameters
    ----------
    data, offsets : a Chunk
    multiplier, increment : uint64, shape (hashes,)
        The hash functions of the signature.
    sequences : uint64, shape (n,)
        Gets a hash of all words in order.
    lengths : int64, shape (n,)
        Gets the number of words.
    bands : uint32, shape (bands, n)
        Gets a hash of the MinHashes of each band.
    """
    # Buffers that all texts share, as long as the longest text needs.
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

        # MinHash: hash function k of two sets has the same minimum with a probability equal to the
        # Jaccard similarity of the sets.
        signature[:] = 0xFFFFFFFF
        for i in range(_hash_shingles(words, n, shingles)):
            x = np.uint64(shingles[i])
            for k in range(len(signature)):
                h = np.uint32((multiplier[k] * x + increment[k]) >> np.uint64(32))
                signature[k] = min(signature[k], h)

        # Banding: one hash stands for the `rows_per_band` MinHashes of a band.
        for band in range(len(bands)):
            x = np.uint64(band)
            for k in range(band * rows_per_band, (band + 1) * rows_per_band):
                x = _mix(x) + np.uint64(signature[k])
            bands[band, row] = _mix(x) >> np.uint64(32)


@njit(cache=True)
def _collect_shingles(data, offsets, wanted, lengths, sizes):
    """Return the sorted shingle sets of the wanted texts, one after another; fill in `sizes`."""
    words = np.empty(_buffer_size(offsets), np.uint64)
    shingles = np.empty(len(words), np.uint32)
    sets = np.empty(np.sum(lengths[wanted]), np.uint32)  # a text has fewer shingles than words
    end = 0
    for row in np.flatnonzero(wanted):
        n = _hash_words(data, offsets[row], offsets[row + 1], words)
        n = _hash_shingles(words, n, shingles)
        ordered = np.sort(shingles[:n])
        for i in range(n):
            if i == 0 or ordered[i] != ordered[i - 1]:  # each shingle once
                sets[end + sizes[row]] = ordered[i]
                sizes[row] += 1
        end += sizes[row]
    return sets[:end].copy()  # the copy frees the unused rest


# --- kernels: comparison and union-find ----------------------------------------------------------


@njit(cache=True)
def _similar(a, b, threshold):
    """Return whether two sorted sets reach a Jaccard similarity; stop as soon as they cannot."""
    # both / (len(a) + len(b) - both) >= threshold, solved for `both`. The subtraction keeps
    # rounding from stopping the loop too early; the last line decides exactly.
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
    """Return the root of a row."""
    while parent[row] != row:
        parent[row] = parent[parent[row]]  # path halving keeps the trees flat
        row = parent[row]
    return row


@njit(cache=True)
def _link(rows, starts, shingles, bounds, threshold, parent):
    """Join the near duplicates within each bucket.

    Parameters
    ----------
    rows, starts : from `_buckets`
    shingles, bounds : from `_shingle_sets`
    threshold : float
    parent : int64, shape (n,)
        Union-find forest: the parent of each row, or the row itself for a root. It is changed.
    """
    for bucket in range(len(starts) - 1):
        start, end = starts[bucket], starts[bucket + 1]
        for i in range(start + 1, end):
            a = rows[i]
            # Step 0 is the first text of the bucket, step k the text k places before this one.
            for step in range(min(i - start, NEIGHBOURS + 1)):
                b = rows[i - step] if step else rows[start]
                root_a, root_b = _find(parent, a), _find(parent, b)
                # Texts that are joined already need no comparison.
                if root_a != root_b and _similar(
                    shingles[bounds[a] : bounds[a + 1]],
                    shingles[bounds[b] : bounds[b + 1]],
                    threshold,
                ):
                    # The smaller row becomes the root, whatever the order of the comparisons.
                    parent[max(root_a, root_b)] = min(root_a, root_b)
