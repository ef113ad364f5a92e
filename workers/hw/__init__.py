"""Leaf libraries of the hardware drivers: each reads or commands one kind of hardware, below a root handed in."""
