"""Numbers with their nouns."""


def plural(number: int, noun: str, several: str | None = None) -> str:
    """A number of things: "1 lane", "1,024 lanes"; `several` where it is not the noun and an s."""
    return f"{number:,} {noun if number == 1 else several or noun + 's'}"
