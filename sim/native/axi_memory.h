// The AXI4 slave in front of the memory: timing, faults to order, and a check of what the master
// does. One call of drive() sets the slave's signals of a cycle, one of sample() sees the handshakes.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <deque>
#include <string>
#include <vector>

#include "memory.h"
#include "ports.h"

namespace tilewright {

enum Channel { AR, R, AW, W, B, CHANNELS };
inline const char* const kChannelNames[CHANNELS] = {"AR", "R", "AW", "W", "B"};

// Mirrored by `_Options` in simulator.py.
struct Options {
    uint64_t seed;
    uint64_t latency_low;   // cycles from an accepted address to its first beat, and from the last
    uint64_t latency_high;  // write beat to its response
    uint64_t back_pressure[CHANNELS];  // probability of holding a channel for a cycle, times 2^32
    uint64_t lite_delay;               // the same for this side of AXI4-Lite
    uint64_t interleave;   // beats of bursts of different IDs may mix, responses may overtake
    uint64_t capacity;     // addresses taken before ready falls
    uint64_t outstanding;  // bursts of one ID that the master may have in flight; 0: any
    uint64_t max_burst;    // beats; 0: any
};

// Mirrored by `_Statistics` in simulator.py.
struct Statistics {
    uint64_t read_bursts;
    uint64_t read_beats;
    uint64_t write_bursts;
    uint64_t write_beats;
    uint64_t write_bytes;       // with their strobe on
    uint64_t read_outstanding;  // most at a time
    uint64_t write_outstanding;
};

template <class Top>
class AxiMemory {
  public:
    static constexpr uint64_t kBeat = size_of<decltype(Top::m_axi_rdata)>;
    static constexpr uint64_t kEver = ~uint64_t{0};
    static constexpr size_t kReports = 100;
    static constexpr int kIncr = 1;
    static constexpr int kSlverr = 2;
    static constexpr int kDecerr = 3;

    AxiMemory(Top& top, Memory& memory, const Options& options)
        : top_(top), memory_(memory), options_(options), random_(options.seed) {}

    void configure(const Options& options) {
        if (options.seed != options_.seed) random_ = Random(options.seed);
        options_ = options;
    }

    void fail(bool write, uint64_t low, uint64_t high, int response) {
        errors_.push_back({write, low, high, response});
    }

    void stall(Channel channel, uint64_t from, uint64_t cycles) {
        const uint64_t until = cycles == 0 || from + cycles < from ? kEver : from + cycles;
        stalls_.push_back({channel, from, until});
    }

    void clear_faults() {
        errors_.clear();
        stalls_.clear();
    }

    // Forget everything in flight: the master is in reset.
    void reset() {
        reads_.clear();
        writes_.clear();
        early_.clear();
        next_data_ = 0;
        current_read_ = kNone;
        r_valid_ = b_valid_ = false;
        held_ar_ = held_aw_ = held_w_ = false;
        top_.m_axi_arready = 0;
        top_.m_axi_awready = 0;
        top_.m_axi_wready = 0;
        top_.m_axi_rvalid = 0;
        top_.m_axi_bvalid = 0;
    }

    void drive(uint64_t cycle) {
        now_ = cycle;
        top_.m_axi_arready = reads_.size() < options_.capacity && open(AR);
        top_.m_axi_awready = writes_.size() < options_.capacity && open(AW);
        top_.m_axi_wready = (next_data_ < writes_.size() || early_.size() < kEarly) && open(W);
        drive_read();
        drive_response();
    }

    void sample() {
        sample_read_address();
        sample_write_address();
        sample_write_data();
        if (r_valid_ && top_.m_axi_rready) end_read_beat();
        if (b_valid_ && top_.m_axi_bready) {
            writes_.erase(writes_.begin() + static_cast<ptrdiff_t>(current_write_));
            --next_data_;
            b_valid_ = false;
        }
    }

    // What the master must not do while it is in reset.
    void check_reset() {
        if (top_.m_axi_arvalid || top_.m_axi_awvalid || top_.m_axi_wvalid)
            report("a valid is high in reset");
    }

    bool idle() const { return reads_.empty() && writes_.empty() && early_.empty(); }
    const Statistics& statistics() const { return statistics_; }
    const std::vector<std::string>& violations() const { return violations_; }
    void clear_violations() { violations_.clear(); }

