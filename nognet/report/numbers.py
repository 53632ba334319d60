"""Numbers as people read them; what is missing is a dash, never a zero."""

from __future__ import annotations

DASH = "\N{EN DASH}"
MINUS = "\N{MINUS SIGN}"


def number(value: float | None, decimals: int = 3) -> str:
    """Format with fixed decimals and a true minus.

    >>> number(0.71234, 3), number(None) == DASH, number(-1.5, 1) == MINUS + "1.5"
    ('0.712', True, True)
    """
    if value is None:
        return DASH
    return _unsigned_zero(f"{value:.{decimals}f}").replace("-", MINUS)


def signed(value: float | None, decimals: int = 3) -> str:
    """Format a difference with its sign; one that rounds to zero has none.

    >>> signed(0.05, 2), signed(-0.3, 1) == MINUS + "0.3", signed(0.0001, 2)
    ('+0.05', True, '0.00')
    """
    if value is None:
        return DASH
    text = _unsigned_zero(f"{value:+.{decimals}f}")
    return text.replace("-", MINUS)


def compact(value: float) -> str:
    """Format to four significant digits.

    >>> compact(31.2), compact(0.89417)
    ('31.2', '0.8942')
    """
    return f"{value:.4g}".replace("-", MINUS)


def count(value: int | None) -> str:
    """Format a count with thin spaces between thousands."""
    return DASH if value is None else f"{value:,}".replace(",", "\N{NARROW NO-BREAK SPACE}")


def seconds_text(seconds: float | None) -> str:
    """Format a duration.

    >>> seconds_text(4.25), seconds_text(75), seconds_text(7322)
    ('4.2 s', '1 min 15 s', '2 h 02 min')
    """
    if seconds is None:
        return DASH
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min"


def bytes_text(size: int | None) -> str:
    """Format a size in powers of 1000.

    >>> bytes_text(950), bytes_text(4_200_000)
    ('950 B', '4.2 MB')
    """
    if size is None:
        return DASH
    value = float(size)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.0f} B" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} TB"


def _unsigned_zero(text: str) -> str:
    return text.lstrip("+-") if not text.strip("+-0.") else text
