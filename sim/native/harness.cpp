// The Verilated core with its memory and bus as a C interface for sim/native/simulator.py.
//
// One cycle is two evaluations: inputs change with the clock low, handshakes are seen, the clock
// rises. Nothing of Python runs between the cycles of a call.

#include <cstdint>
#include <exception>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "Vtilewright.h"
#include "axi_lite.h"
#include "axi_memory.h"
#include "memory.h"
#include "spans.h"
#include "verilated.h"
#ifdef TILEWRIGHT_TRACE
#include "verilated_fst_c.h"
#endif
#ifdef TILEWRIGHT_SPANS
#include "Vtilewright___024root.h"
#endif

// Verilator ends the process when a model fails; a library must not.
void vl_fatal(const char* filename, int linenum, const char* hier, const char* msg) {
    throw std::runtime_error(std::string(msg) + " (" + filename + ":" + std::to_string(linenum) +
                             ", " + hier + ")");
}

namespace tilewright {

// What a call ended with; mirrored in simulator.py.
enum Status { OK = 0, INTERRUPT = 1, VIOLATION = 2, TIMEOUT = 3, BAD_RESPONSE = 4, FAILED = 5 };

class Simulation {
  public:
    explicit Simulation(const Options& options)
        : top_(prepared(context_)), axi_(top_, memory_, options), lite_(top_, options.seed) {
        lite_.delay(options.lite_delay);
        top_.clk = 0;
        top_.rst = 1;
        axi_.reset();
        lite_.reset();
        top_.eval();
    }

    ~Simulation() {
        end_trace();
        top_.final();
    }

    void configure(const Options& options) {
        axi_.configure(options);
        lite_.delay(options.lite_delay);
    }

    void reset(uint64_t cycles) {
        axi_.reset();
        lite_.reset();
        top_.rst = 1;
        for (uint64_t i = 0; i < cycles; ++i) {
            half(0);
            // The registers that drive the valids are reset by the first edge.
            if (i > 0) axi_.check_reset();
            half(1);
        }
        top_.rst = 0;
    }

    Status run(uint64_t cycles, bool until_interrupt) {
        for (uint64_t i = 0; i < cycles; ++i) {
            tick();
            if (!axi_.violations().empty()) return VIOLATION;
            if (until_interrupt && top_.irq) return INTERRUPT;
        }
        return OK;
    }

    Status write(uint64_t address, uint32_t value, uint64_t limit) {
        lite_.write(address, value);
        return finish(limit);
    }

    Status read(uint64_t address, uint32_t* value, uint64_t limit) {
        lite_.read(address);
        const Status status = finish(limit);
        *value = lite_.value();
        return status;
    }

    void trace(const char* path, uint64_t from, uint64_t cycles) {
#ifdef TILEWRIGHT_TRACE
        end_trace();
        fst_ = std::make_unique<VerilatedFstC>();
        top_.trace(fst_.get(), 99);
        fst_->open(path);
        trace_from_ = from;
        trace_until_ = cycles == 0 || from + cycles < from ? ~uint64_t{0} : from + cycles;
#else
        (void)path, (void)from, (void)cycles;
        throw std::runtime_error("this simulator was built without waveforms");
#endif
    }

    void end_trace() {
#ifdef TILEWRIGHT_TRACE
        if (fst_) fst_->close();
        fst_.reset();
#endif
    }

    // Of the run under way or the last one; none in a simulator built without them.
    const std::vector<Span>& spans() { return recorder_.collect(); }

    Memory& memory() { return memory_; }
    AxiMemory<Vtilewright>& axi() { return axi_; }
    uint64_t cycle() const { return cycle_; }
    bool interrupt() const { return top_.irq; }

    std::string error;

  private:
    static VerilatedContext* prepared(VerilatedContext& context) {
#ifdef TILEWRIGHT_TRACE
        context.traceEverOn(true);  // before the model is made
#endif
        return &context;
    }

    void tick() {
        axi_.drive(cycle_);
        lite_.drive();
        half(0);
#ifdef TILEWRIGHT_SPANS
        recorder_.sample(*top_.rootp);
#endif
        axi_.sample();
        lite_.sample([this](const std::string& text) { axi_.report(text); });
        half(1);
    }

    void half(int clock) {
        top_.clk = clock;
        top_.eval();
#ifdef TILEWRIGHT_TRACE
        // Cycle c is 10 c … 10 c + 9 ns; its clock edge is in the middle.
        if (fst_ && cycle_ >= trace_from_) {
            if (cycle_ < trace_until_)
                fst_->dump(10 * cycle_ + (clock ? 5 : 0));
            else
                end_trace();
        }
#endif
        cycle_ += static_cast<uint64_t>(clock);
    }

