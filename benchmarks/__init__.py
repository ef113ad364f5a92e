"""What devd costs: latencies, memory and start-up, measured on real processes in one run (``make bench``)."""
