"""Recipes of LOAD and STORE."""

from __future__ import annotations

from tilewright.hw.commands import SCALARS, Opcode
from tilewright.sim.random_program.draft import INPUT, OUTPUT, Draft, words_at


def store_words(draft: Draft, first: int, count: int) -> None:
    """STORE words of the scratchpad to fresh output bytes."""
    size = count * draft.config.word_bytes
    fields = {
        "sp_addr": first,
        "region": OUTPUT,
        "offset": draft.used,
        "length": size,
        "runs": 1,
        "planes": 1,
        "sp_chunk": 1,
    }
    draft.used += size
    draft.emit(Opcode.STORE, fields, [("sp", words_at(first, (count, 1)))], [])


def load_arena(draft: Draft) -> None:
    """LOAD all words of the arena, a few hundred a command."""
    place = draft.first
    while place < draft.end:
        count = min(draft.integer(200, 400), draft.end - place)
        fields = {
            "sp_addr": place,
            "region": INPUT,
            "offset": (place - draft.first) * draft.config.word_bytes,
            "length": count * draft.config.word_bytes,
            "runs": 1,
            "planes": 1,
            "sp_chunk": 1,
        }
        draft.emit(Opcode.LOAD, fields, [], [("sp", words_at(place, (count, 1)))])
        place += count


def transfer(draft: Draft, load: bool) -> None:
    """Random nesting of chunks, runs and planes, both sides; no chunk over another."""
    half = draft.integer(0, 1)
    width = draft.config.panel if half else draft.config.word_bytes
    runs, planes = draft.integer(1, 9), draft.integer(1, 3)
    length = draft.choose([draft.integer(1, 3 * width), width * draft.integer(1, 3), 1])
    chunks = -(-length // width)
    extents = {
        "sp_chunk": chunks,
        "sp_run": -(-runs // 2) if half else runs,
        "sp_plane": planes,
    }
    place, span = {}, 1
    for name in draft.rng.permutation(list(extents)):
        place[name] = span + (draft.integer(0, 2) if draft.chance(0.3) else 0)
        span = place[name] * (extents[name] - 1) + span
    low, high = draft.free
    if span > high - low:
        return
    base = draft.integer(low, high - span)
    words = words_at(base, *((extents[n], place[n]) for n in ("sp_plane", "sp_run", "sp_chunk")))
    fields = {str(k): v for k, v in place.items()}
    fields |= {"sp_addr": base, "half": half, "length": length, "runs": runs, "planes": planes}
    # DRAM: runs in planes or planes in runs, upwards or downwards.
    inner, outer = ("run", runs), ("plane", planes)
    if draft.chance(0.5):
        inner, outer = outer, inner
    pitch = length + draft.choose([0, 0, draft.integer(0, 70)])
    above = pitch * inner[1] + draft.choose([0, draft.integer(0, 70)])
    lowest = 0
    for (name, count), step in ((inner, pitch), (outer, above)):
        signed = -step if draft.chance(0.3) else step
        fields[f"{name}_stride"] = signed
        lowest += min(0, signed * (count - 1))
    size = pitch * (inner[1] - 1) + above * (outer[1] - 1) + length
    region = INPUT if load else OUTPUT
    start, limit = draft.regions[region]
    if load:
        if size > limit - start:
            return
        offset = draft.choose([0, limit - start - size, draft.integer(0, limit - start - size)])
    else:
        offset = draft.used + draft.integer(0, 9)
        if offset + size > (limit - start) // 4:
            return
        draft.used = offset + size
    offset -= lowest
    fields |= {"region": region, "offset": offset}
    if draft.chance(0.2):
        known = [i for i, held in draft.scalars.items() if held <= offset]
        index = known[0] if known else len(draft.scalars)
        if not known and index < SCALARS:
            draft.scalars[index] = draft.integer(0, offset)
        if index < SCALARS:
            fields |= {"scalar_on": 1, "scalar": index}
            fields["offset"] = offset - draft.scalars[index]
    if load:
        draft.emit(Opcode.LOAD, fields, [], [("sp", words)])
    else:
        draft.emit(Opcode.STORE, fields, [("sp", words)], [])
