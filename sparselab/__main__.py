"""`python -m sparselab`: the command line, imported only when it runs."""


def main() -> None:
    from sparselab.cli import app

    app()


if __name__ == "__main__":
    main()
