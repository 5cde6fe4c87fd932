// Access to the ports of a Verilated model, whatever their width, and random numbers.
#pragma once

#include <cstdint>
#include <cstring>
#include <type_traits>

namespace tilewright {

// Verilator keeps a port in the smallest of 8, 16, 32, 64 bits or an array of 32-bit words, so a
// port's bytes stand in memory in little-endian order (as the hosts this runs on do).
template <class Port>
const uint8_t* bytes(const Port& port) {
    return reinterpret_cast<const uint8_t*>(&port);
}

template <class Port>
uint8_t* bytes(Port& port) {
    return reinterpret_cast<uint8_t*>(&port);
}

template <class Port>
constexpr size_t size_of = sizeof(std::remove_reference_t<Port>);

// xoshiro256** (Blackman and Vigna 2018), seeded by SplitMix64.
class Random {
  public:
    explicit Random(uint64_t seed) {
        for (uint64_t& word : state_) {
            seed += 0x9E3779B97F4A7C15u;
            uint64_t z = seed;
            z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
            z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
            word = z ^ (z >> 31);
        }
    }

    uint64_t next() {
        const uint64_t result = rotate(state_[1] * 5, 7) * 9;
        const uint64_t t = state_[1] << 17;
        state_[2] ^= state_[0];
        state_[3] ^= state_[1];
        state_[1] ^= state_[2];
        state_[0] ^= state_[3];
        state_[2] ^= t;
        state_[3] = rotate(state_[3], 45);
        return result;
    }

    // True with probability threshold / 2^32; costs nothing for 0.
    bool chance(uint64_t threshold) { return threshold != 0 && (next() >> 32) < threshold; }

    // low … high, both included.
    uint64_t between(uint64_t low, uint64_t high) {
        return low >= high ? low : low + next() % (high - low + 1);
    }

  private:
    static uint64_t rotate(uint64_t x, int k) { return (x << k) | (x >> (64 - k)); }

    uint64_t state_[4];
};

}  // namespace tilewright
