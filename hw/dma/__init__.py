"""The DMA: AXI4 read and write engines, command fetch, and their assembly."""
