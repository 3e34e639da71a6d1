"""`python -m vectorizer.cli`."""

from vectorizer.cli import main

main()