    void report(const std::string& text) {
        if (violations_.size() < kReports)
            violations_.push_back("cycle " + std::to_string(now_) + ": " + text);
    }

  private:
    static constexpr size_t kNone = ~size_t{0};
    static constexpr size_t kEarly = 16;  // write beats taken before their address

    struct Address {
        uint64_t address;
        int length, size, burst, id;
        bool operator==(const Address&) const = default;
    };

    struct ReadBurst {
        Address at;
        uint64_t ready;  // cycle of the first beat at the earliest
        uint8_t* data;
        int sent;
    };

    struct Beat {
        uint8_t data[kBeat];
        uint8_t strobe[(kBeat + 7) / 8];
        bool last;

        bool full() const {
            for (const uint8_t byte : strobe)
                if (byte != static_cast<uint8_t>(kBeat < 8 ? (1u << kBeat) - 1 : 0xFF)) return false;
            return true;
        }
        bool enabled(uint64_t byte) const { return strobe[byte / 8] >> (byte % 8) & 1; }
        bool operator==(const Beat& other) const {
            return last == other.last && !std::memcmp(data, other.data, sizeof data) &&
                   !std::memcmp(strobe, other.strobe, sizeof strobe);
        }
    };

    struct WriteBurst {
        Address at;
        uint64_t ready;  // cycle of the response at the earliest; kEver: data is missing
        std::vector<Beat> beats;
    };

    struct Error {
        bool write;
        uint64_t low, high;
        int response;
    };

    struct Stall {
        Channel channel;
        uint64_t from, until;
    };

    static std::string hex(uint64_t value) {
        char text[24];
        std::snprintf(text, sizeof text, "0x%llx", static_cast<unsigned long long>(value));
        return text;
    }

    bool stalled(Channel channel) const {
        for (const Stall& stall : stalls_)
            if (stall.channel == channel && stall.from <= now_ && now_ < stall.until) return true;
        return false;
    }

    bool open(Channel channel) {
        return !random_.chance(options_.back_pressure[channel]) && !stalled(channel);
    }

    uint64_t latency() { return random_.between(options_.latency_low, options_.latency_high); }

    // Response to one beat: what was ordered, DECERR where there is no memory, else OKAY.
    int response(bool write, uint64_t address, const uint8_t* data) const {
        for (const Error& error : errors_)
            if (error.write == write && address < error.high && error.low < address + kBeat)
                return error.response;
        return data == nullptr ? kDecerr : 0;
    }

    // ---- reads ----

    // The burst of which the next beat is sent: of each ID the oldest may be.
    size_t choose_read() {
        if (!options_.interleave) return reads_.empty() || reads_[0].ready > now_ ? kNone : 0;
        size_t chosen = kNone;
        uint64_t count = 0;
        for (size_t i = 0; i < reads_.size(); ++i) {
            if (reads_[i].ready > now_) continue;
            bool first = true;
            for (size_t j = 0; j < i; ++j) first = first && reads_[j].at.id != reads_[i].at.id;
            if (first && random_.between(0, count++) == 0) chosen = i;
        }
        return chosen;
    }

    void drive_read() {
        if (r_valid_) return;  // held until it is taken
        const bool was_open = open(R);
        current_read_ = was_open ? choose_read() : kNone;
        if (current_read_ == kNone) {
            if (top_.m_axi_rvalid) {
                // Whoever looks at data that is not valid shall see that it is not.
                top_.m_axi_rvalid = 0;
                top_.m_axi_rlast = 0;
                std::memset(bytes(top_.m_axi_rdata), 0xA5, kBeat);
            }
            return;
        }
        const ReadBurst& burst = reads_[current_read_];
        const uint64_t address = burst.at.address + static_cast<uint64_t>(burst.sent) * kBeat;
        const int resp = response(false, address, burst.data);
        if (resp == 0)
            std::memcpy(bytes(top_.m_axi_rdata), burst.data + burst.sent * kBeat, kBeat);
        else
            std::memset(bytes(top_.m_axi_rdata), 0x5A, kBeat);
        top_.m_axi_rid = burst.at.id;
        top_.m_axi_rresp = resp;
        top_.m_axi_rlast = burst.sent == burst.at.length;
        top_.m_axi_rvalid = 1;
        r_valid_ = true;
    }

