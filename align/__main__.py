"""`python -m align ...` and `accelerate launch -m align ...`: the same command as `align ...`."""

from align.cli import main

if __name__ == "__main__":
    main()
