"""Text in image files: fonts that contain its characters, and line wrapping."""

from __future__ import annotations

import functools
import warnings
from typing import Any

from PIL import ImageFont

# Fonts of common systems, by the scripts that they cover; Pillow searches the font directories of each system.
_FONTS = (
    *("DejaVuSans.ttf", "NotoSans-Regular.ttf", "LiberationSans-Regular.ttf", "arial.ttf", "Arial.ttf"),
    *("Arial Unicode.ttf", "arialuni.ttf", "NotoSansCJK-Regular.ttc", "NotoSansCJKsc-Regular.otf", "PingFang.ttc"),
    *("Hiragino Sans GB.ttc", "msyh.ttc", "meiryo.ttc", "malgun.ttf", "wqy-microhei.ttc", "DroidSansFallbackFull.ttf"),
    *("NotoSansArabic-Regular.ttf", "NotoSansDevanagari-Regular.ttf"),
)
_NO_LETTER = "\U0010fffe"  # in no font, so it is drawn as the glyph for missing characters


def font_for(text: str, size: float) -> Any:
    """Return a font with all characters of a text, or with as many as any tried font of this system.

    Pillow's own font only has English letters; for others, well-known fonts of the system are tried.

    Args:
        text: The text to draw.
        size: The font size in pixels.

    Warns:
        UserWarning: No font has all the characters; the missing ones are drawn as boxes.
    """
    best = best_font(text, size)
    if lacking := missing(text, best):
        warnings.warn(
            f"No installed font has the characters {''.join(sorted(lacking))[:20]!r}: boxes are drawn instead. Install "
            f"a font that has them (such as Noto Sans, Noto Sans CJK), or use other characters.",
            UserWarning,
            stacklevel=2,
        )
    return best


def best_font(text: str, size: float) -> Any:
    """Return the same font as :func:`font_for` without a warning, for drawings that the user did not request."""
    best = ImageFont.load_default(size=size)
    fewest = missing(text, best)
    for name in _FONTS if fewest else ():
        font = _system(name, size)
        lacking = fewest if font is None else missing(text, font)
        if len(lacking) < len(fewest):
            fewest, best = lacking, font
        if not fewest:
            break
    return best


def missing(text: str, font: Any) -> set[str]:
    """Return the characters of a text that a font doesn't have."""
    nothing = _drawn(_NO_LETTER, font)
    return {letter for letter in set(text) if not letter.isspace() and _drawn(letter, font) == nothing}


def wrapped(text: str, font: Any, width: float) -> list[str]:
    """Wrap a text into lines of limited width; wider words, and text without spaces, are broken anywhere.

    Args:
        text: The text, which may contain line breaks.
        font: The font of the text.
        width: The maximum width of a line in pixels.
    """
    lines: list[str] = []
    for paragraph in text.splitlines():
        line = ""
        for word in paragraph.split():
            joined = f"{line} {word}" if line else word
            if _fitting(joined, 0, font, width) == len(joined):
                line = joined
                continue
            if line:
                lines.append(line)
            start = 0
            while (end := start + _fitting(word, start, font, width)) < len(word):
                lines.append(word[start:end])
                start = end
            line = word[start:]
        lines.append(line)
    return lines


def _fitting(text: str, start: int, font: Any, width: float) -> int:
    """Return the number of characters that fit from ``start`` on, at least one.

    No more than about twice the fitting text is measured at a time, so that long texts don't take quadratic time.
    """
    count = step = 1
    while start + count < len(text) and _fits(text[start : start + count + step], font, width):
        count, step = count + step, 2 * step
    while step > 1:
        step //= 2
        if start + count < len(text) and _fits(text[start : start + count + step], font, width):
            count += step
    return min(count, len(text) - start)


def _fits(text: str, font: Any, width: float) -> bool:
    return font.getlength(text) <= width


def _drawn(letter: str, font: Any) -> bytes:
    mask = font.getmask(letter)
    return bytes(mask) + repr(mask.size).encode()


@functools.lru_cache(64)
def _system(name: str, size: float) -> Any:
    try:
        return ImageFont.truetype(name, size)
    except OSError:
        return None
