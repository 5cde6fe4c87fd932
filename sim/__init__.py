"""What stands in for hardware: golden functions, simulators, and the ways to run RTL."""
