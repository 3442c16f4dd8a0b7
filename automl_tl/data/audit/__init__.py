"""The audit: what is wrong with the images, why it matters, what to do. Reads the index alone, never a file."""
