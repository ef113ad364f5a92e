"""What runs beside a device: the fork server, the workers and scouts it forks, their probes, resets and drivers."""
