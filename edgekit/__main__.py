"""`python -m edgekit`: the command of this interpreter's environment, where PATH names another or none."""

from edgekit.cli.main import main

if __name__ == "__main__":
    main()
