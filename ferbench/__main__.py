"""``python -m ferbench``: the same program as the ``ferbench`` command."""

from ferbench.cli.main import run

if __name__ == "__main__":
    run()
