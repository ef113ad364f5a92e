"""The driver ``nvidia`` on a real GPU, where one is at hand. ``make gpu``."""
