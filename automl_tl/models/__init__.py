"""Models: encoder and heads, their files, preprocessing, and the engines that run them."""
