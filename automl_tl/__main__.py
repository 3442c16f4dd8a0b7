"""``python -m automl_tl`` is ``tl``."""

from automl_tl.cli import main

if __name__ == "__main__":
    main()
