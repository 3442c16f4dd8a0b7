"""Using a model: engines, features, the saved bundle, prediction. torch lives here."""
