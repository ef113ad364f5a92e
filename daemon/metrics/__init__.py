"""The daemon's metrics: what there is, the text Prometheus reads, and the small HTTP server it is read from."""
