"""Compiled kernels of `near_duplicates`: words and hashes of texts, and a union-find forest.

All are in one module: the cache of compiled code does not see changes of what another module has.
"""

import numpy as np
from numba import njit

SHINGLE_WORDS = 5

# Ways of writing. A term is what stands between two spaces, or one character of Chinese and
# Japanese, which have no spaces. Neither have Thai, Lao, Khmer and Burmese, whose words are longer.
SPACED, CHINESE, THAI = range(3)
# Texts with more terms are compared by their shingles only. At a threshold of .8, these may then
# differ by the longest edit as well.
MAX_TERMS = 112
# In a bucket, each text is compared with the first one and with up to this many texts before it. So
# the number of comparisons grows with the size n of the bucket, not with n squared.
NEIGHBOURS = 8


# --- words and hashes -----------------------------------------------------------------------------


@njit(cache=True)
def mix(x):
    """Finaliser of SplitMix64 (Steele, Lea, Flood 2014): every input bit reaches every output."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


@njit(cache=True)
def may_change_in_nfc(data):
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
def is_word(code):
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
def hash_words(data, i, end, words, begins):
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
            if is_word(code):
                width, whole_word = 3, True
                if not 0xAC00 <= code <= 0xD7A3:  # Korean has spaces
                    script = THAI if code < 0x3040 else CHINESE
        elif byte >= 0xF0:
            code = (byte & 0x07) << 18 | (data[i + 1] & 0x3F) << 12
            code |= (data[i + 2] & 0x3F) << 6 | data[i + 3] & 0x3F
            if is_word(code):
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
def join_words(words, begins, n):
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
            words[m - 1] = mix(words[m - 1]) + words[i]
    if 2 * chinese > m:
        return m, CHINESE
    return m, THAI if 2 * thai > m else SPACED


@njit(cache=True)
def hash_shingles(words, n, shingles):
    """Write a 32-bit hash of each run of five words to `shingles` and return their number."""
    for i in range(n - SHINGLE_WORDS + 1):
        x = words[i]
        for j in range(i + 1, i + SHINGLE_WORDS):
            x = mix(x) + words[j]  # mixing before each addition makes the order of words count
        shingles[i] = mix(x) >> np.uint64(32)
    return max(n - SHINGLE_WORDS + 1, 0)


@njit(cache=True)
def buffer_size(offsets):
    """Return the largest number of words that a text of the chunk can have.

    A word needs one byte for itself and one for the separator after it, except at the end.
    """
    return np.max(offsets[1:] - offsets[:-1]) // 2 + 1 if len(offsets) > 1 else 0


@njit(cache=True)
def hash_texts(
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
    words = np.empty(buffer_size(offsets), np.uint64)
    begins = np.empty(len(words), np.uint8)
    shingles = np.empty(len(words), np.uint32)
    signature = np.empty(len(multiplier), np.uint32)
    rows_per_band = len(multiplier) // len(bands)
    for row in range(len(offsets) - 1):
        n = hash_words(data, offsets[row], offsets[row + 1], words, begins)
        sequence = np.uint64(n)
        for i in range(n):
            sequence = mix(sequence) + words[i]
        sequences[row], lengths[row] = mix(sequence), n

        # MinHash: hash function k of two sets has the same minimum with a probability equal to the
        # Jaccard similarity of the sets.
        signature[:] = 0xFFFFFFFF
        for i in range(hash_shingles(words, n, shingles)):
            x = np.uint64(shingles[i])
            for k in range(len(signature)):
                h = np.uint32((multiplier[k] * x + increment[k]) >> np.uint64(32))
                signature[k] = min(signature[k], h)

        # Banding: one hash stands for the `rows_per_band` MinHashes of a band.
        for band in range(len(bands)):
            x = np.uint64(band)
            for k in range(band * rows_per_band, (band + 1) * rows_per_band):
                x = mix(x) + np.uint64(signature[k])
            bands[band, row] = mix(x) >> np.uint64(32)

        m, script = join_words(words, begins, n)
        sequence = np.uint64(m)
        for i in range(m):
            sequence = mix(sequence) + words[i]
        term_sequences[row] = mix(sequence)

        halves[:, :, row] = 0
        if m <= MAX_TERMS and half_lengths[script, m, 0]:
            for i in range(2):
                # The seeds keep starts, ends and ways of writing apart.
                start, end = np.uint64(2 * script), np.uint64(2 * script + 1)
                for j in range(half_lengths[script, m, i]):
                    start = mix(start) + words[j]
                    end = mix(end) + words[m - 1 - j]
                # Odd, so that no hash is 0.
                halves[0, i, row] = mix(start) >> np.uint64(32) | np.uint64(1)
                halves[1, i, row] = mix(end) >> np.uint64(32) | np.uint64(1)


@njit(cache=True)
def collect_shingles(data, offsets, wanted, lengths, sizes):
    """Return the sorted shingle sets of the wanted texts, one after another; fill in `sizes`."""
    words = np.empty(buffer_size(offsets), np.uint64)
    begins = np.empty(len(words), np.uint8)
    shingles = np.empty(len(words), np.uint32)
    sets = np.empty(np.sum(lengths[wanted]), np.uint32)  # a text has fewer shingles than words
    end = 0
    for row in np.flatnonzero(wanted):
        n = hash_words(data, offsets[row], offsets[row + 1], words, begins)
        n = hash_shingles(words, n, shingles)
        ordered = np.sort(shingles[:n])
        for i in range(n):
            if i == 0 or ordered[i] != ordered[i - 1]:  # each shingle once
                sets[end + sizes[row]] = ordered[i]
                sizes[row] += 1
        end += sizes[row]
    return sets[:end].copy()  # the copy frees the unused rest


@njit(cache=True)
def cut(
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
    words = np.empty(buffer_size(offsets), np.uint64)
    begins = np.empty(len(words), np.uint8)
    ends = np.empty(MAX_TERMS + 1, np.uint64)  # entry j: hash of the last j terms
    for row in np.flatnonzero(in_common[0] | in_common[1]):
        n = hash_words(data, offsets[row], offsets[row + 1], words, begins)
        n, script = join_words(words, begins, n)
        ends[0] = np.uint64(script)
        for j in range(n):
            ends[j + 1] = mix(ends[j] + words[n - 1 - j])
        least = half_lengths[script, n, 1]
        start = np.uint64(0)  # hash of the first i terms
        for i in range(n + 1):
            for length in range(min(longest_edit[script, n], n - i) + 1):
                after = n - i - length
                if (in_common[0, row] and i >= least) or (in_common[1, row] and after >= least):
                    key = mix(start ^ mix(ends[after]))
                    if key % passes == number:
                        if size < len(keys):
                            keys[size], rows[size] = key, first_row + row
                        size += 1
            if i < n:
                start = mix(start + words[i])
    return size


# --- comparison and union-find --------------------------------------------------------------------


@njit(cache=True)
def similar(a, b, threshold):
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
def find(parent, row):
    """Return the root of a row."""
    while parent[row] != row:
        parent[row] = parent[parent[row]]  # path halving keeps the trees flat
        row = parent[row]
    return row


@njit(cache=True)
def join(parent, a, b):
    """Join the trees of two rows. The smaller root becomes the root, whatever the order."""
    root_a, root_b = find(parent, a), find(parent, b)
    parent[max(root_a, root_b)] = min(root_a, root_b)


@njit(cache=True)
def mark_shared(keys, rows, parent, marked):
    """Mark the rows that share a key with a row of another tree; keys are sorted."""
    start = 0
    for i in range(1, len(keys) + 1):
        if i < len(keys) and keys[i] == keys[start]:
            continue
        root = find(parent, rows[start])
        for j in range(start + 1, i):
            if find(parent, rows[j]) != root:
                marked[rows[start:i]] = True
                break
        start = i


@njit(cache=True)
def link_equal(keys, rows, parent):
    """Join the rows with the same key; keys are sorted."""
    for i in range(1, len(keys)):
        if keys[i] == keys[i - 1]:
            join(parent, rows[i - 1], rows[i])


@njit(cache=True)
def link(rows, starts, shingles, bounds, threshold, parent):
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
                if find(parent, a) != find(parent, b) and similar(
                    shingles[bounds[a] : bounds[a + 1]],
                    shingles[bounds[b] : bounds[b + 1]],
                    threshold,
                ):
                    join(parent, a, b)
