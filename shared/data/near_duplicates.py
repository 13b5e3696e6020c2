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

# Ways of writing, and the lengths of a mean and of a long word in terms. A term is what stands
# between two spaces, or one character of Chinese and Japanese, which have no spaces. Neither have
# Thai, Lao, Khmer and Burmese, whose words are longer.
SPACED, CHINESE, THAI = range(3)
MEAN_WORD = (1, 1.6, 4)
LONG_WORD = (1, 3, 8)
# At most so many terms, or a long word, may differ in one place.
MAX_EDIT = 3
# Texts with more terms are compared by their shingles only. At a threshold of .8, these may then
# differ by the longest edit as well.
MAX_TERMS = 112
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
        _hash_texts(
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
        _link(rows, starts, shingles, bounds, threshold, parent)

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
        _mark_shared(keys[order], np.tile(short, 2)[order], parent, marked)

    def cut(passes: int, number: int, keys: np.ndarray, rows: np.ndarray) -> int:
        """Write the keys whose remainder is `number`, as far as they fit; return how many."""
        start = size = 0
        for data, offsets in chunks:
            stop = start + len(offsets) - 1
            size = _cut(
                data, offsets, in_common[:, start:stop], longest_edit, half_lengths,
                np.uint64(passes), np.uint64(number), start, keys, rows, size,
            )  # fmt: skip
            start = stop
        return size

    none = np.empty(0, np.uint64), np.empty(0, np.int64)
    size = cut(1, 0, *none)
    passes = size // MAX_KEYS + 1
    for number in progress(range(passes), "comparing short texts", unit="passes"):
        if passes > 1:
            size = cut(passes, number, *none)
        keys, rows = np.empty(size, np.uint64), np.empty(size, np.int64)
        cut(passes, number, keys, rows)
        order = np.argsort(keys)
        _link_equal(keys[order], rows[order], parent)


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
def _hash_words(data, i, end, words, begins):
    """Write the hash (FNV-1a) of each word in data[i:end] to `words` and return their number.

    `begins` (uint8, as long as `words`) gets 0 if the word belongs to the same term as the word
    before it, else 1, plus the way of writing. A term is what stands between two spaces, such as
    "don't", "U.S." or the address of a page, or one character of a script without spaces.
    """
    basis, prime = np.uint64(0xCBF29CE484222325), np.uint64(0x100000001B3)
    word, in_word, n = basis, False, 0
    new_term = True  # whether the next word begins a term
    while i < end:
        byte = data[i]
        # UTF-8 writes characters above U+007F as a lead byte and one to three bytes from 0x80 to
        # 0xBF. Most of these characters are letters: their bytes are hashed one at a time without
        # decoding. The lead byte, and sometimes the byte after it, tells apart the exceptions:
        # separators, and characters that are a word each. These are read whole, in `width` bytes.
        width, part_of_word, whole_word, script, space = 1, True, False, SPACED, False
        if byte < 0x80:
            if 65 <= byte <= 90:  # A to Z
                byte |= 32  # lower case
            part_of_word = 97 <= byte <= 122 or 48 <= byte <= 57 or byte == 95  # a-z, 0-9, _
            space = byte <= 32
        elif byte == 0xC2:  # U+0080 to U+00BF: no-break space, signs
            width, part_of_word, space = 2, False, data[i + 1] == 0xA0
        elif (byte == 0xE2 and data[i + 1] <= 0x81) or (byte == 0xE3 and data[i + 1] == 0x80):
            width, part_of_word = 3, False  # U+2000 to U+207F, U+3000 to U+303F: punctuation
            # U+2000 to U+200A; U+3000 to U+300A: space, comma and full stop of Chinese
            space = data[i + 1] == 0x80 and data[i + 2] <= 0x8A
        elif 0xE0 <= byte <= 0xEF:
            code = (byte & 0x0F) << 12 | (data[i + 1] & 0x3F) << 6 | data[i + 2] & 0x3F
            if _is_word(code):
                width, whole_word = 3, True
                if not 0xAC00 <= code <= 0xD7A3:  # Korean has spaces
                    script = THAI if code < 0x3040 else CHINESE
        elif byte >= 0xF0:
            code = (byte & 0x07) << 18 | (data[i + 1] & 0x3F) << 12
            code |= (data[i + 2] & 0x3F) << 6 | data[i + 3] & 0x3F
            if _is_word(code):
                width, whole_word, script = 4, True, CHINESE

        if in_word and (whole_word or not part_of_word):  # the word before this character ends
            words[n] = word
            word, in_word, n = basis, False, n + 1
        new_term |= space
        if part_of_word:
            if not in_word:
                begins[n] = 1 + script if new_term or script != SPACED else 0
                new_term = script != SPACED
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
def _join_words(words, begins, n):
    """Replace the first n words by the hashes of their terms.

    Returns
    -------
    m : number of terms
    script : the way of writing of more than half of them, else `SPACED`
    """
    m, chinese, thai = 0, 0, 0
    for i in range(n):
        if begins[i]:
            words[m] = words[i]  # a term is never before its words
            m += 1
            chinese += begins[i] == 1 + CHINESE
            thai += begins[i] == 1 + THAI
        else:
            words[m - 1] = _mix(words[m - 1]) + words[i]
    if 2 * chinese > m:
        return m, CHINESE
    return m, THAI if 2 * thai > m else SPACED


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
def _hash_texts(
    data, offsets, multiplier, increment, half_lengths,
    sequences, lengths, bands, term_sequences, halves,
):  # fmt: skip
    """Hash the n texts of a chunk and write the results to the last five arrays.

    Parameters
    ----------
    data, offsets : a Chunk
    multiplier, increment : uint64, shape (hashes,)
        The hash functions of the signature.
    half_lengths : from `_half_lengths`
    sequences : uint64, shape (n,)
        Gets a hash of all words in order.
    lengths : int64, shape (n,)
        Gets the number of words.
    bands : uint32, shape (bands, n)
        Gets a hash of the MinHashes of each band.
    term_sequences : uint64, shape (n,)
        Gets a hash of all terms in order.
    halves : uint32, shape (2, 2, n)
        Gets two hashes of the start and two of the end, of as many terms as `half_lengths` says.
    """
    # Buffers that all texts share, as long as the longest text needs.
    words = np.empty(_buffer_size(offsets), np.uint64)
    begins = np.empty(len(words), np.uint8)
    shingles = np.empty(len(words), np.uint32)
    signature = np.empty(len(multiplier), np.uint32)
    rows_per_band = len(multiplier) // len(bands)
    for row in range(len(offsets) - 1):
        n = _hash_words(data, offsets[row], offsets[row + 1], words, begins)
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

        m, script = _join_words(words, begins, n)
        sequence = np.uint64(m)
        for i in range(m):
            sequence = _mix(sequence) + words[i]
        term_sequences[row] = _mix(sequence)

        halves[:, :, row] = 0
        if m <= MAX_TERMS and half_lengths[script, m, 0]:
            for i in range(2):
                # The seeds keep starts, ends and ways of writing apart.
                start, end = np.uint64(2 * script), np.uint64(2 * script + 1)
                for j in range(half_lengths[script, m, i]):
                    start = _mix(start) + words[j]
                    end = _mix(end) + words[m - 1 - j]
                # Odd, so that no hash is 0.
                halves[0, i, row] = _mix(start) >> np.uint64(32) | np.uint64(1)
                halves[1, i, row] = _mix(end) >> np.uint64(32) | np.uint64(1)


@njit(cache=True)
def _collect_shingles(data, offsets, wanted, lengths, sizes):
    """Return the sorted shingle sets of the wanted texts, one after another; fill in `sizes`."""
    words = np.empty(_buffer_size(offsets), np.uint64)
    begins = np.empty(len(words), np.uint8)
    shingles = np.empty(len(words), np.uint32)
    sets = np.empty(np.sum(lengths[wanted]), np.uint32)  # a text has fewer shingles than words
    end = 0
    for row in np.flatnonzero(wanted):
        n = _hash_words(data, offsets[row], offsets[row + 1], words, begins)
        n = _hash_shingles(words, n, shingles)
        ordered = np.sort(shingles[:n])
        for i in range(n):
            if i == 0 or ordered[i] != ordered[i - 1]:  # each shingle once
                sets[end + sizes[row]] = ordered[i]
                sizes[row] += 1
        end += sizes[row]
    return sets[:end].copy()  # the copy frees the unused rest


@njit(cache=True)
def _cut(
    data, offsets, in_common, longest_edit, half_lengths,
    passes, number, first_row, keys, rows, size,
):  # fmt: skip
    """Write the keys of a chunk's texts behind the first `size` keys, and return the new size.

    There is a key for every run of terms that can be cut out of a text, also for none at each
    place: a hash of the terms before and of those after it. Of these, only the keys are written
    that leave the remainder `number` when divided by `passes`; if the arrays are too short, they
    are only counted.

    Parameters
    ----------
    data, offsets : a Chunk
    in_common : bool, shape (2, n)
        Whether a text has its start, and its end, in common with another one. The terms to cut are
        behind that start, or before that end.
    longest_edit, half_lengths : from the functions of these names
    passes, number : uint64
    first_row : int
        The row of the first text of the chunk.
    keys : uint64, shape (keys,)
    rows : int64, shape (keys,)
        Gets the row of each key.
    size : int
    """
    words = np.empty(_buffer_size(offsets), np.uint64)
    begins = np.empty(len(words), np.uint8)
    ends = np.empty(MAX_TERMS + 1, np.uint64)  # entry j: hash of the last j terms
    for row in np.flatnonzero(in_common[0] | in_common[1]):
        n = _hash_words(data, offsets[row], offsets[row + 1], words, begins)
        n, script = _join_words(words, begins, n)
        ends[0] = np.uint64(script)
        for j in range(n):
            ends[j + 1] = _mix(ends[j] + words[n - 1 - j])
        least = half_lengths[script, n, 1]
        start = np.uint64(0)  # hash of the first i terms
        for i in range(n + 1):
            for length in range(min(longest_edit[script, n], n - i) + 1):
                after = n - i - length
                if (in_common[0, row] and i >= least) or (in_common[1, row] and after >= least):
                    key = _mix(start ^ _mix(ends[after]))
                    if key % passes == number:
                        if size < len(keys):
                            keys[size], rows[size] = key, first_row + row
                        size += 1
            if i < n:
                start = _mix(start + words[i])
    return size


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
def _join(parent, a, b):
    """Join the trees of two rows. The smaller root becomes the root, whatever the order."""
    root_a, root_b = _find(parent, a), _find(parent, b)
    parent[max(root_a, root_b)] = min(root_a, root_b)


@njit(cache=True)
def _mark_shared(keys, rows, parent, marked):
    """Mark the rows that share a key with a row of another tree; keys are sorted."""
    start = 0
    for i in range(1, len(keys) + 1):
        if i < len(keys) and keys[i] == keys[start]:
            continue
        root = _find(parent, rows[start])
        for j in range(start + 1, i):
            if _find(parent, rows[j]) != root:
                marked[rows[start:i]] = True
                break
        start = i


@njit(cache=True)
def _link_equal(keys, rows, parent):
    """Join the rows with the same key; keys are sorted."""
    for i in range(1, len(keys)):
        if keys[i] == keys[i - 1]:
            _join(parent, rows[i - 1], rows[i])


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
                # Texts that are joined already need no comparison.
                if _find(parent, a) != _find(parent, b) and _similar(
                    shingles[bounds[a] : bounds[a + 1]],
                    shingles[bounds[b] : bounds[b + 1]],
                    threshold,
                ):
                    _join(parent, a, b)
