"""`python -m lvm` is the `lvm` command, also from a bare checkout."""

from lvm.cli.main import main

if __name__ == "__main__":
    main()
