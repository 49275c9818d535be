"""Numbers in words: shares, durations, sizes."""


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