    Status finish(uint64_t limit) {
        for (uint64_t i = 0; lite_.busy(); ++i) {
            if (i == limit) {
                lite_.reset();
                return TIMEOUT;
            }
            tick();
            if (!axi_.violations().empty()) return VIOLATION;
        }
        return lite_.response() ? BAD_RESPONSE : OK;
    }

    VerilatedContext context_;
    Vtilewright top_;
    Memory memory_;
    AxiMemory<Vtilewright> axi_;
    AxiLite<Vtilewright> lite_;
    SpanRecorder recorder_{size_of<decltype(Vtilewright::m_axi_rdata)>};
    uint64_t cycle_ = 0;
#ifdef TILEWRIGHT_TRACE
    std::unique_ptr<VerilatedFstC> fst_;
    uint64_t trace_from_ = 0, trace_until_ = 0;
#endif
};

}  // namespace tilewright

using tilewright::Options;
using tilewright::Simulation;
using tilewright::Span;
using tilewright::Statistics;
using tilewright::Status;

namespace {

std::string creation_error;

// Runs what may throw; the text is kept for tw_error().
template <class Body>
int guarded(Simulation* simulation, Body body) {
    try {
        return body();
    } catch (const std::exception& failure) {
        simulation->error = failure.what();
        return tilewright::FAILED;
    }
}

}  // namespace

#define EXPORT extern "C" __attribute__((visibility("default")))

EXPORT Simulation* tw_create(const Options* options) {
    try {
        return new Simulation(*options);
    } catch (const std::exception& failure) {
        creation_error = failure.what();
        return nullptr;
    }
}

EXPORT void tw_destroy(Simulation* simulation) { delete simulation; }

EXPORT const char* tw_error(const Simulation* simulation) {
    return simulation == nullptr ? creation_error.c_str() : simulation->error.c_str();
}

EXPORT void tw_configure(Simulation* simulation, const Options* options) {
    simulation->configure(*options);
}

EXPORT int tw_reset(Simulation* simulation, uint64_t cycles) {
    return guarded(simulation, [&] { return simulation->reset(cycles), tilewright::OK; });
}

EXPORT uint8_t* tw_add_memory(Simulation* simulation, uint64_t base, uint64_t size) {
    uint8_t* data = nullptr;
    guarded(simulation, [&] {
        data = simulation->memory().add(base, size);
        return tilewright::OK;
    });
    return data;
}

EXPORT int tw_run(Simulation* simulation, uint64_t cycles, int until_interrupt) {
    return guarded(simulation, [&] { return simulation->run(cycles, until_interrupt != 0); });
}

EXPORT int tw_write(Simulation* simulation, uint64_t address, uint32_t value, uint64_t limit) {
    return guarded(simulation, [&] { return simulation->write(address, value, limit); });
}

EXPORT int tw_read(Simulation* simulation, uint64_t address, uint32_t* value, uint64_t limit) {
    return guarded(simulation, [&] { return simulation->read(address, value, limit); });
}

EXPORT uint64_t tw_cycle(const Simulation* simulation) { return simulation->cycle(); }

EXPORT int tw_interrupt(const Simulation* simulation) { return simulation->interrupt(); }

EXPORT void tw_fail(Simulation* simulation, int write, uint64_t low, uint64_t high, int response) {
    simulation->axi().fail(write != 0, low, high, response);
}

EXPORT void tw_stall(Simulation* simulation, int channel, uint64_t from, uint64_t cycles) {
    simulation->axi().stall(static_cast<tilewright::Channel>(channel), from, cycles);
}

EXPORT void tw_clear_faults(Simulation* simulation) { simulation->axi().clear_faults(); }

EXPORT uint64_t tw_violations(Simulation* simulation) {
    return simulation->axi().violations().size();
}

EXPORT const char* tw_violation(Simulation* simulation, uint64_t index) {
    return simulation->axi().violations().at(index).c_str();
}

EXPORT void tw_clear_violations(Simulation* simulation) { simulation->axi().clear_violations(); }

EXPORT int tw_idle(Simulation* simulation) { return simulation->axi().idle(); }

EXPORT void tw_statistics(Simulation* simulation, Statistics* statistics) {
    *statistics = simulation->axi().statistics();
}

EXPORT int tw_trace(Simulation* simulation, const char* path, uint64_t from, uint64_t cycles) {
    return guarded(simulation,
                   [&] { return simulation->trace(path, from, cycles), tilewright::OK; });
}

EXPORT void tw_end_trace(Simulation* simulation) { simulation->end_trace(); }

// Valid until the next call; `count` becomes their number.
EXPORT const Span* tw_spans(Simulation* simulation, uint64_t* count) {
    const std::vector<Span>& spans = simulation->spans();
    *count = spans.size();
    return spans.data();
}
