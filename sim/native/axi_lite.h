// The AXI4-Lite master that reads and writes registers, one access at a time.
#pragma once

#include <cstdint>
#include <string>

#include "ports.h"

namespace tilewright {

template <class Top>
class AxiLite {
  public:
    explicit AxiLite(Top& top, uint64_t seed) : top_(top), random_(seed + 1) {}

    void delay(uint64_t threshold) { threshold_ = threshold; }

    void reset() {
        write_address_ = write_data_ = write_response_ = read_address_ = read_data_ = false;
        top_.s_axi_awvalid = top_.s_axi_wvalid = top_.s_axi_arvalid = 0;
        top_.s_axi_bready = top_.s_axi_rready = 0;
    }

    void write(uint64_t address, uint32_t value) {
        top_.s_axi_awaddr = address;
        top_.s_axi_wdata = value;
        if constexpr (requires { top_.s_axi_wstrb; }) top_.s_axi_wstrb = 0xF;
        write_address_ = write_data_ = write_response_ = true;
    }

    void read(uint64_t address) {
        top_.s_axi_araddr = address;
        read_address_ = read_data_ = true;
    }

    bool busy() const { return write_response_ || read_data_; }
    uint32_t value() const { return value_; }
    int response() const { return response_; }

    void drive() {
        // A valid that is high stays so; all else may be held back.
        top_.s_axi_awvalid = write_address_ && (top_.s_axi_awvalid || open());
        top_.s_axi_wvalid = write_data_ && (top_.s_axi_wvalid || open());
        top_.s_axi_arvalid = read_address_ && (top_.s_axi_arvalid || open());
        top_.s_axi_bready = write_response_ && open();
        top_.s_axi_rready = read_data_ && open();
    }

    // `report` is told what the slave does wrong.
    template <class Report>
    void sample(Report report) {
        if (top_.s_axi_awvalid && top_.s_axi_awready) write_address_ = false;
        if (top_.s_axi_wvalid && top_.s_axi_wready) write_data_ = false;
        if (top_.s_axi_arvalid && top_.s_axi_arready) read_address_ = false;
        check(top_.s_axi_bvalid, write_response_ && !write_address_ && !write_data_, held_b_,
              "S_AXI BVALID", report);
        check(top_.s_axi_rvalid, read_data_ && !read_address_, held_r_, "S_AXI RVALID", report);
        if (top_.s_axi_bvalid && top_.s_axi_bready) {
            response_ = top_.s_axi_bresp;
            write_response_ = false;
        }
        if (top_.s_axi_rvalid && top_.s_axi_rready) {
            response_ = top_.s_axi_rresp;
            value_ = top_.s_axi_rdata;
            read_data_ = false;
        }
        held_b_ = top_.s_axi_bvalid && !top_.s_axi_bready;
        held_r_ = top_.s_axi_rvalid && !top_.s_axi_rready;
    }

  private:
    bool open() { return !random_.chance(threshold_); }

    template <class Report>
    static void check(bool valid, bool expected, bool held, const char* name, Report report) {
        if (valid && !expected) report(std::string(name) + " without a request");
        if (held && !valid) report(std::string(name) + " fell before its ready");
    }

    Top& top_;
    Random random_;
    uint64_t threshold_ = 0;
    bool write_address_ = false, write_data_ = false, write_response_ = false;
    bool read_address_ = false, read_data_ = false;
    bool held_b_ = false, held_r_ = false;
    uint32_t value_ = 0;
    int response_ = 0;
};

}  // namespace tilewright
