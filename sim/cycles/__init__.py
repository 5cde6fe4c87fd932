"""The cycle model: when each command of a program runs, without RTL."""
