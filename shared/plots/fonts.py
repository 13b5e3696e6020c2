"""Fonts that draw a text in any script."""

from __future__ import annotations

import unicodedata
from typing import Any


def fonts_for(text: str) -> tuple[list[str], set[str]]:
    """Return font families that draw a text together, and the characters that none of them has.

    The default family comes first; matplotlib takes each character from the first family that has
    it. Other fonts are only searched for characters that the default one lacks.
    """
    from matplotlib import font_manager, rcParams

    def characters(path: Any) -> set[int]:
        return {*font_manager.get_font(path).get_charmap()}

    # Spaces, and signs that change the form of others, need no glyph.
    missing = {ord(c) for c in text if not c.isspace() and unicodedata.category(c) != "Cf"}
    missing -= characters(font_manager.findfont(font_manager.FontProperties()))
    families = list(rcParams["font.family"])
    if missing:
        # Of the fonts of a family, matplotlib draws with the one of the usual weight; put it last.
        usual = (400, "normal", "regular")
        fonts = sorted(font_manager.fontManager.ttflist, key=lambda font: font.weight in usual)
        coverage = {
            font.name: missing & characters(font.fname)
            for font in fonts
            # The font of last resort has a box for each character.
            if font.style == "normal" and not font.name.startswith("Last Resort")
        }
        while missing and coverage:
            best = max(coverage, key=lambda name: len(coverage[name] & missing))
            if not coverage[best] & missing:
                break
            families.append(best)
            missing -= coverage[best]
    return families, {chr(code) for code in missing}
