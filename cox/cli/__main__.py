"""`python -m cox.cli`, the same as `cox`."""

from cox.cli import main

if __name__ == "__main__":
    main()
