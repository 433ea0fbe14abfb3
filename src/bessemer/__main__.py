"""``python -m bessemer``."""

from bessemer.main import main

if __name__ == "__main__":
    main()
