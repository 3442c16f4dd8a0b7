"""Support code that every room may use: time budget, progress, paths, cache, threads, formatting."""