    void end_read_beat() {
        ++statistics_.read_beats;
        ReadBurst& burst = reads_[current_read_];
        if (burst.sent++ == burst.at.length)
            reads_.erase(reads_.begin() + static_cast<ptrdiff_t>(current_read_));
        r_valid_ = false;
    }

    void sample_read_address() {
        if (!top_.m_axi_arvalid) {
            if (held_ar_) report("ARVALID fell before ARREADY");
            held_ar_ = false;
            return;
        }
        const Address at{static_cast<uint64_t>(top_.m_axi_araddr), top_.m_axi_arlen,
                         top_.m_axi_arsize, top_.m_axi_arburst, top_.m_axi_arid};
        if (held_ar_ && !(at == last_ar_)) report("AR changed before ARREADY");
        last_ar_ = at;
        held_ar_ = !top_.m_axi_arready;
        if (held_ar_) return;
        check_address(AR, at, reads_);
        reads_.push_back({at, now_ + std::max<uint64_t>(latency(), 1), place(at), 0});
        ++statistics_.read_bursts;
        statistics_.read_outstanding =
            std::max<uint64_t>(statistics_.read_outstanding, reads_.size());
    }

    // Where a burst is kept; null if any of it lies outside of the memory.
    uint8_t* place(const Address& at) const {
        const uint64_t first = at.address / kBeat * kBeat;
        const uint64_t last = first + static_cast<uint64_t>(at.length) * kBeat;
        uint8_t* data = memory_.find(first);
        return data != nullptr && memory_.find(last) == data + (last - first) ? data : nullptr;
    }

    template <class Bursts>
    void check_address(Channel channel, const Address& at, const Bursts& bursts) {
        const std::string name = std::string(kChannelNames[channel]) + " " + hex(at.address);
        if (at.address % kBeat) report(name + " is not a multiple of a beat");
        if (at.burst != kIncr) report(name + ": burst type " + std::to_string(at.burst));
        if (uint64_t{1} << at.size != kBeat)
            report(name + ": beats of 2^" + std::to_string(at.size) + " bytes");
        const uint64_t beats = static_cast<uint64_t>(at.length) + 1;
        if (at.address / 4096 != (at.address / kBeat * kBeat + beats * kBeat - 1) / 4096)
            report(name + ": " + std::to_string(beats) + " beats cross 4 KiB");
        if (options_.max_burst && beats > options_.max_burst)
            report(name + ": " + std::to_string(beats) + " beats");
        uint64_t flying = 1;
        for (const auto& burst : bursts) flying += burst.at.id == at.id;
        if (options_.outstanding && flying > options_.outstanding)
            report(name + ": " + std::to_string(flying) + " bursts in flight");
    }

    // ---- writes ----

    void sample_write_address() {
        if (!top_.m_axi_awvalid) {
            if (held_aw_) report("AWVALID fell before AWREADY");
            held_aw_ = false;
            return;
        }
        const Address at{static_cast<uint64_t>(top_.m_axi_awaddr), top_.m_axi_awlen,
                         top_.m_axi_awsize, top_.m_axi_awburst, top_.m_axi_awid};
        if (held_aw_ && !(at == last_aw_)) report("AW changed before AWREADY");
        last_aw_ = at;
        held_aw_ = !top_.m_axi_awready;
        if (held_aw_) return;
        check_address(AW, at, writes_);
        writes_.push_back({at, kEver, {}});
        writes_.back().beats.reserve(static_cast<size_t>(at.length) + 1);
        ++statistics_.write_bursts;
        statistics_.write_outstanding =
            std::max<uint64_t>(statistics_.write_outstanding, writes_.size());
        while (!early_.empty() && next_data_ < writes_.size()) {
            const Beat beat = early_.front();
            early_.pop_front();
            place_beat(beat);
        }
    }

