"""Numbers in words: shares, durations, sizes. Names that a reader takes for equal."""

import unicodedata
from collections import defaultdict
from collections.abc import Iterable

from headwater.errors import DataError


def composed(name: str) -> str:
    """The name in composed Unicode (NFC): é may also be written as e and an accent (NFD), as a Mac does."""
    return unicodedata.normalize("NFC", name)


class Names:
    """Names to look up: as they are written, else in another Unicode form of the same letters."""

    def __init__(self, names: Iterable[str]) -> None:
        self._names = set(names)
        self._forms: dict[str, list[str]] = defaultdict(list)
        for name in sorted(self._names):
            self._forms[composed(name)].append(name)

    def find(self, name: str) -> str | None:
        """The name among these that reads the same; None without one, a DataError for several."""
        if name in self._names:
            return name
        forms = self._forms.get(composed(name), [])
        if len(forms) > 1:
            raise DataError(
                f"'{name}' stands for {len(forms)} names that differ only in the Unicode form of their "
                f"letters ({' and '.join(ascii(form) for form in forms)}); expected one. Rename one of them."
            )
        return forms[0] if forms else None


def number(value: float, decimals: int = 2, sign: str = "-") -> str:
    """The number with a true minus sign, and without a sign if it rounds to 0."""
    return f"{value:{sign}z.{decimals}f}".replace("-", "−")


def percent(share: float) -> str:
    """The share in percent, with one decimal below 10 % unless it is 0."""
    return f"{100 * share:.{1 if 0 < share < 0.0995 else 0}f}\N{NO-BREAK SPACE}%"


def duration(seconds: float) -> str:
    """Seconds, such as 4.2 s, 3 min 20 s or 2 h 5 min."""
    minutes, rest = divmod(round(seconds), 60)
    if minutes:
        return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
    return f"{seconds:.1f} s" if seconds < 10 else f"{rest} s"


def hours_in_words(hours: float) -> str:
    """Hours, such as 3 s, 4.2 min, 5.0 h or 3 days."""
    if hours >= 48:
        return f"{hours / 24:,.0f} days"
    if hours >= 1:
        return f"{hours:.1f} h"
    return f"{60 * hours:.1f} min" if hours > 1 / 60 else f"{3600 * hours:.0f} s"


def sized(size: float) -> str:
    """Bytes, such as 3.2 MB."""
    for unit in ("B", "KB", "MB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:,.1f} GB"
