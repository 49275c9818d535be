"""Numbers as people write them: shares, durations, sizes."""


def number(value: float, decimals: int = 2, sign: str = "-") -> str:
    """A number with a true minus sign, and with none where it rounds to 0."""
    return f"{value:{sign}z.{decimals}f}".replace("-", "−")


def percent(share: float) -> str:
    """A share in percent, with one decimal below 10 % unless it is 0."""
    return f"{100 * share:.{1 if 0 < share < 0.0995 else 0}f}\N{NO-BREAK SPACE}%"


def duration(seconds: float) -> str:
    """Seconds as people say them."""
    minutes, rest = divmod(round(seconds), 60)
    if minutes:
        return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
    return f"{seconds:.1f} s" if seconds < 10 else f"{rest} s"


def hours_in_words(hours: float) -> str:
    """In words."""
    if hours >= 48:
        return f"{hours / 24:,.0f} days"
    if hours >= 1:
        return f"{hours:.1f} h"
    return f"{60 * hours:.1f} min" if hours > 1 / 60 else f"{3600 * hours:.0f} s"


def sized(size: float) -> str:
    """In words."""
    for unit in ("B", "KB", "MB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:,.1f} GB"
