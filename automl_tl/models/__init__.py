"""What a model is: encoder, heads, files, preprocessing and the engines that run it."""
