"""One experiment, from settings to a finished run directory."""