    void sample_write_data() {
        if (!top_.m_axi_wvalid) {
            if (held_w_) report("WVALID fell before WREADY");
            held_w_ = false;
            return;
        }
        Beat beat;
        std::memcpy(beat.data, bytes(top_.m_axi_wdata), kBeat);
        std::memcpy(beat.strobe, bytes(top_.m_axi_wstrb), sizeof beat.strobe);
        beat.last = top_.m_axi_wlast;
        if (held_w_ && !(beat == last_w_)) report("W changed before WREADY");
        held_w_ = !top_.m_axi_wready;
        if (held_w_) {
            last_w_ = beat;
            return;
        }
        check_strobe(beat);
        ++statistics_.write_beats;
        if (next_data_ < writes_.size())
            place_beat(beat);
        else
            early_.push_back(beat);
    }

    // AXI allows any strobe; a DMA that moves contiguous bytes has one run of them a beat.
    void check_strobe(const Beat& beat) {
        if (beat.full()) {
            statistics_.write_bytes += kBeat;
            return;
        }
        int edges = 0;
        bool before = false;
        for (uint64_t byte = 0; byte < kBeat; ++byte) {
            const bool on = beat.enabled(byte);
            edges += on && !before;
            statistics_.write_bytes += on;
            before = on;
        }
        if (edges > 1) report("WSTRB has a gap");
    }

    void place_beat(const Beat& beat) {
        WriteBurst& burst = writes_[next_data_];
        burst.beats.push_back(beat);
        const bool last = burst.beats.size() == static_cast<size_t>(burst.at.length) + 1;
        if (beat.last != last)
            report("AW " + hex(burst.at.address) + ": WLAST is " + (beat.last ? "1" : "0") +
                   " at beat " + std::to_string(burst.beats.size()) + " of " +
                   std::to_string(burst.at.length + 1));
        if (last) {
            burst.ready = now_ + std::max<uint64_t>(latency(), 1);
            ++next_data_;
        }
    }

    // Bursts before next_data_ have all their data. Responses keep the order of an ID.
    size_t choose_response() {
        if (!options_.interleave)
            return next_data_ == 0 || writes_[0].ready > now_ ? kNone : 0;
        size_t chosen = kNone;
        uint64_t count = 0;
        for (size_t i = 0; i < next_data_; ++i) {
            if (writes_[i].ready > now_) continue;
            bool first = true;
            for (size_t j = 0; j < i; ++j) first = first && writes_[j].at.id != writes_[i].at.id;
            if (first && random_.between(0, count++) == 0) chosen = i;
        }
        return chosen;
    }

    void drive_response() {
        if (b_valid_) return;
        current_write_ = open(B) ? choose_response() : kNone;
        if (current_write_ == kNone) {
            top_.m_axi_bvalid = 0;
            return;
        }
        const WriteBurst& burst = writes_[current_write_];
        top_.m_axi_bid = burst.at.id;
        top_.m_axi_bresp = apply(burst);
        top_.m_axi_bvalid = 1;
        b_valid_ = true;
    }

    // Writes reach memory as late as they may, with the response: who reads before it sees the old
    // bytes.
    int apply(const WriteBurst& burst) {
        uint8_t* data = place(burst.at);
        int worst = 0;
        uint64_t offset = 0;
        for (const Beat& beat : burst.beats) {
            const int resp = response(true, burst.at.address / kBeat * kBeat + offset, data);
            worst = std::max(worst, resp);
            if (resp == 0 && beat.full())
                std::memcpy(data + offset, beat.data, kBeat);
            else if (resp == 0)
                for (uint64_t byte = 0; byte < kBeat; ++byte)
                    if (beat.enabled(byte)) data[offset + byte] = beat.data[byte];
            offset += kBeat;
        }
        return worst;
    }

    Top& top_;
    Memory& memory_;
    Options options_;
    Random random_;
    uint64_t now_ = 0;

    std::vector<ReadBurst> reads_;
    size_t current_read_ = kNone;
    bool r_valid_ = false;

    std::vector<WriteBurst> writes_;
    size_t next_data_ = 0;  // the burst that takes the next beat of W
    std::deque<Beat> early_;
    size_t current_write_ = kNone;
    bool b_valid_ = false;

    bool held_ar_ = false, held_aw_ = false, held_w_ = false;
    Address last_ar_{}, last_aw_{};
    Beat last_w_{};

    std::vector<Error> errors_;
    std::vector<Stall> stalls_;
    std::vector<std::string> violations_;
    Statistics statistics_{};
};

}  // namespace tilewright
