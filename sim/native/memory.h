// DRAM: segments of zero-initialised bytes that cost what is touched of them.
#pragma once

#include <sys/mman.h>

#include <cstdint>
#include <stdexcept>
#include <string>
#include <vector>

namespace tilewright {

class Memory {
  public:
    // Segments begin and end at a multiple of this, so that no burst lies half in one.
    static constexpr uint64_t kPage = 4096;

    Memory() = default;
    Memory(const Memory&) = delete;
    Memory& operator=(const Memory&) = delete;

    ~Memory() {
        for (const Segment& segment : segments_) munmap(segment.data, segment.size);
    }

    uint8_t* add(uint64_t base, uint64_t size) {
        if (size == 0 || base % kPage || size % kPage || base + (size - 1) < base)
            throw std::invalid_argument("memory of " + std::to_string(size) + " bytes at " +
                                        std::to_string(base) + ": must be multiples of 4096");
        for (const Segment& other : segments_)
            if (base < other.base + other.size && other.base < base + size)
                throw std::invalid_argument("memory at " + std::to_string(base) +
                                            " overlaps the one at " + std::to_string(other.base));
        void* data = mmap(nullptr, size, PROT_READ | PROT_WRITE,
                          MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (data == MAP_FAILED)
            throw std::runtime_error("no room for " + std::to_string(size) + " bytes of memory");
        segments_.push_back({base, size, static_cast<uint8_t*>(data)});
        return segments_.back().data;
    }

    // Where an address is kept, null outside of all segments.
    uint8_t* find(uint64_t address) const {
        for (const Segment& segment : segments_)
            if (address - segment.base < segment.size)
                return segment.data + (address - segment.base);
        return nullptr;
    }

  private:
    struct Segment {
        uint64_t base;
        uint64_t size;
        uint8_t* data;
    };

    std::vector<Segment> segments_;
};

}  // namespace tilewright
