"""What runs cocotb testbenches, and the core that the backend `cocotb` simulates."""
