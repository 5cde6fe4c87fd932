"""Byte lanes: rotation and masks."""

from amaranth.hdl import Cat, Module, Mux, Signal, Value


def log2(value: int) -> int:
    """Logarithm of a power of two."""
    return value.bit_length() - 1


def lanes_from(lanes: int, first: Value) -> Value:
    """Return a bit a lane: lane >= `first`."""
    return Cat(first <= lane for lane in range(lanes))


def lanes_to(lanes: int, last: Value) -> Value:
    """Return a bit a lane: lane <= `last`."""
    return Cat(last >= lane for lane in range(lanes))


def rotated(m: Module, word: Value, by: Value, *, left: bool = False, name: str = "turn") -> Value:
    """Return `word` rotated right (or left) by `by` bytes, a layer of multiplexers a bit of `by`.

    Lane i of the result is lane (i + by) mod D of `word`, or (i − by) mod D.
    """
    for bit in range(len(by)):
        turned = Signal(len(word), name=f"{name}{bit}")
        step = 8 << bit
        other = word.rotate_left(step) if left else word.rotate_right(step)
        m.d.comb += turned.eq(Mux(by[bit], other, word))
        word = turned
    return word
