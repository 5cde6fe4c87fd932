"""The native way to run RTL: the Verilated core, its memory and its bus in one C++ library."""
