// Records when each command of a run was taken, worked on and retired.
//
// The nets are those of sim/native/probes.py. A unit may hold several commands; the cycles it is
// busy belong to them in order, to each as many as its work takes (rows of a MATMUL, beats of a
// transfer). The VECTOR unit holds one at a time, and what it does is the last one's.
#pragma once

#include <cstdint>
#include <vector>

namespace tilewright {

// Mirrored in simulator.py.
struct Span {
    uint64_t index, unit, start, end, busy, first_busy, last_busy;
};

// Beats of `bus` bytes that the runs of a transfer touch.
inline uint64_t beats(uint64_t bus, uint64_t address, uint64_t length, uint64_t runs,
                      uint64_t planes, uint64_t run_stride, uint64_t plane_stride) {
    if (length == 0) return 0;
    const auto of = [&](uint64_t offset) { return ((address + offset) % bus + length - 1) / bus + 1; };
    if (run_stride % bus == 0 && plane_stride % bus == 0) return runs * planes * of(0);
    uint64_t sum = 0;
    for (uint64_t k = 0; k < planes; ++k)
        for (uint64_t j = 0; j < runs; ++j) sum += of(k * plane_stride + j * run_stride);
    return sum;
}

#define PROBE(name) root.tilewright__DOT__probes__DOT__##name

class SpanRecorder {
  public:
    static constexpr int kUnits = 4;
    enum { LOAD, MATMUL, VECTOR, STORE };

    explicit SpanRecorder(uint64_t bus) : bus_(bus) {}

    // Called once a cycle, before the clock rises.
    template <class Root>
    void sample(const Root& root) {
        const bool running = PROBE(running);
        if (running && !running_) {
            cycle_ = 0;
            for (Lane& lane : lanes_) lane = Lane();
        }
        running_ = running;
        if (!running) return;
        for (int unit = 0; unit < kUnits; ++unit) {
            Lane& lane = lanes_[unit];
            if (PROBE(busy) >> unit & 1) lane.work(cycle_);
            if (PROBE(retired) >> unit & 1) lane.retire(cycle_);
            if (PROBE(taken) >> unit & 1) take(root, unit);
        }
        ++cycle_;
    }

    // Of the last run, unit by unit, without those that did not come to their end.
    const std::vector<Span>& collect() {
        all_.clear();
        for (const Lane& lane : lanes_)
            all_.insert(all_.end(), lane.spans.begin(), lane.spans.begin() + lane.retired);
        return all_;
    }

  private:
    struct Lane {
        std::vector<Span> spans;
        std::vector<uint64_t> left;  // busy cycles to come, of each span
        size_t retired = 0, at = 0;

        void work(uint64_t cycle) {
            while (at < spans.size() && left[at] == 0) ++at;
            if (at == spans.size()) return;
            Span& span = spans[at];
            if (span.busy++ == 0) span.first_busy = cycle;
            span.last_busy = cycle;
            --left[at];
        }

        void retire(uint64_t cycle) {
            if (retired < spans.size()) spans[retired++].end = cycle + 1;
        }
    };

    template <class Root>
    void take(const Root& root, int unit) {
        Lane& lane = lanes_[unit];
        uint64_t index = 0, left = 0;
        switch (unit) {
            case LOAD:
                index = PROBE(load_index);
                left = beats(bus_, PROBE(load_address), PROBE(load_length), PROBE(load_runs),
                             PROBE(load_planes), PROBE(load_run_stride), PROBE(load_plane_stride));
                break;
            case MATMUL:
                index = PROBE(matmul_index);
                left = PROBE(matmul_rows);
                break;
            case VECTOR:
                index = PROBE(vector_index);
                left = ~uint64_t{0};
                if (!lane.left.empty()) lane.left.back() = 0;
                break;
            default:
                index = PROBE(store_index);
                left = beats(bus_, PROBE(store_address), PROBE(store_length), PROBE(store_runs),
                             PROBE(store_planes), PROBE(store_run_stride),
                             PROBE(store_plane_stride));
        }
        lane.spans.push_back({index, static_cast<uint64_t>(unit), cycle_, cycle_, 0, cycle_, cycle_});
        lane.left.push_back(left);
    }

    uint64_t bus_;
    uint64_t cycle_ = 0;
    bool running_ = false;
    Lane lanes_[kUnits];
    std::vector<Span> all_;
};

#undef PROBE

}  // namespace tilewright
