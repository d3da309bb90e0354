"""Ways in which stored bytes go wrong."""

from hypothesis import strategies as st

_KINDS = ["flip", "zero", "cut", "drop", "repeat", "swap", "insert", "extend"]


@st.composite
def damaged(draw: st.DrawFn, data: bytes) -> bytes:
    """Data with bytes flipped, zeroed, cut off, dropped, repeated, swapped, inserted or added, up to three times."""
    for _ in range(draw(st.integers(1, 3))):
        data = _hurt(draw, data)
    return data


def _hurt(draw: st.DrawFn, data: bytes) -> bytes:
    at = draw(st.integers(0, max(0, len(data) - 1)))
    other = draw(st.integers(0, max(0, len(data) - 1)))
    # Whole blocks as well as single bytes: what a file system loses and what a bit flip does.
    length = draw(st.sampled_from([1, 2, 16, 64, 4096]))
    piece, second = data[at : at + length], data[other : other + length]
    kind = draw(st.sampled_from(_KINDS))
    if kind == "flip":
        mask = 1 << draw(st.integers(0, 7))
        return data[:at] + bytes(byte ^ mask for byte in data[at : at + 1]) + data[at + 1 :]
    if kind == "swap":
        first, last = min(at, other), max(at, other)
        one, two = data[first : first + length], data[last : last + length]
        if first + length > last or len(one) != len(two):
            return data
        return data[:first] + two + data[first + length : last] + one + data[last + length :]
    return {
        "zero": data[:at] + bytes(len(piece)) + data[at + len(piece) :],
        "cut": data[:at],
        "drop": data[:at] + data[at + length :],
        "repeat": data[:at] + piece + data[at:],
        "insert": data[:at] + second + data[at:],
        "extend": data + second,
    }[kind]
