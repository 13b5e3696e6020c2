"""Small WordNets in the format of the real one."""

LICENCE = "  1 This software and database is being provided ...  \n"
PARTS = {"noun": "n", "verb": "v", "adj": "a", "adv": "r"}


def write_wordnet(folder, senses, irregular=None):
    """Write the files of a WordNet; return their folder.

    `senses` has a list of senses, each a list of words, for some parts of speech; a sense comes
    before a later one of the same word. `irregular` has the irregular forms of words.
    """
    folder.mkdir(parents=True)
    for part, letter in PARTS.items():
        data, index = LICENCE, {}
        for words in senses.get(part, []):
            for word in words:
                index.setdefault(word.split("(")[0].lower(), []).append(len(data))
            listed = " ".join(f"{word} 0" for word in words)
            data += f"{len(data):08} 00 {letter} {len(words):02x} {listed} 000 | a meaning\n"
        (folder / f"data.{part}").write_text(data)
        lines = [
            f"{word} {letter} {len(offsets)} 0 {len(offsets)} 0 "
            + " ".join(f"{offset:08}" for offset in offsets)
            for word, offsets in sorted(index.items())
        ]
        (folder / f"index.{part}").write_text(LICENCE + "".join(f"{line}\n" for line in lines))
        forms = (irregular or {}).get(part, {})
        (folder / f"{part}.exc").write_text("".join(f"{k} {v}\n" for k, v in forms.items()))
    return folder
