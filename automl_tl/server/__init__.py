"""Web servers on this machine: ``tl serve`` answers with a model, ``tl review`` shows images to check.

Everything that speaks HTTP lives here; nothing below imports it. Needs the extra ``[serve]``.
"""
