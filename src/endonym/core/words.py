"""Numbers and names as a reader says them."""

import json
import math


def duration(seconds: float | None) -> str:
    """Seconds as 0.4 s, 12 s, 3 min 20 s, 2 h 5 min, 3 d 4 h."""
    if not is_number(seconds):
        return NOT_RECORDED
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    for big, small, name, less in ((86400, 3600, "d", "h"), (3600, 60, "h", "min")):
        if whole >= big:
            return f"{whole // big} {name} {whole % big // small} {less}"
    return f"{whole} s" if whole < 60 else f"{whole // 60} min {whole % 60} s"


def count(value: float | None) -> str:
    """A count as 12,345 or 12.3 million or 1.2 × 10¹⁷."""
    if not is_number(value):
        return NOT_RECORDED
    for limit, name in ((1e9, "billion"), (1e6, "million")):
        if limit <= abs(value) < 1e12:
            return f"{value / limit:.3g} {name}"
    if abs(value) >= 1e12:
        mantissa, exponent = f"{value:.1e}".split("e")
        return f"{mantissa} × 10{str(int(exponent)).translate(_SUPERSCRIPT)}"
    return f"{value:,.0f}"


def size(num_bytes: float | None) -> str:
    """Bytes as 12 kB, 3.4 MB (powers of ten, as disks are sold)."""
    if not is_number(num_bytes):
        return NOT_RECORDED
    for limit, name in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if num_bytes >= limit:
            return f"{num_bytes / limit:.3g} {name}"
    return f"{num_bytes:.0f} bytes"


def figure(value: object) -> str:
    """A scalar to four significant digits; whole numbers with separators; anything else as text."""
    if not is_number(value):
        return str(value)
    if isinstance(value, int) or value == int(value):
        return count(value)
    return f"{value:.4g}"


def language_names(code: str | None) -> tuple[str, str]:
    """("Thai", "ไทย") for th: in English and the people's own word, "" where both are one or unknown."""
    if not code:
        return "", ""
    from babel import Locale, UnknownLocaleError

    try:
        locale = Locale.parse(code, sep="-" if "-" in code else "_")
    except (UnknownLocaleError, ValueError):
        return code, ""
    english, own = locale.get_display_name("en") or code, locale.get_display_name() or ""
    return english, "" if own == english else own


def is_number(value: object) -> bool:
    """A finite number; what the run left out reaches the template as jinja2's Undefined."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


NOT_RECORDED = "not recorded"
_SUPERSCRIPT = str.maketrans("0123456789-", "⁰¹²³⁴⁵⁶⁷⁸⁹⁻")


def pretty(value: object) -> str:
    """A setting as JSON, in its own script; small things on one line."""
    flat = json.dumps(value, ensure_ascii=False, sort_keys=True, default=str)
    if len(flat) <= 72:
        return flat
    return json.dumps(value, ensure_ascii=False, sort_keys=True, default=str, indent=2)


def cost(value: object, key: str) -> str:
    known = {"seconds": duration, "tokens": count, "flops": count, "bytes": size}
    return known.get(key, figure)(value)
