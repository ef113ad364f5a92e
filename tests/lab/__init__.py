"""Real devices on a real kernel: a QEMU guest, and devd in it. ``make lab``."""
