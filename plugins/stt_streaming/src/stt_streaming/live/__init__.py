"""Live streams: latency before completeness, from one publisher to several subscribers."""
