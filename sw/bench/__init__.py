"""Every figure of docs/performance.md, measured by `tilewright bench`.

A *part* is a file: what it measures is a list of items, each with a specification that JSON can
hold, and how results become tables. Results are kept line by line and not measured again while
what they depend on stays as it is (`results`).
"""
