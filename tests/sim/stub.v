// Not the core: a module with its ports that answers registers and copies memory, to test the
// harness, the driver and the testbench without it. Started, it reads PROGRAM_COUNT beats' worth of
// its program with ID 0 (their XOR is register COMMANDS) and copies region 1 to region 2 with ID 1,
// in bursts of 16 beats. Regions are aligned to a burst. SCALAR0 breaks rules of AXI.
module tilewright #(
    parameter BYTES = 16,
    parameter ADDRESS = 40,
    parameter VERSION = 32'h00000100,
    parameter [63:0] HASH = 64'h0123456789abcdef
) (
    input clk, input rst, output irq,

    output reg m_axi_arid, output reg [ADDRESS-1:0] m_axi_araddr, output [7:0] m_axi_arlen,
    output [2:0] m_axi_arsize, output [1:0] m_axi_arburst, output m_axi_arlock,
    output [3:0] m_axi_arcache, output [2:0] m_axi_arprot, output [3:0] m_axi_arqos,
    output reg m_axi_arvalid, input m_axi_arready,
    input m_axi_rid, input [8*BYTES-1:0] m_axi_rdata, input [1:0] m_axi_rresp, input m_axi_rlast,
    input m_axi_rvalid, output m_axi_rready,
    output m_axi_awid, output reg [ADDRESS-1:0] m_axi_awaddr, output [7:0] m_axi_awlen,
    output [2:0] m_axi_awsize, output [1:0] m_axi_awburst, output m_axi_awlock,
    output [3:0] m_axi_awcache, output [2:0] m_axi_awprot, output [3:0] m_axi_awqos,
    output reg m_axi_awvalid, input m_axi_awready,
    output [8*BYTES-1:0] m_axi_wdata, output [BYTES-1:0] m_axi_wstrb, output m_axi_wlast,
    output m_axi_wvalid, input m_axi_wready,
    input m_axi_bid, input [1:0] m_axi_bresp, input m_axi_bvalid, output m_axi_bready,

    input [11:0] s_axi_awaddr, input s_axi_awvalid, output s_axi_awready,
    input [31:0] s_axi_wdata, input [3:0] s_axi_wstrb, input s_axi_wvalid, output s_axi_wready,
    output [1:0] s_axi_bresp, output reg s_axi_bvalid, input s_axi_bready,
    input [11:0] s_axi_araddr, input s_axi_arvalid, output s_axi_arready,
    output reg [31:0] s_axi_rdata, output [1:0] s_axi_rresp, output reg s_axi_rvalid,
    input s_axi_rready
);
    localparam BURST = 16 * BYTES;
    localparam SIZE = $clog2(BYTES);
    localparam FIFO = 256;

    // Registers.
    reg busy, done, irq_enable, irq_pending;
    reg [15:0] fault;
    reg [31:0] error, program_offset, program_count, watchdog, sum;
    reg [63:0] fault_address, cycles;
    reg [63:0] base0, base1, limit1, base2;
    reg [31:0] idle_cycles;
    assign irq = irq_pending & irq_enable;
    assign s_axi_bresp = 0;
    assign s_axi_rresp = 0;
    wire write = s_axi_awvalid & s_axi_wvalid & ~s_axi_bvalid;
    assign s_axi_awready = write;
    assign s_axi_wready = write;
    wire read = s_axi_arvalid & ~s_axi_rvalid;
    assign s_axi_arready = read;

    // The copy: bursts asked for, beats that came, bursts written and answered.
    reg [31:0] asked, answered;
    reg [31:0] program_asked, program_bursts;
    reg [8*BYTES-1:0] fifo [0:FIFO-1];
    reg [31:0] head, tail, granted;
    wire [31:0] bursts = (limit1 - base1) / BURST;
    wire start = write && s_axi_awaddr == 12'h020 && s_axi_wdata[0];
    wire soft_reset = write && s_axi_awaddr == 12'h020 && s_axi_wdata[1];
    wire clear = write && s_axi_awaddr == 12'h020 && s_axi_wdata[2];
    wire run = busy & fault == 0;
    reg [31:0] program_read;

    assign m_axi_arlen = 15;
    assign m_axi_arsize = SIZE;
    assign m_axi_arburst = 1;
    assign {m_axi_arlock, m_axi_arcache, m_axi_arprot, m_axi_arqos} = 0;
    assign m_axi_awid = 1;
    assign m_axi_awlen = 15;
    assign m_axi_awsize = SIZE;
    assign m_axi_awburst = 1;
    assign {m_axi_awlock, m_axi_awcache, m_axi_awprot, m_axi_awqos} = 0;
    assign m_axi_rready = 1;
    assign m_axi_bready = 1;

    reg [31:0] offered;  // bursts whose address was offered
    wire [31:0] ready_beats = head - tail;
    assign m_axi_wvalid = (ready_beats != 0) & (tail[31:4] < offered);
    assign m_axi_wdata = fifo[tail % FIFO] ^ (error == 7 ? cycles[31:0] : 0);
    assign m_axi_wstrb = error == 1 ? {BYTES{1'b1}} ^ 4'b0010 : {BYTES{1'b1}};
    assign m_axi_wlast = error == 2 ? tail[2:0] == 7 : tail[3:0] == 15;

    wire finished = answered == bursts && program_read == program_bursts * 16;

    always @(posedge clk) begin
        if (busy) cycles <= cycles + 1;
        if (m_axi_arready) m_axi_arvalid <= 0;
        if (m_axi_awready) m_axi_awvalid <= 0;
        if (error == 3) m_axi_arvalid <= 0;
        if (error == 4 && m_axi_arvalid & ~m_axi_arready) m_axi_araddr <= m_axi_araddr + BURST;
        if (run & (~m_axi_arvalid | m_axi_arready)) begin
            if (program_asked < program_bursts && (asked[0] || asked == bursts)) begin
                m_axi_arvalid <= 1;
                m_axi_arid <= 0;
                m_axi_araddr <= base0 + program_offset + program_asked * BURST;
                program_asked <= program_asked + 1;
            end else if (asked < bursts && granted - tail <= FIFO - 16) begin
                m_axi_arvalid <= 1;
                m_axi_arid <= 1;
                m_axi_araddr <= base1 + asked * BURST + (error == 5 ? 4096 - BYTES : error == 6 ? 1 : 0);
                asked <= asked + 1;
                granted <= granted + 16;
            end
        end
        if (run & (~m_axi_awvalid | m_axi_awready) & offered < bursts & head[31:4] > offered) begin
            m_axi_awvalid <= 1;
            m_axi_awaddr <= base2 + offered * BURST;
            offered <= offered + 1;
        end
        if (m_axi_rvalid & m_axi_rready) begin
            if (m_axi_rid) begin
                fifo[head % FIFO] <= m_axi_rdata;
                head <= head + 1;
            end else begin
                sum <= sum ^ m_axi_rdata[31:0];
                program_read <= program_read + 1;
            end
            if (m_axi_rresp != 0 && fault == 0) fault <= 16'h0004 + m_axi_rresp;
        end
        if (m_axi_wvalid & m_axi_wready) tail <= tail + 1;
        if (m_axi_bvalid & m_axi_bready) begin
            answered <= answered + 1;
            if (m_axi_bresp != 0 && fault == 0) fault <= 16'h0306 + m_axi_bresp;
        end
        idle_cycles <= m_axi_rvalid | m_axi_bvalid | ~busy ? 0 : idle_cycles + 1;
        if (run && watchdog != 0 && idle_cycles == watchdog) fault <= 16'h040a;
        if (busy && (fault != 0 || finished)) begin
            busy <= 0;
            done <= fault == 0;
            irq_pending <= 1;
        end
        if (clear) irq_pending <= 0;
        if (start & ~busy) begin
            busy <= 1;
            done <= 0;
            cycles <= 0;
            program_bursts <= (program_count * 64 + BURST - 1) / BURST;
        end
        if (start | soft_reset | rst) begin
            fault <= 0;
            {asked, answered, program_asked, program_read, head, tail, granted} <= 0;
            {offered, sum, idle_cycles} <= 0;
        end
        if (soft_reset | rst) begin
            {busy, done, irq_pending, m_axi_arvalid, m_axi_awvalid} <= 0;
        end

        if (s_axi_bready) s_axi_bvalid <= 0;
        if (write) begin
            s_axi_bvalid <= 1;
            case (s_axi_awaddr)
                12'h028: irq_enable <= s_axi_wdata[0];
                12'h080: error <= s_axi_wdata;
                12'h030: program_offset <= s_axi_wdata;
                12'h034: program_count <= s_axi_wdata;
                12'h038: watchdog <= s_axi_wdata;
                12'h100: base0[31:0] <= s_axi_wdata;
                12'h104: base0[63:32] <= s_axi_wdata;
                12'h110: base1[31:0] <= s_axi_wdata;
                12'h114: base1[63:32] <= s_axi_wdata;
                12'h118: limit1[31:0] <= s_axi_wdata;
                12'h11c: limit1[63:32] <= s_axi_wdata;
                12'h120: base2[31:0] <= s_axi_wdata;
                12'h124: base2[63:32] <= s_axi_wdata;
                default: ;
            endcase
        end
        if (s_axi_rready) s_axi_rvalid <= 0;
        if (read) begin
            s_axi_rvalid <= 1;
            case (s_axi_araddr)
                12'h000: s_axi_rdata <= 32'h54575254;
                12'h004: s_axi_rdata <= VERSION;
                12'h008: s_axi_rdata <= HASH[31:0];
                12'h00c: s_axi_rdata <= HASH[63:32];
                12'h024: s_axi_rdata <= {28'd0, 1'b0, fault != 0, done, busy};
                12'h028: s_axi_rdata <= irq_enable;
                12'h030: s_axi_rdata <= program_offset;
                12'h034: s_axi_rdata <= program_count;
                12'h038: s_axi_rdata <= watchdog;
                12'h040: s_axi_rdata <= fault;
                12'h050: s_axi_rdata <= cycles[31:0];
                12'h054: s_axi_rdata <= cycles[63:32];
                12'h058: s_axi_rdata <= sum;
                12'h200: s_axi_rdata <= cycles[31:0];
                default: s_axi_rdata <= 0;
            endcase
        end
        if (rst) begin
            {s_axi_bvalid, s_axi_rvalid, irq_enable, watchdog, error} <= 0;
        end
    end
endmodule
