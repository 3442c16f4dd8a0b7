"""The strategies that come with automl_tl, each a page of its own. A recipe is data; the trainer is elsewhere."""
