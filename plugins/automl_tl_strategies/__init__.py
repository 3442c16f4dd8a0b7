"""The built-in strategies, one per module. A recipe is data; training happens in ``automl_tl.training``."""
