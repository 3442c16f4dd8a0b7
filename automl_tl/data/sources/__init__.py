"""Where images come from: folders, tables, archives, data sets as other libraries store them. One interface, ``Source``."""
