"""The commands behind ``bin/``: flags in, one call of the library, one exit status out."""
