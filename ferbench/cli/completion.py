"""What a shell offers for names of methods, datasets and protocols."""


def methods(incomplete: str) -> list[str]:
    from ferbench.methods.recipes import names

    return [name for name in names() if name.startswith(incomplete)]


def protocols(incomplete: str) -> list[str]:
    from ferbench.protocol.protocol import names

    return [name for name in names() if name.startswith(incomplete)]


def sources(incomplete: str) -> list[str]:
    from ferbench.data.sources import NAMES

    return [name for name in NAMES if name.startswith(incomplete)]
