"""Measurements of speed, quality and memory; each module is a command."""
