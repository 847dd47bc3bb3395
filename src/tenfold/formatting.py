"""Numbers and lists as people read them."""

from collections.abc import Sequence

_MINUS = "\N{MINUS SIGN}"


def hundredths(share: float, digits: int = 1) -> str:
    """`0.781` as `78.1`. The last bits of a share don't decide between 63.8 and 63.9."""
    return f"{round(100 * share, 9):.{digits}f}"


def percent(share: float | None, digits: int = 1) -> str:
    """`0.781` as `78.1 %`; a dash for None."""
    return "–" if share is None else f"{hundredths(share, digits)} %"


def points(difference: float, *, digits: int = 1) -> str:
    """A difference of two shares in percentage points, without its sign: `25.8 points`."""
    size = hundredths(abs(difference), digits)
    return f"{size} {'point' if float(size) == 1 else 'points'}"


def signed_points(difference: float, *, digits: int = 1) -> str:
    """The same with its sign and no unit: `+25.8`."""
    return f"{round(100 * difference, 9):+.{digits}f}".replace("-", _MINUS)


def interval(low: float, high: float) -> str:
    """`77.3 to 78.9 %`."""
    return f"{hundredths(low)} to {percent(high)}"


def count(number: int) -> str:
    """`1234567` as `1,234,567`."""
    return f"{number:,}"


def power(value: float | None) -> str:
    """A large number as `2.50e12`; a dash for None."""
    if value is None:
        return "–"
    digits, exponent = f"{value:.2e}".split("e")
    return f"{digits}e{int(exponent)}"


def duration(seconds: float | None) -> str:
    """Seconds as `0.4 s`, `41 s`, `12 min 5 s` or `3 h 20 min`."""
    if seconds is None:
        return "–"
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes} min" + (f" {rest} s" if rest else "")
    hours, minutes = divmod(round(whole / 60), 60)
    return f"{hours} h" + (f" {minutes} min" if minutes else "")


def memory(num_bytes: float | None) -> str:
    """Bytes as `812 MB` or `1.4 GB`."""
    if num_bytes is None:
        return "–"
    if num_bytes < 1e9:
        return f"{num_bytes / 1e6:.0f} MB"
    return f"{num_bytes / 1e9:.1f} GB"


def rate(per_second: float | None) -> str:
    """Images a second: `1,234` or `8.2`; a dash for None."""
    if per_second is None:
        return "–"
    return f"{per_second:,.0f}" if per_second >= 10 else f"{per_second:.1f}"


def moment(iso_time: str) -> str:
    """`2026-11-21T04:28:04+00:00` as `2026-11-21 04:28 UTC`; anything else as it is."""
    from datetime import datetime

    try:
        time = datetime.fromisoformat(iso_time)
    except ValueError:
        return iso_time
    zone = time.tzname() or ""
    return f"{time:%Y-%m-%d %H:%M} {zone}".strip()


def listed(words: Sequence[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    if len(words) < 2:
        return "".join(words)
    return f"{', '.join(words[:-1])} and {words[-1]}"


def plain(name: str) -> str:
    """The name of a corruption in words."""
    return name.replace("_", " ").replace("jpeg", "JPEG")


def in_words(value: object) -> str:
    """A value of a recipe as it is shown: `true`, `64`, `0.0123`, `5.72e-5`."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if not isinstance(value, float):
        return str(value)
    digits, exponent, power = f"{value:.4g}".partition("e")
    return f"{digits}e{int(power)}" if exponent else digits


def short_key(key: str, keys: Sequence[str]) -> str:
    """The last part of a dotted key, where no other of `keys` has the same."""
    last = key.rpartition(".")[2]
    return last if [other.rpartition(".")[2] for other in keys].count(last) == 1 else key
