"""cocotb testbenches, and what runs them."""
