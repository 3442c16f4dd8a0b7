"""How the families of timm are cut into blocks, from the simplest to the oddest.

``chains`` covers networks that call their children one after another, the other files those that need glue.
"""
