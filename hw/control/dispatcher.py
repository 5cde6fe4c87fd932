"""A unit's dispatcher: its queue, its waits, its scalars, and its posts."""

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib.fifo import SyncFIFOBuffered
from amaranth.lib.wiring import In, Out

from tilewright.hw.cells import Cell
from tilewright.hw.commands import COMMAND_LAYOUTS, POST_SLOTS, SCALARS, WAIT_SLOTS, Opcode
from tilewright.hw.layouts import INDEX_BITS, command_layout

IN_FLIGHT = 8
"""Commands a unit may hold between dispatch and their posts."""


class Dispatcher(Cell):
    """Holds a unit's commands, releases them in order when their tokens are there.

    The head of the queue goes through WAIT_SLOTS steps, one a cycle at best: step k takes wait slot
    k's tokens and resolves the k-th count field. This happens while the unit still works on the
    command before, so that the unit finds the next one ready. When the unit reports a command done,
    its posts go out, one a cycle.

    Attributes
    ----------
    raw, raw_index, raw_valid, raw_ready : from the decoder
    scalars : 32 bits each
    wait_*, take, post_* : to the semaphores
    command : fields as in `command_layout`, counts resolved; is_second : of the second opcode
    index : of the command
    command_valid, command_ready : to the unit
    done : pulse, the unit's oldest command is done
    retired : pulse, its posts are out
    holds : the unit holds a command; oldest_index : of the oldest
    waiting : the head waits for tokens
    halt : release nothing
    """

    def __init__(self, name: str, opcodes: tuple[Opcode, ...], *, queue_depth: int) -> None:
        self.opcodes = opcodes
        self.queue_depth = queue_depth
        self.cell_name = f"tilewright_dispatch_{name}"
        self.raw_bits = max(
            field.offset + field.width
            for opcode in opcodes
            for field in COMMAND_LAYOUTS[opcode].values()
        )
        self.size = max(command_layout(opcode).size for opcode in opcodes)
        super().__init__(
            {
                "raw": In(512),
                "raw_index": In(32),
                "raw_valid": In(1),
                "raw_ready": Out(1),
                "scalars": In(32 * SCALARS),
                "wait_semaphore": Out(4),
                "wait_count": Out(4),
                "wait_met": In(1),
                "take": Out(1),
                "post": Out(1),
                "post_semaphore": Out(4),
                "post_count": Out(4),
                "command": Out(self.size),
                "is_second": Out(1),
                "index": Out(INDEX_BITS),
                "command_valid": Out(1),
                "command_ready": In(1),
                "done": In(1),
                "retired": Out(1),
                "holds": Out(1),
                "oldest_index": Out(INDEX_BITS),
                "waiting": Out(1),
                "halt": In(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.queue = queue = SyncFIFOBuffered(
            width=self.raw_bits + INDEX_BITS, depth=self.queue_depth
        )
        m.d.comb += [
            queue.w_data.eq(Cat(self.raw[: self.raw_bits], self.raw_index[:INDEX_BITS])),
            queue.w_en.eq(self.raw_valid),
            self.raw_ready.eq(queue.w_rdy),
        ]

        # Steps over the head of the queue.
        head = Signal(self.raw_bits, reset_less=True)
        index = Signal(INDEX_BITS, reset_less=True)
        counts = {
            opcode: [f for f in COMMAND_LAYOUTS[opcode].values() if f.kind == "count"]
            for opcode in self.opcodes
        }
        # Steps behind the last slot find none there: a slot of count 0 is met.
        steps = max(WAIT_SLOTS, *(len(fields) for fields in counts.values()))
        step = Signal(range(steps))
        stepping, ready = Signal(), Signal()
        fresh = Signal()  # the step's first cycle
        slots = head[8 : 8 + 8 * WAIT_SLOTS]  # the first is this step's: they move down
        m.d.comb += [
            self.wait_semaphore.eq(slots[:4]),
            self.wait_count.eq(slots[4:8]),
            self.take.eq(stepping & ~self.halt & self.wait_met),
            self.waiting.eq(stepping & ~self.wait_met),
        ]
        leaves = Signal()
        m.d.comb += queue.r_en.eq(~stepping & ~ready)
        with m.If(leaves):
            m.d.sync += ready.eq(0)
        m.d.sync += fresh.eq(0)
        with m.If(queue.r_en & queue.r_rdy):
            m.d.sync += [
                Cat(head, index).eq(queue.r_data),
                stepping.eq(1),
                fresh.eq(1),
                step.eq(0),
            ]
        with m.If(self.take):
            m.d.sync += [step.eq(step + 1), fresh.eq(1), slots.eq(slots >> 8)]
            with m.If(step == steps - 1):
                m.d.sync += [stepping.eq(0), ready.eq(1)]
        # The step's count field, from its scalar register if it names one; whether its tokens are
        # there is known too late in a cycle to wait for.
        with m.If(stepping & fresh):
            for opcode in self.opcodes:
                with m.If(head[:8] == opcode):
                    selected = Signal(16, name=f"count_{opcode.name.lower()}")
                    with m.Switch(step):
                        for number, field in enumerate(counts[opcode]):
                            place = head[field.offset : field.offset + 16]
                            with m.Case(number):
                                m.d.comb += selected.eq(place)
                                m.d.sync += place.eq(
                                    Mux(
                                        selected[15],
                                        self.scalars.word_select(selected[:4], 32)[:16],
                                        selected,
                                    )
                                )

        # Posts of commands in the unit, oldest first.
        m.submodules.posts = posts = SyncFIFOBuffered(
            width=8 * POST_SLOTS + INDEX_BITS, depth=IN_FLIGHT
        )
        first = 8 + 8 * WAIT_SLOTS
        m.d.comb += [
            posts.w_data.eq(Cat(head[first : first + 8 * POST_SLOTS], index)),
            posts.w_en.eq(leaves),
            self.command_valid.eq(ready & posts.w_rdy & ~self.halt),
            leaves.eq(self.command_valid & self.command_ready),
            self.index.eq(index),
            self.holds.eq(posts.r_rdy),
            self.oldest_index.eq(posts.r_data[8 * POST_SLOTS :]),
        ]
        m.d.comb += self.is_second.eq(head[:8] == self.opcodes[-1])
        for number, opcode in enumerate(self.opcodes):
            fields = Cat(
                head[f.offset : f.offset + f.width] for f in COMMAND_LAYOUTS[opcode].values()
            )
            with m.If(self.is_second == number if len(self.opcodes) > 1 else 1):
                m.d.comb += self.command.eq(fields)

        pending = Signal(range(IN_FLIGHT + 1))
        post_step = Signal(range(POST_SLOTS))
        posting = Signal()
        m.d.comb += posting.eq((pending != 0) & posts.r_rdy)
        post_slot = posts.r_data[: 8 * POST_SLOTS].word_select(post_step, 8)
        m.d.comb += [
            self.post.eq(posting & (post_slot[4:] != 0)),
            self.post_semaphore.eq(post_slot[:4]),
            self.post_count.eq(post_slot[4:]),
            posts.r_en.eq(posting & (post_step == POST_SLOTS - 1)),
            self.retired.eq(posts.r_en),
        ]
        with m.If(posting):
            m.d.sync += post_step.eq(post_step + 1)
        m.d.sync += pending.eq(pending + self.done - self.retired)
        return m
